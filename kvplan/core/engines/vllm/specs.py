"""What vLLM keeps for one layer: a cache of each kind that its mixer needs.

Source: vLLM 0.33, v1/kv_cache_interface.py; model_executor/layers/attention/attention.py `get_kv_cache_spec`
"""

from dataclasses import dataclass, replace

from kvplan.core.cache import kv_heads_per_rank
from kvplan.core.dtypes import DType
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.compressed import compressed_specs
from kvplan.core.engines.vllm.devices import architecture
from kvplan.core.engines.vllm.drafts import draft_layers
from kvplan.core.engines.vllm.pages import Spec
from kvplan.core.engines.vllm.rules import Rules, numbers
from kvplan.core.engines.vllm.states import state_bytes
from kvplan.core.mixers import (
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Mixer,
    SharedAttention,
    ShortConvolution,
    SlidingAttention,
    StateMixer,
)
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div, round_up

INDEX_SCALE_GROUP = 128
"""Elements of an indexer's fp8 key that share one fp32 scale (models/deepseek_v2.py, 638-666)."""
STATE_CHUNK = {"gated_delta": 64}
"""Tokens that a recurrence's chunk kernel works in: checkpoints stand at multiples of it."""
GDN_EXPORTS = (9,)
"""GPU generations whose kernel for gated delta rules gives out states within a prefill (layers/mamba/gdn, 148-250).

That of Blackwell does from CUDA 13 on, which is not assumed: a note of the pool says what then changes.
"""
PLAIN_CACHE = ("falcon",)
"""Model types whose attention is built without the cache's options: their cache keeps the model's dtype."""
TURBOQUANT_PREFIX = "turboquant"
PER_HEAD = ("minicpm3",)
"""Model types whose latents are cached as the keys and values of every head, values padded to the keys' width."""
BOUNDARY = 2
"""Layers at either end that turboquant leaves in the model's dtype; none of a model with recurrent layers."""


def layer_specs(
    model: ModelSpec,
    deployment: Deployment,
    rules: Rules,
    block_size: int,
    *,
    aligned: bool,
    all_quantised: bool = False,
) -> list[tuple[int, Spec]]:
    """(layer, spec) of every cache, in the model's order, then those of what drafts, which stand with the last layer.

    Layers that share another's cache have none. `all_quantised` is as if no layer kept the model's dtype, and
    nothing drafted. Raises UnsupportedError for a cache that vLLM's planning is not known for.
    """
    mixers = [(i, model, mixer) for i, kind in enumerate(model.layer_order) for mixer in model.layers[kind].mixers]
    beside = [] if all_quantised else draft_layers(model, deployment)
    mixers += [(layer.number, layer.owner, layer.mixer) for layer in beside]
    skipped = frozenset() if all_quantised else skipped_layers(model, deployment)
    maker = _Maker(model=model, deployment=deployment, rules=rules, block_size=block_size, aligned=aligned)
    found = []
    for layer, owner, mixer in mixers:
        plain = layer in skipped or (SLIDING in skipped and isinstance(mixer, SlidingAttention))
        caches = replace(maker, model=owner).specs(mixer, quantised=not plain)
        stands_at = layer if owner is model and layer < model.num_layers else model.num_layers - 1
        found += [(stands_at, spec) for spec in caches]
    return found


SLIDING = "sliding_window"


