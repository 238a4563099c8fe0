"""One step of a fixed state against float64, in the interpreter; and the oracle itself against independent formulations."""

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from kvplan.validate.kernels import linear, linear_reference
from kvplan.validate.kernels.launch import Config, Unsupported
from kvplan.validate.kernels.linear import conv_step, delta_step, mamba_step
from kvplan.validate.kernels.state import NO_SLOT, StatePool
from tests.validate.kernels.caches import assert_close

F32, F16, BF16, F64 = torch.float32, torch.float16, torch.bfloat16, torch.float64
SLOTS = torch.tensor([3, NO_SLOT, 0, 4], dtype=torch.int32)  # of 6: shuffled, one row padding the batch
SMALL = Config(block_n=512, num_warps=4, num_stages=1)  # cuts the tests' heads into several tiles
SMALL_CONV = Config(block_n=32, num_warps=1, num_stages=1)
NAN = float("nan")


def pool(*shape: int, dtype: torch.dtype, swapped: bool = False) -> Tensor:
    """Six slots with a gap between, NaN in the gaps and in the slots that `SLOTS` does not name.

    swapped: the last dimension but one is the contiguous one.
    """
    stored = (*shape[:-2], shape[-1], shape[-2]) if swapped else shape
    numel = torch.Size(stored).numel()
    state = torch.full((6, numel + 16), NAN, dtype=dtype)[:, :numel].view(6, *stored)
    state = state.transpose(-1, -2) if swapped else state
    for slot in SLOTS[SLOTS >= 0].tolist():
        state[slot] = torch.randn(shape).to(dtype)
    return state


def check_step(state: Tensor, before: Tensor, out: Tensor, expected: Any, dtype: torch.dtype) -> None:
    """Outputs and states of every row as the oracle has them; zero for the padding row; nothing else written."""
    for row, slot in enumerate(SLOTS.tolist()):
        if slot == NO_SLOT:
            assert (out[row] == 0).all()
            continue
        expected_out, expected_state = expected(row, before[slot])
        assert_close(out[row], expected_out, dtype)
        assert_close(state[slot], expected_state, dtype if state.dtype == F32 else state.dtype)
    whole = state.as_strided((6, state.stride(0)), (state.stride(0), 1)).clone()
    for slot in SLOTS[SLOTS >= 0].tolist():
        whole[slot, : state[0].numel()] = NAN
    assert whole.isnan().all()


def check_delta(
    key_heads: int,
    group: int,
    key_dim: int,
    value_dim: int,
    *,
    dtype: torch.dtype = F32,
    state_dtype: torch.dtype = F32,
    swapped: bool = False,
    config: Config | None = SMALL,
    **options: Any,
) -> None:
    heads, batch = key_heads * group, len(SLOTS)
    state = pool(heads, key_dim, value_dim, dtype=state_dtype, swapped=swapped)
    mixed = torch.randn(batch, 2 * key_heads * key_dim + heads * value_dim).to(dtype)  # as the convolution leaves it
    q, k, v = mixed.split([key_heads * key_dim, key_heads * key_dim, heads * value_dim], dim=1)
    q, k = q.unflatten(1, (key_heads, key_dim)), k.unflatten(1, (key_heads, key_dim))
    inputs = (q, k, v.unflatten(1, (heads, value_dim)), -torch.rand(batch, heads), torch.rand(batch, heads).to(dtype))
    before = state.clone()
    out = delta_step(state, SLOTS, *inputs, config=config, **options)
    assert out.dtype == dtype
    check_step(
        state,
        before,
        out,
        lambda row, held: linear_reference.delta_step(held, *(t[row] for t in inputs), **options),
        dtype,
    )


