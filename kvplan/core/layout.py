"""Layers over pipeline stages, bytes over ranks: what each GPU of a layout holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from kvplan.core.attention import PassShape
from kvplan.core.cache import Cache, caches_of
from kvplan.core.engines.engine import Engine, Pooled
from kvplan.core.mixers import CompressedAttention, LatentAttention, LinearAttention, Mixer, ShortConvolution
from kvplan.core.model import Layer, ModelSpec, Weight
from kvplan.core.overhead import Pass, activation_bytes, context_bytes
from kvplan.core.serving import Serving
from kvplan.core.stages import stage_bounds
from kvplan.core.units import ceil_div, larger
from kvplan.core.weights import computed_weight_bytes, draft_bytes, weight_bytes

MAX_SEARCHED_GPUS = 512
"""How far the search for the smallest fitting layout goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """What one GPU holds; with tensor parallelism, the fullest rank of its stage."""

    rank: int
    stage: int
    weights_bytes: int
    kv_cache_bytes: int
    activation_bytes: int
    graph_bytes: int
    context_bytes: int
    capacity_bytes: int | None

    @property
    def total_bytes(self) -> int:
        """The sum of the parts."""
        parts = self.weights_bytes + self.kv_cache_bytes + self.activation_bytes
        return parts + self.graph_bytes + self.context_bytes

    @property
    def free_bytes(self) -> int | None:
        """What is left, negative where it does not fit; None where the capacity is not known."""
        return None if self.capacity_bytes is None else self.capacity_bytes - self.total_bytes


def sequence_cache_bytes(cache: Cache, serving: Serving) -> int:
    """Bytes that one layer's cache of one sequence holds in this serving."""
    tokens = serving.encoder_seq_len if cache.over_encoder else serving.seq_len
    return 0 if tokens is None else cache.bytes_for(tokens)


def context_tokens(num_tokens: int, cp: int, index: int, window: int | None = None) -> int:
    """Tokens of one sequence that context-parallel rank `index` of `cp` holds; with a window, of the last `window`.

        held(n) = |{i < n : i mod cp = index}| = ⌊(n + cp − 1 − index) / cp⌋;  windowed: held(n) − held(n − window)

    Source: vLLM 0.33, `cp_kv_cache_interleave_size` 1: token i lies on rank i mod cp
    """
    gone = 0 if window is None else larger(num_tokens - window, 0)
    return (num_tokens + cp - 1 - index) // cp - (gone + cp - 1 - index) // cp


def stage_uses(model: ModelSpec, serving: Serving) -> list[GpuUse]:
    """What the fullest GPU of each pipeline stage holds, one entry a stage."""
    weights = stage_weights(model, serving)
    pooled = serving.engine.pooled
    if pooled is not None and serving.gpu is not None and serving.capacity_bytes is not None:
        return _engine_uses(model, serving, weights, pooled)
    held = () if pooled is None else pooled.held(model, serving.deployment, serving.seq_len, serving.batch_size)
    uses = []
    for stage, (start, stop) in enumerate(stages_of(model, serving)):
        counts = model.layer_counts(start, stop)
        uses.append(
            GpuUse(
                rank=stage * serving.tp,
                stage=stage,
                weights_bytes=weights[stage],
                kv_cache_bytes=held[stage] if held else _stage_cache(serving, counts),
                activation_bytes=_stage_activations(model, serving, counts, last=stage == serving.pp - 1),
                graph_bytes=0,
                context_bytes=context_bytes(serving.tp, serving.gpu),
                capacity_bytes=serving.capacity_bytes,
            )
        )
    return uses


def _engine_uses(model: ModelSpec, serving: Serving, weights: tuple[int, ...], pooled: Pooled) -> list[GpuUse]:
    """The engine's own account: what its profile run takes of its share, and the blocks that the requests hold."""
    deployment = serving.deployment
    held = pooled.held(model, deployment, serving.seq_len, serving.batch_size)
    uses = []
    for account, cache in zip(pooled.budget(model, deployment, weights), held, strict=True):
        sums = dict.fromkeys(("weights", "activations", "graphs", "context"), 0)
        for item in account.taken:
            sums[row_of(item.name)] += item.num_bytes
        uses.append(
            GpuUse(
                rank=account.stage * serving.tp,
                stage=account.stage,
                weights_bytes=sums["weights"],
                kv_cache_bytes=cache,
                activation_bytes=sums["activations"],
                graph_bytes=sums["graphs"],
                context_bytes=sums["context"],
                capacity_bytes=account.usable_bytes,
            )
        )
    return uses


def row_of(name: str) -> str:
    """The row of a plan that an item of an engine's account belongs to."""
    if "weights" in name or "LoRA" in name:
        return "weights"
    if "graph" in name:
        return "graphs"
    return "activations" if "activation" in name or "buffer" in name or "encoder" in name else "context"


