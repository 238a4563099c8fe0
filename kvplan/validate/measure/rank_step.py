"""One decode step of one layer over several ranks: each computes over its share, and what they gather is the whole.

Every rank draws the same whole tensors from the same seed and keeps its slice. Partial results over a rank's tokens are
gathered along cp and merged as the splits of one sequence are, sinks once, in the merge; finished heads are gathered
along tp. A pool holds just the tokens that the next query sees: keys carry their position, so that the order of slots
is free, and what left the window is not kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kvplan.validate.case import Case
from kvplan.validate.kernels import linear, linear_reference, reference
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.combine import partials, plan_combine, unmerged
from kvplan.validate.kernels.decode import plan_decode
from kvplan.validate.kernels.decode_call import DecodeCall
from kvplan.validate.kernels.launch import Launch, Unsupported, run_all
from kvplan.validate.kernels.mla_decode import default_config, plan_mla_decode
from kvplan.validate.kernels.select import choose, machine_of
from kvplan.validate.kernels.state import StatePool
from kvplan.validate.measure import pools
from kvplan.validate.measure.deal import Job, Place, Share, output_dim, share_of
from kvplan.validate.suite.correctness import poison

SPLITS = 2
"""Of every rank's keys; one split would leave a finished output, which no other rank's can be added to."""


@dataclass(frozen=True)
class Rank:
    """This process: its number, its device, the groups that it gathers with."""

    rank: int
    device: torch.device
    job: Job
    groups: Mapping[str, Any]

    @classmethod
    def of(cls, job: Job, device: torch.device) -> Rank:
        """Every rank makes every group, in the same order. Raises `Unsupported` if there are too few or too many."""
        if dist.get_world_size() != job.layout.world:
            parts = f"tp {job.layout.tp} · pp {job.layout.pp} · cp {job.layout.cp}"
            raise Unsupported(f"{parts} are {job.layout.world} ranks, and {dist.get_world_size()} were started")
        groups = {}
        for axis in ("tp", "cp"):
            if getattr(job.layout, axis) > 1:
                groups[axis], _ = dist.new_subgroups_by_enumeration(job.layout.groups(axis))
        return cls(dist.get_rank(), device, job, groups)

    @cached_property
    def place(self) -> Place:
        return self.job.layout.place(self.rank)

    @property
    def leads(self) -> bool:
        """Whether it compares for its stage."""
        return self.place.tp == self.place.cp == 0

    @property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """Of its stage."""
        return self.job.layers[slice(*self.job.stages[self.place.stage])]

    def gather(self, mine: Tensor, axis: str, dim: int) -> Tensor:
        """Every rank's tensor along an axis of the layout, joined along `dim`."""
        if axis not in self.groups:
            return mine
        parts = [torch.empty_like(mine) for _ in range(getattr(self.job.layout, axis))]
        dist.all_gather(parts, mine.contiguous(), group=self.groups[axis])
        return torch.cat(parts, dim)


