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
    rope_bits: int | None = None
    """Bits of an element of a latent's rotary key, where it is held in another format than the latent."""

    def rope_bytes(self, num_elements: int) -> int:
        """Bytes of the rotary key that stands beside a latent."""
        if self.rope_bits is None:
            return self.vector_bytes(num_elements)
        return ceil_div(num_elements * self.rope_bits, 8)

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

# In a cache, fp8 has one scale per layer, which does not grow with tokens. The per-token-head formats carry one fp32
# scale per token and head for K and one for V (vllm/v1/attention/backends/triton_attn.py, 0.33); nvfp4 and the mx
# formats one byte a group (flashinfer.py; OCP MX, §5.2); latents in fp8 an fp32 scale for 128 elements, and their
# rotary key in 16 bits (mla_attention.py). q8_0 and what follows are ggml's blocks of 32: an fp16 scale, in the _1
# formats also an fp16 minimum (ggml/src/ggml-common.h).
KV_DTYPES = (
    FP32, BF16, FP16, DType("fp8", 8), DType("int8", 8, 32), DType("int4", 4, 32), DType("fp8_per_token_head", 8, 32),
    DType("nvfp4", 4, 8, 16), DType("mxfp4", 4, 8, 32), DType("mxfp8", 8, 8, 32),
    DType("fp8_ds_mla", 8, 32, 128, rope_bits=16), DType("nvfp4_ds_mla", 4, 8, 16, rope_bits=8),
    DType("q8_0", 8, 16, 32), DType("q5_1", 5, 32, 32), DType("q5_0", 5, 16, 32), DType("q4_1", 4, 32, 32),
    DType("q4_0", 4, 16, 32), DType("iq4_nl", 4, 16, 32),
)  # fmt: skip
MODEL_DTYPES = (FP32, BF16, FP16)

_ALIASES = {
    "float32": "fp32", "float": "fp32", "f32": "fp32", "tf32": "fp32",  # tf32 is stored as fp32
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "f16": "fp16",
    "int8_per_token_head": "int8", "int4_per_token_head": "int4", "fp4_e2m1": "mxfp4", "fp8_inc": "fp8",
    "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8",
}  # fmt: skip


def parse_dtype(text: str) -> DType:
    """The format of weights and activations: fp32 (tf32 is stored as fp32), bf16 or fp16."""
    return _lookup(text, MODEL_DTYPES, what="dtype")


def parse_kv_dtype(text: str) -> DType:
    """One format of the KV cache, such as bf16, fp8, int8 (a scale for each token and head), nvfp4 or q8_0."""
    return _lookup(text, KV_DTYPES, what="KV-cache dtype")


TURBOQUANT = {
    "turboquant_k8v4": (DType("turboquant_k8v4", 8), DType("turboquant_v4", 4, 32)),
    "turboquant_4bit_nc": (DType("turboquant_4bit_nc", 4, 16), DType("turboquant_v4", 4, 32)),
    "turboquant_k3v4_nc": (DType("turboquant_k3v4_nc", 3, 16), DType("turboquant_v4", 4, 32)),
    "turboquant_3bit_nc": (DType("turboquant_3bit_nc", 3, 16), DType("turboquant_v3", 3, 32)),
}
"""Keys and values of one vector: keys below 8 bits with a norm of 2 bytes, values with 4 bytes of scale and zero.

Source: vLLM 0.33, layers/quantization/turboquant/config.py
"""


def parse_kv_dtypes(text: str) -> tuple[DType, DType]:
    """The formats of keys and of values: one for both, or two, as in `q8_0/fp16`; the turboquant names are pairs."""
    pair = TURBOQUANT.get(text.strip().lower())
    if pair is not None:
        return pair
    key, slash, value = text.partition("/")
    return parse_kv_dtype(key), parse_kv_dtype(value if slash else key)


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
