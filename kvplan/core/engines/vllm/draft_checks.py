"""What vLLM does not start to draft with, and what of drafting is not known here.

Source: vLLM 0.33, config/speculative.py; releases before it where a number below names them
"""

from kvplan.core.cache import kv_heads_per_rank
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.drafts import (
    EAGLE,
    EAGLE3,
    HEADS,
    OWN_LAYERS,
    READ,
    WITHOUT_MODEL,
    draft_class,
    draft_layers,
    last_that_attends,
    target_width,
)
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.mixers import CompressedAttention, LatentAttention, StateMixer
from kvplan.core.model import ModelSpec
from kvplan.core.stages import stage_bounds
from kvplan.core.text import printable

_OTHERS = frozenset({"draft_model", "dflash", "dspark", "custom_class", "extract_hidden_states"})
REMOVED_METHODS = {"medusa": (0, 33), "mlp_speculator": (0, 33)}
"""Methods that vLLM had, and the newest release at hand, which has them no more (config/speculative.py)."""
WHOLE_SINCE = (0, 15)
"""The release from which on the V1 engine runs a whole model as a draft (v1/spec_decode/draft_model.py)."""
DRAFTS_REFUSED_SINCE = (0, 10)
"""The release from which on, up to that one, config/speculative.py refuses a whole model; older ones had the engine
before V1 run it."""
_TELLS_TOKENS = frozenset({"suffix", "dspark", "custom_class", "extract_hidden_states", "mtp_none"})
"""Methods that need not be told how many tokens, or of which nothing else is known here either."""
_MAY_STORE_LAYERS = frozenset({
    "dots3_note", "deepseek_v3", "deepseek_v32", "glm_moe_dsa", "deepseek_v4", "deepseek_v41", "pangu_ultra_moe",
    "kimi_k3", "kimi_k25", "mimo", "mimo_v2", "mimo_v2_flash", "mimo_v2_omni", "glm4_moe", "glm4_moe_lite", "glm_ocr",
    "ernie4_5_moe", "nemotron_h", "nemotron_h_puzzle", "qwen3_next", "qwen4_exp", "qwen4_exp_text", "bailing_hybrid",
    "bailing_moe_v3_vl", "exaone_moe", "exaone4_5", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text",
    "intern_s2_preview", "interns2_mobius", "longcat_flash", "step3p5", "step3p7", "step5", "step5_vl", "hy_v3",
    "hy_v4", "inkling_mm_model", "inkling_model", "minimax_m3_vl", "minimax_m3", "glm5_next", "mistral3", "mistral4",
})  # fmt: skip
"""Model types for whose checkpoints config/speculative.py 700-1165 of 0.33 makes a model of such layers."""


def check_drafts(model: ModelSpec, deployment: Deployment, release: tuple[int, ...]) -> None:
    """Raises InputError for a draft that vLLM does not start with, UnsupportedError for one that is not known here."""
    switches, draft = deployment.switches, deployment.draft
    method, named = switches.speculative_method, switches.draft_model
    if method is None:
        if draft is not None or named is not None:
            what = named if draft is None else draft.id
            message = f"nothing says how `{printable(str(what))}` drafts"
            raise InputError(message, hint="`speculative_method`: eagle3, eagle or draft_model")
        return
    _check_method(method, release)
    _check_tokens(method, deployment)
    if method == "draft_model" and draft is None and named is None:
        raise InputError("nothing names the model that drafts", hint="`--speculative-config.model`, `draft=`")
    if switches.heterogeneous_vocab and method != "draft_model":
        raise InputError("another vocabulary is for `draft_model` alone", hint="leave `use_heterogeneous_vocab` out")
    if method == "eagle":
        _check_names(model, deployment)
    if method in OWN_LAYERS:
        _check_own_layers(model, deployment)
    _check_assumed(model, deployment)
    if draft is None or method not in READ:
        return
    if method == "draft_model":
        _check_whole(model, draft, deployment)
    elif method in HEADS:
        _check_head(model, draft, method)
    _check_layers(model, draft, deployment)


def _check_whole(model: ModelSpec, draft: ModelSpec, deployment: Deployment) -> None:
    """Source: config/speculative.py `verify_equal_vocab_size_if_draft_model`; models/llama.py `LlamaModel.forward`,
    which asks every stage but the first for the states of the stage before: a draft has none."""
    if draft.vocab_size != model.vocab_size and not deployment.switches.heterogeneous_vocab:
        message = f"the vocabularies differ: {draft.vocab_size:,} tokens of the draft `{draft.id}`"
        raise InputError(
            f"{message}, {model.vocab_size:,} of `{model.id}`",
            hint="a draft of the same vocabulary, or `use_heterogeneous_vocab`",
        )
    if deployment.pp > 1:
        raise InputError("vLLM's draft models do not run over pipeline stages", hint="`tp`, or a head")


def _check_method(method: str, release: tuple[int, ...]) -> None:
    """Raises InputError for a method that the release does not have, UnsupportedError for what is not known of one."""
    gone = REMOVED_METHODS.get(method)
    known = WITHOUT_MODEL | OWN_LAYERS | HEADS.keys() | _OTHERS
    if method not in known and (gone is None or release >= gone):
        hint = "draft_model, eagle, eagle3, mtp, ngram, suffix"
        raise InputError(f"vLLM has no method `{printable(method, max_length=40)}` to draft by", hint=hint)
    if method == "draft_model" and release < WHOLE_SINCE:
        since = ".".join(map(str, WHOLE_SINCE))
        if release >= DRAFTS_REFUSED_SINCE:
            raise InputError(f"vLLM runs no draft model before {since}", hint=f"vLLM {since} or newer, or a head")
        message = f"kvplan does not know how vLLM before {'.'.join(map(str, DRAFTS_REFUSED_SINCE))} runs a draft model"
        raise UnsupportedError(message, hint=f"vLLM {since} or newer, or a head")