def allocate(rank: Rank, case: Case) -> pools.LayerCache | None:
    """One layer's cache of this rank: its heads, whole pages for its tokens; None for a layer that keeps nothing."""
    if case.keeps_nothing:
        return None
    share, tp = share_of(case, rank.job.layout, rank.place), rank.job.layout.tp
    mine = replace(case, num_kv_heads=len(share.kv_heads))
    if case.keeps_states:
        vectors, channels = case.vector_elements // tp, case.conv_channels // tp
        states = pools.states(replace(mine, conv_channels=channels, vector_elements=vectors), rank.device)
        return pools.LayerCache(states=states)
    own = replace(mine, seq_len=max(len(share.tokens), 1), prefix_tokens=0)
    pages = case.batch * -(-len(share.tokens) // case.page_size)
    tokens = pools.paged(own, pages, rank.device, seed=rank.job.seed) if case.paged else None
    if not case.tokens_per_entry:
        return pools.LayerCache(tokens)
    entries = pools.entries(mine, pools.entry_pages_held(mine), rank.device)
    return pools.LayerCache(tokens, entries, pools.open_entries(mine, rank.device))


@dataclass(frozen=True)
class Numbers:
    """One decode step's input, whole: queries of the new token, keys and values of all, the new one's included."""

    q_BHD: Tensor
    k_BTKD: Tensor
    v_BTKE: Tensor
    sinks_H: Tensor | None
    scale: float


def draw(case: Case, seed: int, device: torch.device) -> Numbers:
    """The same numbers on every rank, whatever its device. A latent's values are the first part of its keys."""
    source = torch.Generator().manual_seed(seed)
    dtype = pools.DTYPES[case.dtype]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source).to(dtype).to(device)

    if case.is_latent:
        dim = case.latent_dim + case.rope_dim
        k_BTKD = normal(case.batch, case.held_len, 1, dim)
        v_BTKE = k_BTKD[..., : case.latent_dim]
    else:
        dim = case.key_dim
        k_BTKD = normal(case.batch, case.held_len, case.num_kv_heads, dim)
        v_BTKE = normal(case.batch, case.held_len, case.num_kv_heads, case.value_dim)
    # sinks large enough that one too many or too few is an error beyond any rounding
    sinks_H = normal(case.num_heads) + 2.0 if case.sinks else None
    return Numbers(normal(case.batch, case.num_heads, dim), k_BTKD, v_BTKE, sinks_H, dim**-0.5)


def fill(cache: PagedCache, share: Share, held_len: int, numbers: Numbers) -> None:
    """This rank's slice of the prompt into its pages, then, as a step of its own, of the new token if it is here."""
    old = [i for i in share.tokens if i < held_len - 1]
    for positions in (old, list(share.tokens[len(old) :])):
        if positions:
            slots = cache.take([len(positions)] * len(numbers.q_BHD))
            k, v = (new[:, positions][:, :, share.kv_heads].flatten(0, 1) for new in (numbers.k_BTKD, numbers.v_BTKE))
            write(cache, k, None if cache.is_latent else v, slots)


def write(cache: PagedCache, k_TKD: Tensor, v_TKE: Tensor | None, slots_T: Tensor) -> None:
    """Tokens into their slots: by the kernel, but by torch where it would be interpreted and need not quantise."""
    if slots_T.is_cuda or cache.key_scales is not None:
        run_all(cache.plan_append(k_TKD, v_TKE, slots_T))
        return
    for pool, new in ((cache.keys, k_TKD), (cache.values, v_TKE)):
        if new is not None:  # as bytes, since torch indexes no 8-bit floats
            pool.flatten(0, 1).view(torch.uint8)[slots_T] = new.to(pool.dtype).contiguous().view(torch.uint8)


def partial_results(q_BHD: Tensor, cache: PagedCache, scale: float, value_dim: int) -> tuple[Tensor, Tensor]:
    """(acc B × H × S × E, stats B × H × S × 2) over the tokens that this rank holds; of no token, nothing weighs."""
    if not cache.keys.shape[0]:
        acc, stats = partials(q_BHD.shape[0], q_BHD.shape[1], SPLITS, value_dim, q_BHD.device)
        stats[..., 0], stats[..., 1] = -math.inf, 0.0
        return acc.zero_(), stats
    launch, acc, stats = unmerged(_split_plan(q_BHD, cache, scale))
    launch.run()
    return acc, stats


def _split_plan(q_BHD: Tensor, cache: PagedCache, scale: float) -> list[Launch]:
    machine = machine_of(q_BHD)
    if cache.is_latent:
        config, _ = default_config(q_BHD.shape[1], cache.keys.dtype, machine.target)
        return plan_mla_decode(q_BHD, cache, scale=scale, config=replace(config, num_splits=SPLITS))[1]
    choice = choose(DecodeCall(q_BHD, cache, scale).problem, machine)
    split = replace(choice, config=replace(choice.config, num_splits=SPLITS))
    return plan_decode(q_BHD, cache, scale=scale, choice=split)[1]


