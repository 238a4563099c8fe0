"""What one attention call holds while it runs, by four programs: scores in full, or never in full.

eager       as transformers writes it: grouped heads repeated, scores, softmax in fp32, product
math · efficient · flash    torch's SDPA under that backend
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention, softmax

from kvplan.validate.case import Case
from kvplan.validate.measure.meter import returned_bytes, transient_bytes
from kvplan.validate.measure.pools import DTYPES
from kvplan.validate.suite.timing import Effort, measure, stopwatch_for

SDPA = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
}

BRIEFLY = Effort(rounds=5, min_calls=5, max_replay_seconds=0.1, max_seconds=0.5)


@dataclass(frozen=True)
class Shape:
    """One call: `queries` new tokens against `keys` tokens, of each of `batch` sequences."""

    batch: int
    queries: int
    keys: int


def measure_transient(case: Case, shapes: Sequence[Shape], device: torch.device) -> list[dict[str, Any]]:
    """A row per backend and shape; a backend that refuses the call says why.

    bytes: by the allocator · outside: only what operators hand out, since on a CPU they work in other buffers than on
    a GPU, where the allocator's word is the only one · seconds: on a GPU.
    """
    return [
        {"case": case.name, "backend": backend, **vars(shape), **_measured(call, inputs, device)}
        for shape in shapes
        for backend, (call, inputs) in calls(case, shape, device).items()
    ]


def _measured(call: Callable[[], Tensor], inputs: Sequence[Tensor], device: torch.device) -> dict[str, Any]:
    row: dict[str, Any] = {"bytes": None, "outside": None, "seconds": None, "refused": None}
    with warnings.catch_warnings(record=True) as said:  # why SDPA refuses a backend comes as warnings
        warnings.simplefilter("always")
        try:
            call()  # what is built once is not part of it
        except torch.AcceleratorError:  # a device that is lost is no refusal
            raise
        except RuntimeError as error:
            return row | {"refused": _reason([_first_line(one.message) for one in said], error)}
    row["bytes"] = transient_bytes(call, device)
    if device.type == "cpu":
        row["outside"] = returned_bytes(call, inputs)
    else:
        row["seconds"] = _seconds(call, device)
    return row


def _seconds(call: Callable[[], Tensor], device: torch.device) -> float | None:
    """None where what is held between calls leaves no room for a graph of several."""
    try:
        return measure([call], stopwatch_for(device), effort=BRIEFLY).median_seconds
    except torch.OutOfMemoryError:
        return None


def _reason(said: Sequence[str], error: RuntimeError) -> str:
    """Why there is no result: torch warns of every backend in turn, also of those that are switched off here."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    reasons = [line for line in said if not line.endswith("not used because:") and "runtime disabled" not in line]
    return reasons[0] if reasons else _first_line(error)


def _first_line(said: object) -> str:
    return str(said).strip().partition("\n")[0].partition(" (Triggered")[0]


Call = tuple[Callable[[], Tensor], tuple[Tensor, ...]]


def calls(case: Case, shape: Shape, device: torch.device) -> dict[str, Call]:
    """(program, inputs) by backend: B × heads × tokens × dimensions, queries as a projection leaves them."""
    dtype = DTYPES[case.dtype]

    def random(heads: int, tokens: int, dim: int) -> Tensor:
        return torch.randn(shape.batch, tokens, heads, dim, dtype=dtype, device=device).transpose(1, 2)

    q = random(case.num_heads, shape.queries, case.key_dim)
    k = random(case.num_kv_heads, shape.keys, case.key_dim).contiguous()
    v = random(case.num_kv_heads, shape.keys, case.value_dim).contiguous()
    mask = torch.zeros(shape.batch, 1, shape.queries, shape.keys, dtype=dtype, device=device)
    found: dict[str, Call] = {"eager": (partial(eager, q, k, v, mask), (q, k, v, mask))}
    if case.sinks:
        sinks = torch.zeros(case.num_heads, dtype=dtype, device=device)
        found["eager"] = (partial(eager_with_sinks, q, k, v, mask, sinks), (q, k, v, mask, sinks))
    causal = shape.queries > 1 and case.causal
    grouped = case.num_heads != case.num_kv_heads
    for name, backend in SDPA.items():
        if name == "efficient" and device.type == "cpu":
            continue  # torch has none there
        found[name] = (partial(_sdpa, backend, q, k, v, causal, grouped), (q, k, v))
    return found


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention by three plain operators.

    Repeats and softmax as in transformers 5.23, models/llama/modeling_llama.py `eager_attention_forward`.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = (_repeated(part, groups) for part in (k, v))
    weights = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5
    weights = weights + mask  # one name throughout: what it held before is free
    weights = softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v).transpose(1, 2).contiguous()


def eager_with_sinks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sinks_H: Tensor) -> Tensor:
    """The same with one more column, whose softmax takes off the row maxima itself.

    As in transformers 5.23, models/gpt_oss/modeling_gpt_oss.py `eager_attention_forward`.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = (_repeated(part, groups) for part in (k, v))
    weights = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5
    weights = weights + mask
    column = sinks_H.reshape(1, -1, 1, 1).expand(q.shape[0], -1, q.shape[-2], -1)
    combined = torch.cat([weights, column], dim=-1)
    combined = combined - combined.max(dim=-1, keepdim=True).values
    shares = softmax(combined, dim=-1, dtype=combined.dtype)
    weights = shares[..., :-1]  # and the scores are free
    return torch.matmul(weights, v).transpose(1, 2).contiguous()


def _repeated(part: Tensor, groups: int) -> Tensor:
    if groups == 1:
        return part
    batch, heads, tokens, dim = part.shape
    return part[:, :, None].expand(batch, heads, groups, tokens, dim).reshape(batch, heads * groups, tokens, dim)


def _sdpa(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, causal: bool, grouped: bool) -> Tensor:
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
