"""The activation peak of vLLM's profile run: one forward pass of all tokens of a step, then the sampler.

    peak = held + max(forward, logits)          held: what stays allocated through both

A first start also compiles within the run: `compiling`.

Sources: vLLM 0.19 and 0.21-0.33, v1/worker/gpu_model_runner.py `profile_run`, `_dummy_sampler_run`; v1/sample/
sampler.py, ops/topk_topp_sampler.py, ops/topk_topp_triton.py; v1/worker/gpu/model_runner.py `_dummy_sampler_run`,
v1/worker/gpu/sample/sampler.py (the newer runner); model_executor/layers/fused_moe/ `workspace_shapes`; before 0.8
worker/model_runner.py `profile_run`. Torch: ATen/native/cuda/Sort.cu.
"""

from dataclasses import dataclass, replace

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.compiling import COMPILES_WITH_COPIES, KEEPS_BLOCKS_WHOLE, table_bytes
from kvplan.core.engines.vllm.defaults import (
    default_max_num_batched_tokens,
    default_max_num_seqs,
    is_hopper_or_newer,
)
from kvplan.core.engines.vllm.drafts import HEADS, head_rows, num_states, pass_layers
from kvplan.core.engines.vllm.encoder import encoder_pass_bytes, held_by_encoder
from kvplan.core.engines.vllm.pool import stages
from kvplan.core.engines.vllm.runner import runs_on_v2
from kvplan.core.hardware import Gpu
from kvplan.core.measured import Measured
from kvplan.core.mixers import LatentAttention
from kvplan.core.model import Layer, ModelSpec, Weight
from kvplan.core.units import MIB, ceil_div
from kvplan.core.weights import stored_as

TRITON_SAMPLER = (0, 17)
"""The release from which on top-k and top-p are filtered without sorting the vocabulary."""
PLAIN_LOGITS, PROFILES_SAMPLER = (0, 27), (0, 33)
"""Of the newer runner: from when on it leaves logits of requests that ask for nothing in the model's dtype, and from
when on its profile run samples as its warm-up does (vllm-project/vllm#57926)."""
MOE_WORKSPACE = (0, 17)
"""The release from which on experts work in buffers that stay."""
_SORTED_BYTES = 2 * 4 + 2 * 8 + 8
"""Per logit: torch sorts values (4) and indices (8) out of place, and its segmented sort holds both again with the
positions that it sorts by (8)."""
_FILTERED_BYTES = 4 + 4
"""Per logit: the probabilities and the exponential noise, or the filtered logits and their probabilities."""
_NUM_SMS = {
    "T4": 40, "V100-PCIe-16GB": 80, "V100-SXM2-16GB": 80, "A10": 72, "A10G": 80, "A30": 56, "A40": 84,
    "A100-PCIe-40GB": 108, "A100-SXM4-40GB": 108, "A100-PCIe-80GB": 108, "A100-SXM4-80GB": 108, "L4": 58, "L40": 142,
    "L40S": 142, "RTX A6000": 84, "RTX 3090": 82, "RTX 4090": 128, "RTX 5090": 170, "H100-PCIe-80GB": 114,
    "H100-SXM5-80GB": 132, "H100-NVL-94GB": 132, "H200-SXM-141GB": 132, "H200-NVL-141GB": 132,
    "B200-SXM-180GB": 148, "GB10 (DGX Spark)": 48,
}  # fmt: skip
_MANY_SMS = 192
_SMALL_WORKSPACE, _LARGE_WORKSPACE = 8 * MIB + 128 * 1024, 32 * MIB
"""cuBLAS's: 8.125 MiB, from compute capability 9.0 on 32 MiB (torch, cuda/CublasHandlePool.cpp)."""
_ROUNDING = 12 * MIB
"""Buffers of token ids, positions and metadata, as the rows of vLLM 0.19 leave them over."""
_FORWARD_REST = 36 * MIB
"""What a forward pass of vLLM 0.19 holds beyond its tensors: 35-38 MiB on three rows of H100; older ones hold none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One profile run on one GPU of one stage."""

    model: ModelSpec
    deployment: Deployment
    release: tuple[int, ...]
    first: bool
    last: bool
    layers: tuple[Layer, ...]

    @property
    def on_v2(self) -> bool:
        """Whether the newer model runner runs it."""
        return runs_on_v2(self.model, self.deployment, self.release)

    @property
    def tokens(self) -> int:
        """Tokens of the pass."""
        return default_max_num_batched_tokens(self.deployment, self.release)

    @property
    def rows(self) -> int:
        """Tokens that are sampled after."""
        return min(default_max_num_seqs(self.deployment, self.release), self.tokens)

    def elements_bytes(self, count: int) -> int:
        """Bytes of elements in the model's dtype."""
        return ceil_div(count * self.deployment.dtype.bits, 8)


