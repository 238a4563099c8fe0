"""What SGLang refuses.

Source: SGLang 0.5.23, sglang/srt/configs/model_config.py, layers/dp_attention.py, configs/mamba_utils.py `divide`;
model_executor/model_runner.py `load_model` for the compute capability
"""

from kvplan.core.engines.accelerators import check_accelerator
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.sglang.layers import attention_tp, is_dsa, stages
from kvplan.core.errors import InputError
from kvplan.core.mixers import CompressedAttention, LatentAttention, LinearAttention, Mixer, ShortConvolution
from kvplan.core.model import ModelSpec
from kvplan.core.text import printable

ENCODER_DECODERS = frozenset({
    "WhisperForConditionalGeneration", "MllamaForConditionalGeneration", "MossVLForConditionalGeneration",
})  # fmt: skip
"""Source: configs/model_config.py `is_encoder_decoder_model`"""

LEAST_CAPABILITY = 7.5
HEADS = {"eagle": frozenset({"LlamaForCausalLMEagle"}), "eagle3": frozenset({"LlamaForCausalLMEagle3"})}
"""Classes of heads whose tensors kvplan knows, by the method that drafts with them."""


def check(model: ModelSpec, deployment: Deployment) -> None:
    """Raises InputError for a layout, a format or a switch that SGLang does not start with."""
    check_accelerator(deployment.gpu, "SGLang", LEAST_CAPABILITY)
    _check_layout(model, deployment)
    _check_formats(model, deployment)
    _check_drafts(model, deployment)
    _check_adapters(deployment)
    tp = attention_tp(deployment)
    for layer in model.layers:
        for mixer in layer.mixers:
            if not layer.in_encoder:
                _check_heads(mixer, tp)
    if model.has_encoder and model.architecture not in ENCODER_DECODERS:
        raise InputError(f"SGLang does not serve `{model.id}`, an encoder-decoder", hint="use another engine")
    compressed = any(isinstance(mixer, CompressedAttention) for layer in model.layers for mixer in layer.mixers)
    if not compressed and not any(s.full or s.sliding or s.state_bytes for s in stages(model, deployment)):
        raise InputError(f"`{model.id}` keeps no cache, so SGLang makes no pool for it", hint="use `--engine exact`")


def _check_layout(model: ModelSpec, deployment: Deployment) -> None:
    switches = deployment.switches
    if switches.attention_dp and deployment.tp % deployment.dp:
        message = f"{deployment.dp} data-parallel ranks of attention do not divide {deployment.tp} tensor-parallel ones"
        raise InputError(message, hint="with `attention_dp`, `dp` divides `tp`")
    if attention_tp(deployment) % deployment.dcp:
        message = f"decode context parallelism over {deployment.dcp} ranks does not divide attention's {deployment.tp}"
        raise InputError(message, hint="`dcp` divides `tp`")
    if deployment.pcp > 1:
        raise InputError("kvplan knows no prefill context parallelism of SGLang", hint="leave `pcp` out")
    partition = switches.stage_layers
    if partition and (len(partition) != deployment.pp or sum(partition) != model.num_layers or min(partition) < 1):
        message = f"{'+'.join(map(str, partition))} layers are not {model.num_layers} layers on {deployment.pp} stages"
        raise InputError(message, hint="one positive number a stage, which add up to the model's layers")
    if deployment.pp > model.num_layers:
        message = f"{deployment.pp} stages are more than the model's {model.num_layers} layers"
        raise InputError(message, hint="use fewer stages")


def _check_formats(model: ModelSpec, deployment: Deployment) -> None:
    if deployment.key_dtype != deployment.value_dtype:
        raise InputError("SGLang holds keys and values in one format", hint="e.g. `--kv-dtype fp8`")
    page, ratio = deployment.switches.block_size, deployment.switches.swa_full_tokens_ratio
    if page is not None and page != 64 and is_dsa(model):
        raise InputError(f"SGLang keeps DSA's cache in pages of 64 tokens, not {page}", hint="leave the page size out")
    if ratio is not None and not 0 < ratio <= 1:
        raise InputError(f"`swa_full_tokens_ratio` is {ratio}, not within (0, 1]", hint="SGLang's default is 0.8")
    states = deployment.switches.mamba_full_memory_ratio
    if states is not None and states <= 0:
        raise InputError(f"`mamba_full_memory_ratio` is {states}, not above 0", hint="SGLang's default is 0.9")


