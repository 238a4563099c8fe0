"""Schemes of small floats: fp8 in blocks or whole, fbgemm, MXFP4, and NVIDIA's modelopt with all its algorithms."""

from collections.abc import Callable

from kvplan.core.dtypes import DType
from kvplan.core.stored import StoredFormat
from kvplan.sources.quantization import formats
from kvplan.sources.quantization.formats import COLUMN, ROW, WHOLE, per_group, scaled
from kvplan.sources.quantization.modules import Module, Names, Role
from kvplan.sources.quantization.scheme import (
    EVERY_LINEAR,
    Choice,
    NotModelledError,
    Scheme,
    by_settings,
    first_of,
    left_plain,
    replacing,
)
from kvplan.sources.quantization.settings import Settings

_NEVER_FP8 = ("weights_proj",)
"""The weights of DeepSeek-V3.2's indexer, kept in 16 bits without being listed.

Source: deepseek-ai/DeepSeek-V3.2-Exp inference/model.py `Indexer`
"""
_NAMED: tuple[Role, ...] = ("linear", "router", "head", "tower")
"""What a scheme may replace where its config names the module."""


def read_fp8(settings: Settings, dtype: DType) -> Scheme:
    """Blocks of fp8 weights with one fp32 scale each, or one scale for the whole matrix; the head stays plain.

    With static activations every matrix has a scale of its inputs besides. DeepSeek-V4's experts are 4-bit floats,
    32 of a row sharing an 8-bit exponent, and its scales are such exponents (`expert_dtype`).

    Source: deepseek-ai/DeepSeek-V3 README_WEIGHTS.md; transformers 5.23, integrations/finegrained_fp8.py
    """
    fp4_experts = settings.text("expert_dtype") == "fp4"
    exponents = fp4_experts and settings.text("scale_fmt") == "ue8m0"
    form = formats.fp8(
        settings.pair("weight_block_size") or WHOLE,
        scale_bits=8 if exponents else 32,
        static=settings.text("activation_scheme", default="dynamic") == "static",
    )
    if settings.has("quantized_layers"):  # modelopt on top of a checkpoint that was in fp8 before
        skip = Names((*settings.names("modules_to_not_convert", "ignored_layers"), *_NEVER_FP8))
        rules = _listed_layers(settings, dtype)
    else:
        skip, rules = left_plain(settings, *_NEVER_FP8), []
    experts = formats.microscaled(4) if fp4_experts else form

    def chosen(module: Module) -> StoredFormat:
        return experts if module.part == "experts" else form

    kv_bits = 32 if settings.has("kv_cache_scheme") else 0
    kv_cache = "fp8" if kv_bits else None
    return Scheme(choose=first_of(rules, replacing(chosen, skip=skip)), kv_cache=kv_cache, kv_scale_bits=kv_bits)


def read_mxfp8(settings: Settings, dtype: DType) -> Scheme:
    """fp8 with an 8-bit exponent per 32 of a row."""
    return Scheme(choose=replacing(formats.microscaled(8), skip=left_plain(settings)))


def read_fbgemm(settings: Settings, dtype: DType) -> Scheme:
    """fp8 with an fp32 scale per output.

    Source: transformers 5.23, integrations/fbgemm_fp8.py
    """
    return Scheme(choose=replacing(formats.fp8(ROW), skip=left_plain(settings)))


def read_mxfp4(settings: Settings, dtype: DType) -> Scheme:
    """Experts in 4-bit floats, 32 along a row sharing one 8-bit exponent; everything else plain.

    Source: OCP Microscaling Formats 1.0; transformers 5.23, integrations/mxfp4.py
    """
    skip, form = left_plain(settings), formats.microscaled(4)

    def choose(module: Module) -> StoredFormat | None:
        return form if module.part == "experts" and not skip.cover(module) else None

    return Scheme(choose=choose)