def attention_step(rank: Rank, case: Case, cache: PagedCache, seed: int) -> tuple[Tensor, Tensor | None]:
    """(output B × H × E of all heads, what float64 makes of the whole where this rank compares) of one new token."""
    share = share_of(case, rank.job.layout, rank.place)
    numbers = draw(case, seed, rank.device)
    poison(cache)
    fill(cache, share, case.held_len, numbers)
    q_BHD = numbers.q_BHD[:, share.heads]
    found = partial_results(q_BHD, cache, numbers.scale, output_dim(case))
    acc, stats = (rank.gather(part, "cp", dim=2) for part in found)
    out_BHE = torch.empty((*q_BHD.shape[:2], output_dim(case)), dtype=q_BHD.dtype, device=rank.device)
    sinks_H = None if numbers.sinks_H is None else numbers.sinks_H[share.heads]
    plan_combine(out_BHE, acc, stats, sinks_H=sinks_H).run()
    expected = whole_attention(case, numbers, cache.keys.dtype) if rank.leads else None
    return rank.gather(out_BHE, "tp", dim=1), expected


def whole_attention(case: Case, numbers: Numbers, stored: torch.dtype) -> Tensor:
    """The same step in float64 over the keys and values of all ranks, as they are stored."""
    k, v = (as_stored(part, stored) for part in (numbers.k_BTKD, numbers.v_BTKE))
    seen = reference.visible(1, case.held_len, window=case.window, device=k.device)
    rows = [
        reference.attention(q[None], k[b], v[b], seen, scale=numbers.scale, sinks_H=numbers.sinks_H)
        for b, q in enumerate(numbers.q_BHD)
    ]
    return torch.cat(rows)


def as_stored(x: Tensor, stored: torch.dtype) -> Tensor:
    """What a cache of that type gives back for x; int8: in steps of a 127th of each vector's largest magnitude."""
    if stored != torch.int8:
        return x.to(stored).to(torch.float64)
    step = x.to(torch.float64).abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127.0
    return (x.to(torch.float64) / step).round() * step


def state_step(rank: Rank, case: Case, pool: StatePool, seed: int) -> tuple[Tensor, Tensor | None]:
    """(outputs and states after it, B × H × (E + D · E), of all heads, float64's where this rank compares).

    The gated delta rule stands for every recurrence, each state with a key of its own: states are what is dealt out.
    """
    assert pool.recurrent is not None
    heads = share_of(case, rank.job.layout, rank.place).heads
    source = torch.Generator().manual_seed(seed)
    shape, dtype = (case.batch, case.num_kv_heads), pools.DTYPES[case.dtype]
    before = (
        torch.randn(*shape, case.key_dim, case.value_dim, generator=source).to(pool.recurrent.dtype).to(rank.device)
    )
    q, k = (torch.randn(*shape, case.key_dim, generator=source).to(dtype).to(rank.device) for _ in range(2))
    v = torch.randn(*shape, case.value_dim, generator=source).to(dtype).to(rank.device)
    decay, beta = (torch.rand(shape, generator=source).to(rank.device) for _ in range(2))
    slots = torch.tensor(pool.take(case.batch), dtype=torch.int32, device=rank.device)
    pool.recurrent[slots.long()] = before[:, heads]
    out = linear.delta_step(pool.recurrent, slots, *(x[:, heads] for x in (q, k, v, -decay, beta)))
    after = pool.recurrent[slots.long()].flatten(2)
    actual = rank.gather(torch.cat([out.float(), after.float()], dim=2), "tp", dim=1)
    if not rank.leads:
        return actual, None
    each = [linear_reference.delta_step(*one) for one in zip(before, q, k, v, -decay, beta, strict=True)]
    return actual, torch.stack([torch.cat([out, state.flatten(1)], dim=1) for out, state in each])
