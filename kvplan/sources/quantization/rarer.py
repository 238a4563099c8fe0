"""Schemes that few checkpoints use, or whose config tells less than the tensors: AQLM, HIGGS, torchao, Quark, EXL."""

from collections.abc import Callable

from kvplan.core.dtypes import DType
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.sources.quantization import formats
from kvplan.sources.quantization.formats import COLUMN, ROW, WHOLE, per_group, scaled
from kvplan.sources.quantization.modules import Module, Names
from kvplan.sources.quantization.scheme import (
    IN_DECODER,
    Choice,
    NotModelledError,
    Scheme,
    by_settings,
    first_of,
    left_plain,
    replacing,
    stays_plain,
)
from kvplan.sources.quantization.settings import Settings


def read_aqlm(settings: Settings, dtype: DType) -> Scheme:
    """AQLM: per group of inputs one code per codebook, the codebooks, and a scale per group of outputs.

        codes      ⌈rows / out⌉ · ⌈columns / in⌉ · codebooks · (1 byte up to 8 bits, 2 up to 16)
        codebooks  codebooks · 2^bits · out · in in 16 bits      scales  ⌈rows / out⌉ in 16 bits

    Source: aqlm 1.1.7, inference.py `QuantizedLinear`
    """
    wide, high = settings.integer("in_group_size", default=8), settings.integer("out_group_size", default=1)
    books = settings.integer("num_codebooks", default=1)
    width = settings.bits(*range(1, 33), key="nbits_per_codebook", default=16)
    stored = 8 if width <= 8 else 16 if width <= 16 else 32
    codes = StoredTensor("codes", books * stored, (high, wide))
    codebooks = StoredTensor("codebooks", books * 2**width * high * wide * 16, WHOLE)
    form = StoredFormat("aqlm", (codes, codebooks, StoredTensor("scales", 16, (high, 0))))
    skip = Names(name.removesuffix(".weight") for name in settings.names("linear_weights_not_to_quantize"))
    return Scheme(choose=replacing(form, skip=skip))


def read_higgs(settings: Settings, dtype: DType) -> Scheme:
    """HIGGS: int16 words down the outputs, a scale per group, and two tables of grid points.

    Source: transformers 5.23, integrations/higgs.py `HiggsLinear`
    """
    bits, group = settings.bits(2, 3, 4, default=4), settings.integer("group_size", default=256)
    tables = (("tables", 2**bits * dtype.bits, WHOLE), ("tables2", 2 * 4**bits * dtype.bits, WHOLE))
    form = scaled("higgs", bits, ("scales", dtype.bits, per_group(group)), *tables)
    return Scheme(choose=replacing(form, skip=left_plain(settings)), exact=False)


def read_fp_quant(settings: Settings, dtype: DType) -> Scheme:
    """FP-Quant: MXFP4 or NVFP4 elements and scales.

    Source: transformers 5.23, integrations/fp_quant.py
    """
    forward = settings.text("forward_dtype", default="nvfp4")
    form = formats.microscaled(4) if forward == "mxfp4" else formats.nvfp4()
    return Scheme(choose=replacing(form, skip=left_plain(settings)), exact=False)


def read_sinq(settings: Settings, dtype: DType) -> Scheme:
    """SINQ: packed elements, a scale and a zero point per group, a scale per input.

    Source: transformers 5.23, integrations/sinq.py
    """
    group = per_group(settings.integer("group_size", default=64))
    bits = settings.bits(2, 3, 4, 5, 6, 8, key="nbits", default=4)
    form = scaled("sinq", bits, ("scale", 16, group), ("zero", 16, group), ("scale2", 16, COLUMN))
    return Scheme(choose=replacing(form, skip=left_plain(settings)), exact=False)