def check_mamba(
    groups: int,
    heads: int,
    head_dim: int,
    state_dim: int,
    *,
    dtype: torch.dtype = F32,
    state_dtype: torch.dtype = F32,
    swapped: bool = False,
    extras: bool = True,
    config: Config = SMALL,
    **options: Any,
) -> None:
    batch = len(SLOTS)
    state = pool(heads, head_dim, state_dim, dtype=state_dtype, swapped=swapped)
    rows = {
        "x": torch.randn(batch, heads, head_dim).to(dtype),
        "dt": (torch.rand(batch, heads) if "softplus_dt" in options else torch.randn(batch, heads)).to(dtype),
        "b": torch.randn(batch, groups, 2 * state_dim).to(dtype)[..., :state_dim],  # a view: strides are not the sizes
        "c": torch.randn(batch, groups, state_dim).to(dtype),
    }
    a = -4 * torch.rand(heads)
    if extras:
        options |= {"skip_H": torch.randn(heads), "dt_bias_H": torch.randn(heads)}
    gate = torch.randn(batch, heads, head_dim).to(dtype) if extras else None
    before = state.clone()
    out = mamba_step(
        state, SLOTS, rows["x"], rows["dt"], a, rows["b"], rows["c"], gate_BHE=gate, config=config, **options
    )

    def expected(row: int, held: Tensor) -> tuple[Tensor, Tensor]:
        x, dt, b, c = (rows[name][row] for name in ("x", "dt", "b", "c"))
        gated = {"gate_HE": gate[row]} if gate is not None else {}
        return linear_reference.mamba_step(held, x, dt, a, b, c, **gated, **options)

    check_step(state, before, out, expected, dtype)


def check_conv(
    channels: int,
    width: int,
    held: int,
    *,
    dtype: torch.dtype = F32,
    swapped: bool = False,
    bias: bool = True,
    config: Config = SMALL_CONV,
    **options: Any,
) -> None:
    state = pool(channels, held, dtype=dtype, swapped=swapped)
    x, weight = torch.randn(len(SLOTS), 2 * channels).to(dtype)[:, :channels], torch.randn(channels, width).to(dtype)
    if bias:
        options["bias_C"] = torch.randn(channels).to(dtype)
    before = state.clone()
    out = conv_step(state, SLOTS, x, weight, config=config, **options)
    check_step(
        state,
        before,
        out,
        lambda row, columns: linear_reference.conv_step(columns, x[row], weight, **options),
        dtype,
    )
    used = SLOTS[SLOTS >= 0].long()
    assert torch.equal(state[used][..., :-1], before[used][..., 1:])  # moved, not computed
    assert torch.equal(state[used][..., -1], x[SLOTS >= 0])


# --- the oracle against other formulations of the same thing


def test_the_oracles_delta_rule_by_hand() -> None:
    """Three tokens, two key dimensions, one value: forgetting by half, a full overwrite."""
    steps = [  # k, v, β, decay → qᵀS for q = (1, 1)
        ((1.0, 0.0), 2.0, 0.5, 1.0, 1.0),  # S = (1, 0)
        ((0.6, 0.8), 1.0, 1.0, 0.5, 1.48),  # S = (0.5, 0); says 0.3, learns 0.7 · k: (0.92, 0.56)
        ((1.0, 0.0), 0.0, 1.0, 1.0, 0.56),  # says 0.92, must say 0: (0, 0.56)
    ]
    state = torch.zeros(1, 2, 1)
    for k, v, beta, decay, answer in steps:
        q_KD, k_KD, v_HE = torch.ones(1, 2), torch.tensor([k]), torch.tensor([[v]])
        gates = torch.tensor([decay]).log(), torch.tensor([beta])
        out, state = linear_reference.delta_step(state, q_KD, k_KD, v_HE, *gates, scale=1.0, normalize=False)
        assert out.item() == pytest.approx(answer, rel=1e-6)


def delta_by_products(state_DE: Tensor, k_TD: Tensor, v_TE: Tensor, log_decay_T: Tensor, beta_T: Tensor) -> Tensor:
    """S after T tokens, as the paper has it: every write β·k·vᵀ times the transitions exp(g)·(I - β·k·kᵀ) after it."""
    total = torch.zeros_like(state_DE)
    for start in range(-1, k_TD.shape[0]):
        term = state_DE if start < 0 else beta_T[start] * torch.outer(k_TD[start], v_TE[start])
        for t in range(start + 1, k_TD.shape[0]):
            transition = torch.eye(k_TD.shape[1], dtype=F64) - beta_T[t] * torch.outer(k_TD[t], k_TD[t])
            term = log_decay_T[t].exp() * transition @ term
        total = total + term
    return total