def _check_drafts(model: ModelSpec, deployment: Deployment) -> None:
    switches, draft = deployment.switches, deployment.draft
    method = switches.speculative_method
    if method is None:
        if switches.num_speculative_tokens:
            raise InputError("drafted tokens need a method", hint="e.g. `--option speculative_method=mtp`")
        return
    if method == "mtp" and model.draft is None and draft is None:
        raise InputError(f"`{model.id}` has no layers for multi-token prediction", hint="`speculative_method=eagle`")
    if method == "draft_model" and switches.draft_model is None and draft is None:
        raise InputError("nothing names the model that drafts", hint="`--speculative-draft-model-path`")
    if switches.draft_model is not None and draft is None and method != "ngram":
        message = f"the draft model `{printable(switches.draft_model)}` was not read"
        raise InputError(message, hint="`draft=` takes its name, its folder or what load_model returns")
    if deployment.pp > 1 and method != "ngram":
        raise InputError("kvplan does not know how SGLang drafts over pipeline stages", hint="use `pp` 1")
    if draft is not None and method != "ngram":
        _check_draft(model, draft, deployment, method)


def _check_draft(model: ModelSpec, draft: ModelSpec, deployment: Deployment, method: str) -> None:
    """A draft of its own: a whole model with the same vocabulary, or a head that was trained for the model's states.

    Source: speculative/standalone_worker_v2.py `_validate_vocab_compatibility`, arg_groups/speculative_hook.py
    """
    if method == "draft_model":
        _check_whole_draft(model, draft, deployment)
    elif draft.draft is None:
        if draft.architecture not in HEADS.get(method, frozenset()):
            message = f"kvplan does not know how `{draft.id}`, a {draft.architecture}, drafts by `{method}` in SGLang"
            raise InputError(message, hint=f"it knows {', '.join(sorted(frozenset().union(*HEADS.values())))}")
        stated = {fact.key: fact.value for fact in draft.facts}.get("target_hidden_size", draft.hidden_size)
        if stated != model.hidden_size:
            message = f"`{draft.id}` drafts for states of {stated} elements, `{model.id}` has {model.hidden_size}"
            raise InputError(message, hint="a head that was trained for the model")
    mixers = draft.draft.mixers if draft.draft else tuple(mixer for layer in draft.layers for mixer in layer.mixers)
    for mixer in mixers:
        if isinstance(mixer, LinearAttention | ShortConvolution | CompressedAttention):
            message = f"kvplan does not know how SGLang holds the states of `{draft.id}` while it drafts"
            raise InputError(message, hint="a draft of softmax attention alone")
        _check_heads(mixer, attention_tp(deployment))


def _check_whole_draft(model: ModelSpec, draft: ModelSpec, deployment: Deployment) -> None:
    if deployment.switches.attention_dp:
        message = "SGLang has no STANDALONE drafting beside attention over data-parallel ranks"
        raise InputError(message, hint="leave `attention_dp` out")
    if draft.vocab_size != model.vocab_size:
        message = f"the vocabularies differ: {draft.vocab_size:,} tokens of the draft `{draft.id}`"
        raise InputError(f"{message}, {model.vocab_size:,} of `{model.id}`", hint="a draft of the same vocabulary")
    if draft.draft is not None or draft.has_encoder:
        what = "for its layers of multi-token prediction alone" if draft.draft is not None else "for no decoder"
        raise InputError(f"SGLang takes `{draft.id}` {what}", hint="a draft that is a plain decoder")


def _check_adapters(deployment: Deployment) -> None:
    """Source: arg_groups/lora_hook.py `check_lora_speculative_compatibility`, lora/lora_manager.py `LoRAManager`"""
    if not deployment.switches.max_loras:
        return
    if deployment.switches.speculative_method == "draft_model":
        raise InputError("SGLang has no LoRA beside STANDALONE drafting", hint="EAGLE, EAGLE3, NEXTN or NGRAM")
    if attention_tp(deployment) != 1 and deployment.switches.attention_dp:
        message = "SGLang has LoRA beside data-parallel attention only where `dp` is `tp`"
        raise InputError(message, hint="the same number of both")


def _check_heads(mixer: Mixer, tp: int) -> None:
    """Query heads are dealt out evenly, KV heads evenly or replicated evenly; a latent's ranks hold it whole."""
    if mixer.num_heads % tp:
        raise InputError(f"SGLang cannot deal {mixer.num_heads} heads out to {tp} ranks", hint="a `tp` that divides")
    if isinstance(mixer, LatentAttention | CompressedAttention | LinearAttention | ShortConvolution):
        return
    if mixer.num_kv_heads % tp and tp % mixer.num_kv_heads:
        message = f"SGLang can neither deal out nor replicate {mixer.num_kv_heads} KV heads evenly to {tp} ranks"
        raise InputError(message, hint="a `tp` that divides them, or a multiple of them")
