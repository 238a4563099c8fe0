"""What vLLM takes of a GPU besides weights and pool, term by term, as start-up logs show it.

`taken` is subtracted before the pool is sized, `untaken` comes on top of what the utilisation allows.

Sources: vLLM 0.33, v1/worker/gpu_worker.py `determine_available_memory`; public start-up logs
(`tests/data/engines/observations.csv`), most of vLLM 0.19 from llm-d-incubation/llm-d-planner.
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.activations import activation_peak
from kvplan.core.engines.vllm.defaults import default_max_num_seqs, is_v1
from kvplan.core.engines.vllm.extras import draft_weights, lora_slots
from kvplan.core.engines.vllm.loading import extra_weights
from kvplan.core.engines.vllm.measured import (
    CONTEXT,
    GRAPH_SIZES,
    NON_TORCH,
    SUBTRACTS_GRAPHS,
    V0_GRAPH_SIZES,
    GraphCost,
    graph_cost,
)
from kvplan.core.engines.vllm.pool import stages
from kvplan.core.measured import Measured
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div


def taken(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int) -> tuple[Measured, ...]:
    """What is subtracted besides the weights of the checkpoint, on the fullest rank of a stage.

    `release` is the version as numbers, e.g. (0, 19). Raises InputError for a draft whose weights are not known.
    """
    terms = [
        extra_weights(model, deployment, stage),
        activation_peak(model, deployment, release, stage),
        non_torch(deployment, release),
        lora_slots(model, deployment, stage),
        draft_weights(model, deployment, stage),
        graphs(model, deployment, release, stage, estimated=True) if release >= SUBTRACTS_GRAPHS else None,
    ]
    return tuple(term for term in terms if term is not None)


def untaken(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int) -> tuple[Measured, ...]:
    """What lies outside the utilisation: the context before vLLM looks at the device; before 0.21 CUDA graphs."""
    found = graphs(model, deployment, release, stage, estimated=False) if release < SUBTRACTS_GRAPHS else None
    return (CONTEXT,) if found is None else (CONTEXT, found)


def non_torch(deployment: Deployment, release: tuple[int, ...]) -> Measured:
    """What the process takes outside torch between two looks at the device: collectives, kernels, workspaces."""
    key = "v0" if not is_v1(deployment, release) else ("before 0.17" if release < (0, 17) else "0.17")
    single, parallel, staged = NON_TORCH[key]
    if deployment.tp > 1 or deployment.dp > 1:
        return parallel
    return staged if deployment.pp > 1 else single


def graphs(
    model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int, *, estimated: bool
) -> Measured | None:
    """CUDA graphs of a stage, as they turn out or as vLLM estimates them; None where there are none.

        bytes = fixed + layers · each · captured sizes / all sizes

    Sizes: 1, 2, 4, 8, 16 … up to twice the requests at once, at most 512 (V0: to the requests, at most 256).
    """
    if deployment.switches.enforce_eager:
        return None
    start, stop = stages(model, deployment)[stage]
    cost: GraphCost = graph_cost(model, release, v1=is_v1(deployment, release), estimated=estimated)
    share, whole = _captured(deployment, release)
    num_bytes = cost.fixed_bytes + ceil_div((stop - start) * cost.layer_bytes * share, whole)
    return Measured(
        name="CUDA graphs (estimate)" if estimated else "CUDA graphs",
        num_bytes=num_bytes,
        spread_bytes=min(cost.spread_bytes, num_bytes) if not estimated else cost.spread_bytes,
        source=cost.source,
        basis="calibrated",
    )


def _captured(deployment: Deployment, release: tuple[int, ...]) -> tuple[int, int]:
    """(batch sizes that are captured, batch sizes of the observations): 8 apart up to 256, 16 apart from there."""
    requests = default_max_num_seqs(deployment, release)
    if not is_v1(deployment, release):
        return 3 + min(requests, 256) // 8, V0_GRAPH_SIZES
    largest = deployment.switches.cuda_graph_max_bs or min(2 * requests, 512)
    return min(3 + min(largest, 256) // 8 + max(0, largest - 256) // 16, GRAPH_SIZES), GRAPH_SIZES
