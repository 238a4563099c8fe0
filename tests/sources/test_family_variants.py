"""How classes, flags and windows change a family's layers, and how tensor parallelism cuts its weights."""

import pytest
from family_rows import FULL, REMOVED, ROWS, SLIDING, changed, read, weights_of

from kvplan.core.mixers import FullAttention, LatentAttention, LinearAttention, SlidingAttention
from kvplan.core.model import ModelSpec
from kvplan.core.weights import all_weights, num_parameters

# How the classes differ.


def test_transformers_caches_every_head_of_a_grouped_falcon():
    mixer = read(ROWS["tiiuae/falcon-40b"]["config"]).layers[0].mixers[0]
    assert isinstance(mixer, FullAttention)
    assert (mixer.num_kv_heads, mixer.transformers_kv_heads) == (8, 128)


# As published in 2023, before `falcon` was a model type of transformers: bias and alibi false.
REFINED_WEB = {
    "tiiuae/falcon-7b": {
        "model_type": "RefinedWebModel",
        "hidden_size": 4544,
        "n_head": 71,
        "n_layer": 32,
        "multi_query": True,
    },
    "tiiuae/falcon-40b": {
        "model_type": "RefinedWeb",
        "hidden_size": 8192,
        "n_head": 128,
        "n_head_kv": 8,
        "n_layer": 60,
    },
}


@pytest.mark.parametrize(("row_id", "config"), REFINED_WEB.items(), ids=REFINED_WEB)
def test_falcon_under_its_first_name_is_the_same_model(row_id, config):
    shared = {"architectures": ["RWForCausalLM"], "vocab_size": 65_024, "parallel_attn": True, "bias": False}
    first, later = read(config | shared), read(ROWS[row_id]["config"])
    assert (first.layers, first.layer_order) == (later.layers, later.layer_order)
    assert num_parameters(first) == num_parameters(later)


NEXT = "Qwen/Qwen3-Next-80B-A3B-Thinking"
ROUTED = 512 * 2048 + 513 * 3 * 512 * 2048 + 2048
"""What one of its layers holds in its experts, their router and the gate of the shared one."""

