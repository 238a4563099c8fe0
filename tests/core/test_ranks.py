"""Per-rank bytes against vLLM's own: weights of every pipeline stage, and the cache of a token.

tests/data/truth/vllm_ranks.json was made by running vLLM 0.33's model classes and cache planning on a CPU.
"""

import json
from pathlib import Path

import pytest

from kvplan import estimate
from tests.models import spec

TRUTH = json.loads((Path(__file__).parents[1] / "data/truth/vllm_ranks.json").read_text())


@pytest.mark.parametrize(
    "row", TRUTH["rows"], ids=lambda row: "-".join(str(row[key]) for key in ("model", "tp", "pp", "cache_dtype"))
)
def test_a_rank_holds_what_vllm_gives_it(row):
    kv_dtype = None if row["cache_dtype"] == "auto" else row["cache_dtype"]
    model = spec(TRUTH["configs"][row["model"]])
    plan = estimate(model, seq_len=1, tp=row["tp"], pp=row["pp"], dtype=row["dtype"], kv_dtype=kv_dtype)
    stages = plan.per_gpu[:: row["tp"]]
    assert [use.weights_bytes for use in stages] == row["weight_bytes_per_stage"]
    assert stages[0].kv_cache_bytes == row["cache_bytes_per_token_of_first_stage"]


def test_the_cases_cover_sharding_replication_stages_and_schemes():
    layouts = {(row["tp"], row["pp"]) for row in TRUTH["rows"]}
    assert {(1, 1), (8, 1), (16, 1), (1, 4), (8, 4)} <= layouts
    assert {"deepseek-v3", "gpt-oss-20b", "mixtral-8x7b", "gemma-2-27b"} <= set(TRUTH["configs"])
