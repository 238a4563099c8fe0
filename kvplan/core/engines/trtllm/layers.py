"""What one token and one recurrent state take in TensorRT-LLM, by the pool that they are in; its own defaults.

Source: TensorRT-LLM 1.2, tensorrt_llm/_torch/pyexecutor/resource_manager.py `get_cache_size_per_token`
(commit 001541ba);
llmapi/llm_args.py
"""

from dataclasses import dataclass
from itertools import pairwise

from kvplan.core.dtypes import parse_dtype
from kvplan.core.engines.deployment import Deployment
from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import (
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    ShortConvolution,
    StateMixer,
    window_of,
)
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div

TOKENS_PER_BLOCK = 32
MAX_BATCH_SIZE = 2048
MAX_NUM_TOKENS = 8192
SNAPSHOT_INTERVAL = 256
"""Tokens between two kept states of a recurrent layer, with block reuse; `mamba_state_cache_interval`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Layers of one stage that share a pool."""

    window: int | None
    """None = every token."""
    layers: tuple[tuple[str, int], ...]
    """(kind, bytes of one token) of each layer."""

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in all of them together."""
        return sum(size for _, size in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The layers of one pipeline stage."""

    windows: tuple[Window, ...]
    state_layers: int
    state_bytes: int


def dealt(model: ModelSpec, deployment: Deployment) -> list[tuple[int, int]]:
    """[start, stop) of each pipeline stage's layers: the first L mod pp stages have one more.

    Source: tensorrt_llm/mapping.py `Mapping.pp_layers` (`torch.tensor_split`)
    """
    base, remainder = divmod(model.num_layers, deployment.pp)
    starts = [number * base + min(number, remainder) for number in range(deployment.pp + 1)]
    return list(pairwise(starts))


def stages_of(model: ModelSpec, deployment: Deployment) -> list[Stage]:
    """What each stage holds; drafting's layers on the last."""
    stages = []
    for start, stop in dealt(model, deployment):
        layers = [model.layers[i] for i in model.layer_order[start:stop]]
        mixers = [mixer for layer in layers if not layer.in_encoder for mixer in layer.mixers]
        drafts = _draft_layers(model, deployment) if stop == model.num_layers else 0
        stages.append(_stage(mixers, deployment, drafts))
    return stages


def _stage(mixers: list[Mixer], deployment: Deployment, drafts: int) -> Stage:
    found: dict[int | None, list[tuple[str, int]]] = {}
    state_layers = state_bytes = 0
    for mixer in mixers:
        if isinstance(mixer, StateMixer):
            state_layers += 1
            state_bytes += _state_bytes(mixer, deployment)
            continue
        window = window_of(mixer) if deployment.switches.hybrid_manager else None
        if window is not None and window >= deployment.max_model_len:
            window = None
        found.setdefault(window, []).append((mixer.kind, _token_bytes(mixer, deployment)))
    if drafts and found:
        kind, widest = max((entry for layers in found.values() for entry in layers), key=lambda entry: entry[1])
        found.setdefault(None, []).extend([(kind, widest)] * drafts)
    windows = [Window(window=window, layers=tuple(layers)) for window, layers in found.items()]
    windows.sort(key=lambda window: (window.window is None, window.window or 0))
    return Stage(windows=tuple(windows), state_layers=state_layers, state_bytes=state_bytes)


def _token_bytes(mixer: Mixer, deployment: Deployment) -> int:
    """Bytes of one token in one layer.

    heads   ⌈kv_heads / tp⌉ · (key_dim + value_dim) · b        with attention over data-parallel ranks, tp = 1
    latent  (latent + rope) · b, whole on every rank; an indexer's key is counted as 132 elements
    nvfp4   elements / 2 + elements / 16
    """
    if isinstance(mixer, CompressedAttention):
        hint = "`--engine exact` counts what it needs"
        raise UnsupportedError("kvplan does not know how TensorRT-LLM holds compressed attention", hint=hint)
    if isinstance(mixer, LatentAttention):
        elements = mixer.latent_dim + mixer.rope_dim + mixer.index_dim + mixer.index_dim // 128 * 4
    else:
        assert not isinstance(mixer, StateMixer)
        heads = ceil_div(mixer.num_kv_heads, attention_tp(deployment))
        elements = heads * (mixer.key_dim + mixer.value_dim)
        if isinstance(mixer, FullAttention):
            elements += mixer.index_dim
    if deployment.key_dtype.name == "nvfp4":
        return ceil_div(elements, 2) + ceil_div(elements, 16)
    return ceil_div(elements * deployment.key_dtype.bits, 8)


def _state_bytes(mixer: StateMixer, deployment: Deployment) -> int:
    """One request's state in one layer: columns but the newest in the model's dtype, states in fp32 or as asked."""
    tp, switches = attention_tp(deployment), deployment.switches
    conv_bits = parse_dtype(switches.conv_dtype).bits if switches.conv_dtype else deployment.dtype.bits
    if isinstance(mixer, ShortConvolution):
        return ceil_div(ceil_div(mixer.channels, tp) * (mixer.columns - 1) * conv_bits, 8)
    if not isinstance(mixer, LinearAttention) or mixer.recurrence not in ("mamba2", "gated_delta", "kda"):
        message = f"kvplan does not know how TensorRT-LLM holds the states of a {mixer.recurrence or mixer.kind} layer"
        raise UnsupportedError(message, hint="`--engine exact` counts what they need")
    bits = parse_dtype(switches.state_dtype).bits if switches.state_dtype else 32
    states = ceil_div(mixer.num_heads, tp) * mixer.key_dim * mixer.value_dim + ceil_div(mixer.vector_elements, tp)
    columns = ceil_div(mixer.conv_channels, tp) * max(mixer.conv_columns - 1, 0)
    return ceil_div(states * bits, 8) + ceil_div(columns * conv_bits, 8)


def _draft_layers(model: ModelSpec, deployment: Deployment) -> int:
    method = deployment.switches.speculative_method
    if method in (None, "ngram"):
        return 0
    return model.draft.num_layers if method == "mtp" and model.draft is not None else 1


def attention_tp(deployment: Deployment) -> int:
    """Ranks that share the heads of attention."""
    return 1 if deployment.switches.attention_dp else deployment.tp


def interval_of(deployment: Deployment) -> int | None:
    """Tokens between kept states; None without block reuse."""
    return None if deployment.switches.prefix_caching is False else SNAPSHOT_INTERVAL


def block(deployment: Deployment) -> int:
    """`tokens_per_block`"""
    return TOKENS_PER_BLOCK if deployment.switches.block_size is None else deployment.switches.block_size


def max_batch(deployment: Deployment) -> int:
    """`max_batch_size`"""
    return MAX_BATCH_SIZE if deployment.switches.max_num_seqs is None else deployment.switches.max_num_seqs


def pass_tokens(deployment: Deployment) -> int:
    """`max_num_tokens` of one forward pass."""
    given = deployment.switches.max_num_batched_tokens
    return MAX_NUM_TOKENS if given is None else given
