"""What is benchmarked: layers of real models at sizes that fill a GPU, full of random numbers.

A case makes inputs on a device, knows how many bytes and operations any correct program needs for it, and asks the
oracle for a sample of the answer. To add a case: a line in `DECODE`, `PREFILL` or `STATE`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from kvplan.validate.kernels import linear_reference, reference
from kvplan.validate.kernels.cache import PagedCache
from kvplan.validate.kernels.select import Problem
from kvplan.validate.suite import baselines
from kvplan.validate.suite.correctness import held

BF16, E4M3, INT8 = torch.bfloat16, torch.float8_e4m3fn, torch.int8


@dataclass(frozen=True)
class DecodeCase:
    """One new token for each of `batch` sequences of `num_tokens`; latent: MLA, whose value_dim are the key's first."""

    name: str
    batch: int
    num_tokens: int
    num_heads: int
    num_kv_heads: int
    key_dim: int = 128
    value_dim: int = 128
    stored: torch.dtype = BF16
    page_size: int = 16
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    latent: bool = False
    tuned: bool = False
    """Whether the sweep tries other configurations on it."""

    def make(self, device: torch.device, seed: int) -> DecodeInput:
        """Queries and a cache in shuffled pages; on the device `meta`, their shapes alone, for compiling ahead."""
        cache = PagedCache.allocate(
            num_pages=self.batch * -(-self.num_tokens // self.page_size),
            page_size=self.page_size,
            num_kv_heads=self.num_kv_heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
            dtype=self.stored,
            num_seqs=self.batch,
            max_tokens=self.num_tokens,
            device=device,
            latent=self.latent,
            shuffle=random.Random(seed),
        )
        q_BHD = torch.empty((self.batch, self.num_heads, self.key_dim), dtype=BF16, device=device)
        sinks_H = torch.empty(self.num_heads, device=device) if self.sinks else None
        if device.type != "meta":
            generator = torch.Generator(device).manual_seed(seed)
            fill(cache, generator)
            cache.take([self.num_tokens] * self.batch)
            for tensor in (q_BHD, sinks_H) if sinks_H is not None else (q_BHD,):
                tensor.normal_(generator=generator)
        return DecodeInput(self, q_BHD, cache, sinks_H)

    @property
    def seen(self) -> int:
        """Keys that the new token of one sequence sees."""
        return min(self.num_tokens, self.window or self.num_tokens)

    @property
    def flops(self) -> int:
        """Multiplications and additions of both matrix products over the visible keys."""
        return 2 * self.batch * self.num_heads * self.seen * (self.key_dim + self.value_dim)

    @property
    def problem(self) -> Problem:
        """As the choice of a kernel sees it."""
        return Problem(
            operation="mla_decode" if self.latent else "decode",
            batch=self.batch,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
            stored_bits=self.stored.itemsize * 8,
            page_size=self.page_size,
            num_keys=self.seen,
        )


@dataclass(frozen=True)
class DecodeInput:
    """One input set of a decode case."""

    case: DecodeCase
    q_BHD: Tensor
    cache: PagedCache
    sinks_H: Tensor | None

    @property
    def device(self) -> torch.device:
        return self.q_BHD.device

    @property
    def scale(self) -> float:
        """Of the softmax; small enough that no key takes all the weight, whatever the dimension."""
        return float(self.case.key_dim**-0.5)

    @property
    def required_bytes(self) -> int:
        """Bytes of the cache that must be read: those of the visible tokens, scales included, a latent's once."""
        slots = self.cache.keys.shape[0] * self.cache.page_size
        return self.cache.storage_bytes // slots * self.case.seen * self.case.batch

    @property
    def sample(self) -> list[int]:
        """The sequences that are checked."""
        return sorted({0, self.case.batch // 2, self.case.batch - 1})

    @cached_property
    def expected(self) -> Tensor:
        """The oracle's answer for the sample, in float64: sequences × H × E."""
        return torch.cat([self._expected(sequence) for sequence in self.sample])

    def _expected(self, sequence: int) -> Tensor:
        k_TKD, v_TKE = held(self.cache, sequence, first=self.case.num_tokens - self.case.seen)
        seen = torch.ones(1, self.case.seen, dtype=torch.bool, device=self.device)
        q_QHD = self.q_BHD[sequence : sequence + 1]
        softcap = self.case.softcap
        return reference.attention(q_QHD, k_TKD, v_TKE, seen, scale=self.scale, softcap=softcap, sinks_H=self.sinks_H)

    def for_baselines(self) -> baselines.Problem:
        """The same with contiguous keys and values, for libraries that know no pages."""
        k_BTKD, v_BTKE = (self._contiguous(pool) for pool in (self.cache.keys, self.cache.values))
        pages = baselines.Pages(self.cache.keys, self.cache.values, self.cache.block_table)
        return baselines.Problem(self.q_BHD[:, None], k_BTKD, v_BTKE, self.scale, window=self.case.window, pages=pages)

    def _contiguous(self, pool_PNKD: Tensor) -> Tensor:
        tokens = pool_PNKD[self.cache.block_table.long()].flatten(1, 2)
        return tokens[:, : self.case.num_tokens].contiguous()


@dataclass(frozen=True)
class PrefillCase:
    """`num_tokens` new tokens of each of `batch` sequences, keys contiguous, or paged if page_size says so.

    A window without causality is Longformer's band, |query − key| < window, with the first token seeing all and seen
    by all.
    """

    name: str
    batch: int
    num_tokens: int
    num_heads: int
    num_kv_heads: int
    head_dim: int = 128
    causal: bool = True
    window: int | None = None
    page_size: int = 0
    tuned: bool = False
    values: int = 0
    """Dimensions of a value, where they are not `head_dim`."""

    def make(self, device: torch.device, seed: int) -> PrefillInput:
        """Queries, keys and values, B × S × heads × D."""
        kv_heads = self.num_kv_heads
        heads = ((self.num_heads, self.head_dim), (kv_heads, self.head_dim), (kv_heads, self.value_dim))
        shapes = ((self.batch, self.num_tokens, *one) for one in heads)
        q, k, v = (torch.empty(shape, dtype=BF16, device=device) for shape in shapes)
        if device.type != "meta":
            generator = torch.Generator(device).manual_seed(seed)
            for tensor in (q, k, v):
                tensor.normal_(generator=generator)
        return PrefillInput(self, q, k, v)

    @property
    def value_dim(self) -> int:
        return self.values or self.head_dim

    @property
    def visible_pairs(self) -> int:
        """(query, key) pairs of one head of one sequence."""
        n, w = self.num_tokens, min(self.window or self.num_tokens, self.num_tokens)
        one_sided = w * (w + 1) // 2 + (n - w) * w
        if self.causal:
            return one_sided
        return n * n if self.window is None else 2 * one_sided - n + 2 * (n - w)

    @property
    def flops(self) -> int:
        """2 · B · H · (D + E) · visible pairs: a causal mask halves them."""
        return 2 * self.batch * self.num_heads * (self.head_dim + self.value_dim) * self.visible_pairs

    @property
    def problem(self) -> Problem:
        """As the choice of a kernel sees it."""
        return Problem(
            operation="prefill",
            batch=self.batch,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            key_dim=self.head_dim,
            value_dim=self.value_dim,
            stored_bits=16,
            page_size=self.page_size,
            num_keys=self.num_tokens,
            num_queries=self.num_tokens,
        )


@dataclass(frozen=True)
class PrefillInput:
    """One input set of a prefill case."""

    case: PrefillCase
    q_BSHD: Tensor
    k_BSKD: Tensor
    v_BSKD: Tensor

    @property
    def device(self) -> torch.device:
        return self.q_BSHD.device

    @property
    def scale(self) -> float:
        """Of the softmax."""
        return float(self.case.head_dim**-0.5)

    @property
    def required_bytes(self) -> int:
        """Inputs once, output once."""
        out = self.q_BSHD.nbytes // self.case.head_dim * self.case.value_dim
        return self.q_BSHD.nbytes + out + self.k_BSKD.nbytes + self.v_BSKD.nbytes

    @property
    def sample(self) -> list[int]:
        """The queries of the last sequence that are checked: both ends, the middle, and next to tile borders."""
        n = self.case.num_tokens
        return sorted({0, 1, n // 3, n // 2 - 1, n // 2, n - 129, n - 2, n - 1} & set(range(n)))

    @cached_property
    def expected(self) -> Tensor:
        """The oracle's answer for the sample, in float64: queries × H × D."""
        case = self.case
        seen = reference.visible(
            case.num_tokens,
            case.num_tokens,
            causal=case.causal,
            window=case.window,
            global_tokens=None if case.causal or case.window is None else torch.zeros(1, device=self.q_BSHD.device),
            device=self.q_BSHD.device,
        )
        rows = torch.tensor(self.sample, device=self.q_BSHD.device)
        return reference.attention(
            self.q_BSHD[-1, rows], self.k_BSKD[-1], self.v_BSKD[-1], seen[rows], scale=self.scale
        )

    def for_baselines(self) -> baselines.Problem:
        """As other libraries take it."""
        case = self.case
        return baselines.Problem(self.q_BSHD, self.k_BSKD, self.v_BSKD, self.scale, case.causal, case.window)

    def paged(self) -> PagedCache:
        """The keys and values in shuffled pages."""
        case, device = self.case, self.k_BSKD.device
        cache = PagedCache.allocate(
            num_pages=case.batch * -(-case.num_tokens // case.page_size),
            page_size=case.page_size,
            num_kv_heads=case.num_kv_heads,
            key_dim=case.head_dim,
            value_dim=case.value_dim,
            dtype=BF16,
            num_seqs=case.batch,
            max_tokens=case.num_tokens,
            device=device,
            shuffle=random.Random(0),
        )
        if device.type != "meta":
            counts = [case.num_tokens] * case.batch
            cache.append(self.k_BSKD.flatten(0, 1), self.v_BSKD.flatten(0, 1), counts)
        return cache


@dataclass(frozen=True)
class StateCase:
    """One step of a gated delta net for each of `batch` sequences: a hybrid's fixed state, read and written."""

    name: str
    batch: int
    num_key_heads: int
    num_heads: int
    key_dim: int = 128
    value_dim: int = 128

    def make(self, device: torch.device, seed: int) -> StateInput:
        """A state per sequence, in shuffled slots, and one token's inputs."""
        keys, values = (self.batch, self.num_key_heads, self.key_dim), (self.batch, self.num_heads, self.value_dim)
        state_SHDE = torch.empty((self.batch, self.num_heads, self.key_dim, self.value_dim), device=device)
        slots_B = torch.empty(self.batch, dtype=torch.int32, device=device)
        q, k, v = (torch.empty(shape, dtype=BF16, device=device) for shape in (keys, keys, values))
        log_decay, beta = (torch.empty(values[:2], device=device) for _ in range(2))
        if device.type != "meta":
            generator = torch.Generator(device).manual_seed(seed)
            for tensor in (state_SHDE, q, k, v, log_decay, beta):
                tensor.normal_(generator=generator)
            log_decay.abs_().neg_()
            beta.sigmoid_()
            slots_B.copy_(torch.randperm(self.batch, generator=torch.Generator().manual_seed(seed)))
        return StateInput(self, state_SHDE, slots_B, (q, k, v, log_decay, beta))

    @property
    def flops(self) -> int:
        """Two products with the state and one outer product."""
        return 6 * self.batch * self.num_heads * self.key_dim * self.value_dim


@dataclass(frozen=True)
class StateInput:
    """One input set of a state case; a step changes the state, so the oracle answers before the first."""

    case: StateCase
    state_SHDE: Tensor
    slots_B: Tensor
    inputs: tuple[Tensor, ...]
    expected: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.device.type != "meta":
            object.__setattr__(self, "expected", torch.stack([self._expected(sequence) for sequence in self.sample]))

    @property
    def device(self) -> torch.device:
        return self.state_SHDE.device

    @property
    def required_bytes(self) -> int:
        """Every state once read and once written."""
        return 2 * self.state_SHDE.nbytes

    @property
    def sample(self) -> list[int]:
        """The sequences that are checked."""
        return sorted({0, self.case.batch // 2, self.case.batch - 1})

    def _expected(self, sequence: int) -> Tensor:
        state_HDE = self.state_SHDE[int(self.slots_B[sequence])]
        return linear_reference.delta_step(state_HDE, *(one[sequence] for one in self.inputs))[0]


def fill(cache: PagedCache, generator: torch.Generator) -> None:
    """Random numbers in every slot, a slice at a time: what is stored in 8 bits is drawn in 16."""
    pools = [cache.keys] if cache.is_latent else [cache.keys, cache.values]
    for pool in pools:
        for part in pool.split(max(1, (64 << 20) // pool[0].numel())):
            if part.dtype == INT8:
                part.random_(-127, 128, generator=generator)
            else:
                part.copy_(torch.randn(part.shape, generator=generator, device=part.device, dtype=BF16))
    for scales in (cache.key_scales, cache.value_scales):
        if scales is not None:
            scales.uniform_(0.01, 0.03, generator=generator)


#: Layers of models at the head counts of one GPU of their usual deployment.
DECODE = (
    DecodeCase("Llama-3.1-8B, 32 × 8k", 32, 8192, 32, 8, page_size=128, tuned=True),
    DecodeCase("Llama-3.1-8B, 32 × 8k, page 16", 32, 8192, 32, 8, tuned=True),
    DecodeCase("Llama-3.1-8B, 1 × 128k", 1, 131_072, 32, 8, page_size=128),
    DecodeCase("Llama-2-7B (MHA), 16 × 4k", 16, 4096, 32, 32, page_size=128),
    DecodeCase("Mistral-7B, window 4k of 32k, 32 ×", 32, 32_768, 32, 8, window=4096, page_size=128),
    DecodeCase("Mistral-7B, window 4k of 8k, 32 ×", 32, 8192, 32, 8, window=4096, page_size=128),
    DecodeCase("Gemma-3-27B global, 16 × 16k", 16, 16_384, 32, 16, page_size=128),
    DecodeCase("gpt-oss-120b, window 128 + sinks, 256 × 4k", 256, 4096, 64, 8, 64, 64, window=128, sinks=True),
    DecodeCase("Gemma-2-9B, D256, soft cap, 16 × 8k", 16, 8192, 16, 8, 256, 256, softcap=50.0, page_size=64),
    DecodeCase("Llama-3.1-8B e4m3, 32 × 16k", 32, 16_384, 32, 8, stored=E4M3, page_size=128, tuned=True),
    DecodeCase("Llama-3.1-8B e4m3, 32 × 16k, page 16", 32, 16_384, 32, 8, stored=E4M3),
    DecodeCase("Llama-3.1-8B int8, 32 × 16k", 32, 16_384, 32, 8, stored=INT8, page_size=128),
    DecodeCase("DeepSeek-V3 over 8 GPUs, 64 × 8k", 64, 8192, 16, 1, 576, 512, page_size=64, latent=True, tuned=True),
    DecodeCase("DeepSeek-V3 whole, 64 × 8k", 64, 8192, 128, 1, 576, 512, page_size=64, latent=True, tuned=True),
)

PREFILL = (
    PrefillCase("causal, 2 × 8k, 32/8 heads, D128", 2, 8192, 32, 8, tuned=True),
    PrefillCase("causal, 1 × 16k, 32/8 heads, D128", 1, 16_384, 32, 8),
    PrefillCase("causal, 4 × 2k, 32/8 heads, D128", 4, 2048, 32, 8),
    PrefillCase("causal, paged 16, 2 × 8k, 32/8 heads, D128", 2, 8192, 32, 8, page_size=16, tuned=True),
    PrefillCase("window 4k, 1 × 16k, 32/8 heads, D128", 1, 16_384, 32, 8, window=4096),
    PrefillCase("full, 2 × 8k, 32 heads, D64", 2, 8192, 32, 32, 64, causal=False),
)

STATE = (StateCase("Qwen3-Next-80B, gated delta step, 256 sequences", 256, 16, 32),)
