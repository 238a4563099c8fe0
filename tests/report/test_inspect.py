"""What `inspect` and the listings say of a model."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from kvplan.core.model import Fact
from kvplan.report import data, text
from kvplan.report.inspect import describe_order, inspect_document, inspect_page, layer_names
from kvplan.report.listing import model_row
from kvplan.sources import catalog
from tests.models import LLAMA, spec

MISTRAL = LLAMA | {"model_type": "mistral", "architectures": None, "sliding_window": 1024, "num_key_value_heads": 8}
NAMES = layer_names(30)

ORDERS = {
    "one kind": ([0] * 80, "80 × A"),
    "dense first": ([0] * 3 + [1] * 58, "3 × A, 58 × B"),
    "five to one": (([0] * 5 + [1]) * 8, "8 × (5 × A, B)"),
    "five to one and a rest": (([0] * 5 + [1]) * 4 + [0] * 2, "4 × (5 × A, B), 2 × A"),
    "alternating": ([0, 1] * 13, "13 × (A, B)"),
    "all different": ([0, 1, 2, 3], "A, B, C, D"),
    "single": ([0], "A"),
    "two blocks": ([0, 1] * 3 + [2, 3] * 2, "3 × (A, B), 2 × (C, D)"),
}


@pytest.mark.parametrize(("order", "words"), ORDERS.values(), ids=ORDERS)
def test_the_order_of_layers(order: list[int], words: str) -> None:
    assert describe_order(order, NAMES) == words


def unfold(words: str) -> list[str]:
    """The layers that a description names, one by one."""
    listed: list[str] = []
    while words:
        head, _, rest = words.partition(" × ")
        if words.startswith("(") or not head.isdigit():
            name, _, words = words.partition(", ")
            listed.append(name)
        elif rest.startswith("("):
            body, _, words = rest[1:].partition(")")
            listed += unfold(body) * int(head)
            words = words.removeprefix(", ")
        else:
            name, _, words = rest.partition(", ")
            listed += [name] * int(head)
    return listed


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_no_layer_is_lost_in_the_folding(order: list[int]) -> None:
    assert unfold(describe_order(order, NAMES)) == [NAMES[index] for index in order]


def test_names_never_repeat() -> None:
    assert len(set(layer_names(100))) == 100
    assert layer_names(28)[-2:] == ["A1", "B1"]


def test_the_page() -> None:
    assert text.draw(inspect_page(spec(num_hidden_layers=2), tensors=True)) == snapshot("""\
test/model: 666.91 M parameters, 2 layers, LlamaForCausalLM
2 full, 32 KV heads × 128
facts from a config: tests
hidden 4,096, vocabulary 32,000, dtype bf16, 4,096 positions, embeddings not tied

Layers: 2 × A
     count  attention                              parameters  bytes/token
  A      2  full, 32 heads, 32 KV heads, dim 128  202,383,360       16,384

Parameters by part
               parameters   share
  embeddings  131,072,000    20 %  ████▊
  attention   134,217,728    20 %  ████▉
  mlp         270,532,608    41 %  █████████▊
  norms            20,480  <0.1 %  ▏
  head        131,072,000    20 %  ████▊
  all         666,914,816

Tensors: embeddings
  name                 shape           copies  split over tp      parameters
  embed_tokens.weight  32,000 × 4,096       1  axis 0 in 32,000  131,072,000

Tensors: layer A
  name                             shape           copies  split over tp     parameters
  self_attn.q_proj.weight          4,096 × 4,096        1  axis 0 in 32      16,777,216
  self_attn.k_proj.weight          4,096 × 4,096        1  axis 0 in 32      16,777,216
  self_attn.v_proj.weight          4,096 × 4,096        1  axis 0 in 32      16,777,216
  self_attn.o_proj.weight          4,096 × 4,096        1  axis 1 in 32      16,777,216
  mlp.gate_proj.weight             11,008 × 4,096       1  axis 0 in 11,008  45,088,768
  mlp.up_proj.weight               11,008 × 4,096       1  axis 0 in 11,008  45,088,768
  mlp.down_proj.weight             4,096 × 11,008       1  axis 1 in 11,008  45,088,768
  input_layernorm.weight           4,096                1  replicated             4,096
  post_attention_layernorm.weight  4,096                1  replicated             4,096

Tensors: head
  name            shape           copies  split over tp      parameters
  norm.weight     4,096                1  replicated              4,096
  lm_head.weight  32,000 × 4,096       1  axis 0 in 32,000  131,072,000

Facts
  key                      value             from
  hidden_size              4096              config.json
  num_attention_heads      32                config.json
  num_key_value_heads      32                config.json
  head_dim                 128               worked out by the class (transformers 5.23)
  attention_bias           false             class default (transformers 5.23)
  intermediate_size        11008             config.json
  mlp_bias                 false             class default (transformers 5.23)
  num_hidden_layers        2                 config.json
  vocab_size               32000             config.json
  architectures            LlamaForCausalLM  config.json
  tie_word_embeddings      false             config.json
  max_position_embeddings  4096              config.json
  torch_dtype              bfloat16          config.json
""")


def test_hostile_facts_stay_text() -> None:
    model = replace(
        spec(), facts=(Fact("\x1b[2J", "\u202e" * 99, "\r"), Fact("a", (1, "\x00"), "b"), Fact("n", None, ""))
    )
    shown = text.draw(inspect_page(model))
    assert not set(shown) & set("\x1b\u202e\r\x00")
    json.loads(data.dump_json(inspect_document(model)))


@pytest.mark.parametrize("entry", list(catalog.entries()), ids=lambda entry: entry.id)
def test_every_model_of_the_catalog_can_be_shown(entry: catalog.CatalogEntry) -> None:
    model = catalog.spec_of(entry)
    document = json.loads(data.dump_json(inspect_document(model)))
    ends = [tensor["parameters"] for tensor in (*document["embeddings"], *document["head"])]
    layers = sum(layer["count"] * layer["parameters"] for layer in document["layers"])
    assert document["num_parameters"] == layers + sum(ends)
    assert sum(document["parameters_by_part"].values()) == document["num_parameters"]
    assert len(document["layer_order"]) == document["num_layers"]
    assert text.draw(inspect_page(model, tensors=True))


def test_a_row_of_the_listing() -> None:
    # 32 layers · 8 KV heads · 128 · 2 · 2 bytes while the window fills, nothing after it.
    row = model_row(spec(MISTRAL))
    assert (row["kv_bytes_per_token"], row["kv_bytes_per_token_long"]) == (131_072, 0)
    assert row["attention"] == ["sliding"]