def test_the_delta_rule_is_a_product_of_transitions() -> None:
    """The oracle, and the kernel itself, over six tokens; two value heads share a key head."""
    tokens, key_dim, value_dim, scale = 6, 12, 9, 0.3
    q_TKD, k_TKD = torch.randn(2, tokens, 1, key_dim, dtype=F64)
    v_THE = torch.randn(tokens, 2, value_dim, dtype=F64)
    log_decay_TH, beta_TH = -torch.rand(tokens, 2, dtype=F64), torch.rand(tokens, 2, dtype=F64)
    start = torch.randn(2, key_dim, value_dim, dtype=F64)
    k_unit = k_TKD / k_TKD.norm(dim=-1, keepdim=True)
    state, in_kernel, slot = start, start.float()[None], torch.zeros(1, dtype=torch.int64)
    for t in range(tokens):
        inputs = (q_TKD[t], k_TKD[t], v_THE[t], log_decay_TH[t], beta_TH[t])
        out, state = linear_reference.delta_step(state, *inputs, scale=scale)
        out_BHE = delta_step(in_kernel, slot, *(x.float()[None] for x in inputs), scale=scale)
        for head in range(2):
            said = (k_unit[: t + 1, 0], v_THE[: t + 1, head], log_decay_TH[: t + 1, head], beta_TH[: t + 1, head])
            expected = delta_by_products(start[head], *said)
            answer = scale * (q_TKD[t, 0] / q_TKD[t, 0].norm()) @ expected
            assert_close(state[head], expected, F32)
            assert_close(out[head], answer, F32)
            assert_close(in_kernel[0, head], expected, F32)
            assert_close(out_BHE[0, head], answer, F32)


def test_mamba_is_a_sum_over_the_past() -> None:
    """out_t = Σ_s (c_t · b_s) · exp(a · Σ_{s<r≤t} dt_r) · dt_s · x_s + skip · x_t: attention without softmax."""
    tokens, heads, head_dim, state_dim = 7, 4, 5, 6
    x = torch.randn(tokens, heads, head_dim, dtype=F64)
    raw, bias = torch.randn(tokens, heads, dtype=F64), torch.randn(heads, dtype=F64)
    b, c = torch.randn(2, tokens, 2, state_dim, dtype=F64)
    a, skip, gate = -torch.rand(heads, dtype=F64), torch.randn(heads, dtype=F64), torch.randn(tokens, heads, head_dim)
    dt = functional.softplus(raw + bias)
    state, slot = torch.zeros(heads, head_dim, state_dim, dtype=F64), torch.zeros(1, dtype=torch.int64)
    in_kernel = state.float()[None]
    for t in range(tokens):
        inputs = (x[t], raw[t], a, b[t], c[t])
        out, state = linear_reference.mamba_step(state, *inputs, skip_H=skip, dt_bias_H=bias, gate_HE=gate[t])
        batched = [y.float()[None] if y is not a else a.float() for y in inputs]
        options = {"skip_H": skip.float(), "dt_bias_H": bias.float(), "gate_BHE": gate[t].float()[None]}
        out_BHE = mamba_step(in_kernel, slot, *batched, **options)
        for head in range(heads):
            group = head // 2
            expected = skip[head] * x[t, head]
            for s in range(t + 1):
                decay = (a[head] * dt[s + 1 : t + 1, head].sum()).exp()
                expected = expected + (c[t, group] @ b[s, group]) * decay * dt[s, head] * x[s, head]
            expected = expected * gate[t, head].to(F64) * gate[t, head].to(F64).sigmoid()
            assert_close(out[head], expected, F32)
            assert_close(out_BHE[0, head], expected, F32)