def profile_of(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int) -> Profile:
    """The profile run of one stage."""
    start, stop = stages(model, deployment)[stage]
    return Profile(
        model=model,
        deployment=deployment,
        release=release,
        first=start == 0,
        last=stop == model.num_layers,
        layers=tuple(layer for layer, _ in model.layer_counts(start, stop)),
    )


def activation_peak(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int) -> Measured:
    """The peak of torch's allocations over the loaded model during the profile run of a first start.

    Spread: what calibrated rows deviate; from 0.21 on, where fewer logs print it, more, and what a start with a
    compile cache takes less; before 0.31 also the table that may stay (`compiling`).
    """
    run = profile_of(model, deployment, release, stage)
    warm = _warm_bytes(run)
    table = table_bytes(model, deployment, release, first=run.first)
    compiled = table + run.elements_bytes(run.tokens * model.hidden_size) if table else 0
    peak = max(warm, compiled) + _workspace(deployment.gpu) + _ROUNDING
    spread = 32 * MIB + peak // 50
    if release >= COMPILES_WITH_COPIES:
        spread = 96 * MIB + peak // 20 + (max(0, compiled - warm) if release >= KEEPS_BLOCKS_WHOLE else table)
    return Measured(
        name="activation peak",
        num_bytes=peak,
        spread_bytes=spread,
        source="tensors of the profile run (gpu_model_runner.py `profile_run`, `_dummy_sampler_run`) and of its "
        "compilation, held to start-up logs of vLLM 0.7-0.31",
        basis="calibrated" if release < PROFILES_SAMPLER else "derived",
    )


def warm_peak_bytes(model: ModelSpec, deployment: Deployment, release: tuple[int, ...], stage: int) -> int:
    """The same of a start that finds what it would compile in a cache."""
    return _warm_bytes(profile_of(model, deployment, release, stage)) + _workspace(deployment.gpu) + _ROUNDING


def _warm_bytes(run: Profile) -> int:
    """What stays through the run and the larger of pass and sampler; or the pass of the encoder before."""
    model, deployment = run.model, run.deployment
    held = moe_workspace_bytes(run) + (held_by_encoder(model, deployment, run.tokens, run.release) if run.first else 0)
    samples = run.last and model.has_vocabulary_head
    states = draft_states_bytes(run) if run.last else 0
    through = max(forward_bytes(run) + states, draft_pass_bytes(run), sampler_bytes(run) if samples else 0)
    encoder = encoder_pass_bytes(model, deployment, run.tokens) if run.first else 0
    return max(held + through, encoder)


def draft_states_bytes(run: Profile) -> int:
    """States of a low, a middle and a high layer that EAGLE-3's head is handed: tokens · states · hidden · dtype."""
    switches = run.deployment.switches
    states = num_states(run.deployment.draft, switches.speculative_method) if switches.num_speculative_tokens else 0
    return run.elements_bytes(run.tokens * states * run.model.hidden_size) if _reads_layers(run) else 0


def _reads_layers(run: Profile) -> bool:
    return run.deployment.switches.speculative_method == "eagle3"


