"""What TensorRT-LLM refuses.

Source: its "Supported Hardware" for devices: Ampere to Blackwell, for which alone its kernels are built
"""

from kvplan.core.engines.accelerators import check_accelerator
from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.trtllm.layers import attention_tp, block, stages_of
from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec

LEAST_CAPABILITY = 8.0


def check(model: ModelSpec, deployment: Deployment) -> None:
    """Raises InputError for what TensorRT-LLM refuses, UnsupportedError for what kvplan does not know of it."""
    check_accelerator(deployment.gpu, "TensorRT-LLM", LEAST_CAPABILITY)
    if model.has_encoder and not model.crosses_images:
        raise InputError(f"TensorRT-LLM's PyTorch backend does not serve `{model.id}`", hint="use another engine")
    if deployment.dcp > 1 or deployment.pcp > 1:
        raise InputError("kvplan knows no context parallelism of TensorRT-LLM", hint="leave `dcp` and `pcp` out")
    if deployment.key_dtype != deployment.value_dtype:
        raise InputError("TensorRT-LLM holds keys and values in one format", hint="e.g. `--kv-dtype fp8`")
    if deployment.pp > model.num_layers or block(deployment) < 1:
        raise InputError("more stages than layers, or blocks of no token", hint="fewer stages; blocks of 32 or 64")
    if deployment.switches.speculative_method == "mtp" and model.draft is None:
        raise InputError(f"`{model.id}` has no layers for multi-token prediction", hint="`speculative_method=eagle3`")
    tp = attention_tp(deployment)
    for layer in model.layers:
        for mixer in layer.mixers:
            if mixer.num_heads % tp and not layer.in_encoder:
                message = f"TensorRT-LLM cannot deal {mixer.num_heads} heads out to {tp} ranks"
                raise InputError(message, hint="a `tp` that divides them")
    if not any(stage.windows for stage in stages_of(model, deployment)):
        raise InputError(f"`{model.id}` has no attention to make a pool for", hint="use `--engine exact`")
