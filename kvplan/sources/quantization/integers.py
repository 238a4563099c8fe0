"""Schemes of integers in groups: GPTQ, AWQ, AutoRound, bitsandbytes, MLX, HQQ, quanto, EETQ and their kin."""

import re
from collections.abc import Callable
from dataclasses import replace

from kvplan.core.dtypes import DType
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.sources.quantization import formats
from kvplan.sources.quantization.formats import ROW, WHOLE, per_group, scaled
from kvplan.sources.quantization.modules import Module, Names, Role
from kvplan.sources.quantization.scheme import (
    IN_DECODER,
    Choice,
    Scheme,
    by_settings,
    first_of,
    left_plain,
    replacing,
    stays_plain,
)
from kvplan.sources.quantization.settings import Settings

_EVERYTHING: tuple[Role, ...] = ("linear", "router", "head", "table")


def read_gptq(settings: Settings, dtype: DType) -> Scheme:
    """GPTQ: the linear layers of the decoder's layers, or those that the config lists; the head where it says so.

    Source: GPTQModel 7.7, quantization/config.py; transformers 5.23, utils/quantization_config.py `GPTQConfig`
    """
    roles: tuple[Role, ...] = ("linear", "head") if settings.flag("lm_head") else IN_DECODER
    whole = replacing(_gptq_form(settings), roles=roles, skip=left_plain(settings))
    listed = settings.raw.get("modules_in_block_to_quantize") or settings.raw.get("modules_to_quantize_inside_block")
    if listed:
        whole = _only(Names(_flattened(listed)), whole)
    return Scheme(choose=first_of(_dynamic(settings, roles), whole))


def _gptq_form(settings: Settings) -> StoredFormat:
    bits, group = settings.bits(2, 3, 4, 5, 6, 7, 8), settings.group(default=128)
    form = settings.text("checkpoint_format", default=settings.text("format"))
    if form == "marlin" or settings.raw.get("is_marlin_format") is True:
        return formats.marlin(bits, group)
    if form in ("gemm", "gemv", "gemv_fast"):
        return formats.awq(bits, group)
    return formats.gptq(bits, group, index=form != "bitblas")


def _dynamic(settings: Settings, roles: tuple[Role, ...]) -> list[tuple[Names, Choice]]:
    """GPTQModel's rules by regular expression: `-:` leaves modules plain, `+:` or none gives them other settings."""
    rules: list[tuple[Names, Choice]] = []
    for pattern, other in settings.inner("dynamic").objects().items():
        names = Names([f"re:{re.sub('^[+-]:', '', pattern)}"])
        if pattern.startswith("-:"):
            rules.append((names, stays_plain))
        else:
            form = _gptq_form(Settings({**settings.raw, **other.raw}, other.path))
            rules.append((names, replacing(form, roles=roles, skip=Names(()))))
    return rules


def _only(names: Names, choice: Choice) -> Choice:
    return first_of([(names, choice)], stays_plain)


def _flattened(names: object) -> list[str]:
    if isinstance(names, str):
        return [names]
    return [name for inner in names for name in _flattened(inner)] if isinstance(names, list | tuple) else []


def read_awq(settings: Settings, dtype: DType) -> Scheme:
    """AWQ: the linear layers of the decoder's layers but those that the config lists.

    Source: AutoAWQ 0.2.9, models/_config.py
    """
    bits = settings.bits(4, 8, key="bits" if settings.has("bits") else "w_bit", default=4)
    group = settings.group("group_size" if settings.has("group_size") else "q_group_size", default=128)
    version = settings.text("version", default="gemm").lower()
    form: StoredFormat | Choice = formats.awq(bits, group)
    if version.startswith("gemv"):
        form = _awq_gemv(group, fast=version == "gemv_fast")
    return Scheme(choose=replacing(form, roles=IN_DECODER, skip=left_plain(settings)))


def _awq_gemv(group: int, *, fast: bool) -> Choice:
    def form(module: Module) -> StoredFormat:
        return formats.awq_gemv(group, module.columns, fast=fast)

    return form