def read_exl(settings: Settings, dtype: DType) -> Scheme:
    """EXL2 and EXL3: an average of bits over the layers, another for the head; two vectors of signs beside EXL3's.

    Source: turboderp-org/exllamav3@0c64750, exllamav3/modules/quant/exl3.py
    """
    signs = (("suh", 16, COLUMN), ("svh", 16, ROW)) if settings.text("quant_method") == "exl3" else ()

    def average(key: str, default: float) -> StoredFormat:
        value = settings.raw.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value <= 16:
            raise settings.wrong(key, "a number of bits")
        return formats.averaged(settings.text("quant_method"), round(1000 * value), *signs)

    body, head = average("bits", 4.0), average("head_bits", 6.0)

    def choose(module: Module) -> StoredFormat | None:
        return {"linear": body, "head": head}.get(module.role)

    return Scheme(choose=choose, exact=False)


def read_torchao(settings: Settings, dtype: DType) -> Scheme:
    """torchao: one config for all linear layers but the head, or one for each by its full name.

    Source: torchao 0.18, quantization/quant_api.py; transformers 5.23, quantizers/quantizer_torchao.py
    """
    raw = settings.raw.get("quant_type")
    if isinstance(raw, str):
        choice = _torchao_by_name(raw, settings.inner("quant_type_kwargs"), dtype)
    else:
        choice = _torchao_config(settings.inner("quant_type").inner("default"), dtype)
    embeds = settings.flag("include_input_output_embeddings")
    skip = left_plain(settings)

    def choose(module: Module) -> StoredFormat | None:
        if skip.cover(module) or (module.role in ("head", "table", "router") and not embeds):
            return None
        return choice(module)

    return Scheme(choose=choose, exact=False)


def _torchao_config(config: Settings, dtype: DType) -> Choice:
    kind, data = config.text("_type"), config.inner("_data")
    if kind not in ("FqnToConfig", "ModuleFqnToConfig"):
        return _torchao_by_name(kind, data, dtype)
    named = data.inner("fqn_to_config") if data.has("fqn_to_config") else data.inner("module_fqn_to_config")
    own = {name: inner for name, inner in named.objects().items() if name != "_default"}
    otherwise = stays_plain if not named.has("_default") else _torchao_config(named.inner("_default"), dtype)
    return first_of(
        by_settings(own, lambda inner: _torchao_config(inner, dtype) if inner.raw else stays_plain), otherwise
    )


def _torchao_by_name(kind: str, data: Settings, dtype: DType) -> Choice:
    """`Int4WeightOnlyConfig`, in older files `int4_weight_only`."""
    name = kind.replace("_", "").removesuffix("Config").lower()
    group = per_group(data.group(default=32 if "int4weight" in name and "8da" in name else 128))
    rows = ("scale", dtype.bits, ROW)
    known = {
        "int4weightonly": scaled("torchao int4", 4, ("scale", dtype.bits, group), ("zero_point", dtype.bits, group)),
        "int8weightonly": scaled("torchao int8", 8, ("scale", 32, ROW), ("zero_point", 8, ROW)),
        "int8dynamicactivationint8weight": scaled("torchao int8", 8, rows),
        "int8dynamicactivationint4weight": scaled(
            "torchao int4 in int8", 8, ("scale", 32, per_group(data.group(default=32)))
        ),
        "int8dynamicactivationintxweight": scaled("torchao int8", 8, ("scale", 32, group), ("zero_point", 8, group)),
        "intxweightonly": scaled("torchao int8", 8, ("scale", dtype.bits, ROW), ("zero_point", 8, ROW)),
        "float8weightonly": scaled("torchao fp8", 8, ("scale", 32, ROW)),
        "float8dynamicactivationfloat8weight": scaled("torchao fp8", 8, ("scale", 32, ROW)),
        "float8dynamicactivationint4weight": scaled("torchao int4", 4, ("scale", dtype.bits, group)),
        "mxdynamicactivationmxweight": formats.microscaled(4),
        "nvfp4dynamicactivationnvfp4weight": formats.nvfp4(static_input=False),
    }
    if name not in known:
        raise NotModelledError(kind or "no config")
    form = known[name]
    return lambda module: form


