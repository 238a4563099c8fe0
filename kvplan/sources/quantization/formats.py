"""What each scheme stores for one matrix of rows × columns (outputs × inputs), tensor by tensor.

To add a format: a function here that returns a `StoredFormat`, and the scheme that uses it.
"""

from dataclasses import replace
from functools import lru_cache
from json import dumps
from math import gcd

from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.core.units import ceil_div

ROW, COLUMN, WHOLE = (1, 0), (0, 1), (0, 0)
"""Blocks behind one element: a row, a column, the whole matrix."""


def per_group(group: int) -> tuple[int, int]:
    """The block of a scale per `group` elements of a row, 0 standing for all of them."""
    return (1, group)


def plain(dtype_bits: int) -> StoredFormat:
    """Unquantised: for a matrix that has something beside it all the same."""
    return StoredFormat("plain", (StoredTensor("weight", dtype_bits),))


@lru_cache(maxsize=256)
def scaled(name: str, bits: int, *beside: tuple[str, int, tuple[int, int]]) -> StoredFormat:
    """Elements of `bits` and tensors beside them: (name, bits of an element, the block behind one)."""
    return StoredFormat(name, (StoredTensor("weight", bits), *(StoredTensor(*tensor) for tensor in beside)))


@lru_cache(maxsize=64)
def gptq(bits: int, group: int, *, index: bool = True) -> StoredFormat:
    """GPTQ: int32 words down the inputs; zero points in int32 words along the outputs; a group index per input.

        qweight  ⌈columns · bits / 32⌉ · rows words      qzeros  ⌈columns / group⌉ · ⌈rows · bits / 32⌉ words
        scales   ⌈columns / group⌉ · rows fp16           g_idx   columns int32

    Symmetric ones store zero points too. AutoGPTQ up to 0.7 also writes a bias of zeros for every matrix that has
    none, which engines skip and which is not counted.

    Source: auto-round 0.16, auto_round_extension/torch/qlinear_torch.py; AutoGPTQ@005a942, auto_gptq/modeling/_utils.py
    """
    tensors = (
        StoredTensor("qweight", bits, (1, 1), word=32, along="columns"),
        StoredTensor("scales", 16, per_group(group)),
        StoredTensor("qzeros", bits, per_group(group), word=32, along="rows"),
    )
    return StoredFormat(f"gptq int{bits}", (*tensors, StoredTensor("g_idx", 32, COLUMN)) if index else tensors)


@lru_cache(maxsize=64)
def marlin(bits: int, group: int) -> StoredFormat:
    """GPTQ in Marlin's order: the packed elements and fp16 scales, no zero points, no group index.

    Source: AutoGPTQ, nn_modules/qlinear/qlinear_marlin.py
    """
    return scaled(f"marlin int{bits}", bits, ("s", 16, per_group(group)))


@lru_cache(maxsize=64)
def awq(bits: int, group: int) -> StoredFormat:
    """AWQ for GEMM kernels: weights and zero points in int32 words along the outputs, fp16 scales.

        qweight  columns · ⌈rows · bits / 32⌉ words    qzeros  ⌈columns / group⌉ · ⌈rows · bits / 32⌉ words

    Source: AutoAWQ 0.2.9, modules/linear/gemm.py
    """
    return StoredFormat(
        f"awq int{bits}",
        (
            StoredTensor("qweight", bits, (1, 1), word=32, along="rows"),
            StoredTensor("scales", 16, per_group(group)),
            StoredTensor("qzeros", bits, per_group(group), word=32, along="rows"),
        ),
    )


@lru_cache(maxsize=64)
def awq_gemv(group: int, columns: int, *, fast: bool) -> StoredFormat:
    """AWQ for GEMV kernels: scales and zero points of each row padded to whole words of eight.

        padded = 8 · ⌈⌈⌊columns / group⌋ / 8⌉ / m⌉ · m,  m = 1, 2, 4 for groups of 128, 64, 32

    The fast kind stores its zero points in fp16 as well.

    Source: AutoAWQ 0.2.9, modules/linear/gemv.py and gemv_fast.py `calculate_zeros_width`
    """
    multiple = 1 if group == 0 or group >= 128 else 128 // group
    groups = columns // group if group else 1
    padded = 8 * ceil_div(ceil_div(groups, 8), multiple) * multiple
    zeros = StoredTensor("qzeros", padded * (16 if fast else 4), ROW)
    return StoredFormat("awq int4", (StoredTensor("qweight", 4), StoredTensor("scales", 16 * padded, ROW), zeros))


