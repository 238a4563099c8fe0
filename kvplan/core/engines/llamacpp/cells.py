"""How many cells each of a context's caches has: n_ctx as asked, padded, shared out among sequences.

    unified:      n_ctx_seq = n_ctx, one stream
    not unified:  n_ctx_seq = ⌈⌊n_ctx / n_seq_max⌋ / 256⌉ · 256, one stream a sequence, n_ctx = n_ctx_seq · n_seq_max
    sliding:      min(n_ctx_seq, window · (n_seq_max if unified else 1) + n_ubatch), in 256s too

Source: llama.cpp b11434, src/llama-context.cpp `llama_context::llama_context`, src/llama-kv-cache-iswa.cpp
"""

from dataclasses import dataclass

from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.errors import InputError
from kvplan.core.units import ceil_div, round_up, smaller

PAD = 256
"""Cells come in multiples of so many, whatever the cache."""
MAX_SEQUENCES = 256
"""src/llama-cparams.h `LLAMA_MAX_SEQ`."""
DEFAULT_BATCH, DEFAULT_UBATCH = 2048, 512
"""src/llama-context.cpp `llama_context_default_params`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """The sizes of one context; its counts may be int64 arrays (see `core.sweep`)."""

    n_ctx_seq: int
    """Cells of one stream: tokens that one sequence can have."""
    n_seq_max: int
    n_ubatch: int
    unified: bool
    swa_full: bool
    n_rs_seq: int = 0
    """Earlier states that each sequence keeps besides its own."""

    @property
    def n_stream(self) -> int:
        """Buffers of `n_ctx_seq` cells each."""
        return 1 if self.unified else self.n_seq_max

    @property
    def n_ctx(self) -> int:
        """Cells over all sequences, as llama.cpp prints them."""
        return self.n_ctx_seq * self.n_stream

    def sliding(self, window: int, *, unified: bool | None = None) -> int:
        """Cells of one stream of a layer with a window."""
        if self.swa_full:
            return self.n_ctx_seq
        in_one = self.unified if unified is None else unified
        kept = window * (self.n_seq_max if in_one else 1) + self.n_ubatch
        return round_up(smaller(self.n_ctx_seq, kept), PAD)

    def folded(self, ratio: int) -> int:
        """Cells of one stream of entries of `ratio` tokens each (src/llama-kv-cache-dsv4.cpp)."""
        return round_up(ceil_div(self.n_ctx_seq, ratio), PAD)


def cells_of(switches: Switches, n_ctx: int, *, n_seq_max: int | None = None, n_rs_seq: int = 0) -> Cells:
    """The context that `-c n_ctx` gives.

    One sequence unless `max_num_seqs` says otherwise, as in libllama; llama-server's `--parallel -1` makes it 4 that
    share one buffer (tools/server/server.cpp). A micro-batch is no longer than a batch, and that no longer than n_ctx.
    """
    sequences = (switches.max_num_seqs or 1) if n_seq_max is None else n_seq_max
    batch = smaller(n_ctx, switches.max_num_batched_tokens or DEFAULT_BATCH)
    padded, unified = round_up(n_ctx, PAD), bool(switches.kv_unified)
    return Cells(
        n_ctx_seq=padded if unified else round_up(padded // sequences, PAD),
        n_seq_max=sequences,
        n_ubatch=smaller(batch, switches.num_ubatch_tokens or DEFAULT_UBATCH),
        unified=unified,
        swa_full=bool(switches.swa_full),
        n_rs_seq=n_rs_seq,
    )


def check_sizes(deployment: Deployment) -> None:
    """Raises InputError for counts that llama.cpp refuses."""
    switches = deployment.switches
    counts = {
        "max_num_seqs": switches.max_num_seqs,
        "max_num_batched_tokens": switches.max_num_batched_tokens,
        "num_ubatch_tokens": switches.num_ubatch_tokens,
        "max_model_len": deployment.max_model_len,
    }
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"`{name}` cannot be {count}", hint="1 or more")
    if (switches.max_num_seqs or 1) > MAX_SEQUENCES:
        raise InputError(
            f"llama.cpp holds at most {MAX_SEQUENCES} sequences, not {switches.max_num_seqs}",
            hint=f"`max_num_seqs` up to {MAX_SEQUENCES}",
        )
