"""transformers' static and quantised caches, held to the tensors of its own classes."""

import pytest
import torch
from transformers import QuantizedCache, StaticCache
from transformers.cache_utils import QuantizedLayer
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.llama import LlamaConfig

from kvplan import InputError, load_model
from kvplan.core.cache import caches_of
from kvplan.core.dtypes import parse_kv_dtype
from kvplan.core.engines.transformers import CACHES, profile
from tests.models import LLAMA, spec

BF16 = parse_kv_dtype("bf16")
GEMMA = Gemma3TextConfig(
    num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=16, hidden_size=64, sliding_window=8,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
)  # fmt: skip
PLAIN = LlamaConfig(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64, hidden_size=256)


def model_of(config):
    name = "Gemma3ForCausalLM" if config is GEMMA else "LlamaForCausalLM"
    return spec({**config.to_dict(), "architectures": [name], "torch_dtype": "bfloat16"})


def planned(model, kind, num_tokens):
    reserve = profile(None, kind).reserve
    return sum(
        count * reserve(cache, mixer).bytes_for(num_tokens)
        for layer, count in model.layer_counts()
        for mixer, cache in caches_of(layer, BF16)
    )


def feed(cache, config, *steps):
    """The cache after passes of so many tokens, one sequence."""
    for tokens in steps:
        for layer in range(config.num_hidden_layers):
            shape = (1, config.num_key_value_heads, tokens, config.head_dim)
            cache.update(torch.randn(shape, dtype=torch.bfloat16), torch.randn(shape, dtype=torch.bfloat16), layer)
    return cache


def size_of(held):
    if isinstance(held, torch.Tensor):
        return held.untyped_storage().nbytes()
    return sum(size_of(part) for part in held) if isinstance(held, list | tuple) else 0


@pytest.mark.parametrize(("config", "length"), [(GEMMA, 5), (GEMMA, 8), (GEMMA, 40), (PLAIN, 40)])
def test_a_static_cache_as_long_as_the_sequence(config, length):
    cache = feed(StaticCache(config=config, max_cache_len=length), config, length - 1, 1)
    held = sum(size_of([layer.keys, layer.values]) for layer in cache.layers)
    assert planned(model_of(config), "static", length) == held


def test_static_holds_one_token_more_of_a_window_than_dynamic():
    # 2 layers · 2 heads · 32 · 2 bytes
    model = model_of(GEMMA)
    assert planned(model, "static", 40) - planned(model, "dynamic", 40) == 2 * 128


def quantised_lengths(steps):
    """(tokens quantised, tokens in full) that transformers' own class comes to."""

    class Layer(QuantizedLayer):
        def _quantize(self, tensor, axis):
            return tensor

        def _dequantize(self, q_tensor):
            return q_tensor

    layer = Layer()
    for tokens in steps:
        states = torch.zeros(1, 2, tokens, 64)
        layer.update(states, states)
    return layer._quantized_keys.shape[-2], layer.keys.shape[-2] if layer.keys.dim() == 4 else 0


@pytest.mark.parametrize("steps", [(200,), (200, *[1] * 127), (200, *[1] * 128), (1, *[1] * 100), (300, 50, 50)])
@pytest.mark.parametrize(("kind", "bits"), [("quantized", 4), ("quantized_2bit", 2)])
def test_a_quantised_cache_holds_no_more(steps, kind, bits):
    packed, full = quantised_lengths(steps)
    elements = 2 * 2 * 2 * 64
    held = packed * (elements * bits // 8 + elements // 64 * 4) + full * elements * 2
    plan = planned(model_of(PLAIN), kind, sum(steps))
    assert held <= plan
    # 127 tokens in full are the most that wait.
    assert (held == plan) == (full == 127)


def test_what_backends_were_measured_to_hold():
    # optimum-quanto 0.2.7 and hqq 0.2.8, CPU: keys and values of 100 tokens, 2 heads of 64: 14,400 bytes in 4 bits,
    # 8,000 in 2; 127 tokens in full come on top in the plan.
    one = model_of(LlamaConfig(**{**PLAIN.to_dict(), "num_hidden_layers": 1}))
    assert planned(one, "quantized", 100) == 14_400 + 127 * (512 - 144)
    assert planned(one, "quantized_2bit", 100) == 8000 + 127 * (512 - 80)


@pytest.mark.parametrize("steps", [(10,), (10, 1, 1)])
def test_an_fp8_cache(steps):
    cache = feed(QuantizedCache("fp8", PLAIN), PLAIN, *steps)
    held = sum(size_of([layer._quantized_keys, layer._quantized_values]) for layer in cache.layers)
    assert planned(model_of(PLAIN), "quantized_fp8", sum(steps)) == held


def test_what_it_refuses():
    for kind in ("quantized", "quantized_2bit", "quantized_fp8"):
        with pytest.raises(InputError, match="full attention only"):
            planned(model_of(GEMMA), kind, 10)
    with pytest.raises(ValueError, match="full attention"):
        QuantizedCache("fp8", GEMMA)
    with pytest.raises(InputError, match="compressed"):
        planned(load_model("deepseek-ai/DeepSeek-V4-Flash"), "static", 10)
    with pytest.raises(InputError, match="not a cache"):
        profile(None, "offloaded")


def test_the_dynamic_cache_is_the_default():
    assert profile(None) is CACHES["dynamic"]
    assert profile("6.0", "static").newer == "6.0"
    assert planned(spec(LLAMA), "dynamic", 10) == 10 * 524_288