# What a row becomes with another class or flag: (row, changes, parameters more than the row's).
VARIANTS = {
    "a base class has no head": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaModel"]},
        -128_256 * 4096,
    ),
    "a classifier has two labels": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaForSequenceClassification"]},
        (2 - 128_256) * 4096,
    ),
    "or as many as it names": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaForTokenClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}},
        3 * 4096 + 3 - 128_256 * 4096,
    ),
    "num_labels before id2label": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaForSequenceClassification"], "num_labels": 5, "id2label": {"0": "a"}},
        (5 - 128_256) * 4096,
    ),
    "a span needs two scores": (
        "meta-llama/Llama-3.1-8B",
        {"architectures": ["LlamaForQuestionAnswering"]},
        2 * 4096 + 2 - 128_256 * 4096,
    ),
    "Qwen's reward model has two matrices": (
        "Qwen/Qwen2-7B",
        {"architectures": ["Qwen2ForRewardModel"]},
        3584 * 3584 + 3584 + 3584 + 1 - 152_064 * 3584,
    ),
    "which scores steps with two labels": (
        "Qwen/Qwen2-7B",
        {"architectures": ["Qwen2ForProcessRewardModel"]},
        3584 * 3584 + 3584 + 2 * 3584 + 2 - 152_064 * 3584,
    ),
    "no class means the language model": ("meta-llama/Llama-3.1-8B", {"architectures": None}, 0),
    "a tied head is not counted": (
        "meta-llama/Llama-3.1-8B",
        {"tie_word_embeddings": True},
        -128_256 * 4096,
    ),
    "gpt2 spelled the common way": (
        "gpt2",
        {"n_embd": REMOVED, "n_layer": REMOVED, "hidden_size": 768, "num_hidden_layers": 12},
        0,
    ),
    "gpt2 beside an encoder": (
        "gpt2",
        {"add_cross_attention": True},
        12 * (4 * 768**2 + 4 * 768 + 2 * 768),
    ),
    "q_lora_rank missing is the class's 1536": (
        "deepseek-ai/DeepSeek-V2-Lite",
        {"q_lora_rank": REMOVED},
        27 * (1536 * 2048 + 1536 + 3072 * 1536 - 3072 * 2048),
    ),
    "qwen3-next with two dense layers": (NEXT, {"mlp_only_layers": [0, 5]}, 2 * (3 * 5120 * 2048 - ROUTED)),
    "qwen3-next routed in every second layer": (NEXT, {"decoder_sparse_step": 2}, 24 * (3 * 5120 * 2048 - ROUTED)),
    "qwen3-next without experts": (NEXT, {"num_experts": 0}, 48 * (3 * 5120 * 2048 - ROUTED)),
    "qwen3-next without a shared expert": (NEXT, {"shared_expert_intermediate_size": 0}, -48 * 3 * 512 * 2048),
    "qwen3-next with biases": (NEXT, {"attention_bias": True}, 12 * (8192 + 2 * 512 + 2048)),
    "qwen3-next, full in every sixth layer": (
        NEXT,
        {"full_attention_interval": 6},
        4 * (12_288 * 2048 + 64 * 2048 + 8192 * 4 + 2 * 32 + 128 - (8192 * 2048 + 2 * 512 * 2048 + 2 * 256)),
    ),
    "qwen3-next with narrower keys": (
        NEXT,
        {"linear_num_key_heads": 8, "linear_key_head_dim": 64, "linear_conv_kernel_dim": 3},
        36 * (2 * (512 - 2048) * 2048 + 5120 * 3 - 8192 * 4),
    ),
    "a siglip tower with its pooling head": (
        "google/gemma-3-27b-it",
        {"vision_config__vision_use_head": REMOVED},
        1152 + 4 * 1152**2 + 4 * 1152 + 2 * 1152 + 2 * 1152 * 4304 + 4304 + 1152,
    ),
    "gemma3 without a head": ("google/gemma-3-27b-it", {"architectures": ["Gemma3Model"]}, 0),
    "gemma3 untied": ("google/gemma-3-27b-it", {"tie_word_embeddings": False}, 262_208 * 5376),
    "T5's encoder alone": (
        "google-t5/t5-small",
        {"architectures": ["T5EncoderModel"]},
        -(6 * (8 * 512**2 + 2 * 2048 * 512 + 3 * 512) + 32 * 8 + 512),
    ),
    "T5 gated": (
        "google-t5/t5-small",
        {"feed_forward_proj": "gated-gelu", "is_gated_act": REMOVED},
        12 * 2048 * 512,
    ),
    "T5 with a head of its own": (
        "google-t5/t5-small",
        {"tie_word_embeddings": False},
        32_128 * 512,
    ),
    "BART untied has three tables and a head": (
        "bart:BartForConditionalGeneration",
        {"tie_word_embeddings": False},
        3 * 50_265 * 1024,
    ),
    "a BART classifier has three labels": (
        "facebook/bart-large",
        {"architectures": ["BartForSequenceClassification"]},
        1024**2 + 1024 + 3 * 1024 + 3,
    ),
    "BERT untied brings a second bias": (
        "google-bert/bert-large-uncased",
        {"tie_word_embeddings": False},
        30_522 * 1024 + 30_522,
    ),
    "BERT for pre-training": (
        "google-bert/bert-large-uncased",
        {"architectures": ["BertForPreTraining"]},
        1024**2 + 1024 + 2 * 1024 + 2,
    ),
    "BERT for two labels": (
        "bert:BertModel",
        {"architectures": ["BertForSequenceClassification"]},
        2 * 768 + 2,
    ),
    "BERT for two labels a token has no pooler": (
        "bert:BertModel",
        {"architectures": ["BertForTokenClassification"]},
        2 * 768 + 2 - 768**2 - 768,
    ),
    "BERT without a class is the bare model": ("bert:BertModel", {"architectures": None}, 0),
    "a decoder without a class is a language model": ("bert", {"architectures": None}, 0),
}


@pytest.mark.parametrize(("row_id", "changes", "more"), VARIANTS.values(), ids=VARIANTS)
def test_a_class_or_a_flag_changes_the_count(row_id, changes, more):
    assert num_parameters(read(changed(row_id, **changes))) == ROWS[row_id]["num_parameters"] + more


TIED = {
    "a tied language model": ("gpt2", {}, True),
    "an untied one": ("gpt2", {"tie_word_embeddings": False}, False),
    "a base class needs no head": ("gpt2", {"architectures": ["GPT2Model"]}, False),
    "a masked language model": ("bert:BertForMaskedLM", {}, True),
    "an embedding model": ("bert:BertModel", {}, False),
    "T5 for generation": ("google-t5/t5-small", {}, True),
    "T5's encoder": ("google-t5/t5-small", {"architectures": ["T5EncoderModel"]}, False),
}


@pytest.mark.parametrize(("row_id", "changes", "tied"), TIED.values(), ids=TIED)
def test_only_a_head_that_exists_is_the_token_table(row_id, changes, tied):
    assert read(changed(row_id, **changes)).tied_embeddings is tied


