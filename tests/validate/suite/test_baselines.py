"""The baselines that a CPU can run, against the oracle; the others by what they are handed."""

import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend

from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.kernels.reference import attention, gather, visible
from kvplan.validate.suite import baselines
from kvplan.validate.suite.baselines import BUILDERS, Pages, Problem, build
from kvplan.validate.suite.timing import Failure, Guard, HostStopwatch

ON_A_CPU = ["sdpa-math", "sdpa-flash", "sdpa-flash-folded", "flex"]


def random_problem(queries, keys, *, group=4, kv_heads=2, key_dim=16, value_dim=16, dtype=torch.float32, **options):
    torch.manual_seed(queries * 1000 + keys)
    q = torch.randn(2, queries, kv_heads * group, key_dim, dtype=dtype)
    k = torch.randn(2, keys, kv_heads, key_dim, dtype=dtype)
    v = torch.randn(2, keys, kv_heads, value_dim, dtype=dtype)
    return Problem(q, k, v, scale=0.3, **options)


def oracle(problem, window="the problem's"):
    window = problem.window if window == "the problem's" else window
    seen = visible(problem.num_queries, problem.num_keys, causal=problem.causal, window=window)
    sequences = zip(problem.q_BQHD, problem.k_BTKD, problem.v_BTKE, strict=True)
    return torch.stack([attention(q, k, v, seen, scale=problem.scale) for q, k, v in sequences])


def built(name, *problems):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flex: that it is not compiled
        calls = build(problems, Guard(HostStopwatch()), [name])[name]
        return calls if isinstance(calls, Failure) else [call() for call in calls]


CASES = {
    "decode": random_problem(1, 37),
    "decode, one key": random_problem(1, 1),
    "decode, window": random_problem(1, 37, window=9),
    "decode, window of more than there is": random_problem(1, 5, window=9),
    "decode, group of 3": random_problem(1, 20, group=3),
    "decode, no grouped heads": random_problem(1, 20, group=1),
    "prefill": random_problem(21, 21),
    "prefill, not causal": random_problem(21, 21, causal=False),
    "prefill, window": random_problem(21, 21, window=5),
    "prefill, window, not causal": random_problem(21, 21, window=5, causal=False),
    "prefill of a chunk": random_problem(6, 21),
    "prefill of a chunk, window": random_problem(6, 21, window=5),
    "prefill of a chunk, not causal": random_problem(6, 21, causal=False),
}


@pytest.mark.parametrize("problem", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", ON_A_CPU)
def test_agrees_with_the_oracle(name, problem):
    outcome = built(name, problem)
    if isinstance(outcome, Failure):
        assert name.startswith("sdpa-flash")
        takes_no_mask = problem.num_queries > 1 and (problem.window or (problem.causal and problem.num_queries == 6))
        assert outcome.kind == "Unsupported"
        assert takes_no_mask or (name.endswith("folded") and problem.num_queries > 1)
        return
    assert outcome[0].shape == problem.q_BQHD.shape
    torch.testing.assert_close(outcome[0].double(), oracle(problem), rtol=1e-5, atol=2e-5)


def test_the_cpu_runs_most_of_the_cases():
    """So that the test above cannot pass by refusing."""
    ran = {name: sum(not isinstance(built(name, case), Failure) for case in CASES.values()) for name in ON_A_CPU}
    assert ran == {"sdpa-math": 13, "flex": 13, "sdpa-flash": 9, "sdpa-flash-folded": 6}


def test_values_may_be_of_another_dimension_than_keys():
    problem = random_problem(1, 12, value_dim=8)
    torch.testing.assert_close(built("sdpa-math", problem)[0].double(), oracle(problem), rtol=1e-5, atol=2e-5)


def test_every_input_set_has_its_own_call():
    problems = [random_problem(1, 9, window=4), random_problem(1, 9, window=4)]
    problems[1].k_BTKD.neg_()
    for name in ON_A_CPU:
        for out, problem in zip(built(name, *problems), problems, strict=True):
            torch.testing.assert_close(out.double(), oracle(problem), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("problem", [CASES["prefill, window"], CASES["prefill"]], ids=["mask", "triangle"])
def test_the_efficient_backend_gets_keys_of_every_query_head(problem, monkeypatch):
    monkeypatch.setattr(baselines, "sdpa_kernel", lambda backend: torch.nn.attention.sdpa_kernel(SDPBackend.MATH))
    handed = []
    real = baselines.scaled_dot_product_attention
    monkeypatch.setattr(
        baselines,
        "scaled_dot_product_attention",
        lambda q, k, v, **options: handed.append((k.shape[1], options["enable_gqa"])) or real(q, k, v, **options),
    )
    out = built("sdpa-efficient", problem)[0]
    assert handed == [(8, False)]
    torch.testing.assert_close(out.double(), oracle(problem), rtol=1e-5, atol=2e-5)


def test_what_does_not_fit_is_not_tried(monkeypatch):
    problem = random_problem(1, 64)
    # 2 · 8 heads: scores thrice, and 64 keys and 1 query of 16 + 16 numbers, in fp32
    needed = 4 * 16 * (3 * 64 + 65 * 32)
    monkeypatch.setattr(baselines, "_free_bytes", lambda device: 2.0 * needed)
    assert not isinstance(built("sdpa-math", problem), Failure)
    monkeypatch.setattr(baselines, "_free_bytes", lambda device: 2.0 * needed - 1)
    assert "GiB are free" in built("sdpa-math", problem).message


def test_every_baseline_is_calls_or_a_reason():
    problem = random_problem(1, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = build([problem], Guard(HostStopwatch()))
    assert list(found) == list(BUILDERS)
    for name in ("flex-max-autotune", "varlen", "varlen-paged"):
        assert found[name].kind == "Unsupported"
        assert found[name].message


def test_without_xformers_there_is_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", None)
    assert built("xformers", random_problem(1, 9)) == Failure("Unsupported", "xformers is not installed")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (-1, 0)),
        ({"causal": False}, (-1, -1)),
        ({"window": 1}, (0, 0)),
        ({"window": 5}, (4, 0)),
        ({"window": 5, "causal": False}, (4, 4)),
    ],
)
def test_a_window_as_flash_attention_counts_it(options, expected):
    assert baselines._flash_window(random_problem(6, 21, **options)) == expected


