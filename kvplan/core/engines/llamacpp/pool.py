"""The context as a pool: llama.cpp allocates what `-c` asks for when it starts, or fails."""

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.llamacpp.architectures import LATENT_CACHES, architecture_of, ignores_a_window, latent_cache
from kvplan.core.engines.llamacpp.cells import PAD, Cells, cells_of
from kvplan.core.engines.llamacpp.devices import context_bytes, context_cells, placed, shares_of
from kvplan.core.engines.llamacpp.memory import Held
from kvplan.core.engines.pool import KVPool, PoolGroup
from kvplan.core.mixers import CrossAttention, LatentAttention
from kvplan.core.model import ModelSpec
from kvplan.core.units import MIB

LONGEST = 2**31 - PAD
"""Positions are 32-bit (include/llama.h `llama_pos`)."""
FIT_MARGIN_MIB = 1024
"""What `--fit` leaves free of each device (common/fit.cpp)."""


def pool(model: ModelSpec, deployment: Deployment, kv_memory_bytes: int | None, *, version: str) -> KVPool:
    """What a context of n_ctx cells takes of the device where most of it lies, and whether that fits.

    `num_tokens` is n_ctx, over all sequences. `max_model_len` is what one sequence can have of it: all of it where the
    sequences share one buffer. With `kv_memory_bytes` of each device, `longest_request` is what fits, found exactly.
    """
    context = context_cells(model, deployment, deployment.max_model_len)
    devices = context_bytes(model, deployment, context).devices
    fullest = max(range(len(devices)), key=lambda device: devices[device])
    allocated = devices[fullest]
    given = allocated if kv_memory_bytes is None else kv_memory_bytes
    fits = allocated <= given
    fitting = context if fits else cells_at(deployment, longest_n_ctx(model, deployment, given))
    groups = tuple(_group(kept, n, context) for kept, n in placed(model, deployment)[fullest].items())
    whole = [g for g in groups if g.window is None and g.kind != "linear" and g.block_size == PAD]
    per_block = whole or list(groups[:1])
    return KVPool(
        engine="llamacpp",
        version=version,
        kv_memory_bytes=given,
        allocated_bytes=allocated,
        block_size=PAD,
        bytes_per_block=sum(group.page_bytes * group.num_layers for group in per_block),
        num_blocks=context.n_ctx // PAD,
        num_tokens=context.n_ctx,
        max_concurrency=float(context.n_stream),
        max_model_len=context.n_ctx_seq,
        blocks_per_request=context.n_ctx_seq // PAD,
        fits_one=fits,
        longest_request=min(fitting.n_ctx_seq, context.n_ctx_seq) if fitting else 0,
        groups=groups,
        notes=_notes(model, deployment, context, fitting if not fits else None, fits=fits),
    )


def cells_at(deployment: Deployment, n_ctx: int) -> Cells | None:
    """The context of n_ctx cells; None where there are none."""
    return cells_of(deployment.switches, n_ctx) if n_ctx else None


def longest_n_ctx(model: ModelSpec, deployment: Deployment, kv_memory_bytes: int) -> int:
    """The longest n_ctx whose context takes at most so many bytes of each device; 0 where none does.

    Cells come in 256s for every sequence, or for all together; bytes never fall with them, so the search is exact.
    """
    step = PAD * (1 if deployment.switches.kv_unified else deployment.switches.max_num_seqs or 1)

    def fits(steps: int) -> bool:
        context = context_cells(model, deployment, steps * step)
        return max(context_bytes(model, deployment, context).devices) <= kv_memory_bytes

    low, high = 0, LONGEST // step + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * step


def held(model: ModelSpec, deployment: Deployment, tokens: int, requests: int) -> tuple[int, ...]:
    """Bytes on each device of a context for `requests` sequences of `tokens` tokens: n_ctx = requests · tokens."""
    context = context_cells(model, deployment, requests * tokens, requests)
    return context_bytes(model, deployment, context).devices


