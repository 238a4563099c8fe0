"""A model's caches allocated, filled and read: on a CPU as it is, on a GPU with stand-ins for what only a GPU has.

The second way runs every line of the GPU's on a CPU's tensors, with the kernels interpreted; torch's allocator is stood
in for by what operators return.
"""

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from triton.runtime.errors import OutOfResources
from triton.tools.tensor_descriptor import TensorDescriptor

from kvplan.validate import predict
from kvplan.validate.case import Case
from kvplan.validate.compare import compare
from kvplan.validate.kernels.launch import Launch
from kvplan.validate.measure import attend, memory, meter, pools
from kvplan.validate.measure.memory import measure_memory

CPU = torch.device("cpu")
FULL = Case(
    name="full", kind="full", num_heads=4, num_kv_heads=2, key_dim=16, value_dim=32, num_layers=2, batch=2, seq_len=23,
    decode_steps=2, chunk=16,
)  # fmt: skip
SLIDING = replace(FULL, name="sliding", kind="sliding", window=6, page_size=4, sinks=True, num_layers=1)
LATENT = replace(FULL, name="latent", kind="latent", num_kv_heads=4, latent_dim=32, rope_dim=16, num_layers=1)
CROSS = replace(FULL, name="cross", kind="cross", seq_len=20, decode_steps=0, chunk=20, num_layers=1)
LINEAR = replace(
    FULL, name="linear", kind="linear", num_heads=2, num_kv_heads=4, conv_channels=24, conv_columns=4, num_layers=2
)
ENCODER = replace(FULL, name="encoder", kind="encoder", num_layers=3)
CASES = [FULL, SLIDING, LATENT, CROSS, LINEAR, ENCODER]


def by_point(reading):
    return {point["point"]: point for point in reading["points"]}


def test_a_cpus_reading():
    reading = measure_memory(CASES, CPU)
    assert [point["point"] for point in reading["points"]] == ["start", "pool", "run"]
    assert all(point["process"] > 0 and point["requested"] is None for point in reading["points"])
    assert reading["tallied_bytes"] == sum(predict.pool_requests(CASES))
    # 23 tokens are 2 pages of 16; a chunk of 16 comes first, when nothing has left the window: 4 pages of 4
    assert [(pool["case"], pool["layers"], pool["pages"]) for pool in reading["pools"]] == [
        ("full", 2, 4), ("sliding", 1, 8), ("latent", 1, 4), ("cross", 1, 4), ("linear", 2, None), ("encoder", 0, None),
    ]  # fmt: skip
    assert {row.verdict for row in compare(CASES, {"memory": reading})} == {"ok"}


def test_what_is_written_on_a_cpu_is_resident():
    """64 MiB of pools, whose pages the operating system only gives when they are touched."""
    case = Case(
        name="c", kind="full", num_heads=8, num_kv_heads=8, key_dim=64, value_dim=64, num_layers=4, seq_len=8192,
        chunk=1024,
    )  # fmt: skip
    points = by_point(measure_memory([case], CPU))
    assert points["run"]["process"] - points["start"]["process"] > 4 * 8192 * 2048 * 0.9


class Pretended(str):
    """A CPU to tensors, a GPU to who asks for its type."""

    type = "cuda"


