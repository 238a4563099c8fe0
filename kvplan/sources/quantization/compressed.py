"""compressed-tensors, what llm-compressor writes: groups of targets, each with arguments for its weights."""

from kvplan.core.dtypes import DType
from kvplan.core.stored import StoredFormat
from kvplan.sources.quantization import formats
from kvplan.sources.quantization.formats import ROW, WHOLE, per_group, scaled
from kvplan.sources.quantization.modules import Module, Names, Role
from kvplan.sources.quantization.scheme import Choice, NotModelledError, Scheme, left_plain, stays_plain
from kvplan.sources.quantization.settings import Settings

_FORMATS = (
    "dense",
    "naive-quantized",
    "int-quantized",
    "float-quantized",
    "pack-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp6-pack-quantized",
    "mxfp8-quantized",
    "marlin-24",
)
_CLASSES: dict[str, tuple[Role, ...]] = {"Linear": ("linear", "tower", "head"), "Embedding": ("table",)}


def read_compressed_tensors(settings: Settings, dtype: DType) -> Scheme:
    """The modules that a group targets, by name or as `Linear`, but those ignored; named targets come first.

    Source: compressed-tensors 0.20, quantization/quant_config.py and utils/match.py
    """
    ignored = left_plain(settings)
    named, by_role = _groups(settings, dtype)

    def choose(module: Module) -> StoredFormat | None:
        if ignored.cover(module):
            return None
        for names, choice in named:
            if module.role != "table" and names.cover(module):
                return choice(module)
        return by_role.get(module.role, stays_plain)(module)

    kv_cache = settings.inner("kv_cache_scheme")
    bits = kv_cache.integer("num_bits", default=8) if kv_cache.raw else 0
    name = {0: None, 8: "fp8" if kv_cache.text("type", default="float") == "float" else "int8"}.get(bits, f"int{bits}")
    return Scheme(choose=choose, exact=_exact(settings), kv_cache=name, kv_scale_bits=dtype.bits if kv_cache.raw else 0)


def _groups(settings: Settings, dtype: DType) -> tuple[list[tuple[Names, Choice]], dict[Role, Choice]]:
    """(rules for targets by name, the choice for each role that a class name targets)."""
    named: list[tuple[Names, Choice]] = []
    by_role: dict[Role, Choice] = {}
    for group in settings.inner("config_groups").objects().values():
        choice = _stored_as(group, settings, dtype)
        targets = group.names("targets") or ["Linear"]
        names = [target for target in targets if target not in _CLASSES]
        if names:
            named.append((Names(names), choice))
        for target in targets:
            by_role |= dict.fromkeys(_CLASSES.get(target, ()), choice)
    if not named and not by_role:
        raise NotModelledError("no groups")
    return named, by_role


def _stored_as(group: Settings, settings: Settings, dtype: DType) -> Choice:
    """What a group's modules are stored in; plain where only activations are quantised."""
    if not group.has("weights"):
        return stays_plain
    # Kimi K2 writes the format with a tool of its own, whose configs lack what the package always states.
    by_package = bool({"global_compression_ratio", "version"} & settings.raw.keys())
    form = _weights(group, _format(group, settings), dtype, by_package=by_package)
    inputs = group.inner("input_activations")
    # Dynamic means no stored scale; `local` keeps one per tensor (which NVFP4 counts), static one.
    if inputs.raw and inputs.raw.get("dynamic") is False and not form.name.startswith(("nvfp", "mxfp")):
        form = form.beside(*scaled("", 0, ("input_scale", dtype.bits, WHOLE)).tensors[1:])
    return lambda module: form


def _format(group: Settings, settings: Settings) -> str:
    """The compressor of a group: as it or the whole config states, else as its arguments imply."""
    stated = group.text("format", default=settings.text("format"))
    if stated in _FORMATS:
        return stated
    if stated not in ("", "mixed-precision"):
        raise NotModelledError(f"format {stated}")
    weights = group.inner("weights")
    if weights.text("type", default="int") == "float":
        return "float-quantized" if weights.integer("num_bits") == 8 else "nvfp4-pack-quantized"
    return "int-quantized" if group.has("input_activations") else "pack-quantized"


def _weights(group: Settings, form: str, dtype: DType, *, by_package: bool) -> StoredFormat:
    weights = group.inner("weights")
    bits = weights.bits(*range(1, 9), key="num_bits")
    symmetric = weights.flag("symmetric", default=True)
    block = _block(weights)
    if form == "nvfp4-pack-quantized":
        dynamic = group.inner("input_activations").raw.get("dynamic", True)
        return formats.nvfp4(weights.integer("group_size", default=16), static_input=dynamic is not True)
    if form.startswith("mxfp"):
        return formats.microscaled(bits, weights.integer("group_size", default=32))
    if form == "pack-quantized":
        index = weights.raw.get("actorder") in ("group", True)
        return formats.packed_int(
            bits, block[1], dtype.bits, zeros=not symmetric, index=index, shape_bits=64 if by_package else 32
        )
    if form == "marlin-24":
        # Half of the elements are kept, with 2 bits each that say where they stood.
        scales = ("scale_packed", 16, per_group(block[1]))
        return scaled("2:4 int4", bits // 2, ("meta", 1, (1, 1)), scales, ("weight_shape", 128, WHOLE))
    kind = "fp8" if weights.text("type", default="int") == "float" else "int8"
    scale = ("weight_scale", dtype.bits, block)
    if form == "dense":  # calibrated, but not yet compressed
        return scaled("plain with scales", dtype.bits, scale)
    return scaled(kind, 8, scale) if symmetric else scaled(kind, 8, scale, ("weight_zero_point", 8, block))


def _block(weights: Settings) -> tuple[int, int]:
    """Rows × columns behind one scale, by the strategy, which older configs leave to the group size."""
    group = weights.group()
    strategy = weights.text("strategy") or ("group" if group else "tensor")
    if strategy == "block":
        return weights.pair("block_structure") or (128, 128)
    known = {"tensor": WHOLE, "channel": ROW, "group": per_group(group), "tensor_group": per_group(group)}
    if strategy not in known:
        raise NotModelledError(f"strategy {strategy}")
    return known[strategy]


def _exact(settings: Settings) -> bool:
    """A sparse checkpoint stores masks that are not counted."""
    sparse = settings.inner("sparsity_config").text("format", default="dense")
    return sparse == "dense" and settings.text("format") != "marlin-24"
