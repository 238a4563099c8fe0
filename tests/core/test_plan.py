"""The laws of a plan, for any model the strategies can draw, and a few plans worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import InputError, estimate
from kvplan.core.hardware import Gpu
from kvplan.core.units import GIB
from kvplan.sources.catalog import load
from tests.models import LLAMA, spec

ENGINES = st.sampled_from(["exact", "transformers"])
LENGTHS = st.integers(1, 200_000)
BATCHES = st.integers(1, 512)


@st.composite
def models(draw, windowed=None):
    """A decoder of any small shape, with or without a window, dense or with experts."""
    kv_heads = draw(st.integers(1, 16))
    heads = kv_heads * draw(st.integers(1, 8))
    head_dim = draw(st.sampled_from([16, 64, 80, 128]))
    config = {
        "model_type": draw(st.sampled_from(["mistral", "mixtral"])),
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": draw(st.integers(1, 12)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "vocab_size": 1000,
        "tie_word_embeddings": draw(st.booleans()),
        "sliding_window": draw(st.integers(2, 10_000)) if (windowed is None and draw(st.booleans())) else windowed,
        "torch_dtype": "bfloat16",
    }
    return spec(config)


@given(model=models(), engine=ENGINES, n=LENGTHS, batch=BATCHES)
def test_parts_sum_to_the_total(model, engine, n, batch):
    plan = estimate(model, seq_len=n, batch_size=batch, engine=engine)
    for use in plan.per_gpu:
        parts = (use.weights_bytes, use.kv_cache_bytes, use.activation_bytes, use.graph_bytes, use.context_bytes)
        assert use.total_bytes == sum(parts)
    assert plan.kv_cache.needed_bytes == sum(layer.needed_bytes for layer in plan.kv_cache.layers)
    assert plan.kv_cache.reserved_bytes == sum(layer.reserved_bytes for layer in plan.kv_cache.layers)
    assert plan.weights.total_bytes == sum(part.total_bytes for part in plan.weights.parts.values())
    assert plan.weights.num_parameters == sum(part.parameters for part in plan.weights.parts.values())


@given(model=models(), engine=ENGINES, n=LENGTHS, batch=BATCHES)
def test_never_less_for_longer_or_for_more_sequences(model, engine, n, batch):
    def total(seq_len, batch_size):
        return estimate(model, seq_len=seq_len, batch_size=batch_size, engine=engine).kv_cache

    here = total(n, batch)
    assert total(n + 1, batch).reserved_bytes >= here.reserved_bytes
    assert total(n + 1, batch).needed_bytes == here.needed_bytes + batch * total(n + 1, 1).bytes_per_token
    assert total(n, 2 * batch).needed_bytes == 2 * here.needed_bytes


@given(
    model=models(),
    engine=ENGINES,
    n=LENGTHS,
    batch=BATCHES,
    attention=st.sampled_from(["eager", "math", "efficient", "flash"]),
    limit=st.none() | st.integers(1, 20_000),
)
def test_the_whole_gpu_never_holds_less_for_longer_or_for_more_sequences(model, engine, n, batch, attention, limit):
    def total(seq_len, batch_size):
        plan = estimate(
            model,
            seq_len=seq_len,
            batch_size=batch_size,
            attention=attention,
            engine=engine,
            max_num_batched_tokens=limit,
        )
        return plan.fullest_gpu.total_bytes

    assert total(n, batch) <= total(n + 1, batch)
    assert total(n, batch) <= total(n, batch + 1)


@given(model=models(), n=LENGTHS)
def test_permuting_layers_changes_nothing_but_their_order(model, n):
    turned = replace(model, layer_order=tuple(reversed(model.layer_order)))
    before, after = estimate(model, seq_len=n), estimate(turned, seq_len=n)
    assert (before.weights, before.kv_cache, before.per_gpu) == (after.weights, after.kv_cache, after.per_gpu)


@given(n=LENGTHS, layers=st.integers(1, 100))
def test_never_less_for_more_layers(n, layers):
    fewer, more = (estimate(spec(num_hidden_layers=count), seq_len=n) for count in (layers, layers + 1))
    assert fewer.kv_cache.needed_bytes < more.kv_cache.needed_bytes
    assert fewer.weights.total_bytes < more.weights.total_bytes


@given(model=models(), n=LENGTHS, batch=st.integers(1, 16))
def test_never_less_for_a_wider_format(model, n, batch):
    sizes = [
        estimate(model, seq_len=n, batch_size=batch, kv_dtype=kv).kv_cache.needed_bytes
        for kv in ("int4", "fp8", "bf16", "fp32")
    ]
    assert sizes == sorted(sizes)
    assert estimate(model, dtype="fp32").weights.total_bytes == 2 * estimate(model, dtype="bf16").weights.total_bytes


@given(model=models(), n=LENGTHS, tp=st.integers(1, 64), pp=st.integers(1, 12))
def test_ranks_hold_the_whole_between_them(model, n, tp, pp):
    pp = min(pp, model.num_layers)
    plan = estimate(model, seq_len=n, tp=tp, pp=pp)
    assert len(plan.per_gpu) == tp * pp == plan.serving.num_gpus
    assert sum(use.weights_bytes for use in plan.per_gpu) >= plan.weights.total_bytes
    assert sum(use.kv_cache_bytes for use in plan.per_gpu) >= plan.kv_cache.reserved_bytes
    kv_heads = model.layers[0].mixers[0].num_kv_heads
    if tp >= kv_heads:
        wider = estimate(model, seq_len=n, tp=tp + 1, pp=pp)
        assert [use.kv_cache_bytes for use in wider.per_gpu[:1]] == [use.kv_cache_bytes for use in plan.per_gpu[:1]]


@given(n=LENGTHS, window=st.integers(2, 300_000))
def test_a_window_is_never_more_than_full_attention(n, window):
    config = {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    full = estimate(spec(config, sliding_window=None), seq_len=n).kv_cache
    slid = estimate(spec(config, sliding_window=window), seq_len=n).kv_cache
    assert slid.needed_bytes <= full.needed_bytes
    if window >= n:
        assert slid.needed_bytes == full.needed_bytes


@given(heads=st.sampled_from([1, 2, 8, 32]), n=LENGTHS)
def test_mha_is_gqa_with_as_many_kv_heads(heads, n):
    unstated = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    mha = estimate(spec(unstated, num_attention_heads=heads), seq_len=n)
    gqa = estimate(spec(num_attention_heads=heads, num_key_value_heads=heads), seq_len=n)
    assert (mha.kv_cache, mha.weights) == (gqa.kv_cache, gqa.weights)


def test_the_flagship_by_hand():
    # 80 layers · 8 KV heads · (128 + 128) · 2 bytes = 327,680 a token; · 4096 = 1.25 GiB.
    plan = estimate("meta-llama/Llama-2-70b", seq_len=4096)
    assert plan.weights.num_parameters == 68_976_648_192
    assert plan.weights.total_bytes == 137_953_296_384
    assert plan.kv_cache.bytes_per_token == 327_680
    assert plan.kv_cache.needed_bytes == plan.kv_cache.reserved_bytes == 1_342_177_280
    assert plan.model.source.kind == "catalog"
    assert plan.evidence["weights"] == plan.evidence["kv_cache"] == "exact"


def test_past_its_window_the_next_token_of_a_sliding_model_is_free():
    plan = estimate("mistralai/Mistral-7B-v0.1", seq_len=8192)
    assert plan.kv_cache.bytes_per_token == 0
    assert plan.kv_cache.needed_bytes == 4096 * 131_072


def test_an_encoder_length_of_its_own():
    # bart-large: 12 decoder layers · 16 heads · 128 · 2 bytes = 49,152 a token, of either side.
    plan = estimate("facebook/bart-large", seq_len=100, encoder_seq_len=700, dtype="bf16")
    assert plan.kv_cache.needed_bytes == 49_152 * 800
    assert plan.kv_cache.fixed_bytes_per_sequence == 49_152 * 700
    assert plan.kv_cache.bytes_per_token == 49_152


HYBRID = "Qwen/Qwen3-Next-80B-A3B-Instruct"


def test_a_hybrid_by_hand():
    # 36 states of 2,162,688 bytes a sequence; 12 full layers · 2 KV heads · (256 + 256) · 2 bytes a token.
    plan = estimate(HYBRID, seq_len=8192, batch_size=3)
    assert plan.kv_cache.bytes_per_token == 24_576
    assert plan.kv_cache.fixed_bytes_per_sequence == 36 * 2_162_688 == 77_856_768
    assert plan.kv_cache.needed_bytes == plan.kv_cache.reserved_bytes == 3 * (77_856_768 + 8192 * 24_576)
    groups = [(group.kind, group.count, group.bytes_per_token) for group in plan.kv_cache.layers]
    assert groups == [("linear", 36, 0), ("full", 12, 24_576)]
    assert [attention.kind for attention in plan.attention] == ["full", "full"]


def test_states_follow_the_models_format_and_never_the_caches():
    small = estimate(HYBRID, seq_len=8192, kv_dtype="fp8").kv_cache
    assert small.needed_bytes == 77_856_768 + 8192 * 12_288
    wide = estimate(HYBRID, seq_len=8192, kv_dtype="fp8", dtype="fp32").kv_cache
    # The columns of 36 layers, 8192 channels of 4, in twice the bytes.
    assert wide.needed_bytes == small.needed_bytes + 36 * 8192 * 4 * 2
    unstated = load(HYBRID, {"torch_dtype": "null"})
    assert estimate(unstated, kv_dtype="fp8").evidence["kv_cache"] == "assumed"
    assert estimate(HYBRID, kv_dtype="fp8").evidence["kv_cache"] == "exact"


def test_without_a_full_layer_nothing_grows_and_nothing_is_scored():
    plan = estimate(load(HYBRID, {"full_attention_interval": "49"}), seq_len=100_000)
    assert plan.kv_cache.needed_bytes == plan.kv_cache.fixed_bytes_per_sequence == 48 * 2_162_688
    assert plan.kv_cache.bytes_per_token == 0
    assert plan.attention == ()


def test_ranks_share_states_that_outnumber_kv_heads():
    # tp 4 of 2 KV heads: each rank holds one, replicated; and 8 of 32 states with a quarter of the channels.
    plan = estimate(HYBRID, seq_len=1000, tp=4)
    assert plan.per_gpu[0].kv_cache_bytes == 36 * (8 * 128 * 128 * 4 + 2048 * 4 * 2) + 1000 * 12 * 512 * 2
    [warning] = [warning for warning in plan.warnings if warning.code == "kv-replicated"]
    assert "2 KV heads" in warning.message


def test_an_encoder_keeps_nothing():
    plan = estimate("google-bert/bert-base-uncased", seq_len=512)
    assert plan.kv_cache.needed_bytes == 0
    assert plan.kv_cache.layers == ()


def test_too_big_is_said_with_what_would_do():
    h100 = "H100"
    plan = estimate("meta-llama/Llama-2-70b", seq_len=4096, gpu=h100)
    assert plan.fits is False
    assert plan.smallest_fit is not None
    assert plan.smallest_fit.num_gpus == 2
    assert estimate("meta-llama/Llama-2-70b", seq_len=4096, gpu=h100, num_gpus=2).fits


def test_the_verdict_turns_at_the_very_byte():
    total = estimate(spec()).fullest_gpu.total_bytes
    assert estimate(spec(), gpu=Gpu(name="just", memory_bytes=total)).fits
    assert not estimate(spec(), gpu=Gpu(name="short", memory_bytes=total - 1)).fits


def test_utilisation_takes_its_share():
    gpu = Gpu(name="test", memory_bytes=100 * GIB)
    assert estimate(spec(), gpu=gpu, gpu_memory_utilization=0.9).per_gpu[0].capacity_bytes == 90 * GIB


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert estimate(spec(), seq_len=np.int64(4096)).kv_cache == estimate(spec(), seq_len=4096).kv_cache


def codes(plan):
    return [warning.code for warning in plan.warnings]


def test_warnings_name_what_the_plan_rests_on():
    assert codes(estimate(spec())) == []
    assert "beyond-max-positions" in codes(estimate(spec(), seq_len=4097))
    assert "kv-replicated" in codes(estimate(spec(num_key_value_heads=8), tp=16))
    assert "tp-uneven" in codes(estimate(spec(), tp=3))
    assert "latent-replicated" in codes(estimate("deepseek-ai/DeepSeek-V2-Lite", tp=2))
    over_ranks = estimate("deepseek-ai/DeepSeek-V2-Lite", engine="vllm", tp=4, dcp=2)
    assert any("holds 1/2 of the latent cache" in warning.message for warning in over_ranks.warnings)
    assert "latent-replicated" not in codes(estimate("deepseek-ai/DeepSeek-V2-Lite", engine="vllm", tp=4, dcp=4))
    unstated = estimate(spec(torch_dtype=None))
    assert "dtype-assumed" in codes(unstated)
    assert unstated.evidence["weights"] == unstated.evidence["kv_cache"] == "assumed"
    assert estimate(spec(torch_dtype=None), kv_dtype="fp8").evidence["kv_cache"] == "exact"
    assert estimate(spec(), kv_dtype="int8").evidence["kv_cache"] == "derived"
    assert codes(estimate(spec(torch_dtype="float32"))) == ["fp32-weights"]
    assert codes(estimate(spec(torch_dtype="float32"), dtype="bf16")) == []
    planned = estimate(spec(), quant="int4")
    assert "quantization-assumed" in codes(planned)
    assert planned.evidence["weights"] == "assumed"


def test_a_scheme_known_only_by_name_is_an_upper_bound_and_says_so():
    unknown = spec(quantization_config={"quant_method": "a_new_one", "bits": 4})
    plan = estimate(unknown)
    assert plan.weights.total_bytes == 2 * plan.weights.num_parameters
    assert plan.evidence["weights"] == "assumed"
    assert "quantization-not-modelled" in codes(plan)
    stored = estimate(replace(unknown, stored_weight_bytes=3_900_000_000), pp=2)
    assert stored.weights.total_bytes == 3_900_000_000
    assert 0 <= sum(use.weights_bytes for use in stored.per_gpu) - 3_900_000_000 < 2
    assert stored.evidence["weights"] == "derived"
    assert sum(part.total_bytes for part in stored.weights.parts.values()) == 3_900_000_000


def test_files_that_hold_other_than_the_plan_loads_are_named_whichever_way():
    built = estimate(spec()).weights.total_bytes
    for stored, word in ((built + 2**30, "1 GiB more"), (built - 2**30, "1 GiB less")):
        plan = estimate(replace(spec(), stored_weight_bytes=stored))
        [warning] = [warning for warning in plan.warnings if warning.code == "stored-differs"]
        assert word in warning.message
        assert plan.evidence["weights"] == "derived"
    assert codes(estimate(replace(spec(), stored_weight_bytes=built))) == []
    slightly = estimate(replace(spec(), stored_weight_bytes=built + 100_000))
    assert slightly.evidence["weights"] == "exact"
    # Planned in another format than the files', the two cannot be compared.
    other = replace(spec(), stored_weight_bytes=built)
    assert codes(estimate(other, dtype="fp32")) == []
    assert codes(estimate(other, quant="int4")) == ["quantization-assumed"]


def test_an_encoder_past_its_positions_is_named():
    assert "beyond-max-positions" in codes(estimate("facebook/bart-large", seq_len=10, encoder_seq_len=5000))


def test_a_gpu_that_is_all_but_full_is_called_tight():
    total = estimate(spec()).fullest_gpu.total_bytes
    assert "tight-fit" in codes(estimate(spec(), gpu=Gpu(name="tight", memory_bytes=total + 1)))
    assert "tight-fit" not in codes(estimate(spec(), gpu=Gpu(name="roomy", memory_bytes=2 * total)))
    assert "tight-fit" not in codes(estimate(spec(), gpu=Gpu(name="small", memory_bytes=total - 1)))


def test_the_checkpoint_may_be_planned_without_its_quantisation():
    model = load("openai/gpt-oss-20b")
    assert estimate(model, quant="none").weights.total_bytes == 2 * estimate(model).weights.num_parameters


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"seq_len": 0}, "seq_len"),
        ({"seq_len": 2.5}, "seq_len"),
        ({"seq_len": True}, "seq_len"),
        ({"seq_len": 2**60}, "seq_len"),
        ({"batch_size": -1}, "batch_size"),
        ({"tp": 0}, "tp"),
        ({"pp": 33}, "pp"),
        ({"tp": 10**7}, "10000000 GPUs"),
        ({"tp": 2, "num_gpus": 3}, "3 GPUs"),
        ({"pp": 2, "num_gpus": 3}, "3 GPUs"),
        ({"dtype": "int3"}, "dtype"),
        ({"kv_dtype": "q9"}, "dtype"),
        ({"quant": "int3"}, "quantisation"),
        ({"engine": "vlmm"}, "engine"),
        ({"engine": "transformers@4.0"}, "version"),
        ({"engine": "exact@1"}, "version"),
        ({"engine": "transformers", "kv_dtype": "fp8"}, "fp8"),
        ({"attention": "magic"}, "attention"),
        ({"encoder_seq_len": 10}, "cross-attention"),
        ({"gpu_memory_utilization": 1.2}, "utilization"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens"),
        ({"gpu": Gpu(name="none", memory_bytes=0)}, "memory"),
        ({"gpu": Gpu(name="slip", memory_bytes=80)}, "memory"),
        ({"gpu": 80}, "gpu"),
        ({"dtype": 16}, "dtype"),
        ({"kv_dtype": 8}, "kv_dtype"),
        ({"quant": True}, "quant"),
        ({"engine": None}, "engine"),
        ({"gpu_memory_utilization": "0.9"}, "utilization"),
        ({"seq_len": "8K"}, "seq_len"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_one_sentence_and_a_hint(arguments, word):
    with pytest.raises(InputError) as caught:
        estimate(spec(), **arguments)
    assert word in str(caught.value)
    assert not str(caught.value).endswith(".")
    assert caught.value.hint
