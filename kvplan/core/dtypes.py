"""Number formats, counted in bits, with the scales that travel with them.

To add one: a row in `_DTYPES` (and its spellings in `_ALIASES`).
"""

from dataclasses import dataclass

from kvplan.core.errors import InputError
from kvplan.core.units import ceil_div


@dataclass(frozen=True, slots=True)
class DType:
    """A number format: bits per element, and the bits of one scale per group of elements.

    A KV cache groups the elements of one head's vector (`group_size` None = the whole vector).
    """

    name: str
    bits: int
    scale_bits: int = 0
    group_size: int | None = None

    def vector_bytes(self, num_elements: int) -> int:
        """Bytes of one vector of `num_elements` with its scales.

        bytes = ⌈elements · bits / 8⌉ + groups · scale_bits / 8
        """
        data = ceil_div(num_elements * self.bits, 8)
        if not self.scale_bits:
            return data
        groups = 1 if self.group_size is None else ceil_div(num_elements, self.group_size)
        return data + ceil_div(groups * self.scale_bits, 8)


FP32 = DType("fp32", 32)
BF16 = DType("bf16", 16)
FP16 = DType("fp16", 16)

# In a cache, fp8 has one scale per layer, which does not grow with tokens; int8 and int4 carry one fp32
# scale per token and head for K and one for V, as vLLM's per-token-head formats do
# (vllm/v1/attention/backends/triton_attn.py, 0.33).
KV_DTYPES = (FP32, BF16, FP16, DType("fp8", 8), DType("int8", 8, 32), DType("int4", 4, 32))
MODEL_DTYPES = (FP32, BF16, FP16)

_ALIASES = {
    "float32": "fp32", "float": "fp32", "f32": "fp32", "tf32": "fp32",  # tf32 is stored as fp32
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "f16": "fp16",
    "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8",
}  # fmt: skip


def parse_dtype(text: str) -> DType:
    """The format of weights and activations: fp32 (tf32 is stored as fp32), bf16 or fp16."""
    return _lookup(text, MODEL_DTYPES, what="dtype")


def parse_kv_dtype(text: str) -> DType:
    """The format of the KV cache: fp32, tf32, bf16, fp16, fp8, int8 or int4 (the last two with scales)."""
    return _lookup(text, KV_DTYPES, what="KV-cache dtype")


def _lookup(text: str, choices: tuple[DType, ...], *, what: str) -> DType:
    name = text.strip().lower().removeprefix("torch.")
    name = _ALIASES.get(name, name)
    for dtype in choices:
        if dtype.name == name:
            return dtype
    names = ", ".join(dtype.name for dtype in choices)
    hint = f"one of {names}"
    if what == "dtype" and name in {"fp8", "int8", "int4"}:
        hint += f"; quantised weights are `--quant {name}`, a quantised cache is `--kv-dtype {name}`"
    raise InputError(f"`{text[:40]}` is not a {what} that kvplan knows", hint=hint)
