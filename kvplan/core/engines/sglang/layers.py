"""What one token takes in SGLang's pools on one GPU of a pipeline stage, layer by layer.

Source: SGLang 0.5.23, sglang/srt/model_executor/pool_configurator.py (`DefaultPoolConfigurator._compute_cell_size`,
`HybridSWAPoolConfigurator`), mem_cache/kv_cache_configurator.py `calculate_mla_kv_cache_dim`,
configs/model_config.py `is_hybrid_swa_model`, `get_num_kv_heads`, distributed/utils.py `get_pp_indices`
"""

from collections import Counter
from dataclasses import dataclass

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.sglang.states import slot_bytes
from kvplan.core.mixers import (
    ChunkedAttention,
    CrossAttention,
    FullAttention,
    LatentAttention,
    Mixer,
    SharedAttention,
    SlidingAttention,
    StateMixer,
    window_of,
)
from kvplan.core.model import Layer, ModelSpec
from kvplan.core.units import ceil_div

HYBRID_SWA = frozenset({
    "Llama4ForConditionalGeneration", "GptOssForCausalLM", "GraniteSWAForCausalLM", "GraniteMoeSWAForCausalLM",
    "Gemma4ForCausalLM", "Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration",
    "MiMoV2ForCausalLM", "MiMoV2FlashForCausalLM", "Step3p5ForCausalLM", "Step3p7ForConditionalGeneration",
    "DeepseekV4ForCausalLM", "LagunaForCausalLM", "MellumForCausalLM", "MuseGlimmerForCausalLM",
    "MuseGlimmerForConditionalGeneration", "InklingForConditionalGeneration", "UnlimitedOCRForCausalLM",
})  # fmt: skip
"""Classes whose sliding layers have a pool of their own; every other one keeps all tokens in every layer.

Source: configs/model_config.py `is_hybrid_swa_model` (0.5.23, lines 2651-2697)
"""

OWN_DRAFTS = frozenset({
    "DeepseekV32ForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV4ForCausalLM", "Glm4MoeForCausalLM",
    "Glm4MoeLiteForCausalLM", "GlmMoeDsaForCausalLM", "BailingMoeForCausalLM", "BailingMoeV2ForCausalLM",
    "BailingMoeV2_5ForCausalLM", "MistralLarge3ForCausalLM", "PixtralForConditionalGeneration", "HYV3ForCausalLM",
    "HYV4ForCausalLM", "Qwen4ExpForConditionalGeneration",
})  # fmt: skip
"""Classes whose checkpoint SGLang names as the draft's, too, where the user names none.

Source: arg_groups/speculative_hook.py `_handle_eagle_family`
"""

FP4 = frozenset({"nvfp4", "mxfp4"})
"""Names for `fp4_e2m1`, which SGLang stores with one byte of scale for 16 elements, whatever the name."""

