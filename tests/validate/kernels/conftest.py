"""Uninitialised memory is NaN in these tests: outputs, partial results, whatever a kernel forgets to write."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.manual_seed(20261122)
    yield
    torch.use_deterministic_algorithms(False)