def skipped_layers(model: ModelSpec, deployment: Deployment) -> frozenset[int | str]:
    """Layers whose cache stays in the model's dtype, and `sliding_window` where all of those do.

    Source: vLLM 0.33, attention.py 298-315; layers/quantization/turboquant/config.py `get_boundary_skip_layers`
    """
    names = deployment.switches.kv_cache_dtype_skip_layers
    found: set[int | str] = {int(name) if name.isdecimal() else name for name in names}
    if deployment.key_dtype.name.startswith(TURBOQUANT_PREFIX) and not has_states(model):
        ends = min(BOUNDARY, model.num_layers // 2)
        found |= {*range(ends), *range(model.num_layers - ends, model.num_layers)}
    return frozenset(found)


def latent_mixers(model: ModelSpec) -> list[LatentAttention]:
    """The attention that vLLM keeps latents for."""
    if model.model_type in PER_HEAD:
        return []
    return [mixer for layer in model.layers for mixer in layer.mixers if isinstance(mixer, LatentAttention)]


def has_states(model: ModelSpec) -> bool:
    """Whether some layer keeps a state or columns of a convolution."""
    return any(isinstance(mixer, StateMixer) for layer in model.layers for mixer in layer.mixers)


def has_attention(model: ModelSpec) -> bool:
    """Whether some layer attends."""
    return any(not isinstance(mixer, StateMixer) for layer in model.layers for mixer in layer.mixers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    model: ModelSpec
    deployment: Deployment
    rules: Rules
    block_size: int
    aligned: bool

    def specs(self, mixer: Mixer, *, quantised: bool) -> list[Spec]:
        """The caches that vLLM keeps for one mixer."""
        key, value = self._formats(quantised=quantised)
        if isinstance(mixer, SharedAttention):
            return []
        if isinstance(mixer, LatentAttention):
            return self._latent(mixer, key)
        if isinstance(mixer, LinearAttention | ShortConvolution):
            return [self._state(mixer)] if self.rules.states else []
        if isinstance(mixer, CompressedAttention):
            return compressed_specs(mixer, self.deployment, numbers(self.rules), self.block_size)
        if isinstance(mixer, FullAttention) and not mixer.cached:
            return []
        return [self._attention(mixer, key, value)]

    def _formats(self, *, quantised: bool) -> tuple[DType, DType]:
        if quantised and self.model.model_type not in PLAIN_CACHE:
            return self.deployment.key_dtype, self.deployment.value_dtype
        return self.deployment.dtype, self.deployment.dtype

    def _attention(
        self, mixer: FullAttention | SlidingAttention | ChunkedAttention | CrossAttention, key: DType, value: DType
    ) -> Spec:
        """heads · (key + value) a token; 2 · D · heads for equal widths."""
        heads = attention_heads(mixer, self.deployment)
        head = key.vector_bytes(mixer.key_dim) + value.vector_bytes(mixer.value_dim)
        if key.name.startswith(TURBOQUANT_PREFIX):
            head = round_up(head, 2)
        token = heads * head
        kind, window = mixer.kind, getattr(mixer, "window", None)
        if (window is not None and not self.rules.windows) or (kind == "cross" and not self.rules.hybrid_groups):
            kind, window = "full", None
        shape = (heads, mixer.key_dim, mixer.value_dim, key.name, value.name)
        return Spec(
            kind=kind, block_size=self.block_size, token_bytes=token, shape=shape, window=window, row=mixer.kind
        )

    def _latent(self, mixer: LatentAttention, key: DType) -> list[Spec]:
        """One row of latent and rotary key a token, on every rank; the indexer's keys are a cache of their own."""
        found = []
        shape = (mixer.latent_dim, mixer.rope_dim, key.name)
        if mixer.latent_dim and (not self.rules.mla or self.model.model_type in PER_HEAD):
            return [self._expanded(mixer, key)]
        if mixer.latent_dim:
            token = latent_row_bytes(mixer, key, self.deployment)
            if self.rules.mla_padded_to:
                token = round_up(token, self.rules.mla_padded_to)
            kind = "latent" if mixer.window is None else "latent_sliding"
            found.append(
                Spec(
                    kind=kind,
                    block_size=self.block_size,
                    token_bytes=token,
                    shape=shape,
                    window=mixer.window,
                    row=mixer.kind,
                )
            )
        if mixer.index_dim:
            scales = ceil_div(mixer.index_dim, INDEX_SCALE_GROUP) * 4
            size = mixer.index_dim + scales
            found.append(
                Spec(
                    kind="indexer",
                    block_size=self.block_size,
                    token_bytes=size,
                    shape=(mixer.index_dim,),
                    row=mixer.kind,
                )
            )
        return found

    def _expanded(self, mixer: LatentAttention, key: DType) -> Spec:
        """Every head's key and value, equally wide (models/minicpm3.py); before vLLM 0.7 of all models, padded to 256.

        Source: vLLM 0.6, models/deepseek_v2.py
        """
        heads = max(1, ceil_div(mixer.num_heads, self.deployment.tp))
        width = max(mixer.key_dim, mixer.value_dim)
        if self.model.model_type not in PER_HEAD:
            width = round_up(width, 256)
        token = 2 * heads * key.vector_bytes(width)
        shape = (heads, width, key.name)
        return Spec(kind="full", block_size=self.block_size, token_bytes=token, shape=shape, row=mixer.kind)

    def _state(self, mixer: LinearAttention | ShortConvolution) -> Spec:
        recurrence = None if isinstance(mixer, ShortConvolution) else mixer.recurrence
        checkpoints = int(self.rules.prefill_checkpoints and self._exports(mixer))
        return Spec(
            kind="conv" if isinstance(mixer, ShortConvolution) else "linear",
            block_size=self.block_size if self.aligned else self.deployment.max_model_len,
            state_bytes=state_bytes(mixer, self.model, self.deployment),
            shape=(mixer,),
            checkpoints=checkpoints,
            chunk=STATE_CHUNK.get(str(recurrence), 1) if checkpoints else 1,
            recurrent=True,
        )

    def _exports(self, mixer: LinearAttention | ShortConvolution) -> bool:
        """Whether the prefill kernel gives out states at a block's end: of gated delta rules FlashInfer's alone does.

        Source: vLLM 0.33, layers/mamba/mamba_mixer2.py 1108-1118; layers/mamba/gdn/qwen_gdn_linear_attn.py 148-250
        """
        if isinstance(mixer, ShortConvolution):
            return False
        if mixer.recurrence == "gated_delta":
            return int(architecture(self.deployment)) in GDN_EXPORTS
        return mixer.recurrence == "mamba2"


def attention_heads(mixer: Mixer, deployment: Deployment) -> int:
    """KV heads of one rank: max(1, heads // tp); the decode context's ranks hold the heads of all of them.

    Source: vLLM 0.33, config/model.py 1663-1683
    """
    return kv_heads_per_rank(mixer, deployment.tp)


def latent_row_bytes(mixer: LatentAttention, key: DType, deployment: Deployment) -> int:
    """Bytes of one token's latent row.

    With an indexer, fp8 means packed rows of 656 bytes where the sparse kernel is FlashMLA's (Hopper), and plain fp8
    where it is FlashInfer's (Blackwell); on 12.x the only kernel reads packed rows. Per-token-head formats add two fp32
    scales.

    Source: vLLM 0.33, model_executor/layers/attention/mla_attention.py 1371-1400
    """
    width = mixer.latent_dim + mixer.rope_dim
    arch = int(architecture(deployment))
    if mixer.index_dim and ((key.name == "fp8" and arch < 10) or arch == 12):
        return mixer.latent_dim + ceil_div(mixer.latent_dim, 128) * 4 + mixer.rope_dim * 2
    if key.scale_bits and key.group_size is None:
        return ceil_div(width * key.bits, 8) + 8
    if key.rope_bits is not None:
        return key.vector_bytes(mixer.latent_dim) + key.rope_bytes(mixer.rope_dim)
    return key.vector_bytes(width)