def draft_pass_bytes(run: Profile) -> int:
    """What drafts, run once over the tokens of the step while the model's states and output stand beside it; 0 without.

        tokens · (hidden + states · hidden + hidden of the draft) · dtype
            + max(states once more, side by side; the draft's widest layer; logits of the rows, and over the vocabulary)

    Source: vLLM 0.33, v1/worker/gpu/model_runner.py `_dummy_run`, v1/worker/gpu/spec_decode/target_dependent_ar/
    speculator.py `propose`, standalone_ar/speculator.py; models/llama_eagle3.py `compute_logits`
    """
    layers, draft = pass_layers(run.model, run.deployment), run.deployment.draft or run.model
    if not run.last or not layers:
        return 0
    states = draft_states_bytes(run)
    joined = draft.hidden_size if run.deployment.switches.speculative_method in HEADS else 0
    beside = run.elements_bytes(run.tokens * (run.model.hidden_size + joined)) + states
    own = replace(run, model=draft, layers=layers, first=True)
    # The first layer of EAGLE-3 reads token and state side by side; EAGLE-1's matrix does.
    wide = forward_bytes(own) + run.elements_bytes(run.tokens * 2 * joined) + moe_workspace_bytes(own)
    logits = run.elements_bytes(run.rows * (head_rows(draft) + run.model.vocab_size))
    return beside + max(states, wide, logits)


def sampler_bytes(run: Profile) -> int:
    """The pass's output, the rows that are sampled, and what the sampler makes of their logits.

        bytes = tokens · hidden · dtype + rows · hidden · dtype + rows · vocabulary · each + buffer

    Every rank samples: the whole vocabulary, whatever tp. The Triton kernel of the older runner keeps a buffer of fp32
    logits for each multiprocessor.
    """
    outputs = run.elements_bytes((run.tokens + run.rows) * run.model.hidden_size)
    buffer = 0
    if run.release >= TRITON_SAMPLER and not run.on_v2:
        buffer = 4 * run.model.vocab_size * min(run.rows, _num_sms(run.deployment.gpu))
    return outputs + run.rows * run.model.vocab_size * _logit_bytes(run) + buffer


def _logit_bytes(run: Profile) -> int:
    """Bytes that are held of each logit.

    older runner    dtype + 4 + filter: before 0.17 a sort, 32 bytes; then 8
    newer runner    dtype + 4 before 0.27; then dtype, of several ranks twice while they are gathered; from 0.33 on as
                    the older
    """
    dtype_bytes = ceil_div(run.deployment.dtype.bits, 8)
    if not run.on_v2:
        return dtype_bytes + 4 + (_FILTERED_BYTES if run.release >= TRITON_SAMPLER else _SORTED_BYTES)
    if run.release >= PROFILES_SAMPLER:
        return dtype_bytes + 4 + _FILTERED_BYTES
    if run.release < PLAIN_LOGITS:
        return dtype_bytes + 4
    return dtype_bytes if run.deployment.tp == 1 else 2 * dtype_bytes + ceil_div(dtype_bytes, run.deployment.tp)


def forward_bytes(run: Profile) -> int:
    """The widest layer of the pass, with the streams that stand beside it.

        MLP        tokens · (attention's output + 2 · hidden + (gate, up and their product) / tp) · dtype
        attention  tokens · (2 · hidden + (queries, keys, values and output) / tp) · dtype

    A stage that hands on to another also holds the two streams that it hands on.
    """
    elements = max((_widest(layer, run) for layer in run.layers), default=0)
    if run.deployment.pp > 1:
        elements += 2 * run.model.hidden_size
    rest = _FORWARD_REST if run.release >= TRITON_SAMPLER else 0
    return run.elements_bytes(run.tokens * elements) + rest + _quantised_inputs(run)


def moe_workspace_bytes(run: Profile) -> int:
    """The two buffers that the experts of a stage work in, where they stay.

    bytes = tokens · experts of a token · (max(I / tp, hidden) + max(2 · I / tp, hidden)) · dtype
    """
    return run.elements_bytes(run.tokens * max((_staying_experts(layer, run) for layer in run.layers), default=0))