def stages_of(model: ModelSpec, serving: Serving) -> list[tuple[int, int]]:
    """[start, stop) of each stage, as the engine deals the layers out."""
    pooled = serving.engine.pooled
    if pooled is not None and pooled.stages is not None:
        return pooled.stages(model, serving.deployment)
    return stage_bounds(model.num_layers, serving.pp)


def as_loaded(model: ModelSpec, engine: Engine) -> ModelSpec:
    """The model as the engine makes it: without the weights that transformers' class alone has."""
    layers = model.layers
    if engine.pooled is None or not any(weight.idle for layer in layers for weight in layer.weights):
        return model
    held = (tuple(weight for weight in layer.weights if not weight.idle) for layer in layers)
    return replace(model, layers=tuple(replace(layer, weights=own) for layer, own in zip(layers, held, strict=True)))


def stage_weights(model: ModelSpec, serving: Serving) -> tuple[int, ...]:
    """Bytes of weights on the fullest rank of each stage, less what the CPU keeps of them.

    Engines leave whole tensors of layers with the CPU until they have left as much as was asked for: at most this.

    Source: vLLM 0.33, model_executor/offloader/uva.py `UVAOffloader`; SGLang 0.5.23, utils/offloader.py `OffloaderV1`
    """
    scale = _stored_scale(model, serving)
    found: list[int] = []
    known: dict[object, int] = {}
    seam = model.first_decoder_layer
    for start, stop in stages_of(model, serving):
        # Of many stages most are alike.
        counts = model.layer_counts(start, stop)
        on_host = start < serving.switches.num_cpu_moe_layers and stop
        alike = (
            start == 0, stop == model.num_layers, start <= seam < stop, on_host,
            tuple((id(layer), n) for layer, n in counts),
        )  # fmt: skip
        if alike not in known:
            stored, computed = scale or (1, 1)
            layers, ends = _stage_weights(model, serving, counts, start, stop)
            left_out = min(serving.switches.cpu_offload_bytes, layers * stored // computed)
            known[alike] = ceil_div((layers + ends) * stored, computed) - left_out
        found.append(known[alike])
    return tuple(found)


def rank_weight_bytes(weight: Weight, serving: Serving) -> int:
    """Bytes of one weight on the fullest rank: experts dealt out whole, attention over its own ranks, else over tp.

    With expert parallelism a rank has ⌈experts / (tp · pcp · dp)⌉ whole experts (vLLM 0.33, layers/fused_moe/config.py
    1110-1113).
    """
    dtype, quant = serving.dtype, serving.quant
    if serving.switches.expert_parallel and weight.part == "experts" and weight.copies > 1:
        ranks = serving.tp * serving.pcp * (1 if serving.switches.attention_dp else serving.dp)
        dealt = replace(weight, copies=ceil_div(weight.copies, ranks), split=None)
        return weight_bytes(dealt, dtype, quant, 1)
    return weight_bytes(weight, dtype, quant, serving.attention_tp if weight.part == "attention" else serving.tp)


def total_weight_bytes(model: ModelSpec, serving: Serving) -> int:
    """Bytes of all weights: as computed, or of a quantised checkpoint what its files hold, where that is known."""
    scale = _stored_scale(model, serving)
    return scale[0] if scale is not None else computed_weight_bytes(model, serving.dtype, serving.quant)


def loads_as_stored(model: ModelSpec, serving: Serving) -> bool:
    """Whether the plan loads the weights in the dtype and the scheme of the checkpoint's files."""
    if serving.quant != model.quantization:
        return False
    return serving.dtype == model.dtype or (model.quantization is not None and model.dtype is None)


def stored_draft_bytes(model: ModelSpec, serving: Serving) -> int:
    """Bytes that the files hold for multi-token prediction, which a plan does not load.

    The config does not say whether they do, and some copies of a checkpoint leave it out: they do where their size is
    nearer to model and draft together than to the model alone. 0 where sizes cannot be compared.
    """
    quant = serving.quant
    if not model.stored_weight_bytes or not loads_as_stored(model, serving) or (quant and not quant.understood):
        return 0
    draft = draft_bytes(model, serving.dtype, quant)
    surplus = model.stored_weight_bytes - computed_weight_bytes(model, serving.dtype, quant)
    return draft if 2 * surplus >= draft else 0


def _stored_scale(model: ModelSpec, serving: Serving) -> tuple[int, int] | None:
    """(stored, computed) bytes of a quantised checkpoint whose files' size is known, less what is not loaded."""
    quant = serving.quant
    if quant is None or not model.stored_weight_bytes:
        return None
    if quant.understood and not loads_as_stored(model, serving):
        return None
    stored = model.stored_weight_bytes - stored_draft_bytes(model, serving)
    return stored, computed_weight_bytes(model, serving.dtype, quant)


def _stage_weights(
    model: ModelSpec, serving: Serving, counts: list[tuple[Layer, int]], start: int, stop: int
) -> tuple[int, int]:
    """Bytes of a stage's layers, and of what stands before and after them.

    The stage where an encoder-decoder's decoder begins looks its tokens up as the first one does.
    """
    last = stop == model.num_layers
    pooled = serving.engine.pooled
    on_host = pooled is not None and pooled.splits_layers
    looks_up = not on_host and (start == 0 or start <= model.first_decoder_layer < stop)
    ends = list(model.embeddings if looks_up else ()) + list(model.head if last else ())
    if on_host and start == 0:
        ends += [weight for weight in model.embeddings if weight.part != "embeddings"]
    if last and not looks_up and model.tied_embeddings:
        ends.append(model.embeddings[0])
    if pooled is not None and pooled.leaves_out is not None:
        absent = pooled.leaves_out(model, serving.switches)
        ends = [weight for weight in ends if weight.part not in absent]
    layers = (n * sum(rank_weight_bytes(weight, serving) for weight in layer.weights) for layer, n in counts)
    experts = (
        n * sum(rank_weight_bytes(weight, serving) for weight in layer.weights if weight.part == "experts")
        for layer, n in model.layer_counts(start, max(start, min(stop, serving.switches.num_cpu_moe_layers)))
    )
    return sum(layers) - sum(experts), sum(rank_weight_bytes(weight, serving) for weight in ends)


def _stage_cache(
    serving: Serving, counts: list[tuple[Layer, int]], reserve: Callable[[Cache, Mixer], Cache] | None = None
) -> int:
    """Bytes that a stage's layers hold for the whole batch, by the engine's rule or another one of its own."""
    reserve = reserve or serving.engine.reserve
    total = 0
    for layer, n in counts:
        for mixer, cache in caches_of(
            layer, serving.kv_dtype, serving.attention_tp, serving.dtype, serving.value_dtype
        ):
            total += n * sequence_cache_bytes(reserve(cache, mixer), serving)
    return serving.batch_size * total


def pass_shape(serving: Serving, *, decode: bool) -> PassShape:
    """The prompts together up to the pass's limit; or, decoding, one query of every sequence."""
    return PassShape(
        decode=decode,
        batch_size=serving.batch_size,
        seq_len=serving.seq_len,
        encoder_seq_len=0 if serving.encoder_seq_len is None else serving.encoder_seq_len,
        limit=serving.pass_limit,
    )


def _stage_activations(model: ModelSpec, serving: Serving, counts: list[tuple[Layer, int]], *, last: bool) -> int:
    """The higher of the prefill's and the decode step's peak; the encoder runs in the prefill only."""
    layers = [layer for layer, _ in counts]

    def peak(shape: PassShape, through: list[Layer]) -> int:
        forward = Pass(
            shape=shape,
            hidden_size=model.hidden_size,
            dtype=serving.dtype,
            backend=serving.attention_backend,
            tp=serving.tp,
        )
        return activation_bytes(through, forward, _num_logits(model, shape) if last else 0)

    prefill = peak(pass_shape(serving, decode=False), layers) + _prefill_only_cache(serving, counts)
    decode = peak(pass_shape(serving, decode=True), [layer for layer in layers if not layer.in_encoder])
    return larger(prefill, decode)


def _num_logits(model: ModelSpec, shape: PassShape) -> int:
    """Logits of one pass: of each sequence's last token; of every token where nothing is generated (BERT)."""
    if not model.has_vocabulary_head:
        return 0
    rows = shape.num_sequences if model.generates else shape.num_encoder_tokens
    return rows * model.vocab_size


def _prefill_only_cache(serving: Serving, counts: list[tuple[Layer, int]]) -> int:
    """What the engine's caches hold during a prefill beyond what they hold after it."""
    during = serving.engine.during_prefill
    return 0 if during is None else _stage_cache(serving, counts, during) - _stage_cache(serving, counts)


def layouts(model: ModelSpec, num_gpus: int) -> Iterator[tuple[int, int]]:
    """(tp, pp) of `num_gpus` that engines accept: tp divides every layer's query heads, pp the layers at most.

    KV heads are either dealt out evenly or replicated evenly. The widest tp comes first: it has the lowest latency.
    """
    for tp in range(num_gpus, 0, -1):
        if num_gpus % tp == 0 and num_gpus // tp <= model.num_layers and tp_accepted(model, tp):
            yield tp, num_gpus // tp


def tp_accepted(model: ModelSpec, tp: int) -> bool:
    """Whether heads divide over `tp` ranks as engines demand."""
    return all(_heads_divide(mixer, tp) for layer in model.layers for mixer in layer.mixers)


def _heads_divide(mixer: Mixer, tp: int) -> bool:
    """KV heads may be replicated; the key heads of a recurrent mixer are not.

    Source: vLLM 0.33, layers/mamba/gdn/qwen_gdn_linear_attn.py, which takes num_k_heads // tp of them
    """
    if mixer.num_heads % tp:
        return False
    if isinstance(mixer, LatentAttention | CompressedAttention | ShortConvolution):
        return True
    if isinstance(mixer, LinearAttention):
        return mixer.num_key_heads % tp == 0
    return mixer.num_kv_heads % tp == 0 or tp % mixer.num_kv_heads == 0