class FakeCuda:
    """As much of `torch.cuda` as the reading uses; its allocator counts the storages that operators returned."""

    def __init__(self, monkeypatch):
        self.said: list[str] = []
        self.segments = []
        self.allocator = meter._Returned([])
        self.launches: Counter[str] = Counter()
        self.at_points: list[Counter[str]] = []
        self.pools = []
        for name in ("init", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, lambda name=name: self.said.append(name))
        for name in ("set_device", "synchronize", "reset_peak_memory_stats", "set_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda given, name=name: self.said.append(name))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "main")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 10_000))
        monkeypatch.setattr(torch.cuda, "memory_stats", self.stats)
        monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: self.segments)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: self.said.append("replay")))
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(memory, "used_bytes", lambda device: self.said.append("used_bytes") or 1234)
        monkeypatch.setattr(meter, "process_bytes", lambda device: 7)
        run_all, prefill, allocate = attend.run_all, attend.prefill, memory.allocate

        def count_all(launches):
            self.launches.update(launch.name for launch in launches)
            run_all(launches)

        def count_prefill(*given, **options):
            self.launches.update([f"prefill, {options['pattern'].kind}"])
            return prefill(*given, **options)

        monkeypatch.setattr(attend, "run_all", count_all)
        monkeypatch.setattr(attend, "prefill", count_prefill)
        monkeypatch.setattr(memory, "allocate", lambda *given: self.pools.append(allocate(*given)) or self.pools[-1])

    @contextmanager
    def graph(self, graph):
        self.said.append("capture")
        yield
        self.said.append("captured")

    def stats(self, device):
        live = [size for storage, size in self.allocator._live.values() if not storage.expired()]
        blocks = sum(-(-size // 512) * 512 for size in live)
        self.at_points.append(Counter(self.launches))
        return {
            "requested_bytes.all.current": sum(live),
            "requested_bytes.all.peak": sum(live),
            "allocated_bytes.all.current": blocks,
        }

    def measure(self, cases, device="cpu"):
        with self.allocator:
            return measure_memory(cases, Pretended(device))


@pytest.fixture
def cuda(monkeypatch):
    return FakeCuda(monkeypatch)


@pytest.fixture(scope="module")
def measured():
    """(a GPU's reading of all kinds, the stand-in that it was taken from): interpreted kernels take seconds."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        cuda = FakeCuda(monkeypatch)
        return cuda.measure(CASES), cuda


def test_a_gpus_points_in_their_order(measured):
    reading, cuda = measured
    assert list(by_point(reading)) == ["context", "warm-up", "pool", "run", "graphs"]
    # the driver is asked before the device is touched; kernels are built before a graph is captured
    assert cuda.said[:4] == ["used_bytes", "init", "set_device", "synchronize"]
    assert cuda.said.index("empty_cache") > cuda.said.index("reset_peak_memory_stats")
    assert cuda.said[-7:] == [
        "synchronize", "capture", "captured", "set_stream", "replay", "synchronize", "reset_peak_memory_stats",
    ]  # fmt: skip
    assert (reading["device_bytes_before"], reading["graph_failure"]) == (1234, None)
    assert all((point["process"], point["device"]) == (7, 6000) for point in reading["points"])


def test_a_gpus_figures_agree_with_the_plan(measured):
    """What is left after a run, too: nothing that prompt and decode took may stay."""
    rows = compare(CASES, {"memory": measured[0]})
    assert {row.verdict for row in rows if row.term in ("pools", "requested", "allocated", "left by a run")} == {"ok"}
    workspaces = [row for row in rows if row.term == "decode workspace"]
    assert [row.case for row in workspaces] == ["full", "sliding", "latent", "cross"]
    assert {row.verdict for row in workspaces} == {"ok"}
    (requested,) = (row for row in rows if row.term == "requested")
    assert requested.measured == sum(predict.pool_requests(CASES)) > 0


def test_every_layer_computes_every_step(measured):
    """A prompt of 21 tokens is two chunks, two tokens follow; then a decode for its memory, one to build, one captured."""
    context, warm, pool, run, graphs = measured[1].at_points
    assert not context
    assert pool == warm
    assert {kernel for kernel in warm if warm[kernel]} >= {"decode_kernel", "mla_decode_kernel", "delta_step_kernel"}
    assert dict(run - pool) == {
        "prefill, causal": 2 * 2, "prefill, window": 2, "decode_kernel": 2 * 2 + 2, "mla_decode_kernel": 2,
        "delta_step_kernel": 2,
    }  # fmt: skip
    # two full layers, a sliding one, the cross-attention of another; a state is its own workspace
    assert dict(graphs - run) == {
        "decode_kernel": 3 + 2 * (2 + 1 + 1), "mla_decode_kernel": 1 + 2, "delta_step_kernel": 2 * 2,
    }  # fmt: skip


NEWER = [
    replace(SLIDING, name="chunked", kind="chunked"),
    replace(FULL, name="shared", kind="shared"),
    replace(FULL, name="indexed", kind="full_indexed", index_dim=8, prefix_tokens=5),
    replace(LATENT, name="latent, pooled", kind="latent_indexed", index_dim=16, index_pool=3),
    replace(FULL, name="index alone", kind="latent_indexed", index_dim=16),
    replace(FULL, name="compressed", kind="compressed", num_kv_heads=1, value_dim=16, window=6, ratio=4, index_dim=8),
    replace(LINEAR, name="vectors", vector_elements=12, state_bits=None),
    replace(LINEAR, name="conv", kind="conv"),
    replace(LINEAR, name="identifiers", kind="conv", conv_channels=1, conv_bits=64),
]


def test_newer_kinds_on_a_gpu(cuda):
    """Every line of the GPU's way: what no kernel takes is written, and is neither computed nor captured."""
    reading = cuda.measure(NEWER)
    assert reading["graph_failure"] is None
    rows = compare(NEWER, {"memory": reading})
    assert {row.verdict for row in rows if row.term in ("pools", "requested", "allocated", "left by a run")} == {"ok"}
    assert [one["case"] for one in reading["workspaces"]] == ["chunked", "indexed", "latent, pooled"]
    assert {row.verdict for row in rows if row.term == "decode workspace"} == {"ok"}
    assert cuda.launches["delta_step_kernel"] == 0
    compressed = next(one for one in cuda.pools if one is not None and one.entries is not None and one.states)
    assert compressed.entries.keys.ne(0).any()


def test_every_layer_is_filled(measured):
    found = [one for one in measured[1].pools if one is not None]
    caches = [one.tokens for one in found if one.tokens is not None]
    assert [cache.lengths.tolist() for cache in caches] == [[23, 23]] * 4 + [[20, 20]]
    for cache in caches:
        pages = cache.block_table[cache.block_table >= 0].long()
        written = int(cache.keys[pages].ne(0).any(-1).any(-1).sum())
        # of a window of 6 keys, pages of 4: the last two, which other tokens had before
        assert written == (2 * 8 if cache.page_size == 4 else sum(cache.lengths.tolist()))
    states = [one.states for one in found if one.states is not None]
    assert len(states) == 2
    assert all(one.recurrent.ne(0).all() and one.conv.ne(0).any() for one in states)


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, TensorDescriptor):
        yield value.base
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors_in(part)


def test_whatever_a_kernel_is_given_lies_on_its_device(cuda, monkeypatch):
    """On `meta`, where nothing runs: a tensor that stayed on the CPU would be an illegal access on a GPU."""
    devices = Counter()

    def given_to(launch):
        found = [tensor for value in launch.args.values() for tensor in tensors_in(value)]
        devices.update((launch.name, tensor.device.type) for tensor in found)

    monkeypatch.setattr(Launch, "run", given_to)
    shares = property(lambda cache: cache.values.storage_offset() == cache.keys.storage_offset())
    monkeypatch.setattr(pools.PagedCache, "is_latent", shares)  # addresses are all 0 there
    reading = cuda.measure(CASES, "meta")
    assert reading["graph_failure"] is None
    assert {device for _, device in devices} == {"meta"}
    assert {kernel for kernel, _ in devices} == {
        "append_kernel", "decode_kernel", "mla_decode_kernel", "prefill_kernel", "delta_step_kernel",
    }  # fmt: skip


def test_free_blocks_of_the_segments_that_are_there(cuda):
    cuda.segments = [
        {"segment_type": "large", "blocks": [{"size": 8_519_680, "state": "active_allocated"},
                                             {"size": 12_451_840, "state": "inactive"}]},
        {"segment_type": "small", "blocks": [{"size": 512, "state": "inactive"}, {"size": 1024, "state": "active_allocated"},
                                             {"size": 2048, "state": "active_awaiting_free"},
                                             {"size": 4096, "state": "inactive"}]},
    ]  # fmt: skip
    assert memory._free_blocks() == {"small": [512, 4096], "large": [12_451_840]}
    assert predict.reserved_growth([4096, 12_000_000], memory._free_blocks()) == (4096 + 12_451_840, 0)


@pytest.mark.parametrize("cases", [[ENCODER], []], ids=["an encoder", "nothing"])
def test_what_keeps_nothing_is_measured_all_the_same(cases, cuda):
    reading = cuda.measure(cases)
    points = by_point(reading)
    assert points["pool"]["requested"] == points["warm-up"]["requested"]
    assert reading["workspaces"] == []
    assert "off" not in {row.verdict for row in compare(cases, {"memory": reading})}


def test_memory_is_measured_where_no_kernel_runs(cuda, monkeypatch):
    """A kernel that the device has no room for, or that does not know the shape, fails once a phase, not at each step."""
    tried = Counter()

    def too_large(launches):
        tried["decode"] += 1
        raise OutOfResources(131_072, 101_376, "shared memory")

    def unknown(*given, **options):
        tried["prefill"] += 1
        raise attend.Unsupported("no prefill for heads of 512 dimensions; 256 are the most")

    monkeypatch.setattr(attend, "run_all", too_large)
    monkeypatch.setattr(attend, "prefill", unknown)
    reading = cuda.measure([FULL])
    # in the warm-up, in the run, for the workspace, before the capture
    assert tried == {"decode": 4, "prefill": 2}
    assert reading["workspaces"] == []
    assert reading["graph_failure"].startswith("OutOfResources: out of resource: shared memory")
    graphs = by_point(reading)["graphs"]
    assert all(graphs[name] is None for name in graphs if name != "point")
    verdicts = {row.term: row.verdict for row in compare([FULL], {"memory": reading})}
    assert (verdicts["pools"], verdicts["requested"], verdicts["graphs"]) == ("ok", "ok", "info")


def test_a_capture_that_fails_gives_the_stream_back(cuda, monkeypatch):
    @contextmanager
    def broken(graph):
        yield
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand a long story")

    monkeypatch.setattr(torch.cuda, "graph", broken)
    reading = cuda.measure([LINEAR])
    assert reading["graph_failure"] == "RuntimeError: CUDA error: operation not permitted when stream is capturing"
    assert cuda.said[-1] == "set_stream"
    assert by_point(reading)["run"]["requested"] is not None


# batch · heads · (dimensions · 2 bytes, and of each split 4 · (dimensions + 2)); a sink is 4 bytes a head
@pytest.mark.parametrize(
    ("case", "splits", "expected"),
    [
        (replace(FULL, seq_len=100), 1, 2 * 4 * 32 * 2),
        (replace(FULL, seq_len=1024), 2, 2 * 4 * (32 * 2 + 2 * 4 * 34)),
        (replace(FULL, seq_len=1024, kv_dtype="int8", dtype="fp16"), 2, 2 * 4 * (32 * 2 + 2 * 4 * 34)),
        (replace(SLIDING, seq_len=100), 1, 2 * 4 * 32 * 2 + 4 * 4),
        (replace(LATENT, seq_len=512), 4, 2 * 4 * (32 * 2 + 4 * 4 * 34)),
    ],
    ids=["one split", "two splits", "two splits, int8", "sinks", "latent"],
)
def test_what_a_decode_call_works_in(case, splits, expected):
    case = replace(case, chunk=case.seq_len, decode_steps=0, page_size=16)
    pool = pools.allocate(case, CPU)
    pool.grow(case)
    found = attend.workspace(case, pool)
    assert found == {"case": case.name, "splits": splits, "bytes": expected}
    assert predict.workspace_bytes(case, splits) == expected


def test_states_work_in_themselves():
    assert attend.workspace(LINEAR, pools.allocate(LINEAR, CPU)) is None
