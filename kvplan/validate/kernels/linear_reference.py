"""What one step of a fixed state must compute: eager, slow, in float64. Imported by no kernel, and imports none.

Each function takes the state of one sequence before a token and returns (output, state after it); nothing is changed in
place. Dimension key: see `linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

F64 = torch.float64


def unit(x: Tensor) -> Tensor:
    """x / |x| over the last dimension, as Qwen3-Next has it: 1e-6 under the root, so that zero stays zero."""
    return x / (x.square().sum(dim=-1, keepdim=True) + 1e-6).sqrt()


def delta_step(
    state_HDE: Tensor,
    q_KD: Tensor,
    k_KD: Tensor,
    v_HE: Tensor,
    log_decay_H: Tensor,
    beta_H: Tensor,
    *,
    scale: float | None = None,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """The gated delta rule: forget, correct what the state answers to the key, answer the query.

        S ← exp(g) · S;  S ← S + k · (β · (v - kᵀS))ᵀ;  out = scale · qᵀS

    Yang et al. 2024, equation 10, https://arxiv.org/abs/2412.06464. Value head h has key head h // (H / K).
    """
    state, q, k, v = (x.to(F64) for x in (state_HDE, q_KD, k_KD, v_HE))
    if normalize:
        q, k = unit(q), unit(k)
    group = state.shape[0] // k.shape[0]
    q, k = q.repeat_interleave(group, dim=0), k.repeat_interleave(group, dim=0)
    state = state * log_decay_H.to(F64).exp()[:, None, None]
    answer = torch.einsum("hd,hde->he", k, state)
    correction = (v - answer) * beta_H.to(F64)[:, None]
    state = state + torch.einsum("hd,he->hde", k, correction)
    out = torch.einsum("hd,hde->he", q, state)
    return out * (q.shape[-1] ** -0.5 if scale is None else scale), state


def mamba_step(
    state_HED: Tensor,
    x_HE: Tensor,
    dt_H: Tensor,
    a_H: Tensor,
    b_KD: Tensor,
    c_KD: Tensor,
    *,
    skip_H: Tensor | None = None,
    gate_HE: Tensor | None = None,
    dt_bias_H: Tensor | None = None,
    softplus_dt: bool = True,
) -> tuple[Tensor, Tensor]:
    """Mamba-2's selective state update, with one decay per head.

        h ← exp(dt · a) · h + dt · x · bᵀ;  out = (h · c + skip · x) · silu(gate), with dt ← softplus(dt + dt_bias)

    Dao and Gu 2024, https://arxiv.org/abs/2405.21060. Head h has group h // (H / K).
    """
    state, x, dt, b, c = (t.to(F64) for t in (state_HED, x_HE, dt_H, b_KD, c_KD))
    if dt_bias_H is not None:
        dt = dt + dt_bias_H.to(F64)
    if softplus_dt:
        dt = torch.log1p(dt.exp())
    group = state.shape[0] // b.shape[0]
    b, c = b.repeat_interleave(group, dim=0), c.repeat_interleave(group, dim=0)
    decay = (dt * a_H.to(F64)).exp()
    state = decay[:, None, None] * state + torch.einsum("h,he,hd->hed", dt, x, b)
    out = torch.einsum("hed,hd->he", state, c)
    if skip_H is not None:
        out = out + skip_H.to(F64)[:, None] * x
    if gate_HE is not None:
        out = out * functional.silu(gate_HE.to(F64))
    return out, state


def conv_step(
    state_CN: Tensor, x_C: Tensor, weight_CW: Tensor, *, bias_C: Tensor | None = None, silu: bool = True
) -> tuple[Tensor, Tensor]:
    """The causal depthwise convolution of the last W columns, the new one included; the state keeps its N."""
    columns = torch.cat([state_CN.to(F64), x_C.to(F64)[:, None]], dim=1)
    out = (columns[:, -weight_CW.shape[1] :] * weight_CW.to(F64)).sum(dim=1)
    if bias_C is not None:
        out = out + bias_C.to(F64)
    return functional.silu(out) if silu else out, columns[:, 1:]