def read_auto_round(settings: Settings, dtype: DType) -> Scheme:
    """AutoRound: packed as GPTQ without a group index, as AWQ, or as compressed-tensors; single modules otherwise.

    Source: auto-round 0.16, export/export_to_autoround/export.py `dynamic_import_quant_linear_for_packing`
    """
    packing = settings.text("packing_format", default="auto_round:auto_gptq")
    roles: tuple[Role, ...] = ("linear", "head") if settings.flag("quant_lm_head") else IN_DECODER

    def chosen(own: Settings) -> Choice:
        bits, group = own.integer("bits"), own.group(default=128)
        if bits >= 16:
            return stays_plain
        if "awq" in packing:
            form = formats.awq(bits, group)
        elif "llm_compressor" in packing or "compressed" in packing:
            form = formats.packed_int(bits, group, dtype.bits, zeros=not own.flag("sym", default=True))
        else:
            form = formats.gptq(bits, group, index=not packing.startswith("auto_round") or "gptqmodel" in packing)
        return replacing(form, roles=(*roles, "head", "tower"), skip=Names(()))

    otherwise = replacing(chosen(settings), roles=roles, skip=left_plain(settings))
    extra = {_regex_or_name(name): own for name, own in settings.inner("extra_config").objects().items()}
    rules = by_settings({name: Settings({**settings.raw, **own.raw}, own.path) for name, own in extra.items()}, chosen)
    return Scheme(choose=first_of(rules, otherwise))


def _regex_or_name(name: str) -> str:
    return f"re:{name}" if set(name) & set("\\[]()^$|+") or ".*" in name else name


def read_bitsandbytes(settings: Settings, dtype: DType) -> Scheme:
    """bitsandbytes: every linear layer but the head, towers included, and but those that the config lists.

    Source: transformers 5.23, quantizers/quantizer_bnb_4bit.py and quantizer_bnb_8bit.py
    """
    skip = Names(settings.names("llm_int8_skip_modules"))
    if settings.flag("load_in_8bit", default=settings.flag("_load_in_8bit")):
        return Scheme(choose=replacing(formats.bnb_8bit(), skip=skip))
    kind = settings.text("bnb_4bit_quant_type", default="fp4")
    if kind not in ("nf4", "fp4"):
        raise settings.wrong("bnb_4bit_quant_type", "nf4 or fp4")
    nested = settings.flag("bnb_4bit_use_double_quant")
    name = {"bf16": "bfloat16", "fp16": "float16"}.get(dtype.name, "float32")

    def form(module: Module) -> StoredFormat:
        return formats.bnb_4bit(kind, module.rows, module.columns, name, 64, nested=nested)

    return Scheme(choose=replacing(form, skip=skip), exact=not nested)


def read_mlx(settings: Settings, dtype: DType) -> Scheme:
    """MLX: every linear layer and table whose rows are whole groups, each as its own entry says where it has one.

    Source: mlx-lm 0.32, utils.py `quantize_model` and `load_model`
    """

    def chosen(own: Settings) -> Choice:
        bits = own.bits(2, 3, 4, 5, 6, 8, default=4)
        group = own.integer("group_size", default=64)
        mode = own.text("mode", default="affine")
        if mode in ("mxfp4", "mxfp8"):
            form = formats.microscaled(bits, group)
        elif mode == "nvfp4":
            form = scaled("nvfp4", 4, ("scales", 8, per_group(group)))
        else:
            form = formats.affine(bits, group, dtype.bits)
        return lambda module: form if module.columns % group == 0 else None

    everything = replacing(chosen(settings), roles=_EVERYTHING, skip=Names(()))
    entries = settings.raw.items()
    own = {name: settings.inner(name) for name, value in entries if isinstance(value, dict)}
    rules = [(Names([name for name, value in entries if value is False]), stays_plain), *by_settings(own, chosen)]
    return Scheme(choose=first_of(rules, everything))


def read_metal(settings: Settings, dtype: DType) -> Scheme:
    """The same groups as MLX's, of every linear layer but the head.

    Source: transformers 5.23, integrations/metal_quantization.py
    """
    form = formats.affine(settings.bits(2, 4, 8, default=4), settings.integer("group_size", default=64), dtype.bits)
    return Scheme(choose=replacing(form, skip=left_plain(settings)))