def _check_tokens(method: str, deployment: Deployment) -> None:
    """Every method has to be told how many tokens it drafts, but those whose model may state it itself.

    Source: vLLM, config/speculative.py `_verify_args`, of every release; 0.33, 1252 and 1584-1618: a named model's
    `n_predict` counts (what a model names itself by for `mtp` is known only once the tokens are)
    """
    switches = deployment.switches
    if switches.num_speculative_tokens or method in _TELLS_TOKENS:
        return
    named = switches.draft_model
    if method in OWN_LAYERS | REMOVED_METHODS.keys() and named is not None:
        message = f"how many tokens `{printable(named)}` drafts by itself is not known to kvplan"
        raise UnsupportedError(message, hint="say it, `num_speculative_tokens`")
    message = f"`{printable(method, max_length=40)}` drafts, but nothing says how many tokens"
    raise InputError(message, hint="`num_speculative_tokens`")


def _check_own_layers(model: ModelSpec, deployment: Deployment) -> None:
    """Raises UnsupportedError where vLLM knows of layers to draft with, and kvplan does not."""
    draft, named = deployment.draft, deployment.switches.draft_model
    if model.draft is not None or (draft is not None and draft.draft is not None):
        return
    if named is not None or draft is not None:
        which = draft.id if draft is not None else printable(str(named))
        message = f"what of `{which}` drafts for `{model.id}` is not known to kvplan"
        raise UnsupportedError(message, hint="another method, or a model that stores layers for it")
    if model.model_type in _MAY_STORE_LAYERS:
        message = f"kvplan finds no layers for multi-token prediction in `{model.id}`, which vLLM may"
        raise UnsupportedError(message, hint="another method")
    hint = "another method, or a model that stores such layers"
    raise InputError(f"`{model.id}` stores no layers for multi-token prediction", hint=hint)


def _check_assumed(model: ModelSpec, deployment: Deployment) -> None:
    """EAGLE-3's public heads for models of latents keep keys and values, up to 25 latents' worth, or latents."""
    if deployment.draft is not None or deployment.switches.speculative_method != "eagle3":
        return
    if any(isinstance(mixer, LatentAttention) for mixer in last_that_attends(model).mixers):
        message = f"what a head for `{model.id}` caches does not follow from the model, which caches latents"
        raise UnsupportedError(message, hint="name the head's folder as the draft: kvplan reads its config.json")


def _check_head(model: ModelSpec, draft: ModelSpec, method: str) -> None:
    if draft.architecture != (EAGLE3 if method == "eagle3" else EAGLE):
        draft_class(draft, method)
        message = f"`{draft.id}` was read as a {draft.architecture}, which is no head for `{method}`"
        raise InputError(message, hint="give its name or its folder, not what load_model returns")
    if target_width(draft) != model.hidden_size:
        message = f"`{draft.id}` drafts for states of {target_width(draft)} elements"
        message += f", `{model.id}` has {model.hidden_size}"
        raise InputError(message, hint="a head that was trained for the model")


def _check_names(model: ModelSpec, deployment: Deployment) -> None:
    """EAGLE-1's head numbers its layers after those of its own stage: on two stages a name is taken twice.

    Source: vLLM 0.33, models/llama_eagle.py `EagleLlamaForCausalLM`, `target_layer_num`
    """
    given = deployment.switches.stage_layers
    last = given[-1] if given else stage_bounds(model.num_layers, deployment.pp)[-1]
    start = model.num_layers - last if isinstance(last, int) else last[0]
    number = model.num_layers - start
    layers = 1 if deployment.draft is None else deployment.draft.num_layers
    apart = any(weight.part == "vision" for weight in model.embeddings)
    if deployment.pp > 1 and not apart and number + layers > start:
        message = f"vLLM numbers EAGLE's layers from {number} on, which its last stage of layers {start} and more has"
        raise InputError(message, hint="`pp` 1, more stages, or eagle3")


def _check_layers(model: ModelSpec, draft: ModelSpec, deployment: Deployment) -> None:
    """Source: config/model.py `verify_with_parallel_config`, which is asked about the draft, too"""
    tp = deployment.tp
    for layer in draft_layers(model, deployment):
        mixer = layer.mixer
        if isinstance(mixer, StateMixer | CompressedAttention) or layer.owner.has_encoder:
            message = f"kvplan does not know how vLLM holds the states of `{draft.id}` while it drafts"
            raise UnsupportedError(message, hint="a draft of softmax attention alone")
        latent = isinstance(mixer, LatentAttention)
        if mixer.num_heads % tp or (not latent and mixer.num_kv_heads % tp and tp % mixer.num_kv_heads):
            heads = f"{mixer.num_heads} heads, {kv_heads_per_rank(mixer, 1)} of keys,"
            raise InputError(f"{heads} of the draft `{draft.id}` cannot be dealt out to `tp` {tp}", hint="another `tp`")
