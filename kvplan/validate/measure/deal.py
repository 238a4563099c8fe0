"""What a layout of tp × cp × pp ranks gives to each: query heads, the KV heads that they read, tokens, layers.

    tp   query heads are dealt out contiguously; a rank holds the KV heads that its query heads read, latents whole
    cp   token i of a sequence lies on rank i mod cp (vLLM's `cp_kv_cache_interleave_size` 1), a window's tokens too
    pp   a stage holds whole layers

Nothing is computed by formula: heads and tokens are listed, and who holds how many is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from kvplan.validate.case import Case
from kvplan.validate.kernels.launch import Unsupported
from kvplan.validate.measure.pools import stored_type
from kvplan.validate.suite.correctness import TOLERANCE


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank stands: its index along tp, along cp, and its pipeline stage."""

    tp: int
    cp: int
    stage: int


@dataclass(frozen=True)
class Layout:
    """How many ranks there are along each axis."""

    tp: int
    pp: int
    cp: int

    @property
    def world(self) -> int:
        return self.tp * self.pp * self.cp

    def place(self, rank: int) -> Place:
        """tp runs fastest, then cp, then pp."""
        return Place(rank % self.tp, rank // self.tp % self.cp, rank // (self.tp * self.cp))

    def groups(self, axis: str) -> list[list[int]]:
        """The ranks that differ along one axis alone, group by group."""
        found: dict[Place, list[int]] = {}
        for rank in range(self.world):
            found.setdefault(replace(self.place(rank), **{axis: 0}), []).append(rank)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank holds of a case: query heads (linear: states), the KV heads that those read, tokens by position."""

    heads: slice
    kv_heads: tuple[int, ...]
    tokens: tuple[int, ...]


def share_of(case: Case, layout: Layout, place: Place) -> Share:
    """The share of a rank. Raises `Unsupported` for heads that are not dealt out, or do not share KV heads, evenly."""
    if case.tokens_per_entry and layout.cp > 1:
        raise Unsupported(f"`{case.name}`: entries of several tokens are not dealt out over cp {layout.cp}")
    units = (num_units(case), "heads"), (case.conv_channels, "channels"), (case.vector_elements, "numbers")
    for count, what in units:
        if count % layout.tp:
            raise Unsupported(f"`{case.name}`: {count} {what} are not dealt out evenly over tp {layout.tp}")
    each = num_units(case) // layout.tp
    heads = slice(place.tp * each, (place.tp + 1) * each)
    owned = range(heads.start, heads.stop)
    if case.keeps_states:
        return Share(heads, tuple(owned), ())
    oldest = max(case.held_len - case.window, 0) if case.window else 0
    tokens = tuple(i for i in range(oldest, case.held_len) if i % layout.cp == place.cp)
    if case.one_vector:
        return Share(heads, (0,), tokens)
    group, odd = divmod(case.num_heads, case.num_kv_heads)
    readers = Counter(head // max(group, 1) for head in owned)
    if odd or len(set(readers.values())) > 1:
        raise Unsupported(
            f"`{case.name}`: {case.num_heads} query heads share {case.num_kv_heads} KV heads unevenly on a rank of tp "
            f"{layout.tp}; choose a tp that divides the KV heads, or a multiple of them"
        )
    return Share(heads, tuple(sorted(readers)), tokens)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all ranks are told alike."""

    cases: tuple[Case, ...]
    layers: tuple[tuple[int, ...], ...]
    """For every layer of the model, in order, the cases whose caches it keeps."""
    stages: tuple[tuple[int, int], ...]
    layout: Layout
    seed: int

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Job:
        """The job of a JSON object; an entry of `layer_order` is an index into `cases`, or a list of them.

        Raises `Unsupported` for stages, names and layouts that make no sense, KeyError for a key that is missing.
        """
        order = ((entry,) if isinstance(entry, int) else tuple(entry) for entry in found["layer_order"])
        job = cls(
            cases=tuple(Case.from_json(case) for case in found["cases"]),
            layers=tuple(order),
            stages=tuple((start, stop) for start, stop in found["stages"]),
            layout=Layout(found["tp"], found["pp"], found["cp"]),
            seed=found["seed"],
        )
        job.check()
        return job

    def check(self) -> None:
        """Raise `Unsupported` for what some rank could not do, on all ranks alike, before any waits for another."""
        dealt = list(chain.from_iterable(range(start, stop) for start, stop in self.stages))
        if len(self.stages) != self.layout.pp or dealt != list(range(len(self.layers))):
            raise Unsupported(
                f"stages {list(self.stages)} do not deal {len(self.layers)} layers over pp {self.layout.pp}"
            )
        if len({case.name for case in self.cases}) < len(self.cases):
            raise Unsupported("two cases have the same name")
        for case in self.cases:
            stored_type(case.kv_dtype)
            if stored_type(case.dtype) not in TOLERANCE:
                raise Unsupported(f"`{case.name}`: activations are {case.dtype}; choose bf16 or fp16")
            for rank in range(self.layout.tp):
                share_of(case, self.layout, self.layout.place(rank))

    @property
    def hidden_size(self) -> int:
        """Numbers that stages hand on: as many as the widest layer's output, all sequences together."""
        return max(case.batch * num_units(case) * output_dim(case) for case in self.cases)


def num_units(case: Case) -> int:
    """What tensor parallelism deals out: query heads; of a recurrent layer, its states."""
    return case.num_kv_heads if case.keeps_states else case.num_heads


def output_dim(case: Case) -> int:
    """Numbers of one head's output; a latent's are those of its space."""
    return case.latent_dim if case.is_latent else case.value_dim
