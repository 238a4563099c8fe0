"""From a model to what is tried: one case per kind of layer that it has, and the textbook's variants at one shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from kvplan.core.errors import InputError
from kvplan.core.mixers import CompressedAttention, CrossAttention, LinearAttention, Mixer, ShortConvolution
from kvplan.core.model import Layer, ModelSpec
from kvplan.core.serving import positive
from kvplan.core.units import parse_count
from kvplan.validate.case import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What all layers of a model serve."""

    seq_len: int
    batch: int = 1
    encoder_seq_len: int | None = None
    decode_steps: int = 16
    chunk: int = 2048
    page_size: int = 16
    dtype: str = "bf16"
    kv_dtype: str = "bf16"


def cases_of(model: ModelSpec, load: Load) -> list[Case]:
    """The model's kinds of layers with their counts, in the order in which they first stand; names are unique.

    A layer may have several mixers, each a case, or none.
    """
    found: dict[Case, int] = {}
    for layer, count in model.layer_counts():
        for mixer in layer.mixers:
            case = _case(mixer, layer, model, load)
            found[case] = found.get(case, 0) + count
    return apart(replace(case, num_layers=count, name=f"{count} × {case.name}") for case, count in found.items())


def apart(cases: Iterable[Case]) -> list[Case]:
    """The cases, those of one name told apart by a number: readings find them by name."""
    found = list(cases)
    names = [case.name for case in found]
    return [
        case if names.count(case.name) == 1 else replace(case, name=f"{case.name} ({names[:i].count(case.name) + 1})")
        for i, case in enumerate(found)
    ]


def order_of(model: ModelSpec, load: Load) -> list[list[int]]:
    """For every layer of the model, in order, which of `cases_of` it holds."""
    distinct: dict[Case, int] = {}
    places = [
        [distinct.setdefault(_case(mixer, layer, model, load), len(distinct)) for mixer in layer.mixers]
        for layer in model.layers
    ]
    return [places[index] for index in model.layer_order]


def _case(mixer: Mixer, layer: Layer, model: ModelSpec, load: Load) -> Case:
    over_encoder = layer.in_encoder or isinstance(mixer, CrossAttention)
    tokens = _encoder_len(model, load) if over_encoder else load.seq_len
    case = Case(
        sinks=layer.eager_softmax == "sinks",
        batch=load.batch,
        seq_len=tokens,
        decode_steps=0 if over_encoder else min(load.decode_steps, tokens - 1),
        chunk=max(tokens, 1) if over_encoder else load.chunk,
        page_size=load.page_size,
        dtype=load.dtype,
        kv_dtype=load.kv_dtype,
        **_facts(mixer),
    )
    return replace(case, name=describe(case))


def _encoder_len(model: ModelSpec, load: Load) -> int:
    """As the load says, else what the architecture fixes or one image makes, else as many as the sequence has."""
    if load.encoder_seq_len is not None:
        return load.encoder_seq_len
    return model.encoder_seq_len or (model.crosses_images and model.tokens_per_image) or load.seq_len


_SAME = {field.name for field in fields(Case)}


def _facts(mixer: Mixer) -> dict[str, Any]:
    """What a case says of a mixer, mostly under the same names. `predict.mixer_of` leads back."""
    same: dict[str, Any] = {field.name: getattr(mixer, field.name) for field in fields(mixer) if field.name in _SAME}
    facts = {"name": "", "kind": mixer.kind, "num_kv_heads": mixer.num_kv_heads} | same
    if isinstance(mixer, LinearAttention):
        return facts | {"num_heads": mixer.num_key_heads, "num_kv_heads": mixer.num_heads}
    if isinstance(mixer, ShortConvolution):
        columns = {"conv_channels": mixer.channels, "conv_columns": mixer.columns, "conv_bits": mixer.bits}
        return facts | columns | {"num_heads": mixer.num_heads, "key_dim": 1, "value_dim": 1}
    if isinstance(mixer, CompressedAttention):  # a case of ratio 0 slides, and is still one vector a token
        return facts | {"kind": "compressed", "key_dim": mixer.head_dim, "value_dim": mixer.head_dim}
    if isinstance(mixer, CrossAttention):
        return facts | {"over_images": mixer.over == "images"}
    return facts


