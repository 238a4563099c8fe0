"""Measure the transient memory of one attention call on the CPU, as torch's own allocator reports it.

    python make_attention.py > attention.jsonl

One JSON line per case: {backend, family, causal, dtype, batch, heads, kv_heads, head_dim, query, key, query_layout,
peak_bytes, dispatch_peak_bytes, fake_cuda_peak_bytes, alive}. `peak_bytes` is the largest sum of live bytes above the inputs (query, key, value and, for
eager, the additive mask, all allocated before), rebuilt from the profiler's allocation events; `alive` lists the
allocations that make it up, in order, as [operator, bytes]. `dispatch_peak_bytes` is the same peak seen from outside:
the storages that operators returned and that still live when an operator ends, so it misses scratch within operators.
`fake_cuda_peak_bytes` (eager with as many key as query heads, else null) is that outside view of the operators that
torch would choose for CUDA tensors, got with fake tensors and no GPU: shapes, dtypes and lifetimes are right, scratch
and the allocator's rounding are missing. (Indexing a fake CUDA tensor needs a torch with CUDA, hence the nulls.)

Backends: `eager` is eager_attention_forward of the model family named (additive mask in the model's dtype); `math` and `flash` are
scaled_dot_product_attention under that backend, with enable_gqa. `query_layout` is "bhsd" for a contiguous query and
"bshd" for the transposed view that a model's projection gives; keys and values are contiguous, as a cache gives them.

Needs torch 2.13 (CPU) and transformers 5.23. The test-suite only reads the output. Nothing here knows a formula.
"""

import argparse
import functools
import importlib
import itertools
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LENGTHS = [(64, 64), (256, 256), (1, 256)]
HEADS = 8
#: families measured beside llama, with whether their heads can share keys
FAMILIES = {
    "gemma2": True, "gemma3": True, "gpt_oss": True, "deepseek_v3": True,
    "gpt2": False, "gpt_neox": False, "t5": False, "bart": False, "bert": False,
}  # fmt: skip


class LiveStorages(TorchDispatchMode):
    """Sums the storages that operators returned and nobody has freed yet; remembers the largest sum."""

    def __init__(self, inputs: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {t.untyped_storage()._cdata for t in inputs}
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.live = {key: held for key, held in self.live.items() if not held[0].expired()}
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known and storage.nbytes():
                    self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def allocations(call: Callable[[], Any]) -> list[tuple[int, int, str]]:
    """(address, bytes, operator) of every allocation (bytes > 0) and release (bytes < 0) of a call, in time order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    del result
    found = []
    stack = list(profiler.profiler.kineto_results.experimental_event_tree())
    while stack:
        event = stack.pop()
        stack.extend(event.children)
        if event.tag.name == "Allocation":
            operator = event.parent.name if event.parent else "python"
            found.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size, operator))
    return [entry[1:] for entry in sorted(found, key=lambda entry: entry[0])]


def peak_of(events: list[tuple[int, int, str]]) -> tuple[int, list[list[Any]]]:
    """The largest sum of live bytes and what was alive then."""
    live: dict[int, tuple[int, str]] = {}
    peak, alive = 0, []
    for address, size, operator in events:
        if size > 0:
            live[address] = (size, operator)
        else:
            live.pop(address, None)  # an input's release is none of ours
        total = sum(held for held, _ in live.values())
        if total > peak:
            peak, alive = total, [[name, held] for held, name in live.values()]
    return peak, alive


def inputs(
    dtype: torch.dtype, batch: int, kv: int, dim: int, query: int, key: int, layout: str, device: str = "cpu"
) -> list[torch.Tensor]:
    """Query, key, value and an additive causal mask."""
    q = torch.randn(batch, HEADS, query, dim, device=device).to(dtype)
    if layout == "bshd":
        q = q.transpose(1, 2).contiguous().transpose(1, 2)
    k, v = (torch.randn(batch, kv, key, dim, device=device).to(dtype) for _ in range(2))
    mask = torch.full((query, key), torch.finfo(dtype).min, dtype=dtype, device=device).triu(key - query + 1)
    return [q, k, v, mask.expand(batch, 1, query, key).contiguous()]


def eager(family: str, tensors: list[torch.Tensor]) -> tuple[Callable[[], Any], list[torch.Tensor]]:
    """The call of a family's eager attention and all tensors that exist before it."""
    forward = importlib.import_module(f"transformers.models.{family}.modeling_{family}").eager_attention_forward
    q, k, v, mask = tensors
    module = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False)
    extra: dict[str, Any] = {}
    before = list(tensors)
    if family == "gpt_oss":
        module.sinks = q.new_zeros(q.shape[1])
        before.append(module.sinks)
    if family == "gemma2":
        extra["softcap"] = 50.0
    if family == "t5":
        extra["position_bias"] = q.new_zeros(1, q.shape[1], q.shape[2], k.shape[2])
        before.append(extra["position_bias"])
    return lambda: forward(module, q, k, v, mask, scaling=q.shape[-1] ** -0.5, **extra), before


def contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """What Tensor.contiguous does, which refuses a fake CUDA tensor where torch has no CUDA."""
    return tensor if tensor.is_contiguous() else tensor.clone(memory_format=torch.contiguous_format)


def outside_peak(call: Callable[[], Any], before: list[torch.Tensor]) -> int:
    """The peak of the storages that operators return."""
    with LiveStorages(before) as mode:
        call()
    return mode.peak


def case(
    backend: str, family: str | None, causal: bool, dtype: str,
    batch: int, kv: int, dim: int, query: int, key: int, layout: str,
) -> dict[str, Any]:  # fmt: skip
    """Measure one shape."""
    shape = (DTYPES[dtype], batch, kv, dim, query, key, layout)
    fake = None
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION if backend == "flash" else SDPBackend.MATH):
        tensors = inputs(*shape)
        if family:
            call, tensors = eager(family, tensors)
            if kv == HEADS and family != "gpt_oss":
                with FakeTensorMode(), mock.patch.object(torch.Tensor, "contiguous", contiguous):
                    fake = outside_peak(*eager(family, inputs(*shape, device="cuda")))
        else:
            call = functools.partial(scaled_dot_product_attention, *tensors[:3], is_causal=causal, enable_gqa=True)
        call()  # the first call may fill caches
        peak, alive = peak_of(allocations(call))
        outside = outside_peak(call, tensors)
    return {
        "backend": backend, "family": family, "causal": causal, "dtype": dtype, "batch": batch, "heads": HEADS,
        "kv_heads": kv, "head_dim": dim, "query": query, "key": key, "query_layout": layout, "peak_bytes": peak,
        "dispatch_peak_bytes": outside, "fake_cuda_peak_bytes": fake, "alive": alive,
    }  # fmt: skip


def main() -> int:
    """Write every case to stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layouts = ["bhsd", "bshd"]
    todo = itertools.chain(
        itertools.product(["eager"], ["llama"], [True], DTYPES, [1, 2], [8, 2], [64, 128], LENGTHS, layouts),
        itertools.product(
            ["math", "flash"], [None], [True, False], DTYPES, [1, 2], [8, 2], [64, 128], LENGTHS, layouts
        ),
        itertools.product(["eager"], FAMILIES, [True], DTYPES, [2], [8, 2], [64], LENGTHS, ["bhsd"]),
    )
    for backend, family, causal, dtype, batch, kv, dim, (query, key), layout in todo:
        if (layout == "bshd" and query == 1) or (kv != HEADS and not FAMILIES.get(family or "", True)):
            continue  # the same memory as "bhsd", or heads that cannot share
        found = case(backend, family, causal, dtype, batch, kv, dim, query, key, layout)
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
