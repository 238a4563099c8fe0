"""Where a GPU's memory goes before SGLang sizes its pools.

    rest = free after weights − free before · (1 − mem_fraction_static) − reserve for images

Source: SGLang 0.5.23, sglang/srt/mem_cache/kv_cache_configurator.py (lines 2990-3060),
arg_groups/memory_hook.py `handle_gpu_memory_settings` (lines 47-399), arg_groups/cuda_graph_hook.py
"""

from kvplan.core.device import DRIVER_RESERVE, visible_bytes
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.pool import Budget, KVPool
from kvplan.core.engines.sglang import compressed
from kvplan.core.engines.sglang.adapters import lora_slots
from kvplan.core.engines.sglang.checks import check
from kvplan.core.engines.sglang.drafts import draft_weights, own_token_bytes
from kvplan.core.engines.sglang.layers import stages
from kvplan.core.engines.sglang.pool import pool
from kvplan.core.engines.sglang.slots import CHUNKED_PREFILL, chunked_prefill
from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.measured import Measured, loaded
from kvplan.core.mixers import LatentAttention
from kvplan.core.model import ModelSpec
from kvplan.core.units import GIB, MIB, ceil_div

CONTEXT = Measured(
    name="CUDA context",
    num_bytes=int(0.65 * GIB),
    spread_bytes=int(0.3 * GIB),
    source="public start-up logs of one GPU: `avail mem` and `mem usage` of `Load weight end` are together 0.5 to 0.8 "
    "GiB less than CUDA sees",
)
CONTEXT_WITH_RANKS = Measured(
    name="CUDA context and collectives",
    num_bytes=int(1.7 * GIB),
    spread_bytes=int(1.2 * GIB),
    source="`avail mem` of `Load weight begin`: 2.3-2.5 GiB less than CUDA sees on H200 at tp 8, 1.8-2.0 of them from "
    "`Init torch distributed` (sgl-project/sglang#11716); 0.16 at pp 4 (#12362), 0.01 where ranks share no NVLink",
)
CONTEXT_OVER_PCIE = Measured(
    name="CUDA context and collectives",
    num_bytes=int(0.65 * GIB),
    spread_bytes=int(0.35 * GIB),
    source="one GPU's context, and 0.26 GiB of `Init torch distributed` for two RTX 4090 (sgl-project/sglang#16920), "
    "0.01 elsewhere; four L4 have 0.40 less free than CUDA sees: without NVLink, data goes by the host's memory",
)
PCIE_BYTES_PER_SECOND = 64e9
"""What two GPUs exchange over PCIe at most, PCIe 5.0; the slowest NVLink does 112e9."""
IMAGE_CACHE_BYTES = 100 * MIB
"""SGLANG_VLM_CACHE_SIZE_MB."""
FLOOR_MIB = 10 * 1024
"""Reserved at least on a device of more than 60 GiB."""
NO_PREFILL_GRAPHS = frozenset({"DeepseekV4ForCausalLM", "Qwen3NextForCausalLM", "BailingMoeV2_5ForCausalLM"})
"""Source: configs/model_config.py `piecewise_cuda_graph_disabled_model_archs`"""


def budget(
    model: ModelSpec, deployment: Deployment, weight_bytes: tuple[int, ...], *, draft_first: bool = True
) -> tuple[Budget, ...]:
    """One account a stage: (device − context) · fraction − weights − reserve for images = the pools.

    The fraction is one of what is free before the weights are loaded, so that a context is not part of it. Without
    `draft_first` what drafts is loaded after the pools, out of the rest. Raises InputError where the GPU is not known.
    """
    check(model, deployment)
    gpu, _ = _device(deployment)
    fraction = mem_fraction(model, deployment, gpu)
    device = visible_bytes(gpu)
    context = context_of(gpu, deployment.tp * deployment.pp)
    draft, slots = draft_weights(model, deployment), lora_slots(model, deployment)
    late = () if draft is None or draft_first else (draft,)
    accounts = []
    for stage, weights in enumerate(weight_bytes):
        taken = [
            context,
            loaded(weights, offloaded_bytes=deployment.switches.cpu_offload_bytes, basis="derived"),
        ]
        if gpu.visible_bytes is None:
            spread = int(DRIVER_RESERVE.spread_bytes * fraction)
            taken.append(
                Measured(name=DRIVER_RESERVE.name, num_bytes=0, spread_bytes=spread, source=DRIVER_RESERVE.source)
            )
        taken += [item for item in (draft, slots) if item is not None and item not in late]
        taken += _for_images(model, deployment, fraction, device)
        usable = context.num_bytes + int((device - context.num_bytes) * fraction)
        left = usable - sum(item.num_bytes for item in taken)
        accounts.append(
            Budget(
                stage=stage,
                device_bytes=device,
                usable_bytes=usable,
                taken=tuple(taken),
                untaken=(*late, *_untaken(model, deployment, left)),
            )
        )
    return tuple(accounts)


