"""Small models, one or more of each architecture that kvplan reads from GGUF files: what `make_gguf.py` builds."""

from typing import Any

SIZES = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2, "vocab_size": 1024},
    "mixtral": {"model_type": "mixtral", "num_key_value_heads": 2, "vocab_size": 1024, "num_local_experts": 4},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128},
    "qwen3moe": {
        "model_type": "qwen3_moe", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128,
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
    },
    "gemma2": {"model_type": "gemma2", "num_key_value_heads": 4, "vocab_size": 1024, "head_dim": 128, "sliding_window": 256},
    "gemma3": {
        "model_type": "gemma3_text", "num_key_value_heads": 4, "vocab_size": 1024, "head_dim": 128,
        "sliding_window": 256, "num_hidden_layers": 6,
    },
    "phi3": {"model_type": "phi3", "num_key_value_heads": 8, "vocab_size": 1024, "pad_token_id": 0},
    "deepseek2": {
        "model_type": "deepseek_v3", "vocab_size": 1024, "num_key_value_heads": 8, "q_lora_rank": 256,
        "kv_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "n_group": 2, "topk_group": 1,
    },
    "starcoder2": {"model_type": "starcoder2", "num_key_value_heads": 2, "vocab_size": 1024, "sliding_window": 256},
    "command-r": {"model_type": "cohere", "num_key_value_heads": 2, "vocab_size": 1024},
    "olmo2": {"model_type": "olmo2", "num_key_value_heads": 2, "vocab_size": 1024},
    "granite": {"model_type": "granite", "num_key_value_heads": 2, "vocab_size": 1024},
    "glm4": {"model_type": "glm4", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "smollm3": {"model_type": "smollm3", "num_key_value_heads": 2, "vocab_size": 1024},
    "gpt2": {"model_type": "gpt2", "vocab_size": 1024, "n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 256},
    "stablelm": {"model_type": "stablelm", "num_key_value_heads": 2, "vocab_size": 1024},
    "seed_oss": {"model_type": "seed_oss", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "qwen2vl": {"model_type": "qwen2_vl_text", "num_key_value_heads": 2, "vocab_size": 1024},
    "qwen3vl": {"model_type": "qwen3_vl_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128},
    "qwen3vlmoe": {
        "model_type": "qwen3_vl_moe_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128,
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
    },
    "qwen2moe": {
        "model_type": "qwen2_moe", "num_key_value_heads": 2, "vocab_size": 1024, "num_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 512,
    },
    "gemma": {"model_type": "gemma", "num_key_value_heads": 4, "vocab_size": 1024, "head_dim": 128},
    "cohere2": {"model_type": "cohere2", "num_key_value_heads": 2, "vocab_size": 1024, "sliding_window": 256},
    "gpt-oss": {
        "model_type": "gpt_oss", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "num_local_experts": 8,
        "num_experts_per_tok": 2, "intermediate_size": 512, "sliding_window": 128,
    },
    "glm4moe": {
        "model_type": "glm4_moe", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "use_qk_norm": True, "attention_bias": True,
    },
    "ernie4_5": {"model_type": "ernie4_5", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "arcee": {"model_type": "arcee", "num_key_value_heads": 2, "vocab_size": 1024},
    "nemotron": {"model_type": "nemotron", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "mistral3": {"model_type": "ministral3", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "sliding_window": None},
    "phi2": {"model_type": "phi", "num_key_value_heads": 8, "vocab_size": 1024},
    "gptneox": {"model_type": "gpt_neox", "vocab_size": 1024},
    "falcon": {
        "model_type": "falcon", "vocab_size": 1024, "new_decoder_architecture": True, "num_kv_heads": 2,
        "ffn_hidden_size": 2048, "bias": False,
    },
    "lfm2": {
        "model_type": "lfm2", "num_key_value_heads": 2, "vocab_size": 1024, "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    },
    "lfm2moe": {
        "model_type": "lfm2_moe", "num_key_value_heads": 2, "vocab_size": 1024, "num_dense_layers": 1, "num_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 256, "use_expert_bias": True,
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    },
    "qwen3next": {
        "model_type": "qwen3_next", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128, "num_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 256,
        "intermediate_size": 256, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
    },
    "qwen35": {
        "model_type": "qwen3_5_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128,
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 64, "linear_value_head_dim": 64,
    },
    "qwen35moe": {
        "model_type": "qwen3_5_moe_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128, "num_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 256,
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 64, "linear_value_head_dim": 64,
    },
    "olmo": {"model_type": "olmo", "num_key_value_heads": 2, "vocab_size": 1024},
    "olmo3": {"model_type": "olmo3", "num_key_value_heads": 2, "vocab_size": 1024, "sliding_window": 128},
    "olmoe": {
        "model_type": "olmoe", "num_key_value_heads": 2, "vocab_size": 1024, "num_experts": 8, "num_experts_per_tok": 2,
        "intermediate_size": 256,
    },
    "exaone4": {
        "model_type": "exaone4", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "sliding_window": 128,
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
    },
    "exaone-moe": {
        "model_type": "exaone_moe", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "sliding_window": 128,
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256, "num_shared_experts": 1,
        "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "granitemoe": {
        "model_type": "granitemoe", "num_key_value_heads": 2, "vocab_size": 1024, "num_local_experts": 8,
        "num_experts_per_tok": 2, "intermediate_size": 256,
    },
    "granitemoeshared": {
        "model_type": "granitemoeshared", "num_key_value_heads": 2, "vocab_size": 1024, "num_local_experts": 8,
        "num_experts_per_tok": 2, "intermediate_size": 256, "shared_intermediate_size": 512,
    },
    "hunyuan-dense": {"model_type": "hunyuan_v1_dense", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "hunyuan-moe": {
        "model_type": "hunyuan_v1_moe", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "num_experts": 8,
        "moe_topk": 2, "intermediate_size": 512,
    },
    "apertus": {"model_type": "apertus", "num_key_value_heads": 2, "vocab_size": 1024, "hidden_act": "silu"},
    "dots1": {
        "model_type": "dots1", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "sliding_window": None,
    },
    "afmoe": {
        "model_type": "afmoe", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "num_experts": 8,
        "num_experts_per_tok": 2, "num_shared_experts": 1, "moe_intermediate_size": 256, "num_dense_layers": 1,
        "sliding_window": 128, "global_attn_every_n_layers": 4,
    },
    "ernie4_5-moe": {
        "model_type": "ernie4_5_moe", "num_key_value_heads": 2, "vocab_size": 1024, "moe_num_experts": 8, "moe_k": 2,
        "moe_num_shared_experts": 2, "moe_intermediate_size": 256, "moe_layer_start_index": 1, "moe_layer_interval": 1,
        "moe_layer_end_index": -1,
    },
    "phimoe": {
        "model_type": "phimoe", "num_key_value_heads": 2, "vocab_size": 1024, "num_local_experts": 8,
        "num_experts_per_tok": 2, "intermediate_size": 256, "attention_bias": True, "lm_head_bias": True,
        "sliding_window": 256,
    },
    "minimax-m2": {
        "model_type": "minimax_m2", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "num_local_experts": 8,
        "num_experts_per_tok": 2, "intermediate_size": 256,
    },
    "llama4": {
        "model_type": "llama4_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "num_local_experts": 8,
        "num_experts_per_tok": 1, "intermediate_size": 256, "intermediate_size_mlp": 512, "interleave_moe_layer_step": 2,
        "attention_chunk_size": 8192,
    },
    "bitnet": {"model_type": "bitnet", "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": True},
    "bloom": {"model_type": "bloom", "hidden_size": 512, "n_layer": 4, "n_head": 8, "vocab_size": 1024},
    "mpt": {"model_type": "mpt", "d_model": 512, "n_layers": 4, "n_heads": 8, "vocab_size": 1024},
    "starcoder": {"model_type": "gpt_bigcode", "vocab_size": 1024, "n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 256},
    "jais2": {"model_type": "jais2", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "gemma3n": {
        "model_type": "gemma3n_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 128,
        "num_hidden_layers": 10, "intermediate_size": [1024] * 10, "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 1024, "laurel_rank": 64, "num_kv_shared_layers": 5, "sliding_window": 128,
        "altup_num_inputs": 4, "activation_sparsity_pattern": [0.0] * 10,
    },
    "gemma4": {
        "model_type": "gemma4_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "global_head_dim": 128,
        "num_hidden_layers": 12, "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 1024,
        "num_kv_shared_layers": 6, "sliding_window": 128, "attention_k_eq_v": False, "use_double_wide_mlp": True,
    },
    "gemma4-moe": {
        "model_type": "gemma4_text", "num_key_value_heads": 4, "num_global_key_value_heads": 2, "vocab_size": 1024,
        "head_dim": 64, "global_head_dim": 128, "num_hidden_layers": 6, "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0, "sliding_window": 128, "attention_k_eq_v": True, "enable_moe_block": True,
        "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 256,
    },
    "deepseek2-lite": {
        "model_type": "deepseek_v2", "vocab_size": 1024, "num_key_value_heads": 8, "q_lora_rank": None,
        "kv_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
    },
    "glm-dsa": {
        "model_type": "glm_moe_dsa", "vocab_size": 1024, "num_key_value_heads": 8, "q_lora_rank": 256,
        "kv_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "index_n_heads": 4, "index_head_dim": 64, "index_topk": 64,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "mistral4": {
        "model_type": "mistral4", "vocab_size": 1024, "num_key_value_heads": 8, "q_lora_rank": 256,
        "kv_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 0,
        "n_group": 1, "topk_group": 1, "num_hidden_layers": 2,
    },
    "minicpm3": {
        "model_type": "minicpm3", "vocab_size": 1024, "num_key_value_heads": 8, "q_lora_rank": 256,
        "kv_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64,
    },
    "mimo2": {
        "model_type": "mimo_v2_flash", "vocab_size": 1024, "num_key_value_heads": 2, "head_dim": 64, "v_head_dim": 32,
        "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256, "sliding_window": 128,
        "n_group": 1, "topk_group": 1,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "mamba": {
        "model_type": "mamba", "vocab_size": 1024, "hidden_size": 512, "num_hidden_layers": 4, "state_size": 16,
        "conv_kernel": 4, "expand": 2,
    },
    "mamba2": {
        "model_type": "mamba2", "vocab_size": 1024, "hidden_size": 512, "num_hidden_layers": 4, "state_size": 64,
        "conv_kernel": 4, "expand": 2, "num_heads": 16, "head_dim": 64, "n_groups": 2,
    },
    "jamba": {
        "model_type": "jamba", "vocab_size": 1024, "num_key_value_heads": 2, "num_hidden_layers": 8,
        "attn_layer_period": 4, "attn_layer_offset": 2, "expert_layer_period": 2, "expert_layer_offset": 1,
        "num_experts": 4, "num_experts_per_tok": 2, "use_mamba_kernels": False,
    },
    "granitehybrid": {
        "model_type": "granitemoehybrid", "vocab_size": 1024, "num_key_value_heads": 2, "num_local_experts": 8,
        "num_experts_per_tok": 2, "intermediate_size": 256, "shared_intermediate_size": 512, "mamba_n_heads": 16,
        "mamba_d_head": 64, "mamba_n_groups": 1, "mamba_d_state": 64, "mamba_expand": 2,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    },
    "granitehybrid-dense": {
        "model_type": "granitemoehybrid", "vocab_size": 1024, "num_key_value_heads": 2, "num_local_experts": 0,
        "num_experts_per_tok": 0, "shared_intermediate_size": 1024, "mamba_n_heads": 16,
        "mamba_d_head": 64, "mamba_n_groups": 1, "mamba_d_state": 64, "mamba_expand": 2,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
    },
    "falcon-h1": {
        "model_type": "falcon_h1", "vocab_size": 1024, "num_key_value_heads": 2, "head_dim": 64, "mamba_d_ssm": 768,
        "mamba_n_heads": 12, "mamba_d_head": 64, "mamba_n_groups": 1, "mamba_d_state": 64, "mamba_rms_norm": False,
    },
    "nemotron_h": {
        "model_type": "nemotron_h", "vocab_size": 1024, "num_key_value_heads": 2, "head_dim": 64, "mamba_num_heads": 16,
        "mamba_head_dim": 64, "n_groups": 2, "ssm_state_size": 64,
        "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp", "linear_attention"],
    },
    "nemotron_h_moe": {
        "model_type": "nemotron_h", "vocab_size": 1024, "num_key_value_heads": 2, "head_dim": 64, "mamba_num_heads": 16,
        "mamba_head_dim": 64, "n_groups": 2, "ssm_state_size": 64, "n_routed_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 256, "moe_shared_expert_intermediate_size": 512, "n_shared_experts": 1,
        "layers_block_type": ["linear_attention", "moe", "full_attention", "moe", "linear_attention"],
    },
    "kimi-linear": {
        "model_type": "kimi_linear", "vocab_size": 1024, "num_key_value_heads": 8, "q_lora_rank": None,
        "kv_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64,
        "linear_num_heads": 8, "linear_head_dim": 64, "linear_conv_kernel_dim": 4, "num_local_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "internlm2": {"model_type": "internlm2", "num_key_value_heads": 2, "vocab_size": 1024, "bias": False},
    "baichuan": {"model_type": "baichuan", "vocab_size": 1024},
    "xverse": {"model_type": "xverse", "num_key_value_heads": 2, "vocab_size": 1024},
    "exaone": {"model_type": "exaone", "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": False},
    "minicpm": {"model_type": "minicpm", "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": True},
    "orion": {"model_type": "orion", "num_key_value_heads": 2, "vocab_size": 1024},
    "qwen": {"model_type": "qwen", "vocab_size": 1024, "intermediate_size": 2048},
    "deepseek": {
        "model_type": "deepseek", "num_key_value_heads": 8, "vocab_size": 1024, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
    },
    "chatglm": {
        "model_type": "chatglm", "padded_vocab_size": 1024, "num_layers": 4, "ffn_hidden_size": 1024, "kv_channels": 64,
        "multi_query_attention": True, "multi_query_group_num": 2, "add_qkv_bias": True, "add_bias_linear": False,
        "seq_length": 2048,
    },
    "bert": {"model_type": "bert", "vocab_size": 1024},
    "nomic-bert": {"model_type": "nomic_bert", "vocab_size": 1024},
    "modern-bert": {
        "model_type": "modernbert", "vocab_size": 1024, "local_attention": 128, "global_attn_every_n_layers": 3,
        "bos_token_id": 1, "eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1,
    },
    "eurobert": {
        "model_type": "eurobert", "vocab_size": 1024, "num_key_value_heads": 8, "bos_token_id": 1, "eos_token_id": 1,
        "mask_token_id": 1,
    },
    "gemma-embedding": {
        "model_type": "gemma3_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64,
        "num_hidden_layers": 6, "sliding_window": 256, "use_bidirectional_attention": True,
    },
    "falcon-mamba": {
        "model_type": "falcon_mamba", "vocab_size": 1024, "hidden_size": 512, "num_hidden_layers": 4, "state_size": 16,
        "conv_kernel": 4, "expand": 2, "intermediate_size": 1024,
    },
    "dbrx": {
        "model_type": "dbrx", "vocab_size": 1024, "d_model": 512, "n_layers": 4, "n_heads": 8,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0}, "ffn_config": {"ffn_hidden_size": 256, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "hunyuan_vl": {"model_type": "hunyuan_v1_dense", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "paddleocr": {"model_type": "paddleocr_vl_text", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "bailingmoe": {
        "model_type": "bailing_moe", "num_key_value_heads": 8, "vocab_size": 1024, "num_experts": 8,
        "num_experts_per_tok": 2, "num_shared_experts": 2, "moe_intermediate_size": 256, "first_k_dense_replace": 0,
        "use_bias": False,
    },
    "bailingmoe2": {
        "model_type": "bailing_moe_v2", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "num_experts": 8,
        "num_experts_per_tok": 2, "num_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "use_bias": False, "use_qk_norm": True, "num_nextn_predict_layers": 0,
    },
    "step35": {
        "model_type": "step3p5", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "sliding_window": 128,
        "num_sliding_attention_heads": 12, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
        "share_expert_dim": 256, "layer_types": ["full_attention", *["sliding_attention"] * 3],
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
}  # fmt: skip
NAMES = {
    "falcon-mamba": "mamba",
    "mixtral": "llama", "olmo3": "olmo2", "granitemoeshared": "granitemoe", "gemma4-moe": "gemma4",
    "deepseek2-lite": "deepseek2", "granitehybrid-dense": "granitehybrid",
}  # fmt: skip
"""Where llama.cpp calls the architecture otherwise than the test."""
OWN_SIZES = ("falcon-mamba", "dbrx", "gpt2", "bloom", "mpt", "starcoder", "mamba", "mamba2")
"""Models whose configs spell their sizes in their own way."""
ENCODERS = ("bert", "nomic-bert", "modern-bert", "eurobert")
"""Those without a head, built as transformers' bare class."""
STAND_INS: dict[str, dict[str, Any]] = {
    name: {"model_type": "llama", "num_key_value_heads": 2, "vocab_size": 1024}
    for name in ("internlm2", "xverse", "exaone")
} | {
    "baichuan": {"model_type": "llama", "num_key_value_heads": 8, "vocab_size": 1024},
    "paddleocr": {"model_type": "ernie4_5", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64},
    "minicpm": {"model_type": "llama", "num_key_value_heads": 2, "vocab_size": 1024, "tie_word_embeddings": True},
    "orion": {"model_type": "stablelm", "num_key_value_heads": 2, "vocab_size": 1024},
    "qwen": {"model_type": "qwen2", "num_key_value_heads": 8, "vocab_size": 1024},
    "chatglm": {"model_type": "qwen2", "num_key_value_heads": 2, "vocab_size": 1024},
    "bailingmoe2": {
        "model_type": "dots1", "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "sliding_window": None,
    },
    "deepseek": {
        "model_type": "glm4_moe", "num_key_value_heads": 8, "vocab_size": 1024, "head_dim": 64, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 256, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "use_qk_norm": False, "attention_bias": False,
    },
}  # fmt: skip
STAND_INS["bailingmoe"] = STAND_INS["deepseek"] | {"first_k_dense_replace": 0}
"""Classes with the same tensors, of models that transformers has no class for. Once converted they differ in names only:
InternLM 2, Baichuan, XVERSE, EXAONE 3 and MiniCPM are Llama, Orion is Llama with LayerNorm, Qwen and ChatGLM are Qwen 2
with fused tensors, DeepSeek-MoE and Ling are GLM-4.5 without the
router's correction, Ling 2 is dots.llm1 with one tensor for queries, keys and values,
PaddleOCR-VL's text model is ERNIE 4.5."""
