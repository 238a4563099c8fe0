"""One decode step of the layers that keep a fixed state instead of a growing cache: read it once, write it once.

Three kernels, as hybrid models combine them: the gated delta rule (Qwen3-Next), the selective state update (Mamba-2,
Nemotron-H), and the short causal convolution that both have in front. All are memory streams: a program takes one tile
of one head's state into registers, all its loads at once, and writes it back in place. Tiles are small, so that several
blocks share an SM and enough bytes are under way. There is no loop, and no product for which a matrix unit would pay.

State lies in slots, one per sequence (`state.StatePool`). A slot below zero marks a row that pads the batch: no state
is touched and its output is zero, so that no stale NaN runs on through the model. No slot may be twice in a batch.

Dimension key, besides the package's (B sequences, D keys, E values):

    S  slots of the pool             H  value heads, each with a state      C  channels of the convolution
    K  key heads (H = K · G)         W  taps of the convolution             N  columns that its state holds

Mamba-2 in these words (state-space duality): C is the query, B the key, x the value, a group is a key head.
Yang et al. 2024, https://arxiv.org/abs/2412.06464; Dao and Gu 2024, https://arxiv.org/abs/2405.21060.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvplan.validate.kernels.launch import Config, Launch, Unsupported, run_all
from kvplan.validate.kernels.tile import narrow

STATE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

#: block_n: bytes of state in one program's tile, 32 registers of each of 128 threads (64 once bf16 is unfolded).
HEAD_TILE = Config(block_n=16384, num_warps=4, num_stages=1)
#: The same where keys are innermost and fp32: a thread then has one sum per column, and a whole tile may spill.
HALF_TILE = Config(block_n=8192, num_warps=4, num_stages=1)
#: block_n: channels of one program; one warp, for what changes hands between threads then needs no barrier.
CONV_TILE = Config(block_n=256, num_warps=1, num_stages=1)


@triton.jit
def silu(x):
    """x · sigmoid(x)."""
    return x * tl.sigmoid(x)


@triton.jit
def softplus(x):
    """log(1 + exp(x)), to the last digits of fp32 for any x.

    With z = exp(-|x|), log(1 + z) = 2 · artanh(s) at s = z / (z + 2) ≤ 1/3; eight terms of its series. The plain
    logarithm loses the digits of z where z is small, and steps dt are.
    """
    z = tl.exp(-tl.abs(x))
    s = z / (z + 2.0)
    series = 1.0 / 15.0
    for term in tl.static_range(7):
        series = 1.0 / (13.0 - 2.0 * term) + s * s * series
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def step_length(dt, dt_bias_ptr, head, SOFTPLUS: tl.constexpr):
    """A head's dt, with its bias if there is one, made positive if asked."""
    dt = dt.to(tl.float32)
    if dt_bias_ptr is not None:
        dt += tl.load(dt_bias_ptr + head).to(tl.float32)
    return softplus(dt) if SOFTPLUS else dt