RAW_DSA_BACKENDS = frozenset({"trtllm", "tilelang", "aiter"})
"""Backends of DSA that hold a latent in fp8 as it is; the others keep scales, and the rotary key in 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVLayers:
    """Equal layers of one pool on one GPU."""

    kind: str
    count: int
    token_bytes: int
    """Keys and values of one token in one layer."""
    key_bytes: int
    """Of these, keys; all of them of a latent."""
    index_bytes: int = 0
    """The key of an indexer, and its scale."""
    window: int | None = None
    """Tokens that the layer looks at, in the pool of sliding layers; None in the full pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The layers of one pipeline stage."""

    full: tuple[KVLayers, ...]
    sliding: tuple[KVLayers, ...]
    workspace_token_bytes: int
    """What prefill of an fp4 cache unpacks into, shared by all layers."""
    draft_layers: int
    """Layers that drafting adds to the size of a token, as if they were the model's own."""
    draft_sliding: int
    """Of these, those with places in the pool of sliding layers."""
    state_layers: int
    state_bytes: int
    """One slot of every state of the stage."""
    dcp: int

    @property
    def full_bytes(self) -> int:
        """Bytes of one token in the full pool, drafting apart."""
        return sum(group.count * (group.token_bytes + group.index_bytes * self.dcp) for group in self.full)

    @property
    def sliding_bytes(self) -> int:
        """Bytes of one token in the pool of sliding layers."""
        return sum(group.count * group.token_bytes for group in self.sliding)

    @property
    def draft_bytes(self) -> int:
        """Bytes that drafting adds to a token of the full pool: so many layers like the model's own.

        cell + ⌊cell · draft layers / layers⌋, of DSA (⌊latents · draft layers / layers⌋ + an index each) · dcp; beside
        a pool of sliding layers, the first full layer's bytes each

        Source: pool_configurator.py `DefaultPoolConfigurator.__init__` (lines 268-318), `HybridSWAPoolConfigurator`
        """
        if not self.draft_layers:
            return 0
        if self.sliding:
            like = (self.full or self.sliding)[0]
            return (self.draft_layers - self.draft_sliding) * like.token_bytes
        layers = sum(group.count for group in self.full)
        if not layers:
            return 0
        if self.full[0].kind == "latent_indexed":
            latents = sum(group.count * group.token_bytes for group in self.full) * self.draft_layers // layers
            return (latents + self.draft_layers * max(group.index_bytes for group in self.full)) * self.dcp
        return self.full_bytes * self.draft_layers // layers

    @property
    def draft_sliding_bytes(self) -> int:
        """Bytes that drafting adds to a token of the pool of sliding layers."""
        return self.draft_sliding * self.sliding[0].token_bytes if self.sliding else 0


def attention_tp(deployment: Deployment) -> int:
    """Ranks that share the heads of attention: with data-parallel attention, tp / dp."""
    return deployment.tp // deployment.dp if deployment.switches.attention_dp else deployment.tp


def is_dsa(model: ModelSpec) -> bool:
    """Whether latent attention chooses its tokens by an indexer (DeepSeek-V3.2, GLM-5)."""
    return any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in _mixers(model))


def is_hybrid_swa(model: ModelSpec) -> bool:
    """Whether SGLang gives the sliding layers a pool of their own."""
    return model.architecture in HYBRID_SWA and any(window_of(mixer) is not None for mixer in _mixers(model))


def pool_window(model: ModelSpec) -> int | None:
    """Tokens before the newest that a sliding layer looks at; None where there is no pool of sliding layers.

    A chunk is taken for a window as long as itself.

    Source: models/gpt_oss.py `get_attention_sliding_window_size`, which is the config's window less one
    """
    if not is_hybrid_swa(model):
        return None
    windows = [w if isinstance(m, ChunkedAttention) else w - 1 for m in _mixers(model) if (w := window_of(m))]
    return max(windows)


def stages(model: ModelSpec, deployment: Deployment) -> tuple[Stage, ...]:
    """What each pipeline stage holds."""
    decoder = model.layer_order[_first_decoder_layer(model) :]
    return tuple(_stage(model, deployment, decoder[start:stop]) for start, stop in pp_bounds(len(decoder), deployment))


def dealt(model: ModelSpec, deployment: Deployment) -> list[tuple[int, int]]:
    """[start, stop) of each stage's layers; those of an encoder stand on the first."""
    first = _first_decoder_layer(model)
    bounds = pp_bounds(model.num_layers - first, deployment)
    return [(first + start if start else 0, first + stop) for start, stop in bounds]


def pp_bounds(num_layers: int, deployment: Deployment) -> list[tuple[int, int]]:
    """[start, stop) of each stage: ⌊L / pp⌋ layers each, one more on each of the last L mod pp stages.

    126 layers over 4 stages: 31, 31, 32, 32; SGLANG_PP_LAYER_PARTITION says otherwise.

    Source: SGLang, distributed/utils.py `get_pp_indices`
    """
    base, remainder = divmod(num_layers, deployment.pp)
    sizes = [base + (stage >= deployment.pp - remainder) for stage in range(deployment.pp)]
    bounds, start = [], 0
    for size in deployment.switches.stage_layers or sizes:
        bounds.append((start, start + size))
        start += size
    return bounds


