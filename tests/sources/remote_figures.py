"""What models of remote code need, worked by hand from the configs in tests/data/remote_configs.jsonl."""

# (bytes in bf16 that one more token needs, parameters)
BY_HAND = {
    # 28 layers · 2 · 2 groups · 128 · 2 bytes. In each layer q, k and v of 32 + 2 + 2 heads with biases.
    "ChatGLM3-6B": (
        28_672,
        2 * 65_024 * 4096 + 28 * (4608 * 4096 + 4608 + 4096**2 + 3 * 13_696 * 4096 + 2 * 4096) + 4096,
    ),
    "GLM-4-9B": (
        40 * 1024,
        2 * 151_552 * 4096 + 40 * (4608 * 4096 + 4608 + 4096**2 + 3 * 13_696 * 4096 + 2 * 4096) + 4096,
    ),
    # GLM-4-9B, and the tower: patches with a bias, a class token, 6401 positions; in each of 63 layers four matrices
    # of 1792² and two of 1792 · 15360, all with biases, two LayerNorms; the projector's five tensors; the convolution;
    # two vectors.
    "GLM-4V-9B": (
        40 * 1024,
        9_399_951_360
        + (588 + 1 + 1 + 6401) * 1792
        + 63 * (4 * 1792**2 + 4 * 1792 + 2 * 1792 * 15_360 + 15_360 + 1792 + 4 * 1792)
        + (4096**2 + 2 * 4096 + 3 * 13_696 * 4096)
        + (4 * 1792 * 4096 + 4096)
        + 2 * 4096,
    ),
    # 32 · 2 · 32 · 128 · 2.
    "Baichuan2-7B": (524_288, 2 * 125_696 * 4096 + 32 * (4 * 4096**2 + 3 * 11_008 * 4096 + 2 * 4096) + 4096),
    # 40 · 2 · 40 · 128 · 2. "13B", Baichuan 2, table 2.
    "Baichuan2-13B": (819_200, 2 * 125_696 * 5120 + 40 * (4 * 5120**2 + 3 * 13_696 * 5120 + 2 * 5120) + 5120),
    "InternLM-7B": (
        524_288,
        2 * 103_168 * 4096 + 32 * (4 * 4096**2 + 4 * 4096 + 3 * 11_008 * 4096 + 2 * 4096) + 4096,
    ),
    # 32 · 2 · 8 · 128 · 2.
    "InternLM2-7B": (
        131_072,
        2 * 92_544 * 4096 + 32 * (2 * 4096**2 + 2 * 1024 * 4096 + 3 * 14_336 * 4096 + 2 * 4096) + 4096,
    ),
    # One row of 4096 in place of the output head.
    "InternLM2-7B-reward": (131_072, 7_737_708_544 - 92_544 * 4096 + 4096),
    # Each side of the MLP is 11008 wide; biases on q, k and v only.
    "Qwen-7B": (
        524_288,
        2 * 151_936 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 + 3 * 11_008 * 4096 + 2 * 4096) + 4096,
    ),
    "Qwen-7B, first spelling": (524_288, 7_721_324_544),
    # 80 · 2 · 64 · 128 · 2.
    "Qwen-72B": (
        2_621_440,
        2 * 152_064 * 8192 + 80 * (4 * 8192**2 + 3 * 8192 + 3 * 24_576 * 8192 + 2 * 8192) + 8192,
    ),
    # Qwen-7B; 48 layers of width 1664, an MLP of int(1664 · 4.9231) = 8192; a resampler with 256 queries and positions.
    "Qwen-VL": (
        524_288,
        7_721_324_544
        + (588 + 256 + 2) * 1664
        + 48 * (4 * 1664**2 + 4 * 1664 + 2 * 1664 * 8192 + 8192 + 1664 + 4 * 1664)
        + (2 * 256 * 4096 + 4096 * 1664 + 4 * 4096**2 + 4 * 4096 + 4 * 4096)
        + (2 * 4096 + 4096**2),
    ),
    # 40 · 2 · 36 · 64 · 2. One table; without it 2,442,057,984, MiniCPM, table 2, https://arxiv.org/abs/2404.06395
    "MiniCPM-2B": (368_640, 122_753 * 2304 + 2_442_057_984),
    # Seven experts more, and a router of 8 rows. "13.6B" without the table.
    "MiniCPM-MoE-8x2B": (368_640, 2_724_880_896 + 40 * (7 * 3 * 5760 * 2304 + 8 * 2304)),
    # 61 · (512 + 64) · 2. In each layer: queries through 1536 to 64 · 192, the latent and its rotary key, 64 · 256
    # out of the latent, the output; one dense layer; 385 experts and a router in the others.
    "Kimi-K2": (
        70_272,
        2 * 163_840 * 7168
        + 61 * (1536 * 7168 + 1536 + 12_288 * 1536 + 576 * 7168 + 512 + 16_384 * 512 + 8192 * 7168 + 2 * 7168)
        + 3 * 18_432 * 7168
        + 60 * (385 * 3 * 2048 * 7168 + 384 * 7168)
        + 7168,
    ),
    # 10 softmax layers · 2 · 8 · 128 · 2. 70 lightning layers: q, k, v, the gate and the output of 64 · 128, a norm.
    "MiniMax-Text-01": (
        40_960,
        2 * 200_064 * 6144
        + 70 * (5 * 8192 * 6144 + 8192)
        + 10 * (2 * 8192 * 6144 + 2 * 1024 * 6144)
        + 80 * (32 * 3 * 9216 * 6144 + 32 * 6144 + 2 * 6144)
        + 6144,
    ),
    "MiniMax-M1": (40_960, 456_089_655_296),
    # 61 · 2 · 1 head · 256 · 2. Queries through 2048 elements and a norm to 64 · 256. "316B", model card.
    "Step-3, text": (
        62_464,
        2 * 128_815 * 7168
        + 61 * (2048 * 7168 + 2 * 256 * 7168 + 2048 + 16_384 * 2048 + 16_384 * 7168 + 2 * 7168)
        + 56 * (48 * 7168 + 49 * 3 * 5120 * 7168)
        + 5 * 3 * 18_432 * 7168
        + 7168,
    ),
    # The tower: (52² + 1) positions, a class token, patches with a bias, 63 layers; convolutions of 2² and 3²; one
    # linear without a bias. "321B", model card.
    "Step-3": (
        62_464,
        316_294_538_240
        + (2705 + 1 + 588 + 1) * 1792
        + 63 * (4 * 1792**2 + 4 * 1792 + 2 * 1792 * 15_360 + 15_360 + 1792 + 4 * 1792)
        + (4 * 1792 * 4096 + 4096)
        + (9 * 4096 * 8192 + 8192)
        + 8192 * 7168,
    ),
    # 32 of 64 layers · 2 · 8 · 80 · 2. Every second layer has a query and an output alone. 17 MLPs, one table.
    # "389B", https://arxiv.org/abs/2411.02265
    "Hunyuan-Large": (
        81_920,
        128_512 * 6400
        + 32 * 2 * 640 * 6400
        + 64 * (2 * 6400**2 + 2 * 80 + 17 * 3 * 18_304 * 6400 + 16 * 6400 + 2 * 6400)
        + 6400,
    ),
    # 28 · 2 · 4 · 128 · 2. 64 routed and 2 shared experts.
    "Ling-lite": (
        57_344,
        2 * 126_464 * 2048 + 28 * (3072 * 2048 + 2048**2 + 64 * 2048 + 66 * 3 * 1408 * 2048 + 2 * 2048) + 2048,
    ),
    # 20 · 2 · 4 · 128 · 2. One dense layer; norms of 128 on query and key.
    "Ling-mini-2.0": (
        40_960,
        2 * 157_184 * 2048
        + 20 * (3072 * 2048 + 2048**2 + 2 * 128 + 2 * 2048)
        + 3 * 5120 * 2048
        + 19 * (256 * 2048 + 257 * 3 * 512 * 2048)
        + 2048,
    ),
    "Ling-mini-2.0, its own type": (40_960, 16_255_638_528),
    # (5 · 3 + 7 · 4 + 4 · 5) KV heads · 2 · 64 · 2; four times as many query heads. Widths are the multiples of 256
    # nearest to what is asked for: 768 for 640, 1024 for 934.4, …, 5120, the 16 of them together 46592.
    "OpenELM-270M": (
        63 * 256,
        32_000 * 1280
        + (252 + 2 * 63) * 64 * 1280
        + 252 * 64 * 1280
        + 3 * 46_592 * 1280
        + 16 * (2 * 64 + 2 * 1280)
        + 1280,
    ),
    # 64 layers that attend · 2 · 8 · 128 · 2. Of widths: int(2 · m · 16384 / 3), up to a multiple of 256, is 5376 for
    # 0.4875 (5325), 10752 for 0.975, 16128 for 1.4625 (15974) … 425984 for 39.
    "Nemotron-Ultra-253B": (
        262_144,
        2 * 128_256 * 16_384
        + 64 * (2 * 16_384**2 + 2 * 1024 * 16_384 + 16_384)
        + 3 * 16_384 * sum(n * width for n, width in ((1, 5376), (1, 10_752), (6, 16_128), (10, 21_504), (19, 26_624)))
        + 3 * 16_384 * sum(n * width for n, width in ((2, 32_000), (4, 37_376), (34, 53_248)))
        + 3 * 16_384 * (301_056 + 343_040 + 399_360 + 425_984)
        + 81 * 16_384
        + 16_384,
    ),
    # (16 · 4 + 8 · 1 + 8 · 2) KV heads · 2 · 128 · 2.
    "DeciLM-7B": (
        88 * 512,
        2 * 32_000 * 4096 + 32 * (2 * 4096**2 + 3 * 14_336 * 4096 + 2 * 4096) + 88 * 2 * 128 * 4096 + 4096,
    ),
    "EXAONE-3.5-7.8B": (131_072, 2 * 102_400 * 4096 + 32 * 218_112_000 + 4096),
    # 24 · 2 · 32 · 64 · 2. Biases everywhere, the head's too; one LayerNorm a layer.
    "Phi-1.5": (
        196_608,
        2 * 51_200 * 2048
        + 51_200
        + 24 * (4 * 2048**2 + 4 * 2048 + 2 * 8192 * 2048 + 8192 + 2048 + 2 * 2048)
        + 2 * 2048,
    ),
    "Phi-1.5, first class": (196_608, 1_418_270_720),
    "Phi-3-small-8k": (
        131_072,
        100_352 * 4096
        + 32 * (6144 * 4096 + 6144 + 4096**2 + 4096 + 3 * 14_336 * 4096 + 28_672 + 4096 + 4 * 4096)
        + 2 * 4096,
    ),
    # Phi-3-mini, CLIP's 24 layers with 577 positions, linears from 4 · 1024, two separators of as many.
    "Phi-3-vision": (
        393_216,
        3_821_079_552
        + (588 + 1 + 577 + 4) * 1024
        + 24 * (4 * 1024**2 + 4 * 1024 + 2 * 4096 * 1024 + 4096 + 1024 + 4 * 1024)
        + 4096 * 3072
        + 3072**2
        + 2 * 3072
        + 2 * 4096,
    ),
    # 28 · 2 · 16 · 128 · 2.
    "DeepSeek-MoE-16B": (
        229_376,
        2 * 102_400 * 2048
        + 28 * (4 * 2048**2 + 2 * 2048)
        + 3 * 10_944 * 2048
        + 27 * (66 * 3 * 1408 * 2048 + 64 * 2048)
        + 2048,
    ),
    "Orion-14B": (819_200, 2 * 84_608 * 5120 + 40 * (4 * 5120**2 + 3 * 15_360 * 5120 + 4 * 5120) + 2 * 5120),
    # 24 · 2 · 32 · 64 · 2. Convolutions of 2 tokens, to half the width and back, with biases, and a norm.
    "Yuan2-2B": (
        196_608,
        135_040 * 2048
        + 24 * (4 * 2048**2 + 2 * 2 * 1024 * 2048 + 1024 + 2048 + 2048 + 3 * 8192 * 2048 + 2 * 2048)
        + 2048,
    ),
    # 24 · 2 · 16 · 256 · 2. A router of three matrices over 32 experts. "40B", model card.
    "Yuan2-M32": (
        393_216,
        2 * 135_040 * 2048
        + 24 * (4 * 4096 * 2048 + 2 * 2 * 1024 * 2048 + 1024 + 2 * 2048 + 2 * 2048)
        + 24 * (32 * 3 * 8192 * 2048 + 3 * 32 * 2048)
        + 2048,
    ),
    # 36 · 2 · 8 · 128 · 2. 36 layers and one that predicts ahead, which has a matrix and three norms more.
    "MiMo-7B": (
        147_456,
        2 * 151_680 * 4096
        + 37 * (2 * 4096**2 + 2 * 1024 * 4096 + 4096 + 2 * 1024 + 3 * 11_008 * 4096 + 2 * 4096)
        + 2 * 4096**2
        + 3 * 4096
        + 4096,
    ),
    "Skywork-13B": (958_464, 2 * 65_519 * 4608 + 52 * (4 * 4608**2 + 3 * 12_288 * 4608 + 2 * 4608) + 4608),
    # 60 · 2 · 8 · 128 · 2.
    "Aquila2-34B": (
        245_760,
        2 * 100_008 * 6144 + 60 * (2 * 6144**2 + 2 * 1024 * 6144 + 3 * 24_576 * 6144 + 2 * 6144) + 6144,
    ),
    "XVERSE-13B": (819_200, 2 * 100_534 * 5120 + 40 * (4 * 5120**2 + 3 * 13_824 * 5120 + 2 * 5120) + 5120),
    # 28 · 2 · 32 · 80 · 2. 64 routed and 2 shared experts. "25.8B", model card.
    "XVERSE-MoE-A4.2B": (
        286_720,
        2 * 100_534 * 2560 + 28 * (4 * 2560**2 + 66 * 3 * 1728 * 2560 + 64 * 2560 + 2 * 2560) + 2560,
    ),
    # 30 · 2 · 32 · 128 · 2. A bias on the last matrix of each half.
    "TeleChat-7B": (
        491_520,
        2 * 160_256 * 4096 + 30 * (4 * 4096**2 + 4096 + 3 * 12_288 * 4096 + 4096 + 2 * 4096) + 4096,
    ),
    # 32 · 2 · 32 · 80 · 2. "2,795,443,200 parameters", model card.
    "StableLM-3B-4E1T": (
        327_680,
        2 * 50_304 * 2560 + 32 * (4 * 2560**2 + 3 * 6912 * 2560 + 4 * 2560) + 2 * 2560,
    ),
    "Emu3": (
        131_072,
        2 * 184_622 * 4096 + 32 * (2 * 4096**2 + 2 * 1024 * 4096 + 3 * 14_336 * 4096 + 2 * 4096) + 4096,
    ),
    # 64 · 2 · 8 · 128 · 2. 64 heads of 128 on a width of 5120. "34.1B", https://arxiv.org/abs/2510.26583
    "Emu3.5": (
        262_144,
        2 * 282_926 * 5120 + 64 * (2 * 8192 * 5120 + 2 * 1024 * 5120 + 2 * 128 + 3 * 25_600 * 5120 + 2 * 5120) + 5120,
    ),
    # No KV cache. In each layer five matrices of 2048², two of 2048 · 7168, one of 2048²; 14 vectors. Two tables, one
    # norm before the first layer, one after the last.
    "RWKV-5-World-1B5": (
        0,
        2 * 65_536 * 2048 + 24 * (6 * 2048**2 + 2 * 7168 * 2048 + 14 * 2048) + 4 * 2048,
    ),
    # Phi-3-mini with a vocabulary of 32020; the tower's 24 layers with two scales, 1025 positions; the MLP.
    "InternVL2-4B": (
        393_216,
        3_821_079_552
        - 2 * 44 * 3072
        + (588 + 1 + 1 + 1025) * 1024
        + 24 * (4 * 1024**2 + 4 * 1024 + 2 * 4096 * 1024 + 4096 + 1024 + 4 * 1024 + 2 * 1024)
        + (2 * 4096 + 4096 * 3072 + 3072**2 + 2 * 3072),
    ),
    # Qwen2-7B with a vocabulary of 151666; SigLIP's 27 layers of 15239504 with 70² positions; the resampler.
    "MiniCPM-V-2.6": (
        57_344,
        7_615_616_512
        - 2 * 398 * 3584
        + (588 + 1 + 4900 + 2) * 1152
        + 27 * 15_239_504
        + (64 * 3584 + 1152 * 3584 + 4 * 3584**2 + 4 * 3584 + 6 * 3584 + 3584**2),
    ),
    "MiniCPM-V-4": (
        32_768,
        2 * 73_448 * 2560
        + 32 * (2 * 4096 * 2560 + 2 * 256 * 2560 + 3 * 10_240 * 2560 + 2 * 2560)
        + 2560
        + (588 + 1 + 4900 + 2) * 1152
        + 27 * 15_239_504
        + (64 * 2560 + 1152 * 2560 + 4 * 2560**2 + 4 * 2560 + 6 * 2560 + 2560**2),
    ),
    # Qwen2.5-0.5B with a vocabulary of 151654; 26 layers of SigLIP with 27² positions; two linears; a vector.
    "MinerU2.0": (
        12_288,
        494_032_768 - 282 * 896 + (588 + 1 + 729 + 2) * 1152 + 26 * 15_239_504 + (1152 * 896 + 896**2 + 2 * 896) + 896,
    ),
    # Llama 2 7B, CLIP's tower as in Phi-3-vision, two linears.
    "LLaVA-1.5-7B": (524_288, 6_738_415_616 + 303_507_456 + 1024 * 4096 + 4096**2 + 2 * 4096),
    "LLaVA-1.5-7B, first type": (524_288, 7_062_902_784),
    "LLaVA-1.6-Mistral-7B": (131_072, 7_241_732_096 + 303_507_456 + 1024 * 4096 + 4096**2 + 2 * 4096 + 4096),
    "LLaVA-OneVision-7B": (
        57_344,
        7_615_616_512 + (588 + 1 + 729 + 2) * 1152 + 26 * 15_239_504 + (1152 * 3584 + 3584**2 + 2 * 3584) + 3584,
    ),
    # Llama of width 2560; SigLIP whole, with its pooling head (15239504 without one norm, and a query); four patches
    # through a norm and two linears.
    "VILA1.5-3B": (
        327_680,
        2 * 32_000 * 2560
        + 32 * (4 * 2560**2 + 3 * 6912 * 2560 + 2 * 2560)
        + 2560
        + (588 + 1 + 729 + 2) * 1152
        + 27 * 15_239_504
        + (15_239_504 - 2 * 1152 + 1152)
        + (2 * 4608 + 4608 * 2560 + 2560**2 + 2 * 2560),
    ),
    # 24 · 2 · 16 · 128 · 2. Llama; SigLIP large with its pooling head; two aligners of two linears; the VQ-GAN that
    # transformers' Janus has; a head of two linears over 16384 codes of 8 elements.
    "Janus-1.3B": (
        196_608,
        2 * 102_400 * 2048
        + 24 * (4 * 2048**2 + 3 * 5632 * 2048 + 2 * 2048)
        + 2048
        + (768 + 1 + 576 + 2) * 1024
        + 25 * (4 * 1024**2 + 4 * 1024 + 2 * 4096 * 1024 + 4096 + 1024 + 4 * 1024)
        - 2 * 1024
        + 1024
        + (1024 * 2048 + 2048**2 + 2 * 2048)
        + (8 * 2048 + 2048**2 + 2 * 2048)
        + 71_883_403
        + (2048**2 + 2048 + 16_384 * 2048 + 16_384)
        + 16_384 * 8,
    ),
    # 28 · 2 · 8 · 128 · 2. Qwen3 1.7B with a vocabulary of 151680; SigLIP 2 with 256 positions and its head; the MLP.
    "Eagle 2.5 with Qwen3": (
        114_688,
        1_720_574_976
        - 256 * 2048
        + (588 + 1 + 256 + 2) * 1152
        + 27 * 15_239_504
        + (15_239_504 - 2 * 1152 + 1152)
        + (2 * 4608 + 4608 * 2048 + 2048**2 + 2 * 2048),
    ),
    # 27 · (512 + 64) · 2. Moonlight 16B-A3B; MoonViT with 64² positions; four patches through two linears.
    "Kimi-VL-A3B": (
        31_104,
        2 * 163_840 * 2048
        + 27 * (3072 * 2048 + 576 * 2048 + 512 + 4096 * 512 + 2048**2 + 2 * 2048)
        + 3 * 11_264 * 2048
        + 26 * (66 * 3 * 1408 * 2048 + 64 * 2048)
        + 2048
        + (588 + 1 + 4096 + 2) * 1152
        + 27 * 15_239_504
        + (2 * 1152 + 4608**2 + 4608 + 4608 * 2048 + 2048),
    ),
    # 28 · 2 · 2 · 128 · 2. Qwen2.5-1.5B with a head of its own; 42 layers, a norm before and after them; the merger.
    "dots.ocr": (
        28_672,
        1_543_714_304
        + 151_936 * 1536
        + (588 + 1 + 1) * 1536
        + 42 * (4 * 1536**2 + 3 * 4224 * 1536 + 2 * 1536)
        + 1536
        + (2 * 1536 + 6144**2 + 6144 + 6144 * 1536 + 1536),
    ),
    # 12 · 2 · 10 · 128 · 2. SigLIP with its head; four patches through two linears; two vectors.
    "DeepSeek-VL2-tiny": (
        61_440,
        2_934_734_080
        + (588 + 1 + 729 + 2) * 1152
        + 27 * 15_239_504
        + (15_239_504 - 2 * 1152 + 1152)
        + (4608 * 1280 + 1280 + 1280**2 + 1280)
        + 2 * 1280,
    ),
    # The same text model; SAM-B's encoder of 89670912 and its convolutions, CLIP-L less a norm, one linear.
    "DeepSeek-OCR": (
        61_440,
        2_934_734_080
        + 89_670_912
        + 9 * (256 * 512 + 512 * 1024)
        + (303_507_456 - 320 * 1024 - 2 * 1024)
        + (2048 * 1280 + 1280)
        + 2 * 1280,
    ),
    # 35 · 2 · 8 · 128 · 2. 128 experts, and a dense MLP as wide as the model after a norm. "480B", model card.
    "Arctic": (
        143_360,
        2 * 32_000 * 7168
        + 35 * (2 * 7168**2 + 2 * 1024 * 7168 + 128 * 7168 + 128 * 3 * 4864 * 7168 + 3 * 7168**2 + 3 * 7168)
        + 7168,
    ),
    # 64 · 2 · 8 · 128 · 2. "314B", model card.
    "Grok-1": (
        262_144,
        131_072 * 6144 + 64 * (2 * 6144**2 + 2 * 1024 * 6144 + 8 * 6144 + 8 * 3 * 32_768 * 6144 + 4 * 6144) + 6144,
    ),
    # 40 · 2 · 40 · 128 · 2. One table, no positions; three matrices in the MLP, all with biases.
    "Jais-13B": (
        819_200,
        84_992 * 5120 + 40 * (4 * 5120**2 + 4 * 5120 + 3 * 13_653 * 5120 + 2 * 13_653 + 5120 + 4 * 5120) + 2 * 5120,
    ),
    # 42 · 2 · 8 · 128 · 2.
    "CodeShell-7B": (
        172_032,
        70_144 * 4096
        + 42 * (6144 * 4096 + 6144 + 4096**2 + 4096 + 2 * 16_384 * 4096 + 16_384 + 4096 + 4 * 4096)
        + 2 * 4096,
    ),
    # 32 · 2 · 8 · 128 · 2. Phi-4-mini's layers; in each, beside q with k and v, o, gate with up, and down, adapters of
    # ranks 256 and 320. The towers are transformers' `phi4_multimodal`, with biases for 500 distances, not 1000.
    "Phi-4-multimodal": (
        131_072,
        200_064 * 3072
        + 32 * (5120 * 3072 + 3072**2 + 3 * 8192 * 3072 + 2 * 3072)
        + 32 * (256 + 320) * (3072 + 5120 + 3072 + 3072 + 3072 + 2 * 8192 + 8192 + 3072)
        + 3072
        + 441_550_016
        + 466_432_256
        - 2 * 500 * 16,
    ),
    # 60 layers · 2 · 4 · 128 · 2 bytes, and in 57 an indexer's key of 128. Norms on each head's query and key; indexers of
    # 4 heads, 128 experts with a router and a shared one in those 57, a dense MLP in the others.
    "MiniMax-M3": (
        60 * 2048 + 57 * 256,
        2 * 200_064 * 6144
        + 6144
        + 60 * (2 * 64 * 128 * 6144 + 2 * 4 * 128 * 6144 + 2 * 128 + 2 * 6144)
        + 57 * (5 * 128 * 6144 + 2 * 128 + 129 * 3 * 3072 * 6144 + 128 * 6144)
        + 3 * 3 * 12_288 * 6144,
    ),
    # An encoder keeps nothing. In each of 24 layers q, k, v and o with biases, two matrices in without and one out with,
    # two LayerNorms.
    "GTE-large-1.5": (
        0,
        (30_528 + 2 + 2) * 1024 + 24 * (4 * 1024**2 + 4 * 1024 + 3 * 4096 * 1024 + 1024 + 4 * 1024),
    ),
    # The same with a classifier of one label behind a pooler: base, of the multilingual line.
    "GTE-multilingual-reranker": (
        0,
        (250_048 + 1 + 2) * 768
        + 12 * (4 * 768**2 + 4 * 768 + 3 * 3072 * 768 + 768 + 4 * 768)
        + (768**2 + 768)
        + (768 + 1),
    ),
}