def context_of(gpu: Gpu | None, num_ranks: int) -> Measured:
    """What is not free before the weights are loaded: a context, and with several ranks what connects them."""
    if num_ranks == 1:
        return CONTEXT
    speed = None if gpu is None or gpu.vendor != "NVIDIA" else gpu.interconnect_bytes_per_second
    return CONTEXT_OVER_PCIE if speed is not None and speed <= PCIE_BYTES_PER_SECOND else CONTEXT_WITH_RANKS


def mem_fraction(model: ModelSpec, deployment: Deployment, gpu: Gpu) -> float:
    """`mem_fraction_static`: as given, else round((device − reserved) / device, 3), in MiB; less for image encoders."""
    if deployment.memory_share is not None:
        return deployment.memory_share
    device = _device(deployment)[1] / MIB
    fraction = round((device - reserved_mib(model, deployment)) / device, 3)
    if fraction <= 0:
        raise InputError(f"{gpu.name} is smaller than what SGLang reserves", hint="give `--gpu-memory-utilization`")
    return fraction * image_factor(model) if has_images(model, deployment) else fraction


def reserved_mib(model: ModelSpec, deployment: Deployment) -> float:
    """What the default fraction leaves out: 512 + 1.5 · max(chunk, 2048) + tp · pp / 8 · 1024 + graphs, in MiB."""
    _, listed = _device(deployment)
    reserved = 512 + 1.5 * max(chunked_prefill(deployment), 2048)
    reserved += deployment.tp * deployment.pp / 8 * 1024 + graphs_mib(model, deployment)
    return max(reserved, FLOOR_MIB) if listed > 60 * GIB else reserved


def graphs_mib(model: ModelSpec, deployment: Deployment) -> float:
    """2 a batch size of decode, 8 a size of prefill (1.5 · 1024 in all for MLA); attention over dp ranks adds more."""
    if deployment.switches.enforce_eager:
        return 0.0
    largest = graph_max_bs(deployment)
    total = 2.0 * largest
    if deployment.switches.attention_dp:
        total += largest * deployment.dp * (3 + (1.5 if largest > 300 else 0))
    if model.architecture in NO_PREFILL_GRAPHS:
        return total
    if _is_mla(model):
        return total + 1.5 * 1024
    limit = min(chunked_prefill(deployment), deployment.switches.max_pool_tokens or chunked_prefill(deployment))
    return total + 8 * prefill_graph_sizes(min(limit, 4096) if "llama-2" in model.id.lower() else limit)


def graph_max_bs(deployment: Deployment) -> int:
    """The largest batch that decode captures a graph of: by the device's memory and tp, at most the requests given.

    The 48 requests that drafting sets come later, and cap nothing here.

    Source: arg_groups/memory_hook.py `handle_gpu_memory_settings`, arg_groups/pipeline.py
    """
    if deployment.switches.cuda_graph_max_bs is not None:
        return deployment.switches.cuda_graph_max_bs
    asked = deployment.switches.max_num_seqs
    usual = _usual_max_bs(deployment)
    return usual if asked is None else min(usual, asked)


def _usual_max_bs(deployment: Deployment) -> int:
    _, listed = _device(deployment)
    wide = deployment.tp >= 4
    small, middle, large = (bound * GIB for bound in (20, 35, 60))
    if listed < small:
        return 8
    if listed < middle:
        return 160 if wide else 48
    if listed < large:
        return 160 if wide else 32
    return 512 if wide or listed >= CHUNKED_PREFILL[-1][0] * GIB else 256


def prefill_graph_sizes(largest: int) -> int:
    """How many sizes prefill captures: steps of 4 to 32, 16 to 256, 32 to 512, 64 to 1024, 256 to 4096, 512 beyond."""
    steps = ((4, 32, 4), (48, 256, 16), (288, 512, 32), (576, 1024, 64), (1280, 4096, 256), (4608, largest, 512))
    return sum(len(range(first, min(last, largest) + 1, step)) for first, last, step in steps)


