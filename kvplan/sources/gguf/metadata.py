"""A GGUF header by key and by tensor name, and what many architectures read from it in the same way.

Source: llama.cpp 2026-03, src/llama-arch.cpp (`LLM_KV_NAMES`, `LLM_TENSOR_NAMES`), convert_hf_to_gguf.py
"""

from collections.abc import Mapping
from typing import Any

from kvplan.core.errors import InputError
from kvplan.sources.gguf.header import GgufHeader, GgufTensor


class Gguf:
    """A header by key and by tensor name."""

    def __init__(self, header: GgufHeader, *, what: str) -> None:
        self.header = header
        self.what = what
        self.tensors: Mapping[str, GgufTensor] = {tensor.name: tensor for tensor in header.tensors}
        arch = header.metadata.get("general.architecture")
        if not isinstance(arch, str):
            raise InputError(f"{what} names no `general.architecture`", hint="is it a model's file, or only a part?")
        self.arch = arch

    def number(self, key: str, default: int | None = None) -> int:
        """The whole number at `key` of the architecture; an array of equal ones counts as one."""
        value = self.header.metadata.get(f"{self.arch}.{key}", default)
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**48:
            found = "is missing from" if value is None else f"is {str(value)[:40]!r} in"
            raise InputError(f"`{self.arch}.{key}` {found} {self.what}", hint="name the original model's config.json")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        """The whole number at `key`, from 1."""
        value = self.number(key, default)
        if value < 1:
            raise InputError(f"`{self.arch}.{key}` is 0 in {self.what}", hint="name the original model's config.json")
        return value

    def numbers(self, key: str, count: int) -> tuple[int, ...]:
        """One number a layer: an array, or the same for all."""
        value = self.header.metadata.get(f"{self.arch}.{key}")
        if not isinstance(value, tuple):
            return (self.number(key),) * count
        if len(value) < count or not all(isinstance(item, int) and item >= 0 for item in value):
            raise InputError(
                f"`{self.arch}.{key}` of {self.what} is not one number a layer", hint="the file is damaged"
            )
        return tuple(int(item) for item in value[:count])

    def flags(self, key: str, count: int, *, every: int | None = None) -> tuple[bool, ...]:
        """One flag a layer: an array of them, or a number every so many-th of which is not; `every` where unstated."""
        value = self.header.metadata.get(f"{self.arch}.{key}", every)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return tuple(bool(value) and (i + 1) % value != 0 for i in range(count))
        return tuple(bool(item) for item in self.numbers(key, count))

    def has_key(self, key: str) -> bool:
        """Whether the architecture states the key, other than as 0."""
        return bool(self.header.metadata.get(f"{self.arch}.{key}"))

    def has(self, *names: str) -> bool:
        """Whether one of the tensors is there; `attn_q.bias` means that of some layer."""
        return any(name in self.tensors or any(t.endswith(f".{name}") for t in self.tensors) for name in names)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, of the first layer that has it where the name is a layer's."""
        for tensor in self.header.tensors:
            if tensor.name == name or tensor.name.endswith(f".{name}"):
                return tensor.shape
        raise InputError(f"{self.what} has no tensor `{name}`", hint="is it one part of a split file, or an adapter?")

    @property
    def num_layers(self) -> int:
        """Layers that generate; those that predict further tokens stand after them."""
        count = self.number("block_count") - self.number("nextn_predict_layers", 0)
        if not 1 <= count <= len(self.tensors):
            found = f"`{self.arch}.block_count` of {self.what} gives {count:,} layers of {len(self.tensors):,} tensors"
            raise InputError(found, hint="the file is damaged, or one part of several")
        return count


def experts(gguf: Gguf, *, total: str = "num_experts", width: str = "moe_intermediate_size") -> dict[str, Any]:
    """Routed experts, and how wide each is: by the metadata, in older files by the tensor."""
    own = gguf.number("expert_feed_forward_length", 0) or gguf.shape("ffn_down_exps.weight")[-1]
    return {total: gguf.number("expert_count"), "num_experts_per_tok": gguf.number("expert_used_count"), width: own}


def shared_width(gguf: Gguf) -> int:
    """The width of all shared experts of a layer together, by their tensor; 0 where there are none."""
    return gguf.shape("ffn_down_shexp.weight")[-1] if gguf.has("ffn_down_shexp.weight") else 0


def num_shared(gguf: Gguf) -> int:
    """How many shared experts as wide as a routed one a layer has: by the metadata, in older files by the tensor."""
    width = gguf.number("expert_feed_forward_length", 0) or gguf.shape("ffn_down_exps.weight")[-1]
    return gguf.number("expert_shared_count", 0) or shared_width(gguf) // width


def window(gguf: Gguf) -> dict[str, Any]:
    """The window of the layers that have one; null where no layer has."""
    return {"sliding_window": gguf.number("attention.sliding_window", 0) or None}


def windows(gguf: Gguf, *, every: int | None = None) -> dict[str, Any]:
    """The window, and which layers slide: by the metadata, else all but every so many-th."""
    if not gguf.has_key("attention.sliding_window"):
        return {"sliding_window": None}
    slides = gguf.flags("attention.sliding_window_pattern", gguf.num_layers, every=every)
    types = ["sliding_attention" if slide else "full_attention" for slide in slides]
    return {"sliding_window": gguf.number("attention.sliding_window"), "layer_types": types}


def first_of(gguf: Gguf, types: list[str], kind: str) -> int:
    """The first layer of a kind; of an architecture that needs one."""
    if kind not in types:
        raise InputError(
            f"`{gguf.arch}.attention.sliding_window_pattern` of {gguf.what} leaves no layer of `{kind}`",
            hint="name the original model's config.json or Hub id",
        )
    return types.index(kind)
