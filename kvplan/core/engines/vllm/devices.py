"""What vLLM asks of a device."""

from kvplan.core.engines.deployment import Deployment


def architecture(deployment: Deployment) -> float:
    """CUDA's compute capability, e.g. 9.0; of what has none, and where no GPU was named, Hopper's."""
    text = deployment.gpu.arch if deployment.gpu is not None else ""
    try:
        return float(text)
    except ValueError:
        return 9.0
