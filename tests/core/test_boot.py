"""Starts that a share does not decide: pools whose size is told, and what has to find room outside the share."""

import pytest

import kvplan
from kvplan import load_model, serve_check
from kvplan.api import read_switches
from kvplan.core.boot import boot, engine_accounts
from kvplan.core.serving import resolve
from kvplan.core.units import GIB, MIB
from kvplan.sources.gpus import find_gpu

QWEN = load_model("Qwen/Qwen3-8B")
"""36 layers · 8 heads · 128 · 2 (K, V) · 2 bytes = 147,456 bytes a token, 2.25 MiB a block of 16."""


def on_l4(length=8192, **options):
    options = {"engine": "vllm", **options}
    return resolve(QWEN, seq_len=length, gpu=find_gpu("L4"), **options)


def room(serving):
    """What the L4 has beside all that vLLM takes of it, of its share or not."""
    (account,) = engine_accounts(QWEN, serving)
    return account.device_bytes - sum(item.num_bytes for item in (*account.taken, *account.untaken))


def test_a_pool_that_the_engine_is_told_has_to_fit_on_the_device():
    # 0.33 still profiles a pass and captures graphs (gpu_worker.py 663-689): only the share stops to matter.
    there = room(on_l4())
    assert boot(QWEN, on_l4(), there, on_gpu=True).starts
    # A pool is whole blocks: one block more than there is room for.
    beyond = boot(QWEN, on_l4(), there + 9 * MIB // 4, on_gpu=True)
    assert (beyond.starts, beyond.certain, beyond.sized_by) == (False, False, "kv_memory_bytes")
    assert not boot(QWEN, on_l4(), 40 * GIB, on_gpu=True).starts
    assert boot(QWEN, on_l4(), 40 * GIB, on_gpu=True).certain
    # Without a GPU to hold it to, the size is all that is known.
    assert boot(QWEN, on_l4(), 40 * GIB).starts


def test_a_share_that_is_more_than_is_free_is_refused_whatever_the_pool():
    # 0.99 of 21.96 GiB leave 225 MiB, and the context of 500 MiB is there before vLLM looks (utils.py 716-761).
    wide = on_l4(gpu_memory_utilization=0.99)
    found = boot(QWEN, wide, 2 * GIB, on_gpu=True)
    assert (found.starts, boot(QWEN, on_l4(), 2 * GIB, on_gpu=True).starts) == (False, True)
    assert "CUDA context" in found.reasons[-1]


def test_trtllms_size_is_a_cap_of_what_is_left():
    # `max_gpu_total_bytes` beside a fraction: the smaller of both.
    serving = on_l4(engine="trtllm", length=1024)
    left = boot(QWEN, serving).kv_memory_bytes
    assert boot(QWEN, serving, 40 * GIB, on_gpu=True).kv_memory_bytes == left
    assert boot(QWEN, serving, left // 2, on_gpu=True).kv_memory_bytes == left // 2


def test_blocks_that_are_overridden_are_held_to_the_device():
    def start(blocks):
        return boot(QWEN, on_l4(switches=read_switches({"num_gpu_blocks_override": blocks})))

    there = room(on_l4())
    assert start(there // (9 * MIB // 4)).starts
    assert not start(there // (9 * MIB // 4) + 1).starts
    # 100,000 · 2.25 MiB are 219.73 GiB.
    beyond = start(100_000)
    assert (beyond.starts, beyond.certain) == (False, True)
    assert beyond.reasons[0].startswith("`num_gpu_blocks_override` makes a pool of 219.73 GiB, but weights (15.26 GiB)")
    # The account is still that of the share, as the log prints it.
    assert beyond.kv_memory_bytes == boot(QWEN, on_l4()).kv_memory_bytes
    # 8192 tokens are 512 blocks, and one is the null block.
    assert start(513).starts
    (reason,) = start(512).reasons
    assert "`num_gpu_blocks_override` makes 512 blocks, 1.12 GiB; the longest that this cache holds has 8,176" in reason


def test_what_would_do_in_the_place_of_a_size_that_does_not():
    told = serve_check("vllm serve Qwen/Qwen3-8B --max-model-len 8192 --kv-cache-memory-bytes 40G", "L4").fit
    pool = next(change for change in told.changes if change.code == "pool")
    (account,) = told.boot.accounts
    size = pool.options["kv_memory_bytes"]
    assert size == (account.kv_memory_bytes - account.spread_bytes) // MIB * MIB
    assert told.flags[told.changes.index(pool)] == f"--kv-cache-memory-bytes {size}"
    again = serve_check(f"vllm serve Qwen/Qwen3-8B --max-model-len 8192 --kv-cache-memory-bytes {size}", "L4")
    assert (again.starts, again.fit.boot.certain) == (True, True)
    # The longest of the engine's own pool, where that does not hold the length.
    blocks = serve_check("vllm serve Qwen/Qwen3-8B --num-gpu-blocks-override 100000", "L4").fit
    assert blocks.changes[0].options == {"num_gpu_blocks_override": None, "max_model_len": 18576}
    assert blocks.flags[0] == "without `--num-gpu-blocks-override`, --max-model-len 18576"


def test_a_start_is_not_certain_where_what_lies_outside_the_share_may_find_room():
    # 5 % of 23.51 GiB are 1.18; the context takes 0.49 ± 0.24 of them, the graphs 0.97 ± 0.97.
    docker = "docker run vllm/vllm-openai:v0.9.2 --model Qwen/Qwen3-4B --max-model-len 8192 --gpu-memory-utilization"
    found = {share: serve_check(f"{docker} {share}", "RTX 4090") for share in (0.85, 0.9, 0.95, 0.995)}
    assert {share: (check.starts, check.fit.boot.certain) for share, check in found.items()} == {
        0.85: (True, True), 0.9: (True, False), 0.95: (False, False), 0.995: (False, True)
    }  # fmt: skip
    # The share is the fault, so the one that is safe is the change; not the least that would do.
    (change,) = found[0.95].fit.changes
    assert change.options == {"gpu_memory_utilization": found[0.95].fit.share.safe} == {"gpu_memory_utilization": 0.88}


def test_changes_of_a_share_that_is_too_large_take_the_safe_one_along():
    found = kvplan.fit("Qwen/Qwen3-8B", "L4", gpu_memory_utilization=0.98)
    assert not found.fits
    assert "512" not in found.reason
    # An RTX 5090's 2 % are enough.
    told = {change.code: change.options.get("gpu_memory_utilization") for change in found.changes}
    assert told == {"kv_dtype": 0.96, "shorter": 0.96, "quant": 0.96, "num_gpus": 0.96, "gpu": None}
    assert found.share.safe == 0.96
    gpus = next(change for change in found.changes if change.code == "num_gpus")
    again = kvplan.fit(
        "Qwen/Qwen3-8B", "L4", **{name: value for name, value in gpus.options.items() if name != "max_num_seqs"}
    )
    assert again.fits


def test_weights_that_are_more_than_the_device_are_said_to_be():
    found = kvplan.fit("google/gemma-3-27b-it", "L40S", num_gpus=1, engine="trtllm")
    (account,) = found.boot.accounts
    assert account.usable_bytes == account.device_bytes
    assert found.boot.reasons == (
        "weights (51.10 GiB) alone do not fit into the GPU's 44.39 GiB, nor does the rest, 54.41 GiB in all",
    )


ANSWERS = [
    ("Qwen/Qwen3-8B", {"gpu": "L4", "num_gpus": 1, "kv_dtype": "best", "max_model_len": 40960}),
    ("google/gemma-3-27b-it", {"gpu": "L40S", "num_gpus": 2, "engine": "vllm@0.11", "max_model_len": 8192}),
    ("Qwen/Qwen3-8B", {"gpu": "L4", "max_model_len": 32768}),
    ("Qwen/Qwen3-8B", {"gpu": "L4", "max_model_len": -1}),
    ("Qwen/Qwen3-8B", {"gpu": "A100-80GB", "engine": "sglang"}),
    ("Qwen/Qwen3-4B", {"gpu": "RTX 4090", "engine": "vllm@0.9.2"}),
]


@pytest.mark.parametrize(("name", "asked"), ANSWERS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(ANSWERS)])
def test_the_shares_are_those_of_the_line_that_is_told(name, asked):
    found = kvplan.fit(name, **asked)
    assert found.fits
    image = (
        f"docker run vllm/vllm-openai:v{asked['engine'].partition('@')[2]} " if "@" in asked.get("engine", "") else ""
    )
    line = found.command.replace("vllm serve ", f"{image}--model ") if image else found.command
    assert serve_check(line, asked["gpu"]).fit.share == found.share


def test_stages_that_hold_it_on_fewer_gpus_are_named():
    found = kvplan.fit("Qwen/Qwen3-8B", "L4", max_model_len=32768, concurrency=8)
    # 3 ranks do not divide the heads: three stages do.
    assert found.serving.num_gpus == 4
    assert [dict(change.options) for change in found.changes if "max_model_len" not in change.options] == [
        {"num_gpus": 3, "tp": 1, "pp": 3}
    ]
    again = kvplan.fit("Qwen/Qwen3-8B", "L4", max_model_len=32768, concurrency=8, num_gpus=3)
    assert (again.fits, again.serving.pp) == (True, 3)
    # Where one fewer does not do in any layout, nothing is said.
    many = kvplan.fit("Qwen/Qwen3-8B", "L4", max_model_len=32768)
    assert all("max_model_len" in change.options for change in many.changes)
