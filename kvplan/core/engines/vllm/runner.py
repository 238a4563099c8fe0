"""Which of vLLM's two model runners runs a model: what they hold in the profile run differs.

Source: vllm/config/vllm.py `use_v2_model_runner`, `_is_default_v2_model_runner_model`, `DEFAULT_V2_MODEL_RUNNER_
ARCHITECTURES` of vLLM 0.21 to 0.33, read at each release. What an environment variable or an option that the newer
runner does not support would change is not followed.
"""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.mixers import LinearAttention, ShortConvolution
from kvplan.core.model import ModelSpec

_FIRST, _MORE, _QUANTISED, _DENSE, _ALL = (0, 22), (0, 23), (0, 24), (0, 25), (0, 29)
_PIONEERS = {_FIRST: {"qwen3"}, _MORE: {"qwen3", "llama", "mistral"}}
_WITH_EXPERTS = {"deepseek_v2", "qwen2_moe", "granitemoe"}
"""Model types with experts that the newer runner ran before it ran all."""


def runs_on_v2(model: ModelSpec, deployment: Deployment, release: tuple[int, ...]) -> bool:
    """Whether the newer runner ("Using V2 Model Runner") runs a model where nothing else is said.

    0.22    Qwen3 in full precision
    0.23    also Llama and Mistral
    0.24    the same however quantised, and three types with experts
    0.25    all that generate, but those with other experts or with recurrent states
    0.29    all
    """
    if release < _FIRST:
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
    return listed or not (_has_experts(model) or has_states(model))


def has_states(model: ModelSpec) -> bool:
    """Whether any layer keeps a recurrent state."""
    return any(
        isinstance(mixer, LinearAttention | ShortConvolution) for layer in model.layers for mixer in layer.mixers
    )


def _has_experts(model: ModelSpec) -> bool:
    return any(weight.part == "experts" for layer in model.layers for weight in layer.weights)
