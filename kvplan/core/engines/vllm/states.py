"""What vLLM keeps of a recurrent layer: columns of its convolution, and its states.

Source: vLLM 0.33, model_executor/layers/mamba/mamba_utils.py
"""

from kvplan.core.dtypes import DType, parse_dtype
from kvplan.core.engines.deployment import Deployment
from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import LinearAttention, ShortConvolution
from kvplan.core.model import ModelSpec
from kvplan.core.units import ceil_div, round_up

FP32_STATES = ("nemotron_h", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")
"""Model types whose recurrent states are fp32 unless something else is asked for (models/config.py, 812-977)."""


def state_bytes(mixer: LinearAttention | ShortConvolution, model: ModelSpec, deployment: Deployment) -> int:
    """Bytes of one layer's convolution columns and states.

        conv    (k − 1 + s) · channels / tp          s speculative tokens; not for Mamba-1
        state   heads / tp · key_dim · value_dim

    The newest column is not kept, unlike in transformers. Mamba-2's groups are extended to a multiple of tp.

    Source: vLLM 0.33, model_executor/layers/mamba/mamba_utils.py 53-319
    """
    tp, switches = deployment.tp, deployment.switches
    conv_dtype = parse_dtype(switches.conv_dtype) if switches.conv_dtype else deployment.dtype
    if isinstance(mixer, ShortConvolution):
        return ceil_div((mixer.columns - 1) * ceil_div(mixer.channels, tp) * conv_dtype.bits, 8)
    if mixer.recurrence is None or mixer.recurrence in ("rg_lru", "rwkv", "xlstm"):
        message = f"vLLM does not run the recurrence of `{model.model_type}`"
        raise UnsupportedError(message, hint="`--engine exact` counts what the model needs")
    columns = max(0, mixer.conv_columns - 1)
    if mixer.conv_columns and mixer.recurrence != "mamba1":
        columns += switches.num_speculative_tokens
    conv = ceil_div(columns * ceil_div(_channels(mixer, tp), tp) * conv_dtype.bits, 8)
    elements = ceil_div(mixer.num_heads, tp) * mixer.key_dim * mixer.value_dim
    return conv + ceil_div(elements * state_dtype(mixer, model, deployment, conv_dtype).bits, 8)


def _channels(mixer: LinearAttention, tp: int) -> int:
    """Channels of the convolution, with the groups that tensor parallelism adds."""
    if mixer.recurrence != "mamba2" or mixer.num_key_heads % tp == 0:
        return mixer.conv_channels
    added = round_up(mixer.num_key_heads, tp) - mixer.num_key_heads
    return mixer.conv_channels + 2 * added * mixer.key_dim


def state_dtype(mixer: LinearAttention, model: ModelSpec, deployment: Deployment, conv_dtype: DType) -> DType:
    """As asked for; fp32 for KDA and the model types that say so; else that of the columns."""
    asked = deployment.switches.state_dtype
    if asked and asked != "auto":
        return parse_dtype(asked)
    if mixer.recurrence == "kda" or model.model_type in FP32_STATES:
        return parse_dtype("fp32")
    return conv_dtype