def flash(q, k, v, starts_q, starts_k, max_q, max_k, *, scale, window_size, **paged):
    """FlashAttention's variable-length call, by the oracle; keys by the block table if there is one."""
    left, right = window_size
    out = []
    for b in range(len(starts_q) - 1):
        queries = q[starts_q[b] : starts_q[b + 1]]
        if paged:
            assert paged["num_splits"] == 1
            length, table = int(paged["seqused_k"][b]), paged["block_table"][b]
            keys, values = gather(k, table, length), gather(v, table, length)
        else:
            keys, values = k[starts_k[b] : starts_k[b + 1]], v[starts_k[b] : starts_k[b + 1]]
        assert (len(queries), len(keys)) == (max_q, max_k)
        distance = torch.arange(max_q)[:, None] + max_k - max_q - torch.arange(max_k)[None, :]
        seen = ((distance <= left) | (left < 0)) & ((-distance <= right) | (right < 0))
        out.append(attention(queries, keys, values, seen, scale=scale))
    return torch.cat(out)


@pytest.mark.parametrize("name", ["decode", "decode, window", "prefill", "prefill of a chunk, window"])
@pytest.mark.parametrize("paged", [False, True], ids=["packed", "paged"])
def test_what_varlen_attn_is_handed(name, paged):
    problem = CASES[name]
    if paged:
        problem = in_pages(problem, page_size=4)
    options = {"scale": problem.scale, "window_size": baselines._flash_window(problem)}
    out = baselines._varlen_call(flash, problem, paged, options)()
    torch.testing.assert_close(out, oracle(problem))


def in_pages(problem, page_size):
    """The problem with its keys and values in pages too, the second sequence's pages before the first's."""
    batch, keys, heads, _ = problem.k_BTKD.shape
    per_sequence = -(-keys // page_size)
    table = torch.arange(batch * per_sequence, dtype=torch.int32).view(batch, per_sequence).flip(0)
    pools = []
    for tokens in (problem.k_BTKD, problem.v_BTKE):
        pool = torch.full((batch * per_sequence, page_size, heads, tokens.shape[3]), float("nan"))
        for b in range(batch):
            for t in range(keys):
                pool[table[b, t // page_size], t % page_size] = tokens[b, t]
        pools.append(pool)
    return Problem(
        problem.q_BQHD,
        problem.k_BTKD,
        problem.v_BTKE,
        scale=problem.scale,
        causal=problem.causal,
        window=problem.window,
        pages=Pages(*pools, table),
    )


def test_paged_calls_want_pages():
    with pytest.raises(Unsupported, match="no pages"):
        baselines._varlen_call(flash, CASES["decode"], True, {})


@pytest.fixture
def xformers(monkeypatch):
    """As much of xformers as is used, by the oracle: B × M × groups × heads per group × D."""

    def forward(q, k, v, attn_bias, scale, op):
        assert k.stride(3) == v.stride(3) == 0 or k.shape[3] == 1
        assert op in (None, "split")
        queries, keys = q.shape[1], k.shape[1]
        seen = visible(queries, keys, causal=attn_bias is not None, window=attn_bias and attn_bias[0])
        rows = zip(q.flatten(2, 3), k[:, :, :, 0], v[:, :, :, 0], strict=True)
        out = torch.stack([attention(*row, seen, scale=scale) for row in rows])
        return out.reshape(*q.shape[:4], -1)

    biases = SimpleNamespace(
        LowerTriangularFromBottomRightLocalAttentionMask=lambda window: (window,),
        LowerTriangularFromBottomRightMask=lambda: (None,),
    )
    fmha = ModuleType("xformers.ops.fmha")
    fmha.memory_efficient_attention_forward = forward
    fmha.triton_splitk = SimpleNamespace(FwOp="split")
    fmha.attn_bias = biases
    ops = ModuleType("xformers.ops")
    ops.fmha = fmha
    for name, module in {"xformers": ModuleType("xformers"), "xformers.ops": ops, "xformers.ops.fmha": fmha}.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("xformers")
@pytest.mark.parametrize("problem", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", ["xformers", "xformers-splitk"])
def test_what_xformers_is_handed(name, problem):
    outcome = built(name, problem)
    if problem.window and not problem.causal:
        assert outcome.kind == "Unsupported"
    else:
        torch.testing.assert_close(outcome[0], oracle(problem))


def test_the_oracle_used_here_tells_masks_apart():
    problem = CASES["prefill, window"]
    assert not torch.allclose(oracle(problem), oracle(problem, window=6))
