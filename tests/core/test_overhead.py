"""Activations, logits and what stands outside the tensors, worked by hand.

    peak = 2 · tokens · hidden · 2 bytes + max(attention, MLP, logits)

All in bf16, with `transformers`, which takes a prompt in one pass.
"""

from dataclasses import replace

import pytest

from kvplan import estimate
from kvplan.core.device import DRIVER_RESERVE
from kvplan.core.hardware import Gpu, MeasuredDevice
from kvplan.core.overhead import overheads
from kvplan.core.units import GIB, MIB
from kvplan.sources.catalog import load
from tests.models import spec


def activations(model, **serving):
    return estimate(model, engine="transformers", dtype="bf16", **serving).per_gpu[0].activation_bytes


RESIDUAL = 2 * 1000 * 4096 * 2


def test_a_dense_model_peaks_in_its_mlp():
    # Gate, up and their product: 1000 tokens · 3 · 11008 · 2 bytes.
    assert activations(spec(), seq_len=1000) == RESIDUAL + 1000 * 3 * 11008 * 2


def test_tensor_parallelism_shares_heads_and_mlp_but_not_the_residual():
    assert activations(spec(), seq_len=1000, tp=8) == RESIDUAL + 1000 * 3 * 11008 // 8 * 2


def test_a_narrow_mlp_leaves_the_peak_to_attention():
    # q 4096 wide, k and v of 8 heads 1024 each; flash's output 4096 wide and 32 · 4 bytes of log-sum-exp a token.
    inputs, output = 1000 * (4096 + 2 * 1024) * 2, 1000 * (4096 * 2 + 32 * 4)
    narrow = spec(num_key_value_heads=8, intermediate_size=64)
    assert activations(narrow, seq_len=1000) == RESIDUAL + inputs + output
    shared = 1000 * (512 + 2 * 128) * 2 + 1000 * (512 * 2 + 4 * 4)
    assert activations(narrow, seq_len=1000, tp=8) == RESIDUAL + shared


@pytest.mark.parametrize("attention", ["flash", "eager"])
@pytest.mark.parametrize(("tp", "key_heads", "heads"), [(1, 16, 32), (8, 2, 4)])
def test_a_recurrent_layer_has_no_scores(attention, tp, key_heads, heads):
    # Queries and keys of 128 a key head, values and outputs of 128 a head: 48 layers, none of them full.
    tiny = {"num_experts_per_tok": "1", "moe_intermediate_size": "8", "shared_expert_intermediate_size": "8"}
    model = load("Qwen/Qwen3-Next-80B-A3B-Instruct", {"full_attention_interval": "49", **tiny})
    peak = 2 * 1000 * 2048 * 2 + 1000 * (2 * key_heads * 128 + 2 * heads * 128) * 2
    assert activations(model, seq_len=1000, tp=tp, attention=attention) == peak


def test_a_token_passes_through_its_own_experts_only():
    # Mixtral: two experts of width 14336.
    assert activations(load("mistralai/Mixtral-8x7B-v0.1"), seq_len=1000) == RESIDUAL + 1000 * 3 * 2 * 14336 * 2


def test_eager_attention_keeps_its_weights_through_the_mlp():
    # Probabilities of 32 heads and the mask, 1000 × 1000 each, outlast the attention call.
    kept = (32 + 1) * 1000 * 1000 * 2
    assert activations(spec(), seq_len=1000, attention="eager") == RESIDUAL + max(
        kept + 1000 * 3 * 11008 * 2, 1000 * 3 * 4096 * 2 + 10 * 32 * 1000 * 1000
    )


@pytest.mark.parametrize("tp", [1, 8])
def test_logits_are_whole_on_every_rank(tp):
    # 4096 sequences decode one token each: 32000 logits in bf16, and in fp32 for the sampler.
    assert activations(spec(), seq_len=1, batch_size=4096, tp=tp) == 2 * 4096 * 4096 * 2 + 4096 * 32000 * 6


def test_only_the_last_stage_has_logits():
    plan = estimate(spec(), engine="transformers", seq_len=1, batch_size=4096, pp=2)
    first, last = (use.activation_bytes for use in plan.per_gpu)
    assert last == 2 * 4096 * 4096 * 2 + 4096 * 32000 * 6
    assert first < last


def test_a_masked_language_model_has_logits_for_every_token_and_an_embedder_none():
    tokens = 64 * 512
    masked = load("google-bert/bert-base-uncased", {"architectures": '["BertForMaskedLM"]'})
    embedder = load("google-bert/bert-base-uncased", {"architectures": '["BertModel"]'})
    residual = 2 * tokens * 768 * 2
    assert activations(masked, seq_len=512, batch_size=64) == residual + tokens * 30522 * 6
    assert activations(embedder, seq_len=512, batch_size=64) == residual + tokens * 2 * 3072 * 2