def _stage(model: ModelSpec, deployment: Deployment, order: tuple[int, ...]) -> Stage:
    counts: Counter[tuple[str, int, int, int, int | None]] = Counter()
    state_layers = state_bytes = workspace = 0
    for index in order:
        for mixer in _cached(model.layers[index]):
            if isinstance(mixer, StateMixer):
                state_layers += 1
                state_bytes += slot_bytes(mixer, deployment, attention_tp(deployment))
                continue
            counts[_entry(mixer, model, deployment)] += 1
            workspace = max(workspace, _fp4_workspace(mixer, deployment))
    groups = [
        KVLayers(kind=kind, count=n, token_bytes=token, key_bytes=key, index_bytes=index, window=window)
        for (kind, token, key, index, window), n in counts.items()
    ]
    drafting = draft_layers(model, deployment)
    return Stage(
        full=tuple(group for group in groups if group.window is None),
        sliding=tuple(group for group in groups if group.window is not None),
        workspace_token_bytes=workspace,
        draft_layers=drafting[0],
        draft_sliding=drafting[1],
        state_layers=state_layers,
        state_bytes=state_bytes,
        dcp=deployment.dcp,
    )


def draft_layers(model: ModelSpec, deployment: Deployment) -> tuple[int, int]:
    """(layers that the size of a token counts for drafting, of them sliding ones with a pool of their own).

        a draft model   all of its layers, or its `num_nextn_predict_layers`        a head that nobody names   1
        mtp             the config's `num_nextn_predict_layers`; of a class that SGLang takes as its own draft at least
                        1; of another one 0, although a pool is made for its layer

    Source: model_executor/model_runner_components/spec_aux_hidden_state.py `_resolve_eagle_aux_hidden_state`,
    arg_groups/speculative_hook.py `_handle_eagle_family`
    """
    method, draft = deployment.switches.speculative_method, deployment.draft
    if method in (None, "ngram"):
        return 0, 0
    if draft is None:
        return (_next_layers(model, as_draft=model.architecture in OWN_DRAFTS) if method == "mtp" else 1), 0
    if draft.draft is not None:
        return _next_layers(draft, as_draft=True), 0
    sliding = [window_of(mixer) is not None for layer in draft.layers for mixer in layer.mixers]
    order = [sliding[index] for index in draft.layer_order] if is_hybrid_swa(draft) else []
    return draft.num_layers, sum(order)


def _next_layers(model: ModelSpec, *, as_draft: bool) -> int:
    """`num_nextn_predict_layers`; read as a draft, a class that does not state it has one."""
    found = [fact.value for fact in model.facts if fact.key.rpartition(".")[2] == "num_nextn_predict_layers"]
    stated = found[0] if found and isinstance(found[0], int) else 0
    return max(stated, 1) if as_draft else stated


def own_entry(mixer: Mixer, model: ModelSpec, deployment: Deployment) -> int:
    """Bytes of one token in the place of one mixer, an indexer's key included."""
    _, token, _, index, _ = _entry(mixer, model, deployment)
    return token + index


