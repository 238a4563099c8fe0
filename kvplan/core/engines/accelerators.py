"""Which makers' devices an engine runs on, and from which compute capability on."""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.hardware import Gpu

PORTS = {
    "vLLM": frozenset({"Google", "Intel", "AWS", "Apple"}),
    "SGLang": frozenset({"Google", "Intel", "Apple"}),
    "TensorRT-LLM": frozenset[str](),
}
"""Makers for whose devices an engine has a port, or a plugin, with an account of memory of its own."""
ROCM = frozenset({"vLLM", "SGLang"})
"""Engines whose own code runs on AMD's GPUs."""


def check_accelerator(gpu: Gpu | None, engine: str, capability: float) -> None:
    """Raises InputError for a device on which `engine` does not run, UnsupportedError for a port that is not known.

    `capability` is CUDA's least. A GPU of which nothing but its memory is known passes.
    """
    if gpu is None or not gpu.vendor or (gpu.vendor == "AMD" and engine in ROCM):
        return
    if gpu.vendor != "NVIDIA":
        if gpu.vendor in PORTS[engine]:
            message = f"how {engine}'s port to {gpu.vendor}'s devices shares out memory is not known to kvplan"
            raise UnsupportedError(message, hint="`--engine exact` counts what the model needs")
        runs_on = "NVIDIA's and AMD's" if engine in ROCM else "NVIDIA's"
        raise InputError(f"{engine} does not run on {gpu.name}, only on {runs_on} GPUs", hint="another engine, or GPU")
    if gpu.arch and float(gpu.arch) < capability:
        message = f"{engine} needs compute capability {capability} or above, {gpu.name} has {gpu.arch}"
        raise InputError(message, hint="a newer GPU, or another engine")


def on_rocm(gpu: Gpu | None) -> bool:
    """Whether an engine's code for AMD's GPUs runs, whose kernels take what CUDA's do not."""
    return gpu is not None and gpu.vendor == "AMD"


def accelerator_notes(deployment: Deployment) -> tuple[str, ...]:
    """What is assumed of a device that is not NVIDIA's."""
    gpu = deployment.gpu
    if gpu is None or not on_rocm(gpu):
        return ()
    return (f"{gpu.name}: the account is that of CUDA GPUs, assumed for ROCm, of which no log at hand tells more",)
