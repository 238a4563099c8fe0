"""The linear layers of a model as a quantisation config sees them, and the patterns by which it names them.

A reader names weights inside their layer (`self_attn.q_proj.weight`), a config names modules by paths of the class
that it was written for: `model.layers.3.mlp.gate`, `language_model.lm_head`, `*vision_tower*`, `re:.*mlp.gate$`, or
only `visual`. So a path is read as: anything, the layer's number, the name inside it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from kvplan.core.model import Part, Weight

Role = Literal["linear", "router", "head", "tower", "table"]

_NUMBERED = re.compile(r"(?:^|.*\.)(?:layers|layer|h|blocks?)\.(\d+)(?=[.*]|$)(.*)")
_REGEX_SIGNS = frozenset("\\[](){}^$|+")
_TEXT = ("", "model.", "language_model.", "model.language_model.", "language_model.model.", "backbone.")
_IN_TEXT = (*(f"{prefix}layers." for prefix in _TEXT), "model.decoder.layers.", "transformer.h.")
_OUTER = frozenset(("model", "language_model", "encoder", "transformer", "thinker", "backbone", "text_model"))
_SAME_PART = {
    "mlp": ("ffn", "block_sparse_moe", "feed_forward", "moe"),
    "block_sparse_moe": ("mlp",),
    "self_attn": ("attn", "attention"),
}
_DEEPSEEK = {
    "q_a_proj": ("wq_a", "fused_wqa_wkv"),
    "kv_proj": ("wkv", "fused_wqa_wkv"),
    "q_b_proj": ("wq_b",),
    "o_a_proj": ("wo_a",),
    "o_b_proj": ("wo_b",),
}
"""Source: transformers 5.23, conversion_mapping.py `deepseek_v4`; vLLM fuses two of them."""
_MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
"""Mixtral's words for the three halves, which MiniMax and DeepSeek V4 kept in their checkpoints.

Source: transformers 5.23, conversion_mapping.py `mixtral`, `minimax_m2`
"""
_ROOTS = {
    "tower": "vision_tower vision_model visual vision_encoder vision vit vpm image_encoder img_processor siglip",
    "projector": "multi_modal_projector mm_projector embed_vision projector connector merger aligner mlp1 "
    "vision_projection vision_adapter patch_merger modality_projection vision_proj",
    "audio": "audio_tower audio_encoder audio_model audio speech_encoder whisper embed_audio audio_projector",
}
_ROOT_OF = {name: root for root, names in _ROOTS.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class Module:
    """One linear layer or table, `layer` being its layer's number, None outside of the decoder's layers."""

    name: str
    part: Part
    role: Role
    layer: int | None
    rows: int
    columns: int
    dtype_bits: int

    @property
    def last(self) -> str:
        """The last piece of its name: `q_proj`."""
        return self.name.rpartition(".")[2]


def module_of(weight: Weight, layer: int | None, dtype_bits: int) -> Module | None:
    """What a scheme may replace in this weight: a matrix of a linear layer, or a table; None for anything else."""
    if len(weight.shape) != 2 or weight.buffer:
        return None
    role = _role(weight)
    if role is None:
        return None
    name = weight.name.partition("[")[0].removesuffix(".weight")
    return Module(name, weight.part, role, layer, *weight.shape, weight.fixed_bits or dtype_bits)


def _role(weight: Weight) -> Role | None:
    if not weight.linear:
        return "table" if weight.part == "embeddings" and weight.name.endswith(".weight") else None
    if weight.part in ("vision", "audio"):
        return "tower"
    return {"head": "head", "router": "router"}.get(weight.part, "linear")  # type: ignore[return-value]


class Names:
    """The modules that a list of patterns covers, each with all that lies under it.

    A pattern is a path, a piece of one, a path with `*`, or after `re:` a regular expression from the path's start.

    Source: transformers 5.23, quantizers/quantizers_utils.py `should_convert_module`; compressed-tensors 0.20,
    utils/match.py; nvidia-modelopt 0.47, torch/export/quant_utils.py (fnmatch)
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._in_layer: dict[int, set[str]] = {}
        self._digits: list[tuple[str, str]] = []
        self._anywhere: set[str] = set()
        self._towers: set[tuple[str, ...]] = set()
        self._regexes: list[re.Pattern[str]] = []
        self._known: dict[tuple[str, int | None], bool] = {}
        for pattern in patterns:
            self._add(pattern)
        self._numbers_matter = any(re.search(r"\d", regex.pattern) for regex in self._regexes)

    def __bool__(self) -> bool:
        return bool(self._in_layer or self._digits or self._anywhere or self._towers or self._regexes)

    def _add(self, pattern: str) -> None:
        if pattern.startswith("re:"):
            self._regexes.append(re.compile(pattern[3:]))
            return
        if _REGEX_SIGNS & set(pattern):
            self._regexes.append(re.compile(rf"(?:{pattern})(?:\.|$)"))
            return
        path = _plain(pattern)
        if path and path[0] in _ROOTS and "*" not in pattern:
            self._towers.add(path)
        numbered = _NUMBERED.fullmatch(pattern)
        if (
            numbered
            and not (set(path) & _ROOTS.keys())
            and "mtp" not in pattern
            and "*" not in pattern[: numbered.start(1)]
        ):
            self._add_numbered(int(numbered[1]), numbered[2])
        elif "*" in pattern:
            self._regexes.append(_glob(pattern))
        else:
            self._anywhere.add(".".join(_without_outer(pattern)))

    def _add_numbered(self, number: int, rest: str) -> None:
        """`model.layers.1*` is a glob: layers 1 and 10 to 19."""
        if rest.startswith("*"):
            self._digits.append((str(number), rest[1:]))
        else:
            self._in_layer.setdefault(number, set()).add(rest.removeprefix("."))

    def cover(self, module: Module) -> bool:
        """Whether some pattern names the module or what it lies in."""
        if module.layer is not None and self._numbered(module):
            return True
        key = (module.name, module.layer if self._numbers_matter else None)
        if key not in self._known:
            self._known[key] = self._elsewhere(module)
        return self._known[key]

    def _numbered(self, module: Module) -> bool:
        rests = set(self._in_layer.get(module.layer or 0, ()))
        rests |= {rest for digits, rest in self._digits if str(module.layer).startswith(digits)}
        return any(_under(name, rest) for name in _spellings(module.name) for rest in rests)

    def _elsewhere(self, module: Module) -> bool:
        if module.role == "tower":
            path = _plain(module.name.replace("*", "0"))
            if any(path[:length] in self._towers for length in range(1, len(path) + 1)):
                return True
        for name in _spellings(module.name):
            whole = f".{name}."
            if any(f".{piece}." in whole for piece in self._anywhere):
                return True
        return any(regex.match(path) for regex in self._regexes for path in _paths(module))


