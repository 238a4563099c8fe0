"""Configs of models whose classes come with their repository: the keys that are read, as the model's own file has them.

In tests/sources/test_remote_families.py stands what each of them must give, worked by hand.
"""

from typing import Any

Config = dict[str, Any]


def _config(model_type: str, architecture: str | None, **keys: Any) -> Config:
    named = {} if architecture is None else {"architectures": [architecture]}
    return {"model_type": model_type, **named, **keys}


def _decoder(hidden: int, layers: int, heads: int, kv_heads: int | None, width: int, vocab: int, **more: Any) -> Config:
    shared = {} if kv_heads is None else {"num_key_value_heads": kv_heads}
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **shared,
        "intermediate_size": width,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        **more,
    }


CHATGLM = {
    "hidden_size": 4096,
    "ffn_hidden_size": 13_696,
    "kv_channels": 128,
    "num_attention_heads": 32,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "rmsnorm": True,
    "post_layer_norm": True,
}
EVA_CLIP = {
    "hidden_size": 1792,
    "intermediate_size": 15_360,
    "num_hidden_layers": 63,
    "num_heads": 16,
    "patch_size": 14,
    "in_channels": 3,
    "num_positions": 6401,
}
QWEN_VISUAL = {
    "width": 1664,
    "layers": 48,
    "heads": 16,
    "mlp_ratio": 4.9231,
    "patch_size": 14,
    "image_size": 448,
    "output_dim": 4096,
}
QWEN_7B = _decoder(4096, 32, 32, None, 22_016, 151_936, kv_channels=128, no_bias=True)
SIGLIP_980 = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 980,
}
INTERN_VIT = {
    "model_type": "intern_vit_6b",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 448,
    "qkv_bias": True,
    "qk_normalization": False,
    "norm_type": "layer_norm",
}
PHI3_IMAGES = {
    "embd_layer": {
        "embedding_cls": "image",
        "projection_cls": "mlp",
        "use_hd_transform": True,
        "with_learnable_separator": True,
    },
    "img_processor": {"image_dim_out": 1024, "model_name": "openai/clip-vit-large-patch14-336"},
}
DEEPSEEK_VL2_TINY = _decoder(
    1280,
    12,
    10,
    10,
    6848,
    129_280,
    model_type="deepseek_v2",
    moe_intermediate_size=896,
    n_routed_experts=64,
    n_shared_experts=2,
    num_experts_per_tok=6,
    first_k_dense_replace=1,
    use_mla=False,
    topk_method="greedy",
)
JANUS_LLAMA = _decoder(2048, 24, 16, 16, 5632, 102_400, model_type="llama")
STEP3 = _decoder(
    7168,
    61,
    64,
    None,
    18_432,
    128_815,
    num_attention_groups=1,
    head_dim=256,
    share_q_dim=2048,
    share_expert_dim=5120,
    moe_intermediate_size=5120,
    moe_num_experts=48,
    moe_top_k=3,
    moe_layers_enum=",".join(map(str, range(4, 60))),
)
STEP3_VISION = {
    "hidden_size": 1792,
    "output_hidden_size": 4096,
    "intermediate_size": 15_360,
    "num_hidden_layers": 63,
    "num_attention_heads": 16,
    "image_size": 728,
    "patch_size": 14,
}
KIMI_K2 = _decoder(
    7168,
    61,
    64,
    64,
    18_432,
    163_840,
    kv_lora_rank=512,
    q_lora_rank=1536,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    n_routed_experts=384,
    n_shared_experts=1,
    num_experts_per_tok=8,
    moe_intermediate_size=2048,
    first_k_dense_replace=1,
)
MOONLIGHT = _decoder(
    2048,
    27,
    16,
    16,
    11_264,
    163_840,
    model_type="deepseek_v3",
    kv_lora_rank=512,
    q_lora_rank=None,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    n_routed_experts=64,
    n_shared_experts=2,
    num_experts_per_tok=6,
    moe_intermediate_size=1408,
    first_k_dense_replace=1,
)
MOONVIT = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "init_pos_emb_height": 64,
    "init_pos_emb_width": 64,
    "merge_kernel_size": [2, 2],
}
DEEPSEEK_V4 = {
    **_decoder(4096, 43, 64, 1, 2048, 129_280, head_dim=512, q_lora_rank=1024, qk_rope_head_dim=64),
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 6,
    "o_lora_rank": 1024,
    "o_groups": 8,
    "index_head_dim": 128,
    "index_n_heads": 64,
    "index_topk": 512,
    "sliding_window": 128,
    "num_hash_layers": 3,
    "hc_mult": 4,
    "compress_ratios": [0, 0, *[4, 128] * 20, 4, 0],
}


