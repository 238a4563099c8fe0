"""Where a model can go: layouts over GPUs that the engine accepts, formats of the cache from wide to narrow."""

from collections.abc import Iterator
from dataclasses import replace

from kvplan.core.dtypes import DType, parse_kv_dtype
from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.layout import MAX_SEARCHED_GPUS, total_weight_bytes
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving
from kvplan.core.units import ceil_div

NODE = 8
"""GPUs that are linked closely enough for tensor parallelism."""
NARROWER = (
    "fp16", "bf16", "fp8", "int8", "q8_0", "mxfp8", "q5_1", "q5_0", "nvfp4", "int4", "q4_1", "q4_0", "iq4_nl",
)  # fmt: skip
"""Formats of the cache from wide to narrow; of two of 8 bits the one that is better tried."""


_BLACKWELL = frozenset({"nvfp4", "mxfp4"})
"""Formats that kernels read from compute capability 10.0 on, of engines whose own check does not say."""
_JUDGES_FORMATS = frozenset({"vllm"})
"""Engines whose check knows which GPU's kernels read which format."""


def layouts(model: ModelSpec, serving: Serving, num_gpus: int) -> Iterator[Serving]:
    """The same over so many GPUs, in each layout that the engine accepts: wide tp within a node first, then pp."""
    replicas = serving.num_gpus // (serving.tp * serving.pp)
    ranks = num_gpus // replicas
    if ranks * replicas != num_gpus:
        return
    step = serving.dp if serving.switches.attention_dp else 1
    for tp in range(min(NODE, ranks), 0, -1):
        if ranks % tp == 0 and tp % step == 0 and ranks // tp <= model.num_layers:
            laid = replace(serving, tp=tp, pp=ranks // tp)
            if accepts(model, laid):
                yield laid


def counts(model: ModelSpec, serving: Serving, above: int = 0) -> Iterator[int]:
    """Numbers of GPUs that could hold the weights: each up to a node, whole nodes from there, more than `above`."""
    replicas = serving.num_gpus // (serving.tp * serving.pp)
    capacity = serving.capacity_bytes
    room = (capacity or 0) + serving.switches.cpu_offload_bytes
    least = ceil_div(total_weight_bytes(model, serving), room) if capacity else 1
    for ranks in (*range(1, NODE + 1), *range(2 * NODE, MAX_SEARCHED_GPUS + 1, NODE)):
        if ranks >= least and ranks * replicas > above:
            yield ranks * replicas


def fewest(model: ModelSpec, serving: Serving, above: int = 0) -> Iterator[Serving]:
    """Layouts over more than `above` GPUs, the fewest first: 1, 2, 4, 8, whole nodes; between them where tp divides.

    An engine that deals out whole layers only has any number of them.
    """
    replicas = serving.num_gpus // (serving.tp * serving.pp)
    deals_heads = any(accepts(model, replace(serving, tp=tp, pp=1)) for tp in range(2, NODE + 1))
    for count in counts(model, serving, above):
        ranks = count // replicas
        between = ranks < NODE and ranks & (ranks - 1) != 0
        for laid in layouts(model, serving, count):
            if not (between and deals_heads) or laid.pp == 1:
                yield laid


def formats(model: ModelSpec, serving: Serving) -> Iterator[Serving]:
    """The same with each format of the cache that is narrower than the serving's, and that the engine accepts."""
    width = cache_width(serving.kv_dtype) + cache_width(serving.value_dtype)
    known = serving.engine.kv_dtypes
    for name in NARROWER:
        dtype = parse_kv_dtype(name)
        if 2 * cache_width(dtype) >= width or (known is not None and name not in known):
            continue
        judged = serving.engine.name in _JUDGES_FORMATS
        if name in _BLACKWELL and not judged and not _has_fp4(serving.gpu):
            continue
        told = replace(serving, kv_dtype=dtype, value_dtype=dtype, kv_dtype_stated=True)
        if accepts(model, told):
            yield told


def _has_fp4(gpu: Gpu | None) -> bool:
    """Compute capability 10.0 or above."""
    major = "" if gpu is None else gpu.arch.partition(".")[0]
    return major.isdigit() and int(major) >= 10


def cache_width(dtype: DType) -> int:
    """Bytes of a head of 128 elements, with its scales."""
    return dtype.vector_bytes(128)


def accepts(model: ModelSpec, serving: Serving) -> bool:
    """Whether the engine starts with such settings at all."""
    try:
        if serving.engine.pooled is not None:
            serving.engine.pooled.check(model, serving.deployment)
    except InputError:
        return False
    return True
