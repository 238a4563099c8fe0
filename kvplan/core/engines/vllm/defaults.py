"""What vLLM takes for a limit that nobody set: requests at once, tokens of one step.

Both decide what the profile run holds, and so how much is left for the pool.

Sources: vLLM, engine/arg_utils.py: 0.33 lines 2940-3006 and 3151-3240; 0.28 lines 2582-2591 (the tier of 160 GiB); 0.9
`_set_default_args_v1`; before 0.8 `SchedulerConfig.__post_init__` in config.py.
"""

from kvplan.core.dtypes import BF16, FP16, FP32, DType
from kvplan.core.engines.deployment import Deployment
from kvplan.core.hardware import Gpu
from kvplan.core.model import ModelSpec
from kvplan.core.units import GIB

V1_ENGINE = (0, 8)
"""The release from which on the V1 engine is the default."""
_TURING_ON_V1 = (0, 10)
_KNOWS_A100 = (0, 9)
_TIER_OF_160 = (0, 28)
_SEQUENCES, _MANY_SEQUENCES = 256, 1024
_LONG_V0_CONTEXT = 32768
"""Above, V0 reads prompts in chunks by itself."""


_FITS_THE_DEVICE = (0, 9)
"""From here on `auto` falls back to a format that the device has."""
_KNOWS_OVERFLOWS = (0, 10)
_NO_FP16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4", "plamo2"})
"""Model types that overflow in fp16."""


def auto_dtype(model: ModelSpec, gpu: Gpu | None, release: tuple[int, ...]) -> DType:
    """What `--dtype auto` makes of a checkpoint: 16 bits of fp32, and nothing that the device lacks.

    Source: vLLM, config/model.py `_resolve_auto_dtype` and `_FLOAT16_NOT_SUPPORTED_MODELS`; before 0.9 config.py
    """
    own = model.dtype or BF16
    overflows = model.model_type in _NO_FP16
    if release < _FITS_THE_DEVICE:
        return (BF16 if overflows else FP16) if own == FP32 else own
    if _capability(gpu) < (8, 0) and own != FP16:
        return FP32 if overflows and release >= _KNOWS_OVERFLOWS else FP16
    return BF16 if own == FP32 else own


def is_v1(deployment: Deployment, release: tuple[int, ...]) -> bool:
    """Whether the V1 engine runs: from 0.8 on, on GPUs before compute capability 8.0 from 0.10 on."""
    if release < V1_ENGINE:
        return False
    return release >= _TURING_ON_V1 or not _capability(deployment.gpu) < (8, 0)


def default_max_num_seqs(deployment: Deployment, release: tuple[int, ...]) -> int:
    """Requests at once: `max_num_seqs` where it is set, else vLLM's default, at most the tokens of a step.

    1024 on a device of at least 70 GiB that is no A100, else 256.
    """
    given = deployment.switches.max_num_seqs
    if given is not None:
        return given
    return min(_sequences(deployment, release), default_max_num_batched_tokens(deployment, release))


def default_max_num_batched_tokens(deployment: Deployment, release: tuple[int, ...]) -> int:
    """Tokens of one step: `max_num_batched_tokens` where it is set, else vLLM's default.

    at least 160 GiB (from 0.28)          16384
    at least 70 GiB, no A100 (from 0.8)    8192, 16384 for the Python class
    other GPUs (from 0.8)                  2048, 8192 for the Python class
    V0                                     the longest request, at least 2048; 2048 for more than 32768 tokens (0.6.4)

    At most what all requests together can have. Without a GPU the smaller, as vLLM does where it cannot ask the device.
    """
    switches = deployment.switches
    if switches.max_num_batched_tokens is not None:
        return switches.max_num_batched_tokens
    sequences = switches.max_num_seqs or _sequences(deployment, release)
    tokens = _v1_tokens(deployment, release) if is_v1(deployment, release) else _v0_tokens(deployment, release)
    return min(tokens, sequences * deployment.max_model_len)


def _sequences(deployment: Deployment, release: tuple[int, ...]) -> int:
    large = is_v1(deployment, release) and _is_large(deployment.gpu, release)
    return _MANY_SEQUENCES if large else _SEQUENCES


def _v1_tokens(deployment: Deployment, release: tuple[int, ...]) -> int:
    gpu, from_python = deployment.gpu, deployment.switches.usage == "llm"
    if release >= _TIER_OF_160 and device_bytes(gpu) >= 160 * GIB:
        return 16384
    if _is_large(gpu, release):
        return 16384 if from_python else 8192
    return 8192 if from_python else 2048


def _v0_tokens(deployment: Deployment, release: tuple[int, ...]) -> int:
    if deployment.max_model_len > _LONG_V0_CONTEXT and release >= (0, 5):
        return 2048 if release >= (0, 6, 4) else 512
    return max(deployment.max_model_len, 2048)


def _is_large(gpu: Gpu | None, release: tuple[int, ...]) -> bool:
    if gpu is not None and gpu.name.startswith("A100") and release >= _KNOWS_A100:
        return False
    return device_bytes(gpu) >= 70 * GIB


def device_bytes(gpu: Gpu | None) -> int:
    """What the device has, as exactly as a threshold of tens of GiB needs it; of unified memory what the maker says."""
    if gpu is None:
        return 0
    known = gpu.visible_bytes or gpu.memory_bytes
    return known if known is not None else int(1000**3 * (gpu.marketed_gb or 0))


def _capability(gpu: Gpu | None) -> tuple[int, int]:
    """CUDA's compute capability; of other makers' devices, and where it is not known, one that everything runs on."""
    major, dot, minor = (gpu.arch if gpu is not None else "").partition(".")
    return (int(major), int(minor)) if dot and major.isdigit() and minor.isdigit() else (9, 0)


def is_hopper_or_newer(gpu: Gpu | None) -> bool:
    """Compute capability 9.0 or above: where cuBLAS takes its large workspace."""
    return _capability(gpu) >= (9, 0)
