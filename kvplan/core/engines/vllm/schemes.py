"""What vLLM's quantisation schemes ask of a GPU and of the dtype of activations.

    capability 8.0     mxfp4, mxfp8, fbgemm_fp8, experts_int8; modelopt's FP8 and MXFP8; mxfp4 by compressed-tensors
    capability 8.9     fp8 by Quark
    capability 10.0    fp_quant
    bf16 alone         mxfp4, mxfp8, fp_quant, modelopt's MXFP8
    bf16 or fp16       all others but compressed-tensors and torchao

The rest needs no more than vLLM itself: fp8, in 8 bits by Marlin's kernels before 8.9, AWQ, GPTQ, NVFP4.

Source: vLLM 0.33, config/vllm.py 930-943; layers/quantization/ `get_min_capability`, `get_supported_act_dtypes` of each
config, compressed_tensors.py `get_scheme` and quark.py, which ask each layer's scheme; mxfp4.py of 0.12 says the same.
Older releases are not judged otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.vllm.rules import Rules, numbers
from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec, Weight
from kvplan.core.weights import all_weights

REMOVED_SCHEMES = dict.fromkeys(("bitsandbytes", "hqq", "aqlm"), (0, 33))
"""Schemes that earlier releases read, and that 0.33 at the latest does not (layers/quantization/__init__.py)."""
JUDGED = (0, 33)
_BF16, _HALVES, _ALL = ("bf16",), ("bf16", "fp16"), ("bf16", "fp16", "fp32")


@dataclass(frozen=True, slots=True)
class _Needs:
    """Of one scheme: the least compute capability (0 = vLLM's own), and the dtypes of activations."""

    capability: float
    dtypes: tuple[str, ...]
    since: tuple[int, ...] = JUDGED


_NEEDS = {
    "mxfp4": _Needs(8.0, _BF16, since=(0, 12)),
    "gpt_oss_mxfp4": _Needs(8.0, _BF16),
    "mxfp8": _Needs(8.0, _BF16),
    "fbgemm_fp8": _Needs(8.0, _HALVES),
    "experts_int8": _Needs(8.0, _HALVES),
    "fp_quant": _Needs(10.0, _BF16),
    "modelopt fp8": _Needs(8.0, _HALVES),
    "modelopt mxfp8": _Needs(8.0, _BF16),
    "compressed-tensors mxfp4": _Needs(8.0, _ALL),
    "quark fp8": _Needs(8.9, _HALVES),
    **dict.fromkeys(("fp8", "awq", "gptq", "auto-round", "quark", "modelopt"), _Needs(0, _HALVES)),
}


def check_scheme(model: ModelSpec, deployment: Deployment, rules: Rules) -> None:
    """Raises InputError for weights in a scheme that the release, the GPU or the dtype does not read."""
    quant = model.quantization
    method = "" if quant is None else quant.method.partition(" ")[0].replace("compressed_tensors", "compressed-tensors")
    gone = REMOVED_SCHEMES.get(method)
    if gone is not None and numbers(rules) >= gone:
        message = f"vLLM {rules.version} does not read weights in {method}, as `{model.id}` stores them"
        raise InputError(message, hint="another checkpoint of the model, or an older vLLM")
    name = _name(model, method)
    needs = _NEEDS.get(name)
    if needs is None or numbers(rules) < needs.since:
        return
    arch = deployment.gpu.arch if deployment.gpu is not None else ""
    if arch.replace(".", "", 1).isdecimal() and float(arch) < needs.capability:
        message = f"vLLM {rules.version} reads weights in {name} from compute capability {needs.capability} on"
        raise InputError(f"{message}, this GPU has {arch}", hint="a newer GPU, or another checkpoint of the model")
    if deployment.dtype.name not in needs.dtypes:
        dtypes = " or ".join(needs.dtypes)
        message = f"vLLM {rules.version} runs weights in {name} with activations in {dtypes}"
        raise InputError(f"{message}, not {deployment.dtype.name}", hint=f"`--dtype {needs.dtypes[0]}`")


def _name(model: ModelSpec, method: str) -> str:
    """The scheme's method; with the format, where one method has several and the need depends on it.

    modelopt's algorithm is the model's; compressed-tensors and Quark are asked for each linear layer, experts apart.
    """
    family = "modelopt" if method.startswith("modelopt") else method
    if family == "modelopt":
        formats = set(_formats(weight for weight, _ in all_weights(model)))
        return f"{family} {formats.pop()}" if formats in ({"fp8"}, {"mxfp8"}) else family
    known = set(_formats(weight for weight, _ in all_weights(model) if weight.part != "experts"))
    if family == "compressed-tensors" and "mxfp4" in known:
        return f"{family} mxfp4"
    if family == "quark" and any(name.startswith("quark fp8") for name in known):
        return "quark fp8"
    return family


def _formats(weights: Iterator[Weight]) -> Iterator[str]:
    return (weight.stored.name for weight in weights if weight.stored is not None and weight.stored.name != "plain")
