"""What vLLM takes of a GPU besides weights and pool, term by term, as start-up logs show it.

`taken` is subtracted before the pool is sized, `untaken` comes on top of what the utilisation allows.

Sources: vLLM 0.33, v1/worker/gpu_worker.py `determine_available_memory`; public start-up logs
(`tests/data/engines/observations.csv`), most of vLLM 0.19 from llm-d-incubation/llm-d-planner.
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.activations import activation_peak
from kvplan.core.engines.vllm.defaults import default_max_num_seqs, is_v1
from kvplan.core.engines.vllm.drafts import HEADS, pass_layers
from kvplan.core.engines.vllm.extras import draft_buffers, draft_weights, lora_slots
from kvplan.core.engines.vllm.loading import extra_weights
from kvplan.core.engines.vllm.measured import (
    CONTEXT,
    ESTIMATES_ON_V2,
    GRAPH_SIZES,
    NON_TORCH,
    OVER_PCIE,
    PCIE_BYTES_PER_SECOND,
    SUBTRACTS_GRAPHS,
    V0_GRAPH_SIZES,
    GraphCost,
    graph_cost,
)
from kvplan.core.engines.vllm.pool import stages
from kvplan.core.engines.vllm.runner import has_states, runs_on_v2
from kvplan.core.measured import Measured
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div

COUNTS_ALL = (0, 27)
"""The release from which on all that a process took of the device is taken off, not weights and non-torch apart
(utils/mem_utils.py `memory_profiling`, `total_consumed`)."""


def taken(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int) -> tuple[Measured, ...]:
    """What is subtracted besides the weights of the checkpoint, on the fullest rank of a stage.

    `release` is the version as numbers, e.g. (0, 19). Raises InputError for a draft whose weights are not known.
    """
    terms = [
        extra_weights(model, deployment, stage),
        activation_peak(model, deployment, release, stage),
        non_torch(deployment, release),
        sampler_states(model, deployment, stage) if counts_states(model, deployment, release) else None,
        lora_slots(model, deployment, stage),
        draft_weights(model, deployment, stage),
        draft_buffers(model, deployment, release, stage) if release >= COUNTS_ALL else None,
        graphs(model, deployment, release, stage, estimated=True) if estimates(model, deployment, release) else None,
    ]
    return tuple(term for term in terms if term is not None)


def untaken(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int) -> tuple[Measured, ...]:
    """What lies outside the utilisation: the context before vLLM looks at the device; graphs that it estimates not."""
    terms = [
        CONTEXT,
        None if estimates(model, deployment, release) else graphs(model, deployment, release, stage, estimated=False),
    ]
    if runs_on_v2(model, deployment, release) and not counts_states(model, deployment, release):
        terms.append(sampler_states(model, deployment, stage))
    if release < COUNTS_ALL:
        terms.append(draft_buffers(model, deployment, release, stage))
    return tuple(term for term in terms if term is not None)


def estimates(model: ModelSpec, deployment: Deployment, release: tuple[int, ...]) -> bool:
    """Whether an estimate of the CUDA graphs is taken off: from 0.21 on, by the newer model runner from 0.29 on."""
    return release >= (ESTIMATES_ON_V2 if runs_on_v2(model, deployment, release) else SUBTRACTS_GRAPHS)


def counts_states(model: ModelSpec, deployment: Deployment, release: tuple[int, ...]) -> bool:
    """Whether what the newer model runner's sampler keeps is taken off: from 0.27 on, as all that a process holds."""
    return release >= COUNTS_ALL and runs_on_v2(model, deployment, release)


def sampler_states(model: ModelSpec, deployment: Deployment, stage: int) -> Measured | None:
    """Counts of the tokens of each request, which the newer model runner's sampler keeps on the last stage.

        bytes = requests · (vocabulary · 4 + ⌈vocabulary / 32⌉ · 4)

    Source: vLLM 0.22-0.33, v1/worker/gpu/sample/penalties.py (`output_bin_counts`, `prompt_bin_mask`)
    """
    if stage != deployment.pp - 1 or not model.has_vocabulary_head:
        return None
    requests = default_max_num_seqs(deployment, COUNTS_ALL)
    return Measured(
        name="sampler states",
        num_bytes=requests * 4 * (model.vocab_size + ceil_div(model.vocab_size, 32)),
        spread_bytes=0,
        source="counts and a mask of each request's tokens: vLLM 0.33, v1/worker/gpu/sample/penalties.py",
        basis="derived",
    )