def windows(spec: ModelSpec) -> list[int | None]:
    """Each layer's window, None for a full layer."""
    mixers = [spec.layers[i].mixers[0] for i in spec.layer_order]
    return [mixer.window if isinstance(mixer, SlidingAttention) else None for mixer in mixers]


WINDOWS = {
    "mistral, unstated": ("mistralai/Mistral-7B-v0.1", {"sliding_window": REMOVED}, [4096] * 32),
    "mistral, null": ("mistralai/Mistral-7B-v0.1", {"sliding_window": None}, [None] * 32),
    "llama with a window": ("meta-llama/Llama-3.1-8B", {"sliding_window": 512}, [512] * 32),
    "layer_types decide": (
        "mistralai/Mistral-7B-v0.1",
        {"layer_types": [FULL] * 31 + [SLIDING]},
        [None] * 31 + [4096],
    ),
    "qwen2 says no": ("Qwen/Qwen2.5-7B", {"use_sliding_window": False, "sliding_window": 4096}, [None] * 28),
    "qwen2 from a layer on": (
        "Qwen/Qwen2.5-7B",
        {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 26},
        [None] * 26 + [4096] * 2,
    ),
    "qwen2 with a window of null": (
        "Qwen/Qwen2.5-7B",
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
        [None] * 28,
    ),
    "gemma3 every third": (
        "google/gemma-3-1b-it",
        {"sliding_window_pattern": 3, "num_hidden_layers": 4},
        [512, 512, None, 512],
    ),
    "gemma3 looking both ways": (
        "google/gemma-3-1b-it",
        {"use_bidirectional_attention": True, "num_hidden_layers": 1},
        [512 // 2 + 1],
    ),
    "gpt-oss alternates": ("openai/gpt-oss-20b", {"layer_types": REMOVED}, [128, None] * 12),
}


@pytest.mark.parametrize(("row_id", "changes", "expected"), WINDOWS.values(), ids=WINDOWS)
def test_which_layers_slide(row_id, changes, expected):
    assert windows(read(changed(row_id, **changes))) == expected


def test_which_layers_are_recurrent():
    def kinds(**changes):
        spec = read(changed(NEXT, **changes))
        return [spec.layers[i].mixers[0].kind for i in spec.layer_order]

    assert kinds() == kinds(full_attention_interval=REMOVED) == ["linear", "linear", "linear", "full"] * 12
    assert kinds(full_attention_interval=48) == ["linear"] * 47 + ["full"]
    # A list wins over an interval.
    assert kinds(layer_types=[FULL] + ["linear_attention"] * 47) == ["full"] + ["linear"] * 47


def test_a_delta_net_by_its_config():
    mixer = read(changed(NEXT, linear_key_head_dim=64, linear_conv_kernel_dim=3)).layers[0].mixers[0]
    assert mixer == LinearAttention(
        num_heads=32,
        num_key_heads=16,
        key_dim=64,
        value_dim=128,
        conv_channels=2 * 16 * 64 + 32 * 128,
        conv_columns=3,
        recurrence="gated_delta",
    )


HEADS = {
    # (row, changes, KV heads, head_dim): what the class makes of keys that are missing or null.
    "llama, null": ("meta-llama/Llama-3.1-8B", {"num_key_value_heads": None}, 32, 128),
    "llama, missing": ("meta-llama/Llama-3.1-8B", {"num_key_value_heads": REMOVED, "head_dim": None}, 32, 128),
    "mistral, missing": ("mistralai/Mistral-7B-v0.1", {"num_key_value_heads": REMOVED}, 8, 128),
    "qwen2, null": ("Qwen/Qwen2-7B", {"num_key_value_heads": None}, 28, 128),
    "qwen3, missing": ("Qwen/Qwen3-32B", {"num_key_value_heads": REMOVED, "head_dim": REMOVED}, 32, 128),
    "gemma, missing": ("gemma", {"num_key_value_heads": REMOVED, "head_dim": REMOVED}, 16, 256),
    "gated by a qwen3-next, missing": (
        "Qwen/Qwen3-Next-80B-A3B-Thinking",
        {"num_key_value_heads": REMOVED, "head_dim": REMOVED, "full_attention_interval": 1},
        2,
        256,
    ),
    "gpt-oss, missing": ("openai/gpt-oss-20b", {"num_key_value_heads": REMOVED, "head_dim": REMOVED}, 8, 64),
    "falcon, neither": ("tiiuae/falcon-7b", {"multi_query": False, "num_kv_heads": REMOVED}, 71, 64),
}


@pytest.mark.parametrize(("row_id", "changes", "kv_heads", "head_dim"), HEADS.values(), ids=HEADS)
def test_heads_that_the_config_leaves_out(row_id, changes, kv_heads, head_dim):
    config = changed(row_id, **changes)
    if row_id == "Qwen/Qwen3-32B":
        config["num_attention_heads"] = 32
    mixer = read(config).layers[0].mixers[0]
    assert isinstance(mixer, FullAttention | SlidingAttention)
    assert (mixer.num_kv_heads, mixer.key_dim) == (kv_heads, head_dim)


def test_an_encoder_runs_once_and_keeps_nothing():
    spec = read(ROWS["google-t5/t5-small"]["config"])
    kinds = [tuple(mixer.kind for mixer in spec.layers[i].mixers) for i in spec.layer_order]
    assert kinds == [("encoder",)] * 6 + [("full", "cross")] * 6


def test_expanded_heads_of_latent_attention_differ_from_its_cache():
    mixer = read(ROWS["deepseek-ai/DeepSeek-V3"]["config"]).layers[0].mixers[0]
    assert mixer == LatentAttention(num_heads=128, latent_dim=512, rope_dim=64, key_dim=192, value_dim=128)


def test_a_nested_config_says_which_facts_are_the_class_defaults():
    facts = {fact.key: fact for fact in read(ROWS["google/gemma-3-27b-it"]["config"]).facts}
    assert facts["text_config.vocab_size"].value == 262_208
    assert facts["text_config.vocab_size"].origin == "class default (transformers 5.23)"
    assert facts["text_config.hidden_size"].origin == "config.json"


# How tensor parallelism cuts the weights.


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_units_divide_the_axis_that_is_cut(row):
    for weight, _ in all_weights(read(row["config"])):
        if weight.split is not None:
            assert weight.shape[weight.split.axis] % weight.split.units == 0, weight.name


RANK_SHAPES = {
    # (row, tp, tensor, shape on a rank)
    "query heads": ("meta-llama/Llama-2-70b-hf", 8, "self_attn.q_proj.weight", (1024, 8192)),
    "replicated KV heads": ("meta-llama/Llama-2-70b-hf", 16, "self_attn.k_proj.weight", (128, 8192)),
    "a multi-query head": ("tiiuae/falcon-7b", 8, "self_attention.query_key_value.weight[k]", (64, 4544)),
    "a latent is whole": ("deepseek-ai/DeepSeek-V3", 8, "self_attn.kv_a_proj_with_mqa.weight", (576, 7168)),
    "its expansion is not": ("deepseek-ai/DeepSeek-V3", 8, "self_attn.kv_b_proj.weight", (4096, 512)),
    "an expert's gate and up": ("openai/gpt-oss-20b", 8, "mlp.experts.gate_up_proj", (720, 2880)),
    "heads of keys": (NEXT, 8, "linear_attn.in_proj_qkvz.weight[k]", (256, 2048)),
    "a gate of its output": (NEXT, 8, "self_attn.q_proj.weight[gate]", (512, 2048)),
    "channels of values": (NEXT, 8, "linear_attn.conv1d.weight[v]", (512, 1, 4)),
    "decays": (NEXT, 8, "linear_attn.A_log", (4,)),
    "a shared expert's gate is whole": (NEXT, 8, "mlp.shared_expert_gate.weight", (1, 2048)),
    "sinks": ("openai/gpt-oss-20b", 8, "self_attn.sinks", (8,)),
    "a router is whole": ("mistralai/Mixtral-8x7B-v0.1", 8, "block_sparse_moe.gate.weight", (8, 4096)),
    "positions are whole": ("gpt2", 2, "wpe.weight", (1024, 768)),
    "relative positions": (
        "google-t5/t5-11b",
        8,
        "layer.0.SelfAttention.relative_attention_bias.weight",
        (32, 16),
    ),
    "a bias after the sum is whole": ("bert:BertModel", 4, "output.dense.bias", (768,)),
}


@pytest.mark.parametrize(("row_id", "tp", "name", "shape"), RANK_SHAPES.values(), ids=RANK_SHAPES)
def test_the_shape_on_one_rank(row_id, tp, name, shape):
    assert weights_of(read(ROWS[row_id]["config"]))[name].rank_shape(tp) == shape


def test_experts_are_what_mxfp4_replaces():
    spec = read(ROWS["openai/gpt-oss-20b"]["config"])
    experts = {weight.name: weight for weight, _ in all_weights(spec) if weight.part == "experts"}
    assert {name for name, weight in experts.items() if weight.linear} == {
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    }
    assert experts["mlp.experts.gate_up_proj"].shape == (2 * 2880, 2880)
    assert {(weight.copies, weight.active_copies) for weight in experts.values()} == {(32, 4)}
