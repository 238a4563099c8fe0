"""Which of vLLM's two model runners runs a model: what they hold in the profile run differs.

Source: vllm/config/vllm.py `use_v2_model_runner`, `_is_default_v2_model_runner_model`, `DEFAULT_V2_MODEL_RUNNER_
ARCHITECTURES`, `_get_v2_model_runner_unsupported_features` of vLLM 0.21 to 0.33, read at each release. What an
environment variable or another option that the newer runner does not support would change is not followed.
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.mixers import LinearAttention, ShortConvolution
from kvplan.core.model import ModelSpec

_FIRST, _MORE, _QUANTISED, _DENSE, _ALL = (0, 22), (0, 23), (0, 24), (0, 25), (0, 29)
_PIONEERS = {_FIRST: {"qwen3"}, _MORE: {"qwen3", "llama", "mistral"}}
_WITH_EXPERTS = {"deepseek_v2", "qwen2_moe", "granitemoe"}
"""Model types with experts that the newer runner ran before it ran all."""
_NEVER = (1,)
_DRAFTS = {
    "eagle": _FIRST, "eagle3": _FIRST, "mtp": _FIRST, "dflash": _QUANTISED, "dspark": _DENSE,
    "extract_hidden_states": _ALL, "draft_model": (0, 31), "ngram": (0, 32), "ngram_gpu": (0, 32),
}  # fmt: skip
"""Releases from which on the newer runner drafts by a method; another one keeps the older runner."""
_EAGLE3_STAGES = (0, 30)
"""From here on it drafts by EAGLE-3 over pipeline stages."""


def runs_on_v2(model: ModelSpec, deployment: Deployment, release: tuple[int, ...]) -> bool:
    """Whether the newer runner ("Using V2 Model Runner") runs a model where nothing else is said.

    0.22    Qwen3 in full precision
    0.23    also Llama and Mistral
    0.24    the same however quantised, and three types with experts
    0.25    all that generate, but those with other experts or with recurrent states
    0.29    all
    """
    if release < _FIRST or not _drafts_on_v2(deployment, release):
        return False
    if release >= _ALL or deployment.pcp > 1:
        return True
    if not model.has_vocabulary_head:
        return False
    if release < _QUANTISED:
        names = _PIONEERS[_FIRST if release < _MORE else _MORE]
        return model.model_type in names and model.quantization is None
    listed = model.model_type in _WITH_EXPERTS
    if release < _DENSE:
        return listed or model.model_type in _PIONEERS[_MORE]
    return listed or not (model.has_experts or has_states(model))


def _drafts_on_v2(deployment: Deployment, release: tuple[int, ...]) -> bool:
    method = deployment.switches.speculative_method
    if method is None:
        return True
    if deployment.switches.heterogeneous_vocab:
        return False
    if method == "eagle3" and deployment.pp > 1 and release < _EAGLE3_STAGES:
        return False
    return release >= _DRAFTS.get("mtp" if method.endswith("_mtp") else method, _NEVER)


def has_states(model: ModelSpec) -> bool:
    """Whether any layer keeps a recurrent state."""
    return any(
        isinstance(mixer, LinearAttention | ShortConvolution) for layer in model.layers for mixer in layer.mixers
    )