def non_torch(deployment: Deployment, release: tuple[int, ...]) -> Measured:
    """What the process takes outside torch between two looks at the device: collectives, kernels, workspaces."""
    since = ((0, 21), "0.21"), ((0, 17), "0.17"), ((0,), "before 0.17")
    key = next(name for first, name in since if release >= first) if is_v1(deployment, release) else "v0"
    single, parallel, staged = NON_TORCH[key]
    if deployment.tp > 1 or deployment.dp > 1:
        return OVER_PCIE if key == "0.21" and _over_pcie(deployment) else parallel
    return staged if deployment.pp > 1 else single


def _over_pcie(deployment: Deployment) -> bool:
    """Whether GPUs exchange data over PCIe alone; not where that is not known."""
    speed = None if deployment.gpu is None else deployment.gpu.interconnect_bytes_per_second
    return speed is not None and speed <= PCIE_BYTES_PER_SECOND


def graphs(
    model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int, *, estimated: bool
) -> Measured | None:
    """CUDA graphs of a stage, as they turn out or as vLLM estimates them; None where there are none.

        bytes = fixed + layers · each · captured sizes / all sizes

    Sizes: 1, 2, 4, 8, 16 … up to twice the requests at once, at most 512 (V0: to the requests, at most 256). The layers
    of what drafts are captured, too.
    """
    if deployment.switches.enforce_eager:
        return None
    start, stop = stages(model, deployment)[stage]
    cost: GraphCost = graph_cost(
        model,
        release,
        v1=is_v1(deployment, release),
        estimated=estimated,
        states=has_states(model),
        on_v2=runs_on_v2(model, deployment, release),
    )
    share, whole = _captured(deployment, release)
    layers = stop - start + (_drafting_layers(model, deployment, release) if stop == model.num_layers else 0)
    num_bytes = cost.fixed_bytes + ceil_div(layers * cost.layer_bytes * share, whole)
    return Measured(
        name="CUDA graphs (estimate)" if estimated else "CUDA graphs",
        num_bytes=num_bytes,
        spread_bytes=min(cost.spread_bytes, num_bytes) if not estimated else cost.spread_bytes,
        source=cost.source,
        basis="calibrated",
    )


def _drafting_layers(model: ModelSpec, deployment: Deployment, release: tuple[int, ...]) -> int:
    """Layers of what drafts, counted once for each set of graphs.

    The newer runner captures a head's first step as it does the model's, and the steps after it apart; of a whole model
    it captures nothing. The older one captures one step of either.

    Source: vLLM 0.33, v1/worker/gpu/spec_decode/target_dependent_ar/speculator.py `capture`,
    standalone_ar/speculator.py; v1/spec_decode/llm_base_proposer.py `dummy_run`
    """
    switches = deployment.switches
    layers = deployment.draft.num_layers if deployment.draft is not None else len(pass_layers(model, deployment))
    if not pass_layers(model, deployment):
        return 0
    if not runs_on_v2(model, deployment, release):
        return layers
    return layers * (1 if switches.num_speculative_tokens < 2 else 2) if switches.speculative_method in HEADS else 0


def _captured(deployment: Deployment, release: tuple[int, ...]) -> tuple[int, int]:
    """(batch sizes that are captured, batch sizes of the observations): 8 apart up to 256, 16 apart from there."""
    requests = default_max_num_seqs(deployment, release)
    if not is_v1(deployment, release):
        return 3 + min(requests, 256) // 8, V0_GRAPH_SIZES
    largest = deployment.switches.cuda_graph_max_bs or min(2 * requests, 512)
    return min(3 + min(largest, 256) // 8 + max(0, largest - 256) // 16, GRAPH_SIZES), GRAPH_SIZES