@pytest.mark.parametrize("held", [3, 4])
def test_the_convolution_is_torchs_over_the_whole_sequence(held: int) -> None:
    tokens, channels, width = 9, 6, 4
    x, weight, bias = torch.randn(tokens, channels), torch.randn(channels, width), torch.randn(channels)
    padded = functional.pad(x.T, (width - 1, 0))[None]
    expected = functional.silu(functional.conv1d(padded, weight[:, None], bias, groups=channels))[0].T
    state, in_kernel = torch.zeros(channels, held), torch.zeros(1, channels, held)
    for t in range(tokens):
        out, state = linear_reference.conv_step(state, x[t], weight, bias_C=bias)
        out_BC = conv_step(in_kernel, torch.zeros(1, dtype=torch.int64), x[t][None], weight, bias_C=bias)
        assert_close(out, expected[t].to(F64), F32)
        assert_close(out_BC[0], expected[t].to(F64), F32)


# --- the kernels against the oracle


@pytest.mark.parametrize("swapped", [False, True], ids=["values innermost", "keys innermost"])
@pytest.mark.parametrize(("dtype", "state_dtype"), [(F32, F32), (BF16, F32), (F16, F32), (BF16, BF16), (F16, F16)])
def test_delta_step(dtype: torch.dtype, state_dtype: torch.dtype, swapped: bool) -> None:
    check_delta(2, 2, 16, 24, dtype=dtype, state_dtype=state_dtype, swapped=swapped)


@settings(max_examples=8, deadline=None)
@given(
    key_heads=st.integers(1, 2),
    group=st.sampled_from([1, 2, 3]),
    key_dim=st.integers(1, 40),
    value_dim=st.integers(1, 40),
    normalize=st.booleans(),
)
def test_delta_step_of_any_shape(key_heads: int, group: int, key_dim: int, value_dim: int, normalize: bool) -> None:
    check_delta(key_heads, group, key_dim, value_dim, normalize=normalize)


@pytest.mark.parametrize(("key_dim", "swapped"), [(64, False), (128, False), (128, True), (256, False)])
def test_delta_step_of_real_dimensions(key_dim: int, swapped: bool) -> None:
    check_delta(1, 2, key_dim, 128, swapped=swapped, config=None, scale=0.5)


def test_a_zero_key_changes_nothing_but_the_decay() -> None:
    """Its norm is not divided by: 1e-6 stands under the root."""
    state = torch.randn(1, 1, 8, 8)
    before = state.clone()
    q, zero, v = torch.randn(1, 1, 8), torch.zeros(1, 1, 8), torch.randn(1, 1, 8)
    delta_step(state, torch.zeros(1, dtype=torch.int32), q, zero, v, torch.tensor([[-0.5]]), torch.ones(1, 1))
    assert_close(state, before.to(F64) * 0.6065306597126334, F32)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("dtype", "state_dtype"), [(F32, F32), (BF16, F32), (F16, F32), (BF16, BF16), (F16, F16)])
def test_mamba_step(dtype: torch.dtype, state_dtype: torch.dtype, swapped: bool) -> None:
    check_mamba(2, 4, 12, 16, dtype=dtype, state_dtype=state_dtype, swapped=swapped)


@settings(max_examples=8, deadline=None)
@given(
    groups=st.integers(1, 2),
    heads_per_group=st.sampled_from([1, 2, 3]),
    head_dim=st.integers(1, 40),
    state_dim=st.integers(1, 40),
    extras=st.booleans(),
)
def test_mamba_step_of_any_shape(
    groups: int, heads_per_group: int, head_dim: int, state_dim: int, extras: bool
) -> None:
    check_mamba(groups, groups * heads_per_group, head_dim, state_dim, extras=extras)


@pytest.mark.parametrize(("head_dim", "state_dim"), [(64, 128), (64, 16), (80, 64)])
def test_mamba_step_of_real_dimensions(head_dim: int, state_dim: int) -> None:
    check_mamba(1, 2, head_dim, state_dim, config=linear.HEAD_TILE)


def test_mamba_step_with_a_ready_dt() -> None:
    check_mamba(1, 2, 8, 8, softplus_dt=False)


