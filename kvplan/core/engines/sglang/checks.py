"""What SGLang refuses.

Source: SGLang 0.5.23, sglang/srt/configs/model_config.py, layers/dp_attention.py, configs/mamba_utils.py `divide`
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.sglang.layers import attention_tp, draft_layers, is_dsa, stages
from kvplan.core.errors import InputError
from kvplan.core.mixers import CompressedAttention, LatentAttention, LinearAttention, Mixer, ShortConvolution
from kvplan.core.model import ModelSpec

ENCODER_DECODERS = frozenset({
    "WhisperForConditionalGeneration", "MllamaForConditionalGeneration", "MossVLForConditionalGeneration",
})  # fmt: skip
"""Source: configs/model_config.py `is_encoder_decoder_model`"""


def check(model: ModelSpec, deployment: Deployment) -> None:
    """Raises InputError for a layout, a format or a switch that SGLang does not start with."""
    _check_layout(model, deployment)
    _check_formats(model, deployment)
    _check_drafts(model, deployment)
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
    method, count = deployment.switches.speculative_method, deployment.switches.num_speculative_tokens
    if method == "draft_model" or deployment.switches.draft_model is not None:
        message = "kvplan does not plan a draft model of its own beside the model in SGLang"
        raise InputError(message, hint="plan both models apart, and take the sum")
    if method == "mtp" and model.draft is None:
        raise InputError(f"`{model.id}` has no layers for multi-token prediction", hint="`speculative_method=eagle`")
    if count and method is None:
        raise InputError("drafted tokens need a method", hint="e.g. `--set speculative_method=mtp`")
    if draft_layers(model, deployment) and deployment.pp > 1:
        raise InputError("kvplan does not know how SGLang drafts over pipeline stages", hint="use `pp` 1")


def _check_heads(mixer: Mixer, tp: int) -> None:
    """Query heads are dealt out evenly, KV heads evenly or replicated evenly; a latent's ranks hold it whole."""
    if mixer.num_heads % tp:
        raise InputError(f"SGLang cannot deal {mixer.num_heads} heads out to {tp} ranks", hint="a `tp` that divides")
    if isinstance(mixer, LatentAttention | CompressedAttention | LinearAttention | ShortConvolution):
        return
    if mixer.num_kv_heads % tp and tp % mixer.num_kv_heads:
        message = f"SGLang can neither deal out nor replicate {mixer.num_kv_heads} KV heads evenly to {tp} ranks"
        raise InputError(message, hint="a `tp` that divides them, or a multiple of them")