def _block(ffn_mult: float | None, *, group: int | None = 16) -> Config:
    return {
        "attention": {"n_heads_in_group": group, "no_op": group is None, "replace_with_linear": False},
        "ffn": {"ffn_mult": ffn_mult, "no_op": ffn_mult is None, "replace_with_linear": False},
    }


# The numbers of its layers of each kind; their order changes no total.
NEMOTRON_BLOCKS = [
    *[_block(mult) for mult, n in ((0.4875, 1), (0.975, 1), (1.4625, 6), (1.95, 8), (2.4375, 10)) for _ in range(n)],
    *[_block(mult) for mult, n in ((2.925, 2), (3.4125, 4), (4.875, 32)) for _ in range(n)],
    *[_block(None, group=None) for _ in range(81)],
    *[_block(mult, group=None) for mult, n in ((1.95, 2), (2.4375, 9), (4.875, 2)) for _ in range(n)],
    *[_block(mult, group=None) for mult in (27.5625, 31.40625, 36.5625, 39.0)],
]
OPENELM = {
    "model_dim": 1280,
    "num_transformer_layers": 16,
    "head_dim": 64,
    "num_query_heads": [12] * 5 + [16] * 7 + [20] * 4,
    "num_kv_heads": [3] * 5 + [4] * 7 + [5] * 4,
    "ffn_multipliers": [0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13, 2.37, 2.6, 2.83, 3.07, 3.3, 3.53, 3.77, 4.0],
    "ffn_dim_divisor": 256,
    "normalize_qk_projections": True,
    "share_input_output_layers": True,
    "vocab_size": 32_000,
}
HUNYUAN_LARGE = _decoder(
    6400,
    64,
    80,
    8,
    18_304,
    128_512,
    num_experts=16,
    moe_topk=1,
    num_shared_expert=1,
    use_mixed_mlp_moe=True,
    use_qk_norm=True,
    use_cla=True,
    cla_share_factor=2,
)
QWEN2_7B = _decoder(3584, 28, 28, 4, 18_944, 152_064, use_sliding_window=False)
LLAVA = {"mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad"}
LLAVA_SIGLIP = {**LLAVA, "mm_hidden_size": 1152, "mm_vision_tower": "google/siglip-so400m-patch14-384"}
LLAVA_CLIP = {**LLAVA, "mm_hidden_size": 1024, "mm_vision_tower": "openai/clip-vit-large-patch14-336"}
BAILING_V2 = _decoder(
    2048,
    20,
    16,
    4,
    5120,
    157_184,
    head_dim=128,
    moe_intermediate_size=512,
    num_experts=256,
    num_shared_experts=1,
    num_experts_per_tok=8,
    first_k_dense_replace=1,
    use_qk_norm=True,
    use_bias=False,
)