def _widest(layer: Layer, run: Profile) -> int:
    tp, hidden = run.deployment.tp, run.model.hidden_size
    attention_in = ceil_div(_rows(layer, "attention"), tp)
    attention_out = ceil_div(_columns(layer, "attention"), tp)
    for mixer in layer.mixers:
        if isinstance(mixer, LatentAttention):
            # Expanded keys and values of all heads, and the keys once more with their rotary part.
            expanded = mixer.num_heads * (3 * mixer.key_dim + 2 * mixer.value_dim)
            attention_in = max(attention_in, ceil_div(expanded, tp))
    mlp = ceil_div(_rows(layer, "mlp") + _columns(layer, "mlp"), tp)
    return 2 * hidden + max(attention_in + attention_out, attention_out + mlp + _passing_experts(layer, run))


@dataclass(frozen=True, slots=True)
class _Experts:
    """Routed experts of a layer on one rank, as widths."""

    per_token: int
    width: int
    both: int
    """Gate and up together."""
    staying: bool
    """Their buffers stay: not those of mxfp4's kernels, nor any before 0.17."""


def _experts(layer: Layer, run: Profile) -> _Experts | None:
    matrices = [weight for weight in layer.weights if weight.part == "experts" and _is_matrix(weight)]
    inner = [weight for weight in matrices if weight.split is not None and weight.split.axis == 0]
    outer = [weight for weight in matrices if weight.split is not None and weight.split.axis == 1]
    if not inner or not outer:
        return None
    stored = stored_as(outer[0], run.model.quantization)
    share = 1 if run.deployment.switches.expert_parallel else run.deployment.tp
    return _Experts(
        per_token=outer[0].active_copies or outer[0].copies,
        width=ceil_div(outer[0].shape[1], share),
        both=ceil_div(sum(weight.shape[0] for weight in inner if weight.copies == outer[0].copies), share),
        staying=run.release >= MOE_WORKSPACE and (stored is None or stored.name != "mxfp4"),
    )


def _staying_experts(layer: Layer, run: Profile) -> int:
    """Elements of a token in the two buffers that stay."""
    found, hidden = _experts(layer, run), run.model.hidden_size
    if found is None or not found.staying:
        return 0
    return found.per_token * (max(found.width, hidden) + max(found.both, hidden))


def _passing_experts(layer: Layer, run: Profile) -> int:
    """Elements of a token that its experts hold during the pass alone: their sum, and what has no buffer that stays."""
    found, hidden = _experts(layer, run), run.model.hidden_size
    if found is None:
        return 0
    return hidden if found.staying else hidden + found.per_token * (found.both + found.width + hidden)


def _quantised_inputs(run: Profile) -> int:
    """8-bit copies of an MLP's product, which kernels of 8-bit weights and activations read."""
    quant = run.model.quantization
    if quant is None or quant.bits != 8 or not quant.understood:
        return 0
    return run.tokens * max((ceil_div(_columns(layer, "mlp"), run.deployment.tp) for layer in run.layers), default=0)


def _rows(layer: Layer, part: str) -> int:
    """Outputs of a part's matrices whose outputs are dealt out."""
    return sum(weight.shape[0] for weight in layer.weights if _deals_out(weight, part, axis=0))


def _columns(layer: Layer, part: str) -> int:
    """Inputs of a part's matrices whose inputs are dealt out."""
    return sum(weight.shape[1] for weight in layer.weights if _deals_out(weight, part, axis=1))


def _deals_out(weight: Weight, part: str, *, axis: int) -> bool:
    return weight.part == part and _is_matrix(weight) and weight.split is not None and weight.split.axis == axis


def _is_matrix(weight: Weight) -> bool:
    return len(weight.shape) == 2


def _workspace(gpu: Gpu | None) -> int:
    return _LARGE_WORKSPACE if is_hopper_or_newer(gpu) else _SMALL_WORKSPACE


def _num_sms(gpu: Gpu | None) -> int:
    return _MANY_SMS if gpu is None else _NUM_SMS.get(gpu.name, _MANY_SMS)