def test_an_encoder_works_on_all_its_inputs_at_once():
    # flan-t5-small's encoder: 3 sequences · 700 tokens, d_model 512, gated width 1024.
    plan = activations(load("google/flan-t5-small"), seq_len=1, encoder_seq_len=700, batch_size=3)
    tokens = 3 * 700
    attention = tokens * 3 * 384 * 2 + tokens * (384 * 2 + 6 * 4)
    assert plan == 2 * tokens * 512 * 2 + max(attention, tokens * 3 * 1024 * 2)


@pytest.mark.parametrize(
    ("alibi", "per_score"), [(False, 6), (True, 18)], ids=["scores, masked scores, probabilities", "three in fp32 too"]
)
def test_falcons_eager_attention_has_its_own_copies(alibi, per_score):
    # falcon-7b: 71 query heads on one KV head, which the products read as it is where there is one sequence. The first
    # is what the class's lines gave on torch 2.13's CPU: 6,979,584 bytes at 128 queries and keys, 6 · 71 · 128².
    model = load("tiiuae/falcon-7b", {"alibi": str(alibi).lower()})
    [prefill, _] = estimate(model, seq_len=1000, engine="transformers", dtype="bf16").attention
    assert prefill.bytes_per_backend["eager"] == per_score * 71 * 1000 * 1000


@pytest.mark.parametrize(("tp", "pp", "mib"), [(1, 1, 512 + 512), (1, 4, 512 + 512), (2, 1, 512 + 2170)])
def test_stages_bring_no_collectives_buffers_and_ranks_do(tp, pp, mib):
    plan = estimate(spec(), tp=tp, pp=pp)
    assert {use.context_bytes for use in plan.per_gpu} == {mib * MIB}
    assert plan.evidence["context"] == ("calibrated" if tp > 1 else "assumed")


def test_a_measured_context_stands_in_the_place_of_the_assumed_one_but_for_ranks():
    measured = MeasuredDevice(context_bytes=300 * MIB, source="a record of it")
    gpu = Gpu(name="measured", memory_bytes=80 * GIB, measured=measured)
    alone, ranks = (estimate(spec(), gpu=gpu, tp=tp) for tp in (1, 2))
    assert alone.per_gpu[0].context_bytes == (512 + 300) * MIB
    assert alone.evidence["context"] == "calibrated"
    reserve, context = alone.overheads
    assert reserve == DRIVER_RESERVE
    assert (context.name, context.spread_bytes, context.source) == ("CUDA context", 32 * MIB, "a record of it")
    assert ranks.overheads == overheads(2)
    assert ranks.per_gpu[0].context_bytes == (512 + 2170) * MIB
    # The smallest fit is looked for with the same context: 1 KiB less than the plan, and one GPU will not do.
    total = alone.fullest_gpu.total_bytes
    just, short = (estimate(spec(), gpu=replace(gpu, memory_bytes=total - less)) for less in (0, 1024))
    assert (just.smallest_fit.num_gpus, short.smallest_fit.num_gpus) == (1, 2)


def test_every_measured_figure_has_a_spread_and_a_source():
    for tp in (1, 2):
        for measured in overheads(tp):
            assert 0 < measured.spread_bytes <= measured.num_bytes
            assert len(measured.source) > 20


def test_the_vision_tower_is_dealt_out_like_the_text_model():
    model = load("google/gemma-3-4b-it")
    whole = estimate(model).weights
    rank = estimate(model, tp=4).per_gpu[0].weights_bytes
    # What is not cut: norms, positions (4096 · 1152), the patch embedding (588 · 1152), the projector (1152 · 2560).
    whole_on_each = 2 * (4096 * 1152 + 588 * 1152 + 1152 * 2560) + whole.parts["norms"].total_bytes
    assert 0 <= 4 * rank - whole.total_bytes - 3 * whole_on_each < 3 * 2**20


def test_the_decoders_first_stage_looks_its_tokens_up_too():
    # flan-t5-small: 8 encoder and 8 decoder layers; the second of two stages is the decoder.
    whole = estimate("google/flan-t5-small", dtype="bf16")
    stages = estimate("google/flan-t5-small", dtype="bf16", pp=2).per_gpu
    table = 32128 * 512 * 2
    assert sum(use.weights_bytes for use in stages) == whole.weights.total_bytes + table
