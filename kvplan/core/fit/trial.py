"""One start of the engine with some length and some limit of requests, and how many requests it then holds."""

from dataclasses import dataclass, replace
from functools import cached_property

from kvplan.core.boot import Boot, boot, boot_with, engine_accounts
from kvplan.core.engines.pool import Budget
from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec
from kvplan.core.serving import Serving

UNLIMITED = 2**24
"""Tokens up to which is searched where a model states no longest length."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one start went."""

    serving: Serving
    boot: Boot
    length: int
    """Tokens of one request."""
    max_concurrency: float
    """Requests that the pool holds, with the fraction; 0 where the engine does not start."""
    limit: float
    """Requests that run at once by the engine's own limit."""
    refused: bool = False
    """The engine does not even try."""

    @cached_property
    def concurrency(self) -> int:
        """Whole requests at once."""
        return int(min(self.max_concurrency, self.limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is held while lengths and numbers of requests are searched."""

    model: ModelSpec
    serving: Serving
    kv_memory_bytes: int | None = None
    on_gpu: bool = False
    """A pool of a given size is one that the engine is told: it has to fit on the GPU."""
    hold_limit: bool = False
    """The limit of requests at once stays as it is, the engine's own included."""
    at_low_end: bool = False
    """Judge by the low end of the account's spread."""

    @property
    def is_on_gpu(self) -> bool:
        """Whether the memory of a GPU has a say."""
        return self.kv_memory_bytes is None or self.on_gpu

    @property
    def limit_is_held(self) -> bool:
        """Whether how many requests run at once is not to be searched."""
        return self.hold_limit or self.serving.switches.max_num_seqs is not None

    @property
    def longest(self) -> int:
        """Tokens of the longest request that the model takes."""
        return self.model.max_seq_len or UNLIMITED

    def at(self, length: int, requests: int | None = None) -> Trial:
        """The engine's start for requests of `length` tokens; `requests` limits those at once."""
        serving = self._told(length, requests)
        found, refused = self._boot(serving)
        if not found.starts or found.pool is None:
            return Trial(serving=serving, boot=found, length=length, max_concurrency=0.0, limit=0.0, refused=refused)
        pooled, pool = serving.engine.pooled, found.pool
        limit, concurrency = float("inf"), pool.max_concurrency
        if pooled is not None and pooled.shares_length:
            limit, concurrency = float(serving.switches.max_num_seqs or 1), pool.num_tokens / length
        elif pooled is not None and pooled.runs_at_once is not None:
            limit = float(pooled.runs_at_once(serving.deployment))
        return Trial(serving=serving, boot=found, length=length, max_concurrency=concurrency, limit=limit)

    def _told(self, length: int, requests: int | None) -> Serving:
        serving, switches = self.serving, self.serving.switches
        if requests is not None:
            switches = replace(switches, max_num_seqs=requests)
        pooled = serving.engine.pooled
        whole = length * (switches.max_num_seqs or 1) if pooled and pooled.shares_length else length
        encoder = whole if serving.encoder_follows else serving.encoder_seq_len
        return replace(serving, seq_len=whole, encoder_seq_len=encoder, switches=switches)

    def _boot(self, serving: Serving) -> tuple[Boot, bool]:
        """(what happens, whether the engine refuses the settings); an engine that cannot make a pool does not start."""
        pooled = serving.engine.pooled
        try:
            if pooled is not None:
                pooled.check(self.model, serving.deployment)
        except InputError as error:
            return _refusal(error), True
        try:
            found = boot(self.model, serving, self.kv_memory_bytes, on_gpu=self.on_gpu)
            if self.at_low_end and found.sized_by is not None:
                found = replace(found, starts=found.starts and found.certain)
            elif self.at_low_end and found.accounts and found.starts:
                found = boot_with(self.model, serving, max(1, found.kv_memory_bytes - found.spread_bytes))
        except InputError as error:
            return replace(_refusal(error), accounts=self._accounts(serving)), False
        return found, False

    def _accounts(self, serving: Serving) -> tuple[Budget, ...]:
        """None where the engine has no account of such a GPU."""
        try:
            return engine_accounts(self.model, serving) if self.is_on_gpu else ()
        except InputError:
            return ()


def _refusal(error: InputError) -> Boot:
    return Boot(
        accounts=(), kv_memory_bytes=0, spread_bytes=0, pool=None, starts=False, certain=True, reasons=(str(error),)
    )