@pytest.mark.parametrize("dt", [-30.0, -15.0, -6.0, -1.0, 0.0, 0.5, 3.0, 19.0, 40.0])
def test_softplus_keeps_its_digits(dt: float) -> None:
    """From a zero state, h is dt · x · b alone: a relative error there is one of softplus."""
    state, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1)
    mamba_step(state, torch.zeros(1, dtype=torch.int32), one, torch.tensor([[dt]]), -torch.ones(1), one, one)
    exact = functional.softplus(torch.tensor(dt, dtype=F64), threshold=100.0).item()
    assert state.item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("swapped", [False, True], ids=["channels outermost", "channels innermost"])
@pytest.mark.parametrize(("width", "held"), [(4, 4), (4, 3), (4, 6), (3, 3), (3, 2), (3, 4), (2, 1)])
def test_conv_step(width: int, held: int, swapped: bool) -> None:
    check_conv(37, width, held, swapped=swapped)


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_conv_step_of_types_and_the_default_block(dtype: torch.dtype) -> None:
    check_conv(300, 4, 4, dtype=dtype, config=linear.CONV_TILE)
    check_conv(300, 4, 3, dtype=dtype, config=linear.CONV_TILE, swapped=True)


def test_conv_step_without_bias_and_gate() -> None:
    check_conv(16, 4, 4, bias=False, silu=False)


# --- refusals


def test_what_the_kernels_refuse() -> None:
    slots, gate = torch.zeros(1, dtype=torch.int32), torch.zeros(1, 2)
    x, key = torch.zeros(1, 2, 8), torch.zeros(1, 1, 8)
    with pytest.raises(Unsupported, match="float8"):
        delta_step(torch.zeros(1, 2, 8, 8).to(torch.float8_e4m3fn), slots, key, key, x, gate, gate)
    with pytest.raises(Unsupported, match="3 heads do not share 2 groups"):
        delta_step(torch.zeros(1, 3, 8, 8), slots, x, x, torch.zeros(1, 3, 8), gate, gate)
    with pytest.raises(Unsupported, match=r"`k` is \(1, 1, 8\)"):
        delta_step(torch.zeros(1, 2, 4, 8), slots, key[..., :4], key, x, gate, gate)
    with pytest.raises(Unsupported, match="no dimension of a head's state"):
        delta_step(torch.zeros(1, 2, 8, 16, 2)[..., 0], slots, key, key, torch.zeros(1, 2, 16), gate, gate)
    with pytest.raises(Unsupported, match="last dimension of `x`"):
        mamba_step(torch.zeros(1, 2, 8, 8), slots, torch.zeros(1, 8, 2).transpose(1, 2), gate, gate[0], key, key)
    with pytest.raises(Unsupported, match="4 taps look back 3 columns, the state holds 2"):
        conv_step(torch.zeros(1, 8, 2), slots, torch.zeros(1, 8), torch.zeros(8, 4))


def test_a_small_tile_has_no_idle_warps() -> None:
    """A warp with a copy of another's tile could read it after it was written back."""
    state, gate = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1)
    row = torch.zeros(1, 1, 8)
    _, launches = linear.plan_delta_step(state, torch.zeros(1, dtype=torch.int32), row, row, row, gate, gate)
    assert launches[0].num_warps == 1
    state, row = torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, 128)
    _, launches = linear.plan_delta_step(state, torch.zeros(1, dtype=torch.int32), row, row, row, gate, gate)
    assert launches[0].num_warps == 4


# --- the pool