def read_quark(settings: Settings, dtype: DType) -> Scheme:
    """AMD's Quark: one config for all layers, others by pattern, and what is excluded.

    Source: amd-quark 0.13, torch/export/nn/modules/realquantizer.py
    """
    skip = Names(settings.names("exclude", "exclude_layers"))
    whole = _quark_form(settings.inner("global_quant_config"), dtype)
    rules = by_settings(settings.inner("layer_quant_config").objects(), lambda own: _quark_form(own, dtype))
    choice = first_of(rules, whole)
    kv_cache = settings.inner("kv_cache_quant_config").raw or settings.inner("export").raw.get("kv_cache_group")
    return Scheme(
        choose=replacing(choice, roles=("linear", "tower", "head"), skip=skip),
        exact=False,
        kv_cache="fp8" if kv_cache else None,
        kv_scale_bits=32 if kv_cache else 0,
    )


def _quark_form(settings: Settings, dtype: DType) -> Choice:
    weight = settings.inner("weight")
    if not weight.raw:
        return stays_plain
    kind, scheme = weight.text("dtype"), weight.text("qscheme", default="per_tensor")
    bits = {"fp8_e4m3": 8, "fp8_e5m2": 8, "int8": 8, "uint8": 8, "int4": 4, "uint4": 4, "fp4": 4, "fp6_e3m2": 6}.get(
        kind
    )
    if bits is None:
        raise NotModelledError(kind or "no dtype")
    if kind.startswith(("fp4", "fp6")):
        form = formats.microscaled(bits, weight.integer("group_size", default=32))
    else:
        block = {"per_tensor": WHOLE, "per_channel": ROW}.get(scheme) or per_group(weight.group(default=128))
        form = scaled(f"quark {kind}", bits, ("weight_scale", 32, block))
        if kind.endswith(("int4", "int8")):
            form = form.beside(StoredTensor("weight_zero_point", bits, block, word=32, along="rows"))
    inputs = settings.inner("input_tensors")
    if inputs.raw and inputs.raw.get("is_dynamic") is False:
        form = form.beside(StoredTensor("input_scale", 32, WHOLE))
    return lambda module: form


def read_vptq(settings: Settings, dtype: DType) -> Scheme:
    """VPTQ: indices into codebooks of vectors, packed in int32 words, and the codebooks, module by module.

    Source: microsoft/VPTQ@12b03f5, vptq/layers/vqlinear.py `VQuantLinear`
    """
    named = settings.inner("config_for_layers").objects()
    if not named:
        raise NotModelledError("no layers")
    skip = left_plain(settings)
    choose = first_of(by_settings(named, _vptq_form), stays_plain)
    return Scheme(choose=replacing(choose, roles=IN_DECODER, skip=skip), exact=False)


def _vptq_form(settings: Settings) -> Choice:
    """Indices of all groups as if they were one; int16 each where they are not packed."""
    length = _last(settings, "vector_lens")
    main, rest = max(1, _last(settings, "num_centroids")), max(0, _last(settings, "num_res_centroids"))
    packed = settings.flag("is_indice_packed")
    bits = (main - 1).bit_length() + (rest - 1).bit_length() * (rest > 0) if packed else 16 + 16 * (rest > 0)
    groups = settings.integer("group_num", default=1)
    tensors = [
        StoredTensor("indices", bits, (length, 1), word=32 if packed else 16, along="columns"),
        StoredTensor("centroids", groups * (main + rest) * length * 16, WHOLE),
    ]
    if settings.flag("enable_norm"):
        tensors += [StoredTensor("weight_scale", 16, COLUMN), StoredTensor("weight_bias", 16, COLUMN)]
    if settings.flag("enable_perm"):
        tensors.append(StoredTensor("perm", 16 if packed else 64, COLUMN))
    form = StoredFormat("vptq", tuple(tensors))
    return lambda module: form


def _last(settings: Settings, key: str) -> int:
    value = settings.raw.get(key)
    if not isinstance(value, list) or not value or type(value[-1]) is not int:
        raise settings.wrong(key, "a list of whole numbers")
    return int(value[-1])


RARER: dict[str, Callable[[Settings, DType], Scheme]] = {
    "aqlm": read_aqlm,
    "higgs": read_higgs,
    "fp_quant": read_fp_quant,
    "sinq": read_sinq,
    "exl2": read_exl,
    "exl3": read_exl,
    "torchao": read_torchao,
    "quark": read_quark,
    "vptq": read_vptq,
}
