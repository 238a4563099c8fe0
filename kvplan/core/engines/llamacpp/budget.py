"""A device's account: weights, what llama.cpp computes with, and what is left for the context.

No closed form has the compute buffer: `sched_reserve` builds the largest graphs and measures them. Its floor is
derived, the rest calibrated on public logs. llama.cpp takes no share of a device: it allocates what it needs, or fails.

Source: llama.cpp b11434, src/llama-context.cpp `sched_reserve`, `output_reserve`; common/fit.cpp
"""

from dataclasses import replace

from kvplan.core.device import context_of, visible_bytes
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.llamacpp.cells import Cells
from kvplan.core.engines.llamacpp.devices import HOST, context_cells, shares_of, split_of
from kvplan.core.engines.pool import Budget
from kvplan.core.errors import InputError
from kvplan.core.measured import Basis, Measured
from kvplan.core.mixers import StateMixer
from kvplan.core.model import ModelSpec
from kvplan.core.units import MIB
from kvplan.core.weights import weight_bytes

COMPUTE_REST = Measured(
    name="compute buffer beyond its floor",
    num_bytes=56 * MIB,
    spread_bytes=132 * MIB,
    source="public logs, compute buffer less n_ubatch · n_vocab · 4: CUDA 10 MiB (Qwen3.5-27B), Vulkan 83 and 13 MiB "
    "(Qwen3.5-27B, 9B), Metal 101 MiB (gpt-oss-20b, n_ubatch 2048), CPU 46 to 80 MiB (Llama-2-7B) and 58 MiB "
    "(Gemma-3-27B); -75 MiB (DeepSeek-Coder-V2-Lite, CUDA) where the server bounds the outputs of a batch",
)


def budget(model: ModelSpec, deployment: Deployment, weights: tuple[int, ...]) -> tuple[Budget, ...]:
    """One account for each device that `weights` has an entry of, in the order of `tensor_split`.

    Raises InputError without a device whose memory is known, and for another number of devices.
    """
    gpu = deployment.gpu
    if gpu is None or gpu.memory_bytes is None:
        named = "no GPU is named" if gpu is None else f"the memory of {gpu.name} is not known"
        raise InputError(f"{named}, so there is nothing to subtract from", hint="name a GPU of a known size")
    if len(weights) != len(shares_of(deployment)):
        raise InputError(
            f"{len(weights)} devices have weights, {len(shares_of(deployment))} have layers",
            hint="`pp` or `tensor_split` says how many",
        )
    context = context_cells(model, deployment, deployment.max_model_len)
    output = split_of(model, deployment).output
    basis: Basis = "assumed" if gpu.measured is None else "calibrated"
    driver = replace(context_of(gpu), name="driver's context", basis=basis)
    return tuple(
        Budget(
            stage=stage,
            device_bytes=visible_bytes(gpu),
            usable_bytes=visible_bytes(gpu),
            taken=(
                Measured(
                    name="weights", num_bytes=num_bytes, spread_bytes=0, source="the model's tensors", basis="exact"
                ),
                *computed(model, deployment, context, has_output=stage == output),
                *_copied(model, deployment, stage),
                driver,
            ),
        )
        for stage, num_bytes in enumerate(weights)
    )


def _copied(model: ModelSpec, deployment: Deployment, device: int) -> tuple[Measured, ...]:
    """The largest tensor of a layer that the CPU keeps, a copy of which the first GPU multiplies a long batch by.

    Source: llama.cpp b11434, ggml/src/ggml-backend.cpp `ggml_backend_sched_backend_id_from_cur` (`op_offload`); one
    public log (gpt-oss-120b, ollama/ollama#12403): 933 MiB on the first of three GPUs, 392.75 of them logits and 537.9
    a tensor of experts, where the others have 167
    """
    split, first = split_of(model, deployment), deployment.switches.num_cpu_moe_layers
    largest = 0
    for i, (kind, place) in enumerate(zip(model.layer_order, split.layers, strict=True)):
        kept = [w for w in model.layers[kind].weights if place == HOST or (w.part == "experts" and i < first)]
        sizes = (weight_bytes(w, deployment.dtype, model.quantization) for w in kept if len(w.shape) > 1)
        largest = max(largest, *sizes, 0)
    if device or not largest:
        return ()
    source = (
        "llama.cpp b11434: a copy of the largest tensor that the CPU keeps of a layer, for batches from 32 tokens on"
    )
    return (
        Measured(
            name="buffer for the CPU's tensors",
            num_bytes=largest,
            spread_bytes=largest // 2,
            source=source,
            basis="assumed",
        ),
    )


def computed(model: ModelSpec, deployment: Deployment, context: Cells, *, has_output: bool) -> tuple[Measured, ...]:
    """The compute buffer's floor and its rest, and the logits that are handed out.

    floor  = max(logits, mask + scores)
    logits = n_ubatch · n_vocab · 4                where the output layer is
    mask   = n_ubatch · cells · 2                  f16, one buffer's
    scores = n_ubatch · cells · heads · 4          without flash attention
    output = n_seq_max · n_vocab · 4               mostly in the host's memory, counted here
    """
    logits = context.n_ubatch * model.vocab_size * 4 if has_output else 0
    heads = max(
        (m.num_heads for layer in model.layers for m in layer.mixers if not isinstance(m, StateMixer)), default=0
    )
    cell = 0 if not heads else 2 + (4 * heads if deployment.switches.flash_attention is False else 0)
    floor = max(logits, context.n_ubatch * context.n_ctx_seq * cell)
    found = [
        Measured(
            name="compute buffer's floor",
            num_bytes=floor,
            spread_bytes=0,
            source="llama.cpp b11434: the larger of logits, and mask and scores, of one micro-batch",
            basis="derived",
        ),
        COMPUTE_REST,
    ]
    if has_output:
        found.append(
            Measured(
                name="output buffer",
                num_bytes=context.n_seq_max * model.vocab_size * 4,
                spread_bytes=0,
                source="llama.cpp b11434, `output_reserve`: one row of logits a sequence",
                basis="derived",
            )
        )
    return tuple(found)