@triton.jit
def delta_step_kernel(
    state_ptr, slots_ptr, q_ptr, k_ptr, v_ptr, log_decay_ptr, beta_ptr, out_ptr, scale,
    stride_state, stride_state_head, stride_state_d, stride_state_e, stride_q, stride_q_head, stride_k, stride_k_head,
    stride_v, stride_v_head, stride_log_decay, stride_beta, stride_out, stride_out_head,
    GROUP: tl.constexpr, D: tl.constexpr, D_PADDED: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    NORMALIZE: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of value columns, value heads, sequences).

    Both products with the state, by key and by query, are taken of the old one, in one sweep: qᵀ(S + k·uᵀ) is
    qᵀS + (q·k)·uᵀ. The small loads are under way while the slot is, and are converted only once the state's loads are:
    a conversion waits, and what is loaded after it waits too.
    """
    head, batch = tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots_ptr + batch).to(tl.int64)
    d = tl.arange(0, D_PADDED)
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    query = tl.load(q_ptr + batch * stride_q + head // GROUP * stride_q_head + d, mask=d < D, other=0.0)
    key = tl.load(k_ptr + batch * stride_k + head // GROUP * stride_k_head + d, mask=d < D, other=0.0)
    value = tl.load(v_ptr + batch * stride_v + head * stride_v_head + e, mask=e < E, other=0.0)
    log_decay = tl.load(log_decay_ptr + batch * stride_log_decay + head)
    beta = tl.load(beta_ptr + batch * stride_beta + head)
    out = out_ptr + batch * stride_out + head * stride_out_head + e
    if slot < 0:
        tl.store(out, tl.zeros([BLOCK_E], out_ptr.dtype.element_ty), mask=e < E)
    else:
        row = state_ptr + slot * stride_state + head * stride_state_head
        tile = row + d[:, None] * stride_state_d + e[None, :] * stride_state_e
        inside = (d < D)[:, None] & (e < E)[None, :]
        state = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
        q, k, v = query.to(tl.float32), key.to(tl.float32), value.to(tl.float32)
        if NORMALIZE:
            q = q * tl.rsqrt(tl.sum(q * q, 0) + 1e-6)
            k = k * tl.rsqrt(tl.sum(k * k, 0) + 1e-6)
        q = q * scale
        state = state * tl.exp(log_decay.to(tl.float32))
        update = (v - tl.sum(state * k[:, None], 0)) * beta.to(tl.float32)
        result = tl.sum(state * q[:, None], 0) + tl.sum(q * k, 0) * update
        state += k[:, None] * update[None, :]
        tl.store(tile, narrow(state, state_ptr.dtype.element_ty), mask=inside)
        tl.store(out, narrow(result, out_ptr.dtype.element_ty), mask=e < E)


@triton.jit
def mamba_step_kernel(
    state_ptr, slots_ptr, x_ptr, dt_ptr, a_ptr, b_ptr, c_ptr, skip_ptr, gate_ptr, dt_bias_ptr, out_ptr,
    stride_state, stride_state_head, stride_state_e, stride_state_d, stride_x, stride_x_head, stride_dt, stride_b,
    stride_b_head, stride_c, stride_c_head, stride_gate, stride_gate_head, stride_out, stride_out_head,
    GROUP: tl.constexpr, D: tl.constexpr, D_PADDED: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr,
    SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of a head's rows, heads, sequences); what is None is left out when it is compiled."""
    head, batch = tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots_ptr + batch).to(tl.int64)
    d = tl.arange(0, D_PADDED)
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    key = tl.load(b_ptr + batch * stride_b + head // GROUP * stride_b_head + d, mask=d < D, other=0.0)
    query = tl.load(c_ptr + batch * stride_c + head // GROUP * stride_c_head + d, mask=d < D, other=0.0)
    value = tl.load(x_ptr + batch * stride_x + head * stride_x_head + e, mask=e < E, other=0.0)
    if gate_ptr is not None:
        gate = tl.load(gate_ptr + batch * stride_gate + head * stride_gate_head + e, mask=e < E, other=0.0)
    dt = step_length(tl.load(dt_ptr + batch * stride_dt + head), dt_bias_ptr, head, SOFTPLUS)
    decay = tl.exp(dt * tl.load(a_ptr + head).to(tl.float32))
    out = out_ptr + batch * stride_out + head * stride_out_head + e
    if slot < 0:
        tl.store(out, tl.zeros([BLOCK_E], out_ptr.dtype.element_ty), mask=e < E)
    else:
        row = state_ptr + slot * stride_state + head * stride_state_head
        tile = row + e[:, None] * stride_state_e + d[None, :] * stride_state_d
        inside = (e < E)[:, None] & (d < D)[None, :]
        state = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
        b, c, x = key.to(tl.float32), query.to(tl.float32), value.to(tl.float32)
        state = state * decay + (dt * x)[:, None] * b[None, :]
        tl.store(tile, narrow(state, state_ptr.dtype.element_ty), mask=inside)
        y = tl.sum(state * c[None, :], 1)
        if skip_ptr is not None:
            y += tl.load(skip_ptr + head).to(tl.float32) * x
        if gate_ptr is not None:
            y *= silu(gate.to(tl.float32))
        tl.store(out, narrow(y, out_ptr.dtype.element_ty), mask=e < E)


@triton.jit
def unpacked(flat, BLOCK_C: tl.constexpr):
    """A flat tile of BLOCK_C channels × 4 numbers as its columns; no number leaves its thread."""
    even, odd = tl.split(tl.reshape(flat, [BLOCK_C, 2, 2]))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def packed(columns, BLOCK_C: tl.constexpr):
    """The inverse of `unpacked`."""
    even = tl.join(columns[0], columns[2])
    odd = tl.join(columns[1], columns[3])
    return tl.reshape(tl.join(even, odd), [BLOCK_C * 4])


@triton.jit
def load_columns(
    ptr, first, num_channels, stride_channel, stride_column, BLOCK_C: tl.constexpr, COUNT: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """COUNT numbers of each of BLOCK_C channels, a tuple of columns.

    PACKED: each channel's numbers lie together and are four; one flat load is wide where loads by column are narrow.
    """
    if PACKED:
        flat = first * 4 + tl.arange(0, BLOCK_C * 4)
        return unpacked(tl.load(ptr + flat, mask=flat < num_channels * 4, other=0.0), BLOCK_C)
    else:
        channel = first + tl.arange(0, BLOCK_C)
        columns = ()
        for column in tl.static_range(COUNT):
            at = ptr + channel * stride_channel + column * stride_column
            columns += (tl.load(at, mask=channel < num_channels, other=0.0),)  # type: ignore[assignment]
        return columns


@triton.jit
def store_columns(
    columns, ptr, first, num_channels, stride_channel, stride_column, BLOCK_C: tl.constexpr, COUNT: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """The inverse of `load_columns`."""
    if PACKED:
        flat = first * 4 + tl.arange(0, BLOCK_C * 4)
        tl.store(ptr + flat, packed(columns, BLOCK_C), mask=flat < num_channels * 4)
    else:
        channel = first + tl.arange(0, BLOCK_C)
        for column in tl.static_range(COUNT):
            at = ptr + channel * stride_channel + column * stride_column
            tl.store(at, columns[column], mask=channel < num_channels)


@triton.jit
def conv_step_kernel(
    state_ptr, slots_ptr, x_ptr, weight_ptr, bias_ptr, out_ptr, num_channels,
    stride_state, stride_channel, stride_column, stride_x, stride_weight, stride_out,
    W: tl.constexpr, N: tl.constexpr, BLOCK_C: tl.constexpr, PACKED: tl.constexpr, PACKED_WEIGHT: tl.constexpr,
    SILU: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of channels, sequences). The last W - 1 columns of the state and the new one are the window."""
    first = tl.program_id(0) * BLOCK_C
    batch = tl.program_id(1)
    slot = tl.load(slots_ptr + batch).to(tl.int64)
    channel = first + tl.arange(0, BLOCK_C)
    real = channel < num_channels
    out = out_ptr + batch * stride_out + channel
    taps = load_columns(weight_ptr, first, num_channels, stride_weight, 1, BLOCK_C, W, PACKED_WEIGHT)
    x = tl.load(x_ptr + batch * stride_x + channel, mask=real, other=0.0)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel, mask=real, other=0.0)
    if slot < 0:
        tl.store(out, tl.zeros([BLOCK_C], out_ptr.dtype.element_ty), mask=real)
    else:
        held = state_ptr + slot * stride_state
        old = load_columns(held, first, num_channels, stride_channel, stride_column, BLOCK_C, N, PACKED)
        y = x.to(tl.float32) * taps[W - 1].to(tl.float32)
        for tap in tl.static_range(W - 1):
            y += taps[tap].to(tl.float32) * old[N - (W - 1) + tap].to(tl.float32)
        if bias_ptr is not None:
            y += bias.to(tl.float32)
        if SILU:
            y = silu(y)
        tl.store(out, narrow(y, out_ptr.dtype.element_ty), mask=real)
        columns = old[1:]
        columns += (narrow(x.to(tl.float32), state_ptr.dtype.element_ty),)
        store_columns(columns, held, first, num_channels, stride_channel, stride_column, BLOCK_C, N, PACKED)


def plan_delta_step(
    state_SHDE: Tensor, slots_B: Tensor, q_BKD: Tensor, k_BKD: Tensor, v_BHE: Tensor, log_decay_BH: Tensor,
    beta_BH: Tensor, *, scale: float | None = None, normalize: bool = True, config: Config | None = None,
    out_BHE: Tensor | None = None,
) -> tuple[Tensor, list[Launch]]:  # fmt: skip
    """(output B × H × E, launches): the state forgets, then learns what it did not yet answer to the key.

        S ← exp(log_decay) · S;  S ← S + k · (β · (v - kᵀS))ᵀ;  out = scale · qᵀS

    normalize: q and k are divided by sqrt(their square sum + 1e-6). scale: 1 / sqrt(D) unless given. Value head h has
    key head h // G. Either of a state's two dimensions may be the contiguous one. Raises `Unsupported`.
    """
    (_, heads, key_dim, value_dim), key_heads, batch = state_SHDE.shape, k_BKD.shape[1], slots_B.shape[0]
    keys, values = (batch, key_heads, key_dim), (batch, heads, value_dim)
    out_BHE = torch.empty(values, dtype=v_BHE.dtype, device=v_BHE.device) if out_BHE is None else out_BHE
    _check_heads(state_SHDE, heads, key_heads)
    _check_shapes(
        state_SHDE, q=(q_BKD, keys), k=(k_BKD, keys), v=(v_BHE, values), out=(out_BHE, values),
        log_decay=(log_decay_BH, values[:2]), beta=(beta_BH, values[:2]),
    )  # fmt: skip
    if config is None:
        config = HALF_TILE if state_SHDE.stride(2) == 1 and state_SHDE.dtype == torch.float32 else HEAD_TILE
    padded, block, num_warps = _tile(config, state_SHDE, key_dim, value_dim)
    args = {
        "state_ptr": state_SHDE, "slots_ptr": slots_B, "q_ptr": q_BKD, "k_ptr": k_BKD, "v_ptr": v_BHE,
        "log_decay_ptr": log_decay_BH, "beta_ptr": beta_BH, "out_ptr": out_BHE,
        "scale": key_dim**-0.5 if scale is None else scale,
        "stride_state_d": state_SHDE.stride(2), "stride_state_e": state_SHDE.stride(3),
        "GROUP": heads // key_heads, "D": key_dim, "D_PADDED": padded, "E": value_dim, "BLOCK_E": block,
        "NORMALIZE": normalize,
    }  # fmt: skip
    args |= _strides(state=state_SHDE, q=q_BKD, k=k_BKD, v=v_BHE, log_decay=log_decay_BH, beta=beta_BH, out=out_BHE)
    grid = (triton.cdiv(value_dim, block), heads, batch)
    return out_BHE, [Launch(delta_step_kernel, grid, args, num_warps, config.num_stages)]


def delta_step(state_SHDE: Tensor, slots_B: Tensor, *inputs: Tensor, **options: Any) -> Tensor:
    """`plan_delta_step`, run."""
    out_BHE, launches = plan_delta_step(state_SHDE, slots_B, *inputs, **options)
    run_all(launches)
    return out_BHE


def plan_mamba_step(
    state_SHED: Tensor, slots_B: Tensor, x_BHE: Tensor, dt_BH: Tensor, a_H: Tensor, b_BKD: Tensor, c_BKD: Tensor,
    *, skip_H: Tensor | None = None, gate_BHE: Tensor | None = None, dt_bias_H: Tensor | None = None,
    softplus_dt: bool = True, config: Config = HEAD_TILE, out_BHE: Tensor | None = None,
) -> tuple[Tensor, list[Launch]]:  # fmt: skip
    """(output B × H × E, launches) of Mamba-2's selective state update; a is negative, one number per head.

        h ← exp(dt · a) · h + dt · x · bᵀ;  out = (h · c + skip · x) · silu(gate), with dt ← softplus(dt + dt_bias)

    Head h has group h // G. skip, gate and dt_bias may be missing; softplus_dt: apply it. Raises `Unsupported`.
    """
    (_, heads, head_dim, state_dim), groups, batch = state_SHED.shape, b_BKD.shape[1], slots_B.shape[0]
    values, keys = (batch, heads, head_dim), (batch, groups, state_dim)
    out_BHE = torch.empty(values, dtype=x_BHE.dtype, device=x_BHE.device) if out_BHE is None else out_BHE
    _check_heads(state_SHED, heads, groups)
    _check_shapes(
        state_SHED, x=(x_BHE, values), dt=(dt_BH, values[:2]), a=(a_H, (heads,)), b=(b_BKD, keys), c=(c_BKD, keys),
        out=(out_BHE, values), skip=(skip_H, (heads,)), gate=(gate_BHE, values), dt_bias=(dt_bias_H, (heads,)),
    )  # fmt: skip
    padded, block, num_warps = _tile(config, state_SHED, state_dim, head_dim)
    args = {
        "state_ptr": state_SHED, "slots_ptr": slots_B, "x_ptr": x_BHE, "dt_ptr": dt_BH, "a_ptr": a_H, "b_ptr": b_BKD,
        "c_ptr": c_BKD, "skip_ptr": skip_H, "gate_ptr": gate_BHE, "dt_bias_ptr": dt_bias_H, "out_ptr": out_BHE,
        "stride_state_e": state_SHED.stride(2), "stride_state_d": state_SHED.stride(3),
        "GROUP": heads // groups, "D": state_dim, "D_PADDED": padded, "E": head_dim, "BLOCK_E": block,
        "SOFTPLUS": softplus_dt,
    }  # fmt: skip
    gate = x_BHE if gate_BHE is None else gate_BHE
    args |= _strides(state=state_SHED, x=x_BHE, dt=dt_BH, b=b_BKD, c=c_BKD, gate=gate, out=out_BHE)
    grid = (triton.cdiv(head_dim, block), heads, batch)
    return out_BHE, [Launch(mamba_step_kernel, grid, args, num_warps, config.num_stages)]


def mamba_step(state_SHED: Tensor, slots_B: Tensor, *inputs: Tensor, **options: Any) -> Tensor:
    """`plan_mamba_step`, run."""
    out_BHE, launches = plan_mamba_step(state_SHED, slots_B, *inputs, **options)
    run_all(launches)
    return out_BHE


def plan_conv_step(
    state_SCN: Tensor, slots_B: Tensor, x_BC: Tensor, weight_CW: Tensor,
    *, bias_C: Tensor | None = None, silu: bool = True, config: Config = CONV_TILE, out_BC: Tensor | None = None,
) -> tuple[Tensor, list[Launch]]:  # fmt: skip
    """(output B × C, launches) of the causal depthwise convolution: x enters the state, the last W columns are weighed.

    A state may hold any N ≥ W - 1 columns, in any strides: transformers holds W, a channel's columns together; vLLM
    holds W - 1, a column's channels together, seen through a transposed view. Raises `Unsupported`.
    """
    (_, channels, held), width, batch = state_SCN.shape, weight_CW.shape[1], slots_B.shape[0]
    if held < max(width - 1, 1):
        raise Unsupported(f"{width} taps look back {width - 1} columns, the state holds {held}")
    out_BC = torch.empty((batch, channels), dtype=x_BC.dtype, device=x_BC.device) if out_BC is None else out_BC
    _check_shapes(state_SCN, x=(x_BC, (batch, channels)), weight=(weight_CW, (channels, width)))
    _check_shapes(state_SCN, out=(out_BC, (batch, channels)), bias=(bias_C, (channels,)))
    args = {
        "state_ptr": state_SCN, "slots_ptr": slots_B, "x_ptr": x_BC, "weight_ptr": weight_CW, "bias_ptr": bias_C,
        "out_ptr": out_BC, "num_channels": channels, "stride_state": state_SCN.stride(0),
        "stride_channel": state_SCN.stride(1), "stride_column": state_SCN.stride(2),
        "stride_x": x_BC.stride(0), "stride_weight": weight_CW.stride(0), "stride_out": out_BC.stride(0),
        "W": width, "N": held, "BLOCK_C": config.block_n, "PACKED": _is_packed(state_SCN),
        "PACKED_WEIGHT": _is_packed(weight_CW), "SILU": silu,
    }  # fmt: skip
    grid = (triton.cdiv(channels, config.block_n), batch)
    return out_BC, [Launch(conv_step_kernel, grid, args, config.num_warps, config.num_stages)]


def conv_step(state_SCN: Tensor, slots_B: Tensor, *inputs: Tensor, **options: Any) -> Tensor:
    """`plan_conv_step`, run."""
    out_BC, launches = plan_conv_step(state_SCN, slots_B, *inputs, **options)
    run_all(launches)
    return out_BC


def _check_shapes(state: Tensor, **expected: tuple[Tensor | None, tuple[int, ...]]) -> None:
    if state.dtype not in STATE_DTYPES:
        raise Unsupported(f"a state of {state.dtype} is not supported; fp32, bf16 and fp16 are")
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise Unsupported(f"`{name}` is {tuple(tensor.shape)}; this state and these slots need {shape}")
        if tensor is not None and tensor.stride(-1) != 1:
            raise Unsupported(f"the last dimension of `{name}` is not contiguous")


def _check_heads(state: Tensor, heads: int, key_heads: int) -> None:
    if 1 not in state.stride()[2:]:
        raise Unsupported("no dimension of a head's state is contiguous")
    if heads % key_heads:
        raise Unsupported(f"{heads} heads do not share {key_heads} groups evenly")


def _tile(config: Config, state: Tensor, key_dim: int, rows: int) -> tuple[int, int, int]:
    """(padded key dimension, value rows of a tile, warps).

    No more warps than the tile feeds, 16 bytes a lane, 64 lanes on AMD: the others would hold copies, and a copy that
    is read after its original was written back is another state.
    """
    padded = triton.next_power_of_2(key_dim)
    row_bytes = padded * state.dtype.itemsize
    block = max(min(config.block_n // row_bytes, triton.next_power_of_2(rows)), 1)
    return padded, block, max(min(config.num_warps, block * row_bytes // 1024), 1)


def _is_packed(columns: Tensor) -> bool:
    """Whether a channel's numbers lie together, as many as `unpacked` takes."""
    return columns.shape[-1] == 4 and columns.stride()[-2:] == (4, 1)


def _strides(**tensors: Tensor) -> dict[str, int]:
    """Strides in elements of the first dimension, and of the second where it counts heads."""
    first = {f"stride_{name}": tensor.stride(0) for name, tensor in tensors.items()}
    return first | {f"stride_{name}_head": tensor.stride(1) for name, tensor in tensors.items() if tensor.dim() > 2}