@lru_cache(maxsize=256)
def bnb_4bit(kind: str, rows: int, columns: int, dtype: str, block: int, *, nested: bool) -> StoredFormat:
    """bitsandbytes in 4 bits: a largest value per 64 elements in fp32, or in 8 bits with one fp32 per 256 of those.

        weight  ⌈elements / 2⌉      absmax  ⌈elements / 64⌉ · (4 or 1)      nested_absmax  ⌈absmax / 256⌉ · 4
        quant_map  16 · 4           nested_quant_map  256 · 4               quant_state  a JSON text

    The text holds one number of 17 significant digits where it is nested, so it may be a byte or two off.

    Source: bitsandbytes 0.50, functional.py `QuantState.as_dict`
    """
    state: dict[str, object] = {"quant_type": kind, "blocksize": block, "dtype": dtype, "shape": [rows, columns]}
    beside = [StoredTensor("absmax", 8 if nested else 32, block), StoredTensor("quant_map", 16 * 32, WHOLE)]
    if nested:
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.03875888511538506}
        beside += [
            StoredTensor("nested_absmax", 32, block * 256),
            StoredTensor("nested_quant_map", 256 * 32, WHOLE),
        ]
    text = StoredTensor("quant_state", 8 * len(dumps(state)), WHOLE)
    return StoredFormat(f"bnb {kind}", (StoredTensor("weight", 4), *beside, text))


def bnb_8bit() -> StoredFormat:
    """bitsandbytes in 8 bits: an fp32 scale per output, and one byte that names the layout.

    Source: bitsandbytes 0.50, nn/modules.py `Linear8bitLt._save_to_state_dict`
    """
    return scaled("bnb int8", 8, ("SCB", 32, ROW), ("weight_format", 8, WHOLE))


def fp8(block: tuple[int, int], *, scale_bits: int = 32, static: bool = False) -> StoredFormat:
    """8-bit floats with a scale per block, and with static activations one fp32 scale of the inputs.

    Source: deepseek-ai/DeepSeek-V3 README_WEIGHTS.md; transformers 5.23, integrations/finegrained_fp8.py
    """
    beside = (("weight_scale", scale_bits, block),)
    return scaled("fp8", 8, *beside, ("input_scale", 32, WHOLE)) if static else scaled("fp8", 8, *beside)


def nvfp4(group: int = 16, *, static_input: bool = True) -> StoredFormat:
    """4-bit floats, an 8-bit float scale per 16, an fp32 scale per matrix, and mostly one of the inputs.

    Source: compressed-tensors 0.20, compressors/nvfp4/base.py; nvidia-modelopt 0.47, torch/export/unified_export_hf.py
    """
    beside = (("weight_scale", 8, per_group(group)), ("weight_global_scale", 32, WHOLE))
    if static_input:
        return scaled("nvfp4", 4, *beside, ("input_global_scale", 32, WHOLE))
    return scaled("nvfp4", 4, *beside)


def microscaled(bits: int, group: int = 32) -> StoredFormat:
    """MXFP4, MXFP6, MXFP8: 32 elements along a row share one 8-bit exponent.

    Source: OCP Microscaling Formats 1.0; transformers 5.23, integrations/mxfp4.py
    """
    return scaled(f"mxfp{bits}", bits, ("weight_scale", 8, per_group(group)))


@lru_cache(maxsize=64)
def packed_int(
    bits: int, group: int, dtype_bits: int, *, zeros: bool = False, index: bool = False, shape_bits: int = 64
) -> StoredFormat:
    """compressed-tensors' `pack-quantized`: int32 words along a row, scales in the model's dtype, the shape.

        weight_packed  rows · ⌈columns · bits / 32⌉ words    weight_shape  2 int64, in Kimi K2 int32
        weight_zero_point  ⌈rows · bits / 32⌉ · ⌈columns / group⌉ words, where not symmetric

    Source: compressed-tensors 0.20, compressors/pack_quantized/base.py
    """
    tensors = [
        StoredTensor("weight_packed", bits, (1, 1), word=32, along="columns"),
        StoredTensor("weight_scale", dtype_bits, per_group(group)),
        StoredTensor("weight_shape", 2 * shape_bits, WHOLE),
    ]
    if zeros:
        tensors.append(StoredTensor("weight_zero_point", bits, per_group(group), word=32, along="rows"))
    if index:
        tensors.append(StoredTensor("weight_g_idx", 32, COLUMN))
    return StoredFormat(f"int{bits}", tuple(tensors))


@lru_cache(maxsize=64)
def affine(bits: int, group: int, dtype_bits: int) -> StoredFormat:
    """MLX's affine groups: uint32 words along a row, a scale and a bias per group in the model's dtype.

    Source: mlx-lm 0.32, utils.py; transformers 5.23, integrations/metal_quantization.py
    """
    weight = StoredTensor("weight", bits, (1, 1), word=32, along="columns")
    beside = (StoredTensor(name, dtype_bits, per_group(group)) for name in ("scales", "biases"))
    return StoredFormat(f"affine int{bits}", (weight, *beside))


def averaged(name: str, thousandths: int, *beside: tuple[str, int, tuple[int, int]]) -> StoredFormat:
    """A scheme whose config states only an average of bits per element: 4.5 are 9 bits for every two elements."""
    form, whole = scaled(name, 1, *beside), gcd(thousandths, 1000)
    weight = StoredTensor("weight", thousandths // whole, 1000 // whole)
    return replace(form, tensors=(weight, *form.tensors[1:]))
