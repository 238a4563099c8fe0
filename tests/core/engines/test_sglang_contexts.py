"""What SGLang finds taken before it loads the weights: held to public logs, by the link between GPUs."""

import pytest

from kvplan.core.engines.sglang.budget import context_of
from kvplan.sources.gpus import find_gpu

GIB = 2**30

# What CUDA sees, less `avail mem` of `Load weight begin` (the last one: less what `Init torch distributed` took).
LOGS = [
    ("L4", 4, 22.03 - 21.63),  # 4 ranks over PCIe, SGLang 0.4.3
    ("H200", 8, 139.72 - 137.29),  # sgl-project/sglang#11716
    ("RTX 4090", 2, 0.3 + 0.26),  # sgl-project/sglang#16920, and a context
    ("H100", 1, 79.10 - 78.58),
]


@pytest.mark.parametrize(("gpu", "ranks", "taken"), LOGS, ids=[f"{ranks} {gpu}" for gpu, ranks, _ in LOGS])
def test_a_logged_context(gpu: str, ranks: int, taken: float) -> None:
    found = context_of(find_gpu(gpu), ranks)
    assert abs(found.num_bytes - taken * GIB) <= found.spread_bytes


def test_a_link_that_is_not_known_may_be_nvlink() -> None:
    assert context_of(None, 4) == context_of(find_gpu("H200"), 4)
    assert context_of(None, 4).num_bytes > context_of(find_gpu("L4"), 4).num_bytes
