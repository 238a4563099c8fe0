"""What a case should take, worked by hand."""

import pytest

from kvplan.validate import predict
from kvplan.validate.case import Case

MISTRAL = Case(
    name="m", kind="sliding", num_heads=32, num_kv_heads=8, key_dim=128, value_dim=128, window=4096,
    seq_len=10_000, decode_steps=16, chunk=512, page_size=16, num_layers=32,
)  # fmt: skip
LLAMA = Case(name="l", kind="full", num_heads=32, num_kv_heads=8, key_dim=128, value_dim=128, seq_len=1000, batch=2)
DEEPSEEK = Case(
    name="d", kind="latent", num_heads=128, num_kv_heads=128, key_dim=192, value_dim=128, latent_dim=512, rope_dim=64,
)  # fmt: skip
NEXT = Case(
    name="n", kind="linear", num_heads=16, num_kv_heads=32, key_dim=128, value_dim=128, conv_channels=8192,
    conv_columns=4, batch=3,
)  # fmt: skip


def test_pools() -> None:
    # a chunk of 512 arrives while 4095 tokens are seen: 4607, from the middle of a page on: 288 pages
    assert predict.pages(MISTRAL) == 288
    assert predict.pool_bytes(MISTRAL) == 288 * 16 * 4096
    assert predict.pool_bytes(LLAMA) == 2 * 63 * 16 * 4096
    assert predict.pool_bytes(DEEPSEEK) == 4096 * 576 * 2
    assert predict.pool_bytes(NEXT) == 3 * (32 * 128 * 128 * 4 + 8192 * 4 * 2)


def test_requests_are_pools_and_what_finds_their_pages() -> None:
    # 63 pages a sequence: 4 bytes each in the block table, and a length
    assert predict.table_requests(LLAMA, 1000) == [2 * 63 * 4, 2 * 4]
    assert predict.pool_requests([LLAMA]) == [2 * 63 * 16 * 4096, 504, 8]
    assert predict.pool_requests([NEXT]) == [predict.pool_bytes(NEXT)]
    assert len(predict.pool_requests([MISTRAL])) == 3 * 32


def test_reserved_by_torch() -> None:
    # 8,257,536 bytes come in a segment of 20 MiB, the two tables share one of 2 MiB in blocks of 512
    requests = predict.pool_requests([LLAMA])
    assert predict.reserved_growth(requests, {}) == (requests[0] + 512 + 512, 22 << 20)
    # a free block of 12 MiB in a large segment, 4 KiB in a small one: nothing new is needed
    assert predict.reserved_growth(requests, {"small": [4096], "large": [12 << 20]})[1] == 0


def test_workspace_of_a_decode_call() -> None:
    # one split writes the output alone; four leave four sums of 128, a top and a total each, in fp32
    assert predict.workspace_bytes(LLAMA, 1) == 2 * 32 * 128 * 2
    assert predict.workspace_bytes(LLAMA, 4) == 2 * 32 * (128 * 2 + 4 * 130 * 4)
    assert predict.workspace_bytes(DEEPSEEK, 2) == 128 * (512 * 2 + 2 * 514 * 4)


@pytest.mark.parametrize(
    ("case", "phase", "moved", "flops"),
    [
        (LLAMA, "decode", 8 * 1000 * 4096, 8 * 32 * 1000 * 4 * 128),
        (MISTRAL, "decode", 8 * 1000 * 4096, 8 * 32 * 1000 * 4 * 128),
        (DEEPSEEK, "decode", 8 * 1000 * 1152, 8 * 128 * 1000 * 2 * (576 + 512)),
        (NEXT, "decode", 8 * 2 * 32 * 128 * 128 * 4, 8 * 6 * 32 * 128 * 128),
        # queries and output 32 heads, keys and values 8; 1000 · 1001 / 2 pairs
        (LLAMA, "prefill", 8 * 1000 * (2 * 32 + 2 * 8) * 128 * 2, 8 * 32 * 500_500 * 4 * 128),
        (DEEPSEEK, "prefill", 8 * 1000 * 2 * 128 * (192 + 128) * 2, 8 * 128 * 500_500 * 2 * 320),
    ],
)
def test_work_of_eight_sequences_of_1000(case: Case, phase: str, moved: int, flops: int) -> None:
    assert predict.work(case, phase, batch=8, seq_len=1000) == (moved, flops)


def test_a_window_bounds_what_is_read() -> None:
    assert predict.work(MISTRAL, "decode", batch=1, seq_len=8000)[0] == 4096 * 4096


def test_pairs_of_a_band_to_both_sides() -> None:
    band = Case(name="s", kind="sparse", num_heads=1, num_kv_heads=1, key_dim=16, value_dim=16, window=2)
    # 5 tokens: each sees itself and its neighbours, 13; the first sees and is seen by three more each
    assert predict.work(band, "prefill", batch=1, seq_len=5)[1] == (13 + 6) * 2 * 32


def test_an_engines_cache() -> None:
    # transformers keeps W − 1 tokens of a window
    assert predict.framework_bytes([MISTRAL, LLAMA]) == {"sliding": 32 * 4095 * 4096, "full": 2 * 1000 * 4096}