# Bytes of one sequence in one layer, worked by hand from the published config.json of each model.
POOLS = {
    "Qwen3-Next-80B in transformers: 32 · 128 · 128 · 4 + 8,192 · 4 · 2": (
        {"num_heads": 32, "head_state": (128, 128), "channels": 8192, "columns": 4},
        2_097_152 + 65_536,
    ),
    "Qwen3-Next-80B in vLLM, bf16 state: 32 · 128 · 128 · 2 + 8,192 · 3 · 2": (
        {
            "num_heads": 32,
            "head_state": (128, 128),
            "state_dtype": BF16,
            "channels": 8192,
            "columns": 3,
            "channels_innermost": True,
        },
        1_048_576 + 49_152,
    ),
    "Mamba-2 2.7B: 80 · 64 · 128 · 4 + (5,120 + 2 · 128) · 4 · 2": (
        {"num_heads": 80, "head_state": (64, 128), "channels": 5376, "columns": 4},
        2_621_440 + 43_008,
    ),
    "a bf16 state of odd size beside fp32 columns: 3 · 5 · 1 · 2 + 7 · 3 · 4": (
        {
            "num_heads": 3,
            "head_state": (5, 1),
            "state_dtype": BF16,
            "channels": 7,
            "columns": 3,
            "conv_dtype": F32,
        },
        30 + 84,
    ),
    "only columns (LFM2): 2,048 · 3 · 2": ({"channels": 2048, "columns": 3}, 12_288),
    "only a state: 2 · 8 · 8 · 4": ({"num_heads": 2, "head_state": (8, 8)}, 512),
}


@pytest.mark.parametrize(("options", "slot_bytes"), POOLS.values(), ids=POOLS)
def test_bytes_of_a_pool(options: dict[str, Any], slot_bytes: int) -> None:
    state_pool = StatePool.allocate(num_slots=3, device="cpu", **options)
    assert state_pool.storage_bytes == 3 * slot_bytes
    parts = [part for part in (state_pool.recurrent, state_pool.conv) if part is not None]
    assert sum(part.numel() * part.element_size() for part in parts) == 3 * slot_bytes


def test_slots_are_taken_zeroed_and_given_back() -> None:
    sizes: dict[str, Any] = {"num_heads": 1, "head_state": (2, 2), "channels": 3, "columns": 3, "conv_dtype": F32}
    state_pool = StatePool.allocate(num_slots=4, device="cpu", shuffle=random.Random(1), **sizes)
    assert state_pool.recurrent is not None
    assert state_pool.conv is not None
    first = state_pool.take(3)
    assert len(set(first)) == 3
    state_pool.recurrent.fill_(NAN)
    state_pool.conv.fill_(NAN)
    with pytest.raises(MemoryError, match="2 sequences begin, 1 slots are free"):
        state_pool.take(2)
    state_pool.give_back([first[1], NO_SLOT])
    again = state_pool.take(2)
    assert first[1] in again
    assert (state_pool.recurrent[again] == 0).all()
    assert (state_pool.conv[again] == 0).all()
    assert state_pool.recurrent[first[0]].isnan().all()
    with pytest.raises(Unsupported, match="no kernel reads a state of torch"):
        StatePool.allocate(num_slots=1, device="cpu", state_dtype=torch.int8)


def test_the_kernels_work_on_a_pools_slots() -> None:
    """A layer's two steps, on a pool with channels innermost: what the convolution gives is what the state takes."""
    state_pool = StatePool.allocate(
        num_slots=4, device="cpu", num_heads=2, head_state=(8, 8), channels=32, columns=3, conv_dtype=F32,
        channels_innermost=True, shuffle=random.Random(2),
    )  # fmt: skip
    assert state_pool.recurrent is not None
    assert state_pool.conv is not None
    slots = torch.tensor(state_pool.take(2))
    weight, gates = torch.randn(32, 4), (-torch.rand(2, 2), torch.rand(2, 2))
    held = [(torch.zeros(32, 3), torch.zeros(2, 8, 8)) for _ in slots]
    for _ in range(2):
        x = torch.randn(2, 32)
        mixed = conv_step(state_pool.conv, slots, x, weight)
        q, k, v = mixed[:, :8].view(2, 1, 8), mixed[:, 8:16].view(2, 1, 8), mixed[:, 16:].view(2, 2, 8)
        out = delta_step(state_pool.recurrent, slots, q, k, v, *gates)
        for row, (columns, state) in enumerate(held):
            y, columns = linear_reference.conv_step(columns, x[row], weight)
            keys, values = y[:16].view(2, 1, 8), y[16:].view(2, 8)
            expected, state = linear_reference.delta_step(state, *keys, values, *(gate[row] for gate in gates))
            assert_close(out[row], expected, F32)
            held[row] = (columns, state)