def has_images(model: ModelSpec, deployment: Deployment) -> bool:
    """Whether an image encoder is loaded."""
    return not deployment.switches.no_images and any(weight.part == "vision" for weight in model.embeddings)


def image_factor(model: ModelSpec) -> float:
    """0.95 · (1 − 0.1 · (c − 1)), c the encoder's layers · width² over ViT-L's 24 · 1024², the second held to 0.8-1.05.

    Where layers and width are not told, c is taken of the encoder's parameters, 12 · layers · width² in a plain ViT.

    Source: arg_groups/memory_hook.py `adjust_mem_fraction_for_vlm`
    """
    facts = {fact.key: fact.value for fact in model.facts}
    layers, width = facts.get("vision_config.num_hidden_layers"), facts.get("vision_config.hidden_size")
    score = sum(weight.num_parameters for weight in model.embeddings if weight.part == "vision") / 12
    if isinstance(layers, int) and isinstance(width, int):
        score = layers * width**2
    return 0.95 * max(0.8, min(1.05, 1 - 0.1 * (score / (24 * 1024**2) - 1)))


def _for_images(model: ModelSpec, deployment: Deployment, fraction: float, device: int) -> list[Measured]:
    if not has_images(model, deployment):
        return []
    name, source = "cache of image embeddings", "SGLANG_VLM_CACHE_SIZE_MB, 100 by default"
    told = any(fact.key == "vision_config.num_hidden_layers" for fact in model.facts)
    spread = 0 if told or deployment.memory_share is not None else int(device * fraction * 0.05)
    return [Measured(name=name, num_bytes=IMAGE_CACHE_BYTES, spread_bytes=spread, source=source, basis="derived")]


def _untaken(model: ModelSpec, deployment: Deployment, left: int) -> tuple[Measured, ...]:
    """What has to find room outside the fraction: graphs, activations, the table of requests' tokens."""
    graphs = int(graphs_mib(model, deployment) * MIB)
    chunk = chunked_prefill(deployment)
    activations = ceil_div(16 * chunk * model.hidden_size * deployment.dtype.bits, 8)
    formula = "SGLang's own allowance, arg_groups/memory_hook.py; logs of large models print 0.8 to 1.7 GB"
    assumed = "assumed: 16 times the hidden state of one chunk; SGLang itself allows 1.5 MiB a token"
    items = [
        Measured(name="CUDA graphs", num_bytes=graphs, spread_bytes=graphs, source=formula, basis="assumed"),
        Measured(name="activations", num_bytes=activations, spread_bytes=activations, source=assumed, basis="assumed"),
    ]
    found = pool(model, deployment, left) if left > 0 else None
    if found is None:
        return tuple(items)
    table = (_running(found) + 1) * deployment.max_model_len * 4
    source = "mem_cache/memory_pool.py `ReqToTokenPool`: (requests + 1) · context · 4 bytes"
    items.append(
        Measured(name="table of requests' tokens", num_bytes=table, spread_bytes=0, source=source, basis="derived")
    )
    if beyond := _beyond_its_share(model, deployment, found):
        source = "mem_cache/kv_cache_configurator.py: sized like the model's layers, allocated in the draft's own shape"
        name = "the draft's pool beyond its share"
        items.append(Measured(name=name, num_bytes=beyond, spread_bytes=0, source=source, basis="derived"))
    return tuple(items)


def _beyond_its_share(model: ModelSpec, deployment: Deployment, found: KVPool) -> int:
    """Bytes that the draft's pool has more than the size of a token counts for it; 0 where it has less."""
    if compressed.applies(model) or not found.num_tokens:
        return 0
    charged = stages(model, deployment)[-1].draft_bytes
    more = own_token_bytes(model, deployment, charged)[0] - charged
    return max(more, 0) * (found.num_tokens + found.block_size)


def _running(found: KVPool) -> int:
    """`max_running_requests`, from the pool's own account; 0 where it holds nothing."""
    note = next((note for note in found.notes if "max_running_requests=" in note), "")
    return int(note.partition("max_running_requests=")[2].partition(",")[0] or 0)


def _is_mla(model: ModelSpec) -> bool:
    return any(isinstance(mixer, LatentAttention) for layer in model.layers for mixer in layer.mixers)


def _device(deployment: Deployment) -> tuple[Gpu, int]:
    gpu = deployment.gpu
    if gpu is None or gpu.memory_bytes is None:
        raise InputError("SGLang's account needs the memory of a GPU", hint="`--gpu H100`, or `--gpu-memory`")
    return gpu, gpu.memory_bytes