def read_modelopt(settings: Settings, dtype: DType) -> Scheme:
    """NVIDIA's modelopt: one algorithm for all linear layers that are not excluded, or one for each that is listed.

    Inline in the config, or as `quantization` in hf_quant_config.json.

    Source: nvidia-modelopt 0.47, torch/export/quant_utils.py `process_layer_quant_config` and convert_hf_config.py
    """
    own = settings.inner("quantization") if settings.has("quantization") else settings
    kv_cache = _kv_cache(own)
    kv_bits = 32 if kv_cache else 0
    if own.has("quantized_layers"):
        choose = first_of(_listed_layers(own, dtype), lambda module: None)
        return Scheme(choose=choose, kv_cache=kv_cache, kv_scale_bits=kv_bits)
    choose = replacing(
        _algorithm(own, dtype, default=_inferred(own)), roles=(*EVERY_LINEAR, "head"), skip=left_plain(own)
    )
    # The smoothing scales of AWQ and SmoothQuant are folded into other weights where that is possible.
    smooth = own.text("quant_algo").upper().endswith(("AWQ", "SQ_PER_CHANNEL"))
    return Scheme(choose=choose, exact=not smooth, kv_cache=kv_cache, kv_scale_bits=kv_bits)


def _listed_layers(settings: Settings, dtype: DType) -> list[tuple[Names, Choice]]:
    """The rules of `quantized_layers`: modules of the same settings together."""
    return by_settings(
        settings.inner("quantized_layers").objects(),
        lambda own: replacing(_algorithm(own, dtype), roles=_NAMED, skip=Names(())),
    )


def _kv_cache(settings: Settings) -> str | None:
    stated = settings.raw.get("kv_cache_quant_algo") or settings.raw.get("kv_cache_scheme")
    if not stated:
        return None
    if isinstance(stated, str):
        return stated.lower()
    return "fp8" if settings.inner("kv_cache_scheme").integer("num_bits", default=8) == 8 else "nvfp4"


def _inferred(settings: Settings) -> str:
    """The algorithm of a config that states only its groups' weights."""
    for group in settings.inner("config_groups").objects().values():
        weights = group.inner("weights")
        return "FP8" if weights.integer("num_bits", default=8) == 8 else "NVFP4"
    return ""


_FP32 = 32


def _algorithm(settings: Settings, dtype: DType, default: str = "") -> StoredFormat:
    """The format of one of modelopt's algorithms; all of its scales but the 8-bit ones are fp32."""
    name = settings.text("quant_algo", default=default).upper()
    group = settings.group(default=0)
    smooth = ("pre_quant_scale", dtype.bits, COLUMN)
    static = ("input_scale", _FP32, WHOLE)
    blocks4, second = ("weight_scale", 8, per_group(group or 16)), ("weight_scale_2", _FP32, WHOLE)
    groups = ("weight_scale", _FP32, per_group(group or 128))
    per_row = ("weight_scale", _FP32, ROW)
    known: dict[str, StoredFormat] = {
        "FP8": formats.fp8(WHOLE, static=True),
        "FP8_PER_CHANNEL_PER_TOKEN": formats.fp8(ROW),
        "FP8_PB_WO": formats.fp8((128, 128)),
        "FP8_PB_REAL": formats.fp8((128, 128)),
        "MXFP8": formats.microscaled(8, group or 32),
        "MXFP4": formats.microscaled(4, group or 32),
        "W4A8_MXFP4_FP8": scaled("mxfp4", 4, ("weight_scale", 8, per_group(group or 32)), static),
        "NVFP4": formats.nvfp4(group or 16),
        "W4A16_NVFP4": formats.nvfp4(group or 16, static_input=False),
        "W4A8_NVFP4_FP8": scaled("nvfp4", 4, blocks4, second, static),
        "NVFP4_AWQ": scaled("nvfp4", 4, blocks4, second, static, smooth),
        "W4A16_AWQ": scaled("int4", 4, groups, smooth),
        "INT4_AWQ": scaled("int4", 4, groups, smooth),
        "W4A8_AWQ": scaled("int4", 4, groups, second, static, smooth),
        "W8A16": scaled("int8", 8, per_row),
        "W8A8_SQ_PER_CHANNEL": scaled("int8", 8, per_row, static, smooth),
    }
    if name not in known:
        raise NotModelledError(name or "no algorithm")
    return known[name]


FLOATS: dict[str, Callable[[Settings, DType], Scheme]] = {
    "fp8": read_fp8,
    "blockwise_int8": read_fp8,
    "mxfp8": read_mxfp8,
    "fbgemm_fp8": read_fbgemm,
    "mxfp4": read_mxfp4,
    "modelopt": read_modelopt,
    "modelopt_fp4": read_modelopt,
    "modelopt_mixed": read_modelopt,
}