CONFIGS: dict[str, Config] = {
    "ChatGLM3-6B": _config("chatglm", "ChatGLMModel", **CHATGLM, num_layers=28, padded_vocab_size=65_024),
    "GLM-4-9B": _config("chatglm", "ChatGLMModel", **CHATGLM, num_layers=40, padded_vocab_size=151_552),
    "GLM-4V-9B": _config(
        "chatglm", "ChatGLMModel", **CHATGLM, num_layers=40, padded_vocab_size=151_552, vision_config=EVA_CLIP
    ),
    "Baichuan2-7B": _config("baichuan", "BaichuanForCausalLM", **_decoder(4096, 32, 32, None, 11_008, 125_696)),
    "Baichuan2-13B": _config("baichuan", "BaichuanForCausalLM", **_decoder(5120, 40, 40, None, 13_696, 125_696)),
    "InternLM-7B": _config(
        "internlm", "InternLMForCausalLM", **_decoder(4096, 32, 32, None, 11_008, 103_168, bias=True)
    ),
    "InternLM2-7B": _config(
        "internlm2", "InternLM2ForCausalLM", **_decoder(4096, 32, 32, 8, 14_336, 92_544, bias=False)
    ),
    "InternLM2-7B-reward": _config(
        "internlm2", "InternLM2ForRewardModel", **_decoder(4096, 32, 32, 8, 14_336, 92_544, bias=False)
    ),
    "Qwen-7B": _config("qwen", "QWenLMHeadModel", **QWEN_7B),
    "Qwen-72B": _config("qwen", "QWenLMHeadModel", **_decoder(8192, 80, 64, None, 49_152, 152_064, kv_channels=128)),
    "Qwen-7B, first spelling": _config(
        "qwen",
        "QWenLMHeadModel",
        n_embd=4096,
        n_head=32,
        n_layer=32,
        ffn_hidden_size=22_016,
        kv_channels=128,
        padded_vocab_size=151_936,
        n_positions=6144,
    ),
    "Qwen-VL": _config("qwen", "QWenLMHeadModel", **QWEN_7B, visual=QWEN_VISUAL),
    "MiniCPM-2B": _config(
        "minicpm", "MiniCPMForCausalLM", **{**_decoder(2304, 40, 36, 36, 5760, 122_753), "tie_word_embeddings": True}
    ),
    "MiniCPM-MoE-8x2B": _config(
        "minicpm",
        "MiniCPMForCausalLM",
        **{**_decoder(2304, 40, 36, 36, 5760, 122_753), "tie_word_embeddings": True},
        num_experts=8,
        num_experts_per_tok=2,
    ),
    "Kimi-K2": _config("kimi_k2", "DeepseekV3ForCausalLM", **KIMI_K2),
    "MiniMax-Text-01": _config(
        "minimax_text_01",
        "MiniMaxText01ForCausalLM",
        **_decoder(6144, 80, 64, 8, 9216, 200_064, head_dim=128, num_local_experts=32, num_experts_per_tok=2),
        attn_type_list=([0] * 7 + [1]) * 10,
    ),
    "MiniMax-M1": _config(
        "minimax_m1",
        "MiniMaxM1ForCausalLM",
        **_decoder(6144, 80, 64, 8, 9216, 200_064, head_dim=128, num_local_experts=32, num_experts_per_tok=2),
        attn_type_list=([0] * 7 + [1]) * 10,
    ),
    "Step-3, text": _config("step3_text", "Step3TextForCausalLM", **STEP3),
    "Step-3": _config(
        "step3_vl",
        "Step3VLForConditionalGeneration",
        text_config={"model_type": "step3_text", **STEP3},
        vision_config=STEP3_VISION,
        projector_bias=False,
    ),
    "Hunyuan-Large": _config("hunyuan", "HunYuanForCausalLM", **{**HUNYUAN_LARGE, "tie_word_embeddings": True}),
    "Ling-lite": _config(
        "bailing_moe",
        "BailingMoeForCausalLM",
        **_decoder(2048, 28, 16, 4, 5632, 126_464, moe_intermediate_size=1408, num_experts=64, use_bias=False),
        num_shared_experts=2,
        num_experts_per_tok=6,
    ),
    "Ling-mini-2.0": _config("bailing_moe", "BailingMoeV2ForCausalLM", **BAILING_V2),
    "Ling-mini-2.0, its own type": _config("bailing_moe_v2", "BailingMoeV2ForCausalLM", **BAILING_V2),
    "OpenELM-270M": _config("openelm", "OpenELMForCausalLM", **OPENELM),
    "Nemotron-Ultra-253B": _config(
        "nemotron-nas",
        "DeciLMForCausalLM",
        hidden_size=16_384,
        num_hidden_layers=162,
        num_attention_heads=128,
        vocab_size=128_256,
        tie_word_embeddings=False,
        block_configs=NEMOTRON_BLOCKS,
    ),
    "DeciLM-7B": _config(
        "deci",
        "DeciLMForCausalLM",
        **_decoder(4096, 32, 32, None, 14_336, 32_000, num_key_value_heads_per_layer=[4] * 16 + [1] * 8 + [2] * 8),
    ),
    "EXAONE-3.5-7.8B": _config(
        "exaone",
        "ExaoneForCausalLM",
        hidden_size=4096,
        num_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=14_336,
        vocab_size=102_400,
        tie_word_embeddings=False,
    ),
    "Phi-1.5": _config(
        "phi-msft", "PhiForCausalLM", n_embd=2048, n_head=32, n_layer=24, n_positions=2048, vocab_size=51_200
    ),
    "Phi-1.5, first class": _config(
        "mixformer-sequential",
        "MixFormerSequentialForCausalLM",
        n_embd=2048,
        n_head=32,
        n_layer=24,
        n_positions=2048,
        vocab_size=51_200,
    ),
    "Phi-3-small-8k": _config(
        "phi3small",
        "Phi3SmallForCausalLM",
        **{**_decoder(4096, 32, 32, 8, 14_336, 100_352), "tie_word_embeddings": True},
    ),
    "Phi-3-vision": _config("phi3_v", "Phi3VForCausalLM", **_decoder(3072, 32, 32, 32, 8192, 32_064), **PHI3_IMAGES),
    "DeepSeek-MoE-16B": _config(
        "deepseek",
        "DeepseekForCausalLM",
        **_decoder(2048, 28, 16, 16, 10_944, 102_400, moe_intermediate_size=1408, n_routed_experts=64),
        n_shared_experts=2,
        num_experts_per_tok=6,
        first_k_dense_replace=1,
        moe_layer_freq=1,
    ),
    "DeepSeek-V4-Flash": _config("deepseek_ref", "DeepseekV4ForCausalLM", **DEEPSEEK_V4),
    "Orion-14B": _config("orion", "OrionForCausalLM", **_decoder(5120, 40, 40, 40, 15_360, 84_608)),
    "Yuan2-2B": _config(
        "yuan", "YuanForCausalLM", **{**_decoder(2048, 24, 32, None, 8192, 135_040), "tie_word_embeddings": True}
    ),
    "Yuan2-M32": _config(
        "yuan",
        "YuanForCausalLM",
        **_decoder(2048, 24, 16, None, 8192, 135_040, attention_projection_size=4096),
        moe_config={"moe_num_experts": 32, "moe_top_k": 2, "ffn_hidden_size": 8192, "gated_linear_unit": True},
    ),
    "MiMo-7B": _config(
        "mimo",
        "MiMoForCausalLM",
        **_decoder(4096, 36, 32, 8, 11_008, 151_680, head_dim=128, use_sliding_window=False),
        num_nextn_predict_layers=1,
    ),
    "Skywork-13B": _config("skywork", "SkyworkForCausalLM", **_decoder(4608, 52, 36, 36, 12_288, 65_519)),
    "Aquila2-34B": _config("aquila", "AquilaForCausalLM", **_decoder(6144, 60, 48, 8, 24_576, 100_008)),
    "XVERSE-13B": _config("xverse", "XverseForCausalLM", **_decoder(5120, 40, 40, None, 13_824, 100_534)),
    "XVERSE-MoE-A4.2B": _config(
        "xverse",
        "XverseForCausalLM",
        **_decoder(2560, 28, 32, None, 1728, 100_534, num_experts=64, num_experts_per_tok=6, num_shared_experts=2),
    ),
    "TeleChat-7B": _config(
        "telechat",
        "TelechatForCausalLM",
        hidden_size=4096,
        n_layer=30,
        n_head=32,
        ffn_hidden_size=12_288,
        vocab_size=160_256,
        tie_word_embeddings=False,
    ),
    "StableLM-3B-4E1T": _config(
        "stablelm_epoch", "StableLMEpochForCausalLM", **_decoder(2560, 32, 32, 32, 6912, 50_304)
    ),
    "Emu3": _config("Emu3", "Emu3ForCausalLM", **_decoder(4096, 32, 32, 8, 14_336, 184_622)),
    "Emu3.5": _config("Emu3", "Emu3ForCausalLM", **_decoder(5120, 64, 64, 8, 25_600, 282_926, head_dim=128)),
    "RWKV-5-World-1B5": _config(
        "rwkv5",
        "Rwkv5ForCausalLM",
        hidden_size=2048,
        attention_hidden_size=2048,
        num_hidden_layers=24,
        head_size=64,
        vocab_size=65_536,
    ),
    "InternVL2-4B": _config(
        "internvl_chat",
        "InternVLChatModel",
        downsample_ratio=0.5,
        llm_config={"model_type": "phi3", **_decoder(3072, 32, 32, 32, 8192, 32_020)},
        vision_config=INTERN_VIT,
    ),
    "MiniCPM-V-2.6": _config(
        "minicpmv",
        "MiniCPMV",
        **_decoder(3584, 28, 28, 4, 18_944, 151_666, use_sliding_window=False),
        version=2.6,
        query_num=64,
        drop_vision_last_layer=False,
        vision_config=SIGLIP_980,
    ),
    "MiniCPM-V-4": _config(
        "minicpmv",
        "MiniCPMV",
        **_decoder(2560, 32, 32, 2, 10_240, 73_448, head_dim=128),
        version=4.0,
        query_num=64,
        drop_vision_last_layer=False,
        vision_config=SIGLIP_980,
    ),
    "MinerU2.0": _config(
        "mineru2_qwen",
        "Mineru2QwenForCausalLM",
        **{**_decoder(896, 24, 14, 2, 4864, 151_654, use_sliding_window=False), "tie_word_embeddings": True},
        **LLAVA_SIGLIP,
    ),
    "LLaVA-1.5-7B": _config(
        "llava_llama",
        "LlavaLlamaForCausalLM",
        **_decoder(4096, 32, 32, 32, 11_008, 32_000),
        **{**LLAVA_CLIP, "mm_patch_merge_type": "flat"},
    ),
    "LLaVA-1.5-7B, first type": _config(
        "llava",
        "LlavaLlamaForCausalLM",
        **_decoder(4096, 32, 32, 32, 11_008, 32_000),
        **{**LLAVA_CLIP, "mm_patch_merge_type": "flat"},
    ),
    "LLaVA-1.6-Mistral-7B": _config(
        "llava_mistral",
        "LlavaMistralForCausalLM",
        **_decoder(4096, 32, 32, 8, 14_336, 32_000, sliding_window=None),
        **LLAVA_CLIP,
    ),
    "LLaVA-OneVision-7B": _config("llava_qwen", "LlavaQwenForCausalLM", **QWEN2_7B, **LLAVA_SIGLIP),
    "VILA1.5-3B": _config(
        "llava_llama",
        "LlavaLlamaModel",
        llm_cfg={"model_type": "llama", **_decoder(2560, 32, 20, 20, 6912, 32_000)},
        vision_tower_cfg={"model_type": "siglip_vision_model", **SIGLIP_980, "image_size": 384, "num_channels": 3},
        mm_projector_cfg={"mm_projector_type": "mlp_downsample"},
    ),
    "Janus-1.3B": _config(
        "multi_modality",
        None,
        language_config=JANUS_LLAMA,
        vision_config={"params": {"model_name": "siglip_large_patch16_384"}},
        aligner_config={"params": {"depth": 2, "input_dim": 1024, "n_embed": 2048, "projector_type": "mlp_gelu"}},
        gen_vision_config={"params": {"image_token_size": 16_384, "n_embed": 8}},
        gen_aligner_config={"params": {"depth": 2, "input_dim": 8, "n_embed": 2048, "projector_type": "mlp_gelu"}},
        gen_head_config={"params": {"image_token_embed": 2048, "image_token_size": 16_384, "n_embed": 2048}},
    ),
    "Eagle 2.5 with Qwen3": _config(
        "eagle_3_vl",
        "Eagle3_VLForConditionalGeneration",
        downsample_ratio=0.5,
        text_config={
            "model_type": "qwen3",
            **_decoder(2048, 28, 16, 8, 6144, 151_680, head_dim=128),
            "tie_word_embeddings": True,
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_channels": 3,
            "num_patches": 256,
            "patch_size": 14,
        },
    ),
    "Kimi-VL-A3B": _config("kimi_vl", "KimiVLForConditionalGeneration", text_config=MOONLIGHT, vision_config=MOONVIT),
    "DeepSeek-VL2-tiny": _config(
        "deepseek_vl_v2",
        "DeepseekVLV2ForCausalLM",
        language_config=DEEPSEEK_VL2_TINY,
        vision_config={"model_name": "siglip_so400m_patch14_384"},
        projector_config={"projector_type": "downsample_mlp_gelu", "input_dim": 1152, "n_embed": 1280, "depth": 2},
    ),
    "DeepSeek-OCR": _config(
        "deepseek_vl_v2",
        "DeepseekOCRForCausalLM",
        language_config=DEEPSEEK_VL2_TINY,
        vision_config={"width": {"clip-l-14-224": {"width": 1024}, "sam_vit_b": {"width": 768}}},
        projector_config={"projector_type": "linear", "input_dim": 2048, "n_embed": 1280},
    ),
    "Arctic": _config(
        "arctic",
        "ArcticForCausalLM",
        **_decoder(7168, 35, 56, 8, 4864, 32_000, num_local_experts=128, num_experts_per_tok=2),
        moe_layer_frequency=1,
        use_residual=True,
        parallel_attn_mlp_res=True,
    ),
    "Grok-1": _config(
        "grok-1",
        "Grok1ModelForCausalLM",
        **{**_decoder(6144, 64, 48, 8, 32_768, 131_072), "tie_word_embeddings": True},
        num_experts=8,
        num_experts_per_tok=2,
    ),
    "Jais-13B": _config(
        "jais",
        "JAISLMHeadModel",
        n_embd=5120,
        n_head=40,
        n_layer=40,
        n_inner=13_653,
        n_positions=2048,
        vocab_size=84_992,
        activation_function="swiglu",
        position_embedding_type="alibi",
    ),
    "CodeShell-7B": _config(
        "codeshell",
        "CodeShellForCausalLM",
        n_embd=4096,
        n_head=32,
        n_layer=42,
        n_inner=16_384,
        n_positions=8192,
        vocab_size=70_144,
        group_query_attention=True,
        num_query_groups=8,
        position_embedding_type="rope",
    ),
}
