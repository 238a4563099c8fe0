import pytest

from kvplan.core.dtypes import parse_dtype, parse_kv_dtype
from kvplan.core.errors import InputError

# Bytes of one head's vector of 128 elements, by hand.
VECTORS = {
    "fp32": 512,
    "tf32": 512,  # stored as fp32; only the multiplication rounds
    "bf16": 256,
    "fp16": 256,
    "fp8": 128,
    "fp8_e5m2": 128,
    "int8": 132,  # 128 + one fp32 scale
    "int4": 68,  # 64 + one fp32 scale
}


@pytest.mark.parametrize(("name", "num_bytes"), VECTORS.items(), ids=VECTORS)
def test_bytes_of_a_vector_of_128(name, num_bytes):
    assert parse_kv_dtype(name).vector_bytes(128) == num_bytes


def test_four_bit_elements_are_packed_and_an_odd_one_takes_a_whole_byte():
    assert parse_kv_dtype("int4").vector_bytes(7) == 4 + 4


@pytest.mark.parametrize("name", ["float16", "half", "torch.float16", "FP16"])
def test_spellings(name):
    assert parse_dtype(name).name == "fp16"


def test_a_quantised_format_is_no_model_dtype_and_the_hint_says_what_is():
    with pytest.raises(InputError) as caught:
        parse_dtype("int8")
    assert "--quant int8" in caught.value.hint
    with pytest.raises(InputError):
        parse_kv_dtype("q9")