def describe(case: Case) -> str:
    """The kind of layer in a few words, e.g. `sliding 4096, 32/8 heads × 128`."""
    kind = case.kind if case.window is None else f"{case.kind} {case.window}"
    if case.kind == "conv":
        return f"{kind}, {case.conv_channels} channels × {case.conv_columns}"
    if case.is_latent:
        window = f", window {case.window}" if case.window is not None else ""
        index = f", index {case.index_dim}" if case.index_dim else ""
        return f"{case.kind} {case.latent_dim} + {case.rope_dim}, {case.num_heads} heads{window}{index}"
    heads = f"{case.num_heads}" if case.num_heads == case.num_kv_heads else f"{case.num_heads}/{case.num_kv_heads}"
    dims = f"{case.key_dim}" if case.key_dim == case.value_dim else f"{case.key_dim}/{case.value_dim}"
    entries = f", entries of {case.ratio}" if case.ratio else ""
    return f"{kind}, {heads} heads × {dims}{entries}" + (", sinks" if case.sinks else "")


def variants(load: Load) -> list[Case]:
    """One layer's attention in every way that the textbooks compare, at 32 query heads of 128 dimensions.

    Latent: DeepSeek's 512 + 64. Sliding, sparse: a window of 1024, to either side for the latter (Longformer, which
    keeps no cache). Linear: the gated delta rule with 32 states of 128 × 128 (Qwen3-Next).
    """
    base = Case(
        name="MHA", kind="full", num_heads=32, num_kv_heads=32, key_dim=128, value_dim=128, batch=load.batch,
        seq_len=load.seq_len, decode_steps=min(load.decode_steps, load.seq_len - 1), chunk=load.chunk,
        page_size=load.page_size, dtype=load.dtype, kv_dtype=load.kv_dtype,
    )  # fmt: skip
    window = min(1024, max(load.seq_len // 4, 1))
    return [
        base,
        replace(base, name="GQA, 8 KV heads", num_kv_heads=8),
        replace(base, name="MQA", num_kv_heads=1),
        replace(base, name="MLA", kind="latent", latent_dim=512, rope_dim=64, key_dim=192),
        replace(base, name=f"sliding {window}", kind="sliding", window=window),
        replace(base, name=f"sparse {window}", kind="sparse", window=window, decode_steps=0, chunk=load.seq_len),
        replace(
            base, name="linear, delta rule", kind="linear", num_heads=16, conv_channels=8192, conv_columns=4
        ),
    ]  # fmt: skip


def _check_layer(text: str, given: dict[str, int]) -> None:
    if unknown := sorted(given.keys() - set(_BY_HAND)):
        raise InputError(f"a layer has no `{unknown[0][:40]}`", hint=f"it has {', '.join((*_SHORT, *_BY_HAND))}")
    missing = [key for key in ("num_heads", "key_dim", "value_dim") if key not in given]
    if "rope_dim" in given and "latent_dim" not in given:
        missing.append("latent_dim")
    if missing:
        raise InputError(
            f"`{text[:60]}` lacks `{missing[0]}`", hint="write it like heads=32,kv_heads=8,head_dim=128,window=4096"
        )
    if "latent_dim" in given and "window" in given:
        raise InputError("no kernel slides a window over latents", hint="leave out `window`, or `latent_dim`")
    given.setdefault("num_kv_heads", given["num_heads"])
    if given["num_heads"] % given["num_kv_heads"]:
        raise InputError(f"{given['num_heads']} query heads do not share {given['num_kv_heads']} KV heads evenly")


_BY_HAND = ("num_heads", "num_kv_heads", "key_dim", "value_dim", "window", "latent_dim", "rope_dim", "num_layers")
_SHORT = {"heads": "num_heads", "kv_heads": "num_kv_heads", "layers": "num_layers", "dim": "head_dim"}


def case_by_hand(text: str, load: Load) -> Case:
    """The case of `heads=32,kv_heads=8,head_dim=128[,window=4096][,layers=4]`.

    Raises InputError for what it does not name, or what makes no layer.
    """
    given: dict[str, int] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        key = _SHORT.get(key.strip(), key.strip())
        for name in ("key_dim", "value_dim") if key == "head_dim" else (key,):
            if name in given:
                raise InputError(f"`{text[:60]}` says `{name[:40]}` twice", hint="say it once")
            given[name] = positive(name[:40], parse_count(value))
    _check_layer(text, given)
    kind = "latent" if given.get("latent_dim") else "sliding" if given.get("window") else "full"
    shared = {field.name: getattr(load, field.name) for field in fields(load) if field.name != "encoder_seq_len"}
    shared["decode_steps"] = min(load.decode_steps, load.seq_len - 1)
    case = Case(name="", kind=kind, **(shared | given))  # type: ignore[arg-type]
    return replace(case, name=f"{case.num_layers} × {describe(case)}")