def _under(name: str, rest: str) -> bool:
    """Whether `rest`, with `*` for anything, names the module or what it lies in; nothing names all."""
    if not rest:
        return True
    if "*" in rest:
        return _glob(rest).match(name) is not None
    return name == rest or name.startswith(f"{rest}.")


@lru_cache(maxsize=512)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in pattern.split("*")) + r"(?:\.|$)")


@lru_cache(maxsize=512)
def _spellings(name: str) -> tuple[str, ...]:
    """A module's names in one class or another, by its part of the layer and by DeepSeek's own words.

    Experts are listed once for all; configs number them, or name the list that they lie in.
    """
    head, dot, rest = name.partition(".")
    found = [name, *(f"{other}{dot}{rest}" for other in _SAME_PART.get(head, ()))]
    own = f".{name}".replace(".compressor.indexer.", ".indexer.").replace(".self_attn.", ".attn.")
    found += [each.replace(".indexer.", ".index_") for each in found if ".indexer." in each]  # MiniMax M3
    stem, _, last = own.replace(".mlp.", ".ffn.").rpartition(".")
    found += (f"{stem}.{word}".removeprefix(".") for word in _DEEPSEEK.get(last, ()))
    found += [
        f"{path}.{_MIXTRAL[last]}" for path, _, last in (each.rpartition(".") for each in found) if last in _MIXTRAL
    ]
    found += [each.replace(".experts.", ".experts.0.", 1) for each in found if ".experts." in each]
    return tuple(dict.fromkeys(found))


def _paths(module: Module) -> Iterator[str]:
    """The full paths that a module has in one class or another."""
    for name in _spellings(module.name):
        if module.layer is not None:
            yield from (f"{prefix}{module.layer}.{name}" for prefix in _IN_TEXT)
        elif module.role == "tower":
            yield from _tower_paths(name.replace("*", "0"))
        else:
            yield from (f"{prefix}{name}" for prefix in _TEXT)


def _tower_paths(name: str) -> Iterator[str]:
    root, _, rest = name.partition(".")
    kin = _ROOTS.get(_ROOT_OF.get(root, ""), "").split()
    for own in dict.fromkeys((root, *kin)):
        yield from (f"{prefix}{own}.{rest}" for prefix in ("", "model."))


def _without_outer(path: str) -> list[str]:
    pieces = path.split(".")
    while len(pieces) > 1 and pieces[0] in _OUTER:
        pieces.pop(0)
    return pieces


def _plain(path: str) -> tuple[str, ...]:
    """A path without what differs between classes, a tower's root under one name."""
    pieces = [piece for piece in path.split(".") if piece not in _OUTER]
    if not pieces:
        return ()
    return (_ROOT_OF.get(pieces[0], pieces[0]), *pieces[1:])
