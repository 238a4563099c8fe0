"""From a model to what is tried: kinds and counts by hand, no fact lost on the way, layers by hand."""

from dataclasses import replace

import pytest

from kvplan.api import load_model
from kvplan.core.errors import InputError
from kvplan.core.mixers import LinearAttention, Mixer
from kvplan.core.units import ceil_div
from kvplan.sources import catalog
from kvplan.validate.case import Case
from kvplan.validate.cases import Load, apart, case_by_hand, cases_of, order_of, variants
from kvplan.validate.predict import mixer_of, pool_bytes

LOAD = Load(seq_len=4096)
ENTRIES = list(catalog.entries())

# Read off the published config.json of each.
KINDS = {
    "meta-llama/Llama-3.1-8B": ["32 × full, 32/8 heads × 128"],
    "mistralai/Mistral-7B-v0.1": ["32 × sliding 4096, 32/8 heads × 128"],
    "google/gemma-3-27b-it": ["52 × sliding 1024, 32/16 heads × 128", "10 × full, 32/16 heads × 128"],
    "openai/gpt-oss-120b": ["18 × sliding 128, 64/8 heads × 64, sinks", "18 × full, 64/8 heads × 64, sinks"],
    "deepseek-ai/DeepSeek-V3": ["61 × latent 512 + 64, 128 heads"],
    "Qwen/Qwen3-Next-80B-A3B-Instruct": ["36 × linear, 16/32 heads × 128", "12 × full, 16/2 heads × 256"],
    "google/flan-t5-base": ["12 × encoder, 12 heads × 64", "12 × full, 12 heads × 64", "12 × cross, 12 heads × 64"],
    "bert-base-uncased": ["12 × encoder, 12 heads × 64"],
}


@pytest.mark.parametrize(("name", "expected"), KINDS.items(), ids=KINDS)
def test_the_kinds_of_layers_of_a_model(name: str, expected: list[str]) -> None:
    assert [case.name for case in cases_of(load_model(name), LOAD)] == expected


def unnamed(mixer: Mixer) -> Mixer:
    return replace(mixer, recurrence=None) if isinstance(mixer, LinearAttention) else mixer


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_no_fact_of_any_model_is_lost(entry: catalog.CatalogEntry) -> None:
    """What sizes depend on comes back from a layer's case, in the model's own order; a recurrence's name is not of it."""
    model = catalog.spec_of(entry)
    cases, order = cases_of(model, LOAD), order_of(model, LOAD)
    assert len({case.name for case in cases}) == len(cases)
    assert [Case.from_json(case.to_json()) for case in cases] == cases
    mixers = [tuple(map(unnamed, model.layers[i].mixers)) for i in model.layer_order]
    assert [tuple(mixer_of(cases[i]) for i in layer) for layer in order] == mixers
    assert sum(case.num_layers for case in cases) == sum(map(len, mixers))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_pages_of_one_token_make_the_plans_cache(entry: catalog.CatalogEntry) -> None:
    """Two ways through the calculator: layer by layer from cases, and the plan of the whole model."""
    model = catalog.spec_of(entry)
    encoder = (model.encoder_seq_len or 700) if model.has_encoder else None
    load = Load(seq_len=1500, batch=3, page_size=1, chunk=1, encoder_seq_len=encoder)
    held = sum(case.num_layers * pool_bytes(case) for case in cases_of(model, load))
    from kvplan import estimate

    plan = estimate(
        model, seq_len=1500, batch_size=3, encoder_seq_len=load.encoder_seq_len, dtype="bf16", kv_dtype="bf16"
    )
    assert held == plan.kv_cache.needed_bytes


def test_lengths_of_an_encoder_and_of_what_reads_it() -> None:
    model = load_model("google/flan-t5-base")
    encoder, own, cross = cases_of(model, Load(seq_len=100, encoder_seq_len=70))
    assert (encoder.seq_len, own.seq_len, cross.seq_len) == (70, 100, 70)
    assert (cross.decode_steps, cross.chunk, own.decode_steps) == (0, 70, 16)


def test_variants_are_one_shape_in_every_way() -> None:
    found = {case.name: case for case in variants(Load(seq_len=8192, batch=8))}
    assert list(found) == [
        "MHA", "GQA, 8 KV heads", "MQA", "MLA", "sliding 1024", "sparse 1024", "linear, delta rule",
    ]  # fmt: skip
    per_layer = {name: pool_bytes(case) for name, case in found.items()}
    # 8 · 8192 tokens · 32 heads · 256 · 2 bytes; a quarter; a thirty-second; 576 · 2 bytes a token
    assert per_layer["MHA"] == 8 * 8192 * 16_384
    assert per_layer["GQA, 8 KV heads"] * 4 == per_layer["MQA"] * 32 == per_layer["MHA"]
    assert per_layer["MLA"] == 8 * 8192 * 1152
    assert per_layer["linear, delta rule"] == 8 * (32 * 128 * 128 * 4 + 8192 * 4 * 2)
    assert per_layer["sparse 1024"] == 0
    # while a chunk of 2048 comes in, 1023 earlier tokens are still seen
    assert per_layer["sliding 1024"] == 8 * ceil_div(1024 + 2048, 16) * 16 * 16_384


def test_a_layer_by_hand() -> None:
    case = case_by_hand("heads=32, kv_heads=8, head_dim=128, window=4K, layers=3", LOAD)
    assert (case.name, case.kind) == ("3 × sliding 4096, 32/8 heads × 128", "sliding")
    assert (case.num_layers, case.num_kv_heads, case.key_dim, case.seq_len) == (3, 8, 128, 4096)
    latent = case_by_hand("heads=16,key_dim=192,value_dim=128,latent_dim=512,rope_dim=64", LOAD)
    assert latent.kind == "latent"
    assert pool_bytes(latent) == 4096 * 1152


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("heads=32,head_dim=128,size=4", "a layer has no `size`"),
        ("heads=32", "lacks `key_dim`"),
        ("heads=32,kv_heads=5,head_dim=128", "32 query heads do not share 5 KV heads evenly"),
        ("heads=many,head_dim=128", "`many`"),
        ("heads", "``"),
        ("heads=0,head_dim=128", "`num_heads` is 0"),
        ("heads=8,kv_heads=0,head_dim=128", "`num_kv_heads` is 0"),
        ("heads=8,head_dim=128,layers=0", "`num_layers` is 0"),
        ("heads=8,heads=4,head_dim=128", "says `num_heads` twice"),
        ("heads=8,head_dim=128,key_dim=64", "says `key_dim` twice"),
        ("heads=8,head_dim=128,rope_dim=64", "lacks `latent_dim`"),
        ("heads=8,head_dim=128,latent_dim=64,window=8", "no kernel slides a window over latents"),
    ],
)
def test_a_layer_by_hand_that_is_none(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        case_by_hand(text, LOAD)


def test_layers_of_one_description_are_told_apart() -> None:
    texts = [f"heads=4,head_dim={dim},latent_dim=64,rope_dim=16" for dim in (64, 128)]
    first, second = apart(case_by_hand(text, LOAD) for text in texts)
    assert (first.name, second.name) == ("1 × latent 64 + 16, 4 heads (1)", "1 × latent 64 + 16, 4 heads (2)")


def test_a_case_says_which_field_it_does_not_know() -> None:
    found = cases_of(load_model("bert-base-uncased"), LOAD)[0].to_json()
    with pytest.raises(TypeError, match="a case has no `colour`"):
        Case.from_json(found | {"colour": "red"})