def _group(kept: Held, count: int, context: Cells) -> PoolGroup:
    """Blocks are 256 cells; a sequence's state is one block of all its tokens, and one more for each that it keeps."""
    if not kept.bytes_per_cell:
        return PoolGroup(
            kind=kept.kind,
            num_layers=count,
            block_size=context.n_ctx_seq,
            page_bytes=kept.bytes_per_sequence,
            blocks_per_request=1 + context.n_rs_seq,
        )
    return PoolGroup(
        kind=kept.kind,
        num_layers=count,
        block_size=PAD * kept.ratio,
        page_bytes=PAD * kept.bytes_per_cell,
        blocks_per_request=kept.cells(context) // PAD,
        window=kept.window,
    )


def _notes(
    model: ModelSpec, deployment: Deployment, context: Cells, fitting: Cells | None, *, fits: bool
) -> tuple[str, ...]:
    """What the log prints, and what of the model kvplan does not know or llama.cpp does not do."""
    notes = [_printed(model, deployment, context)]
    if not fits:
        longest = f"n_ctx up to {fitting.n_ctx:,} fits" if fitting else "no n_ctx fits"
        notes.append(f"{longest}; `--fit` may lower n_ctx by itself, and leaves {FIT_MARGIN_MIB} MiB of a device free")
    if context.unified and context.n_seq_max > 1:
        notes.append(f"{context.n_seq_max} sequences share {context.n_ctx:,} cells; one of them may take them all")
    notes += _model_notes(model, deployment)
    host = context_bytes(model, deployment, context).host
    if host:
        notes.append(f"{host / MIB:,.2f} MiB of the context lie with the layers that stay with the CPU")
    if deployment.switches.num_speculative_tokens and deployment.switches.speculative_method != "ngram":
        notes.append(_draft_note(model, deployment))
    if len(shares_of(deployment)) > 1:
        notes.append("a draft's layers in the same file shift the devices' cuts by as many places; not counted here")
    return tuple(notes)


def _draft_note(model: ModelSpec, deployment: Deployment) -> str:
    if deployment.switches.speculative_method != "mtp":
        return "a draft model has a context of its own, which is not counted here"
    if model.draft is None:
        return "kvplan knows of no layers that draft in this model: their own context is not counted"
    return "the layers that draft have a context of their own with as many cells, counted with the output's device"


def _model_notes(model: ModelSpec, deployment: Deployment) -> list[str]:
    notes = []
    arch = architecture_of(model)
    if arch is None:
        notes.append(
            f"kvplan does not know whether llama.cpp runs `{model.model_type}`; its layers are taken as they are, "
            "without windows"
        )
    elif ignores_a_window(model):
        notes.append(f"llama.cpp's `{arch}` does not honour the model's window: every layer holds all tokens")
    mixers = [mixer for layer in model.layers for mixer in layer.mixers]
    if any(isinstance(mixer, CrossAttention) for mixer in mixers):
        notes.append("keys and values of the encoder's output are computed anew for each micro-batch, and not kept")
    if arch is not None and any(isinstance(mixer, LatentAttention) for mixer in mixers):
        notes.append(_latent_note(model, deployment))
    return notes


def _latent_note(model: ModelSpec, deployment: Deployment) -> str:
    layout = latent_cache(model, deployment)
    if layout != "alone":
        return f"of latent attention it holds {LATENT_CACHES[layout].partition(':')[0]}"
    return (
        "a GGUF without `attention.key_length_mla` (older conversions, older builds) holds the keys and values of "
        "every head instead of the latent: `latent_cache=expanded`"
    )


def _printed(model: ModelSpec, deployment: Deployment, context: Cells) -> str:
    """The sizes of the caches as the log has them, over all devices: full ones, sliding ones, states."""
    sums: dict[str, int] = {}
    for holds in placed(model, deployment).values():
        for kept, count in holds.items():
            line = "states" if not kept.bytes_per_cell else kept.kind if kept.window is None else "SWA"
            sums[line] = sums.get(line, 0) + count * kept.bytes_for(context)
    parts = [f"{name} {num_bytes / MIB:,.2f} MiB" for name, num_bytes in sums.items()]
    return (
        f"the log has n_ctx = {context.n_ctx}, n_ctx_seq = {context.n_ctx_seq}, "
        f"{context.n_seq_max}/{context.n_stream} seqs; {', '.join(parts) or 'no cache'}"
    )