def read_hqq(settings: Settings, dtype: DType) -> Scheme:
    """HQQ: scale and zero point per group in the compute dtype, and 68 bytes of settings per matrix or so.

    3 bits are packed ten to an int32, ten groups together. `dynamic_config` says it by the name of a layer's modules.

    Source: hqq 0.2.8, core/quantize.py `HQQLinear.state_dict`; transformers 5.23, utils/quantization_config.py
    """

    def chosen(own: Settings) -> StoredFormat:
        params = own.inner("weight_quant_params") if own.has("weight_quant_params") else own
        bits = params.bits(1, 2, 3, 4, 5, 6, 8, key="nbits", default=4)
        wide = params.group(default=64)
        pair = (("scale", 16, per_group(wide)), ("zero", 16, per_group(wide)))
        form = scaled("hqq", 8 if bits in (5, 6) else bits, *pair, ("meta", 8 * 68, WHOLE))
        if bits != 3 or not wide:
            return form
        return replace(form, tensors=(StoredTensor("W_q", 32 * wide, 10 * wide), *form.tensors[1:]))

    skip = Names([*settings.names("skip_modules"), *settings.names("modules_to_not_convert")])
    raw = settings.raw.get("quant_config")
    own = settings.inner("quant_config") if isinstance(raw, dict) else settings
    if own is settings or own.has("weight_quant_params"):
        return Scheme(choose=replacing(chosen(own), skip=skip), exact=False)
    rules = [(Names([tag]), replacing(chosen(inner), skip=skip)) for tag, inner in own.objects().items()]
    return Scheme(choose=first_of(rules, stays_plain), exact=False)


def read_quanto(settings: Settings, dtype: DType) -> Scheme:
    """quanto: 8 bits with a scale per output, 4 and 2 bits with a scale and a shift per group of 128.

    Source: optimum-quanto 0.2.7, nn/qmodule.py and tensor/weights/qbits.py
    """
    width = {"float8": 8, "int8": 8, "int4": 4, "int2": 2}.get(settings.text("weights", default="int8"))
    if width is None:
        raise settings.wrong("weights", "float8, int8, int4 or int2")
    dots = (("input_scale", dtype.bits, WHOLE), ("output_scale", dtype.bits, WHOLE))
    if width == 8:
        form = scaled("quanto 8 bits", 8, ("scale", dtype.bits, ROW), *dots)
    else:
        pair = (("scale", dtype.bits, per_group(128)), ("shift", dtype.bits, per_group(128)))
        form = scaled(f"quanto int{width}", width, *pair, *dots)
    return Scheme(choose=replacing(form, skip=left_plain(settings)), exact=False)


def read_eetq(settings: Settings, dtype: DType) -> Scheme:
    """EETQ: int8 with an fp16 scale per output.

    Source: transformers 5.23, integrations/eetq.py
    """
    return Scheme(choose=replacing(scaled("eetq int8", 8, ("weight_scales", 16, ROW)), skip=left_plain(settings)))


def read_int8_rows(settings: Settings, dtype: DType) -> Scheme:
    """8 bits with an fp32 scale per output (`w8a8_int8`, `w8a8_fp8`).

    Source: sgl-project/sglang@00a0b9b, python/sglang/srt/layers/quantization/w8a8_int8.py
    """
    return Scheme(choose=replacing(scaled("8 bits", 8, ("weight_scale", 32, ROW)), skip=left_plain(settings)))


def read_bitnet(settings: Settings, dtype: DType) -> Scheme:
    """BitNet: four ternary weights in a byte along the outputs and one scale; plain where it quantises at run time.

    Source: transformers 5.23, integrations/bitnet.py
    """
    skip = left_plain(settings)
    if settings.text("quantization_mode", default="offline") == "online":
        return Scheme(choose=stays_plain)
    packed = StoredTensor("weight", 2, (1, 1), along="rows")
    form = StoredFormat("bitnet", (packed, StoredTensor("weight_scale", dtype.bits, WHOLE)))
    return Scheme(choose=replacing(form, skip=skip))


INTEGERS: dict[str, Callable[[Settings, DType], Scheme]] = {
    "gptq": read_gptq,
    "gptqmodel": read_gptq,
    "gptq_marlin": read_gptq,
    "gptq_marlin_24": read_gptq,
    "gptq_bitblas": read_gptq,
    "marlin": read_gptq,
    "awq": read_awq,
    "awq_marlin": read_awq,
    "auto-round": read_auto_round,
    "auto_round": read_auto_round,
    "intel/auto-round": read_auto_round,
    "bitsandbytes": read_bitsandbytes,
    "bitsandbytes_4bit": read_bitsandbytes,
    "bitsandbytes_8bit": read_bitsandbytes,
    "mlx": read_mlx,
    "metal": read_metal,
    "hqq": read_hqq,
    "quanto": read_quanto,
    "eetq": read_eetq,
    "w8a8_int8": read_int8_rows,
    "w8a8_fp8": read_int8_rows,
    "bitnet": read_bitnet,
}
