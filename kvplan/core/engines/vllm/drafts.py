"""What drafts in vLLM: a model of its own, a head that was trained for the model's states, layers of the checkpoint.

    eagle, eagle3   a head: Llama's layers behind a matrix that joins states; tables are the model's where they match
    mtp             layers that a checkpoint stores for it
    draft_model     a whole model, from 0.15 on; nothing is shared
    ngram, suffix   no model

All layers of a draft join the cache of the model's last stage, in blocks of as many tokens. What other methods load
(dflash, dspark, medusa) is not known here.

Source: vLLM 0.33, config/speculative.py; transformers_utils/configs/eagle.py, which says what class a head runs as;
models/registry.py `_SPECULATIVE_DECODING_MODELS`; models/llama_eagle.py, llama_eagle3.py
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kvplan.core.engines.deployment import Deployment
from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import (
    ChunkedAttention,
    FullAttention,
    LatentAttention,
    Mixer,
    SlidingAttention,
)
from kvplan.core.model import Layer, ModelSpec, Split, Weight
from kvplan.core.text import printable
from kvplan.core.weights import all_weights

WITHOUT_MODEL = frozenset({None, "ngram", "ngram_gpu", "suffix", "mtp_none"})
OWN_LAYERS = frozenset({
    "mtp", "deepseek_mtp", "qwen3_next_mtp", "glm4_moe_mtp", "ernie_mtp", "mimo_mtp", "longcat_flash_mtp",
})  # fmt: skip
HEADS = {"eagle": 2, "eagle3": 3}
"""Vectors that a head joins, where its config is not known."""
WIDEST_HEAD = 6
"""Its MLP in hidden sizes, where the model has experts: the widest of public heads (17,280 of gpt-oss's 2,880)."""
READ = frozenset({*HEADS, *OWN_LAYERS, "draft_model"})
ASSUMED = READ - {"draft_model"}
"""Methods for which something is assumed where the draft's config cannot be read."""
ONE_DRAFT = ("mimo_v2", "mimo_v2_flash", "mimo_v2_omni")
_LOWERS = (0, 33)
_WITHOUT_ATTENTION = WITHOUT_MODEL | {"medusa"}
_ON_STATES = frozenset({*HEADS, *OWN_LAYERS, "dflash", "dspark"})
EAGLE, EAGLE3 = "LlamaForCausalLMEagle", "LlamaForCausalLMEagle3"
_CLASSES = {
    "eagle": dict.fromkeys(("LlamaForCausalLM", "EagleLlamaForCausalLM"), EAGLE),
    "eagle3": dict.fromkeys(
        (
            "LlamaForCausalLM", "MiniMaxM2ForCausalLM", "Qwen3ForCausalLM", "PEagleDraftModel", EAGLE3,
            "Eagle3LlamaForCausalLM", "Eagle3MiniMaxM2ForCausalLM", "Eagle3Qwen2_5vlForCausalLM",
            "Eagle3Qwen3vlForCausalLM", "Eagle3Qwen3ForCausalLM",
        ),
        EAGLE3,
    ),
}  # fmt: skip
"""Classes that a head's config names, and the one whose tensors vLLM makes for it. Qwen3's has two norms of a head's
width more (models/qwen3_eagle3.py), 512 bytes that are not counted."""


def draft_class(draft: ModelSpec, method: str) -> str | None:
    """The class by which a head is to be read, where its config names another; None where it reads as it says.

    Raises UnsupportedError for a class that vLLM runs otherwise, or not at all.
    """
    if method not in HEADS:
        return None
    known = _CLASSES[method].get(draft.architecture or "")
    if known is None:
        message = f"kvplan does not know how `{draft.id}`, a {draft.architecture}, drafts by `{method}` in vLLM"
        raise UnsupportedError(message, hint=f"it knows {', '.join(sorted(_CLASSES[method]))}")
    return None if known == draft.architecture else known


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftLayer:
    """One mixer of what drafts."""

    number: int
    """Of the layer, as vLLM counts it: after the model's, from 0 on where a whole model drafts."""
    owner: ModelSpec
    mixer: Mixer


def draft_layers(model: ModelSpec, deployment: Deployment) -> list[DraftLayer]:
    """What keeps a cache beside the model's layers.

    A named draft: all of its layers. `mtp`: those of the checkpoint. A head that is not known: one more layer like the
    model's last that attends to all tokens.
    """
    switches, draft, last = deployment.switches, deployment.draft, model.num_layers
    method = switches.speculative_method
    if not switches.num_speculative_tokens or method in _WITHOUT_ATTENTION:
        return []
    if draft is not None and (method in HEADS or method == "draft_model"):
        first = 0 if method == "draft_model" else last
        mixers = [(first + i, mixer) for i, kind in enumerate(draft.layer_order) for mixer in draft.layers[kind].mixers]
        window = _window_of_all(model)
        return [DraftLayer(number=number, owner=draft, mixer=_within(mixer, window)) for number, mixer in mixers]
    of = model if draft is None or draft.draft is None else draft
    if method in OWN_LAYERS and of.draft is not None:
        own = of.draft.mixers[: draft_modules(of)]
        return [DraftLayer(number=last, owner=of, mixer=mixer) for mixer in own]
    return [DraftLayer(number=last, owner=model, mixer=mixer) for mixer in last_that_attends(model).mixers[:1]]


def draft_modules(model: ModelSpec) -> int:
    """Layers of the checkpoint that draft: of MiMo-V2's vLLM runs the first alone (config/speculative.py 799-860)."""
    return 1 if model.draft is None or model.model_type in ONE_DRAFT else model.draft.num_layers


def _window_of_all(model: ModelSpec) -> int | None:
    """The window of a model whose layers all have one and the same."""
    mixers = [mixer for layer in model.layers for mixer in layer.mixers]
    windows = {mixer.window if isinstance(mixer, SlidingAttention) else None for mixer in mixers}
    return windows.pop() if len(windows) == 1 else None


def _within(mixer: Mixer, window: int | None) -> Mixer:
    """A draft's layer without a window has that of a model of windows alone.

    Source: vLLM 0.33, engine/arg_utils.py 2288-2294, which hands it on with the cache's configuration;
    layers/attention/attention.py 266-273, where layers without one take it
    """
    if window is None or not isinstance(mixer, FullAttention):
        return mixer
    return SlidingAttention(
        num_heads=mixer.num_heads,
        num_kv_heads=mixer.num_kv_heads,
        key_dim=mixer.key_dim,
        value_dim=mixer.value_dim,
        window=window,
    )


def last_that_attends(model: ModelSpec) -> Layer:
    """The last layer that attends to all tokens, or in a model of windows alone to one; its mixer that does, alone."""
    full = FullAttention | LatentAttention | (SlidingAttention if _window_of_all(model) else FullAttention)
    for kind in reversed(model.layer_order):
        layer = model.layers[kind]
        for mixer in layer.mixers:
            if isinstance(mixer, full):
                return replace(layer, mixers=(mixer,))
    return replace(model.layers[model.layer_order[-1]], mixers=())


def assumed_layer(model: ModelSpec) -> Layer:
    """What a head is taken for whose config is not known: one layer like the model's last, without experts."""
    layer, hidden = last_that_attends(model), model.hidden_size
    plain = [weight for weight in layer.weights if weight.part not in ("experts", "router")]
    if len(plain) < len(layer.weights):
        plain = [weight for weight in plain if weight.part != "mlp"]
        width = WIDEST_HEAD * hidden
        plain += [
            _matrix("gate_proj", (width, hidden), Split(axis=0, units=width)),
            _matrix("up_proj", (width, hidden), Split(axis=0, units=width)),
            _matrix("down_proj", (hidden, width), Split(axis=1, units=width)),
        ]
    return replace(layer, weights=tuple(plain))


def _matrix(name: str, shape: tuple[int, int], split: Split) -> Weight:
    return Weight(name=f"mlp.{name}.weight", shape=shape, part="mlp", split=split, linear=True)


def pass_layers(model: ModelSpec, deployment: Deployment) -> tuple[Layer, ...]:
    """The layers of a draft's forward pass: its own, or one like the model's last."""
    draft, method = deployment.draft, deployment.switches.speculative_method
    if method not in HEADS and method != "draft_model":
        return ()
    return draft.layers if draft is not None else (assumed_layer(model),)


def keeps_hybrid(model: ModelSpec, deployment: Deployment) -> bool:
    """Whether unlike layers may stand in groups of their own: not chunked ones beside what drafts from states.

    Source: vLLM 0.21-0.33, config/vllm.py 2237-2246
    """
    switches = deployment.switches
    if switches.hybrid_manager is False:
        return False
    chunked = any(isinstance(mixer, ChunkedAttention) for layer in model.layers for mixer in layer.mixers)
    return not (chunked and switches.num_speculative_tokens and switches.speculative_method in _ON_STATES)


def held_weights(model: ModelSpec, draft: ModelSpec, method: str | None) -> Iterable[tuple[Weight, int]]:
    """The tensors that a named draft adds to the model's, each with how often it stands there.

        draft_model   all
        a head        its layers, its norm, the matrix that joins (without a bias; none where it reads the last state
                      alone), its table of tokens where it is of another width than the model's, EAGLE-3's output head

    Source: vLLM 0.33, v1/worker/gpu/spec_decode/eagle/utils.py `_should_share`: a table that the checkpoint leaves out
    is the model's, and so is one that equals it; v1/spec_decode/llm_base_proposer.py for the older runner
    """
    if method == "draft_model":
        yield from all_weights(draft)
        return
    yield from ((weight, count) for layer, count in draft.layer_counts() for weight in layer.weights)
    for weight in draft.embeddings:
        if weight.part == "embeddings":
            if draft.hidden_size != model.hidden_size:
                yield weight, 1
        elif weight.name != "fc.bias" and (num_states(draft, method) or not weight.name.startswith("fc.")):
            yield weight, 1
    yield from ((weight, 1) for weight in draft.head if weight.part != "head" or method == "eagle3")


def num_states(draft: ModelSpec | None, method: str | None) -> int:
    """States of the model's layers that a head joins: EAGLE-3 asks the model for them while it runs; EAGLE-1 for none.

    Source: vLLM 0.33, v1/worker/gpu/spec_decode/eagle/utils.py `requires_aux_hidden_states`
    """
    if method == "eagle":
        return 1
    if method != "eagle3":
        return 0
    if draft is None:
        return HEADS["eagle3"]
    facts = {fact.key: fact.value for fact in draft.facts}
    if facts.get("eagle_config.use_aux_hidden_state") is False:
        return 0
    joint = next((weight for weight in draft.embeddings if weight.name.startswith("fc.")), None)
    return 0 if joint is None else joint.shape[1] // target_width(draft)


def target_width(draft: ModelSpec) -> int:
    """Elements of a state of the model that a head was trained for."""
    stated = {fact.key: fact.value for fact in draft.facts}.get("target_hidden_size")
    return stated if isinstance(stated, int) else draft.hidden_size


def head_rows(draft: ModelSpec) -> int:
    """Tokens that a head's own output head knows: `draft_vocab_size`, or the vocabulary."""
    return next((weight.shape[0] for weight in draft.head if weight.part == "head"), draft.vocab_size)


def draft_notes(deployment: Deployment, release: tuple[int, ...]) -> list[str]:
    """What is assumed of a head, and what a draft's own length means for long requests.

    Source: vLLM 0.33, config/vllm.py `_limit_max_model_len_to_draft`; before, requests past it are not drafted for
    """
    switches, draft = deployment.switches, deployment.draft
    method, named = switches.speculative_method, switches.draft_model
    if method in HEADS and draft is None:
        unread = "nothing names a head" if named is None else f"`{printable(named)}` was not read as a head"
        return [f"{unread}: one layer like the model's last is assumed to draft"]
    longest = draft.max_seq_len if draft is not None and method == "draft_model" else None
    if draft is None or longest is None or longest >= deployment.max_model_len:
        return []
    then = "vLLM lowers max_model_len to it" if release >= _LOWERS else "longer requests are not drafted for"
    return [f"`{draft.id}` takes {longest:,} tokens: {then}"]
