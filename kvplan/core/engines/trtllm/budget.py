"""Where a GPU's memory goes before TensorRT-LLM makes its pool: assumed, with a wide spread.

Source: TensorRT-LLM 1.2, tensorrt_llm/_torch/pyexecutor/_util.py (commit 00043967)
"""

from dataclasses import replace

from kvplan.core.device import visible_bytes
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.pool import Budget
from kvplan.core.engines.trtllm.checks import check
from kvplan.core.engines.trtllm.layers import pass_tokens
from kvplan.core.engines.trtllm.loading import loaded
from kvplan.core.errors import InputError
from kvplan.core.measured import Measured
from kvplan.core.model import ModelSpec
from kvplan.core.units import GIB, ceil_div

DEFAULT_SHARE = 0.9
"""`free_gpu_memory_fraction`"""
CONTEXT = Measured(
    name="CUDA context and runtime",
    num_bytes=GIB,
    spread_bytes=GIB // 2,
    source="no log at hand states it: one GPU's context and the executor's own buffers",
    basis="assumed",
)
CONTEXT_WITH_RANKS = replace(
    CONTEXT, name="CUDA context, runtime and collectives", num_bytes=5 * GIB // 2, spread_bytes=3 * GIB // 2
)
GRAPHS = Measured(
    name="CUDA graphs",
    num_bytes=GIB,
    spread_bytes=GIB,
    source="no log at hand states it; graphs are captured after the pool is made",
    basis="assumed",
)


def budget(model: ModelSpec, deployment: Deployment, weight_bytes: tuple[int, ...]) -> tuple[Budget, ...]:
    """pool = (device − peak of a trial run) · share: usable is the peak, and a share of 0.9 of what it leaves.

    Source: _util.py `KvCacheCreator._cal_max_memory`, `configure_kv_cache_capacity`
    """
    check(model, deployment)
    if deployment.gpu is None:
        raise InputError("TensorRT-LLM's account needs the memory of a GPU", hint="`--gpu H100`")
    share = DEFAULT_SHARE if deployment.memory_share is None else deployment.memory_share
    device = visible_bytes(deployment.gpu)
    context = CONTEXT_WITH_RANKS if deployment.tp * deployment.pp > 1 else CONTEXT
    trial = _trial(model, deployment)
    accounts = []
    for stage, weights in enumerate(weight_bytes):
        taken = (*loaded(model, deployment, stage, weights), trial, context)
        peak = sum(item.num_bytes for item in taken)
        untaken = () if deployment.switches.enforce_eager else (GRAPHS,)
        accounts.append(
            Budget(
                stage=stage,
                device_bytes=device,
                # Where the peak is more than the device there is nothing to take a share of.
                usable_bytes=min(device, peak + int((device - peak) * share)),
                taken=taken,
                untaken=untaken,
            )
        )
    return tuple(accounts)


def _trial(model: ModelSpec, deployment: Deployment) -> Measured:
    """What the trial run's forward pass peaks at: 16 widths of the hidden state a token, and 1 GiB.

    No log at hand states it; the spread is as large as the figure.
    """
    tokens = pass_tokens(deployment)
    peak = ceil_div(tokens * 16 * model.hidden_size * deployment.dtype.bits, 8) + GIB
    source = "assumed: 16 times the hidden state of one pass, and 1 GiB"
    return Measured(
        name="activations of the trial run", num_bytes=peak, spread_bytes=peak, source=source, basis="assumed"
    )