def _entry(mixer: Mixer, model: ModelSpec, deployment: Deployment) -> tuple[str, int, int, int, int | None]:
    """(kind, bytes a token, of them keys, bytes of an indexer's key, window of the sliding pool)."""
    window = window_of(mixer) if is_hybrid_swa(model) else None
    if isinstance(mixer, LatentAttention):
        latent = _latent_bytes(mixer, model, deployment)
        return mixer.kind, latent, latent, mixer.index_dim + mixer.index_dim // 128 * 4, window
    assert isinstance(mixer, FullAttention | SlidingAttention | ChunkedAttention | SharedAttention | CrossAttention)
    index = 0
    if isinstance(mixer, FullAttention) and mixer.index_dim:
        index = ceil_div(mixer.index_dim * deployment.dtype.bits, 8)
    heads = max(1, mixer.num_kv_heads // max(1, attention_tp(deployment) // deployment.dcp))
    key = _vector_bytes(heads * mixer.key_dim, deployment)
    both = _vector_bytes(heads * (mixer.key_dim + mixer.value_dim), deployment)
    return mixer.kind, both, key, index, window


def _vector_bytes(elements: int, deployment: Deployment) -> int:
    """Elements in the cache's format with their scales: one byte for 16 (fp4) or 32 (mxfp8) of them.

    Source: pool_configurator.py, lines 491-531
    """
    name = deployment.key_dtype.name
    if name in FP4:
        return elements // 2 + elements // 16
    if name == "mxfp8":
        return elements + elements // 32
    return ceil_div(elements * deployment.key_dtype.bits, 8)


def _latent_bytes(mixer: LatentAttention, model: ModelSpec, deployment: Deployment) -> int:
    """A latent and its rotary key, whole on every rank; in fp8, DSA keeps a scale for 128 elements and the key in bf16.

        bf16  (latent + rope) · 2          fp4   (latent + rope) / 2 + (latent + rope) // 16
        fp8    latent + rope               DSA   latent + latent // 128 · 4 + rope · 2

    SGLang takes one width for all layers, that of a layer which reads another's latent too.

    Source: pool_configurator.py, lines 374-396; kv_cache_configurator.py, lines 3416-3475
    """
    if not mixer.latent_dim:
        mixer = max((m for m in _mixers(model) if isinstance(m, LatentAttention)), key=lambda m: m.latent_dim)
    width = mixer.latent_dim + mixer.rope_dim
    if deployment.key_dtype.name == "fp8" and is_dsa(model) and not _raw_dsa(deployment):
        return mixer.latent_dim + mixer.latent_dim // 128 * 4 + mixer.rope_dim * 2
    return _vector_bytes(width, deployment)


def _raw_dsa(deployment: Deployment) -> bool:
    """Whether the DSA backend holds fp8 without scales; by default on Blackwell (trtllm) and on AMD (tilelang)."""
    backend = deployment.switches.attention_backend
    if backend is not None:
        return backend in RAW_DSA_BACKENDS
    arch = deployment.gpu.arch if deployment.gpu is not None else ""
    return arch.startswith(("10.", "gfx"))


def _fp4_workspace(mixer: Mixer, deployment: Deployment) -> int:
    """Prefill unpacks one layer's fp4 cache into fp8: keys and values of every token of the pool.

    Source: pool_configurator.py `_compute_cell_size`, "FP4 prefill uses one shared FP8 dequant workspace"
    """
    if deployment.key_dtype.name not in FP4 or isinstance(mixer, LatentAttention | StateMixer):
        return 0
    return 2 * max(1, mixer.num_kv_heads // max(1, attention_tp(deployment) // deployment.dcp)) * mixer.key_dim


def _cached(layer: Layer) -> list[Mixer]:
    """The mixers of a decoder's layer that have their own place in a pool.

    Cross-attention shares the slots of its layer's self-attention, and has a layer's place only where it is alone.
    """
    mixers: list[Mixer] = [m for m in layer.mixers if not isinstance(m, CrossAttention)]
    return mixers or list(layer.mixers)


def _first_decoder_layer(model: ModelSpec) -> int:
    """Where the decoder begins; an encoder's layers keep nothing."""
    first = 0
    while first < model.num_layers and model.layers[model.layer_order[first]].in_encoder:
        first += 1
    return first


def _mixers(model: ModelSpec) -> list[Mixer]:
    return [mixer for layer in model.layers for mixer in layer.mixers]
