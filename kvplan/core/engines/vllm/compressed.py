"""DeepSeek-V4 in vLLM: a window of vectors, entries, keys for an indexer, and what waits to be folded.

Four kinds of cache, none of which tensor parallelism divides:

    window     blocks of 64 tokens
    entries    blocks of 256 tokens: 256 / ratio vectors
    keys       the same blocks: 256 / ratio keys of the indexer in fp8, with an fp32 scale
    waiting    blocks of 4 tokens (of 8 where entries do not overlap): values and their gates in fp32

Source: vLLM 0.33, models/deepseek_v4/attention.py, compressor.py, sparse_mla.py, nvidia/flashinfer_sparse.py;
v1/attention/backends/mla/sparse_swa.py; for 0.20 to 0.32 the same files of those releases
"""

from dataclasses import dataclass

from kvplan.core.engines.deployment import Deployment, Switches
from kvplan.core.engines.vllm.devices import architecture
from kvplan.core.engines.vllm.pages import Spec
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.hardware import Gpu
from kvplan.core.mixers import CompressedAttention
from kvplan.core.model import ModelSpec
from kvplan.core.units import round_up

SINCE = (0, 20)
BLOCK, WINDOW_BLOCK = 256, 64
ROPE_DIM = 64
"""`qk_rope_head_dim` of every published DeepSeek-V4 config: the elements that packed rows hold in bf16."""
PLAIN_ROWS = "FLASHINFER_MLA_SPARSE_DSV4"
"""The backend that reads rows of one format, bf16 or fp8, on compute capability 10 alone."""
PACKED_ROWS = ("FLASHMLA_SPARSE", "FLASHMLA_SPARSE_DSV4")
BACKENDS = ("FLASHMLA_SPARSE_DSV4", PLAIN_ROWS)
"""Those that no other model has."""
_WAITING_BLOCK = {4: 4, 128: 8}
"""Tokens of a block of what waits, by the tokens of an entry."""
_DRAFTS = ("mtp", "ngram", "suffix")
_KEY_SCALE_GROUP = 128
_HOPPER, _BLACKWELL, _WORKSTATION = 9, 10, 12
_PLAIN_SINCE, _WORKSTATION_SINCE, _ALIGNED_SINCE = (0, 23), (0, 24), (0, 25)
BY_ITSELF_SINCE = (0, 30)
"""The release that takes packed rows where nobody names a format; earlier ones stop."""
_NONE_BEFORE = "before 0.30 it has to be named"


def applies(model: ModelSpec) -> bool:
    """Whether the model's layers fold tokens into entries."""
    return any(isinstance(mixer, CompressedAttention) for layer in model.layers for mixer in layer.mixers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """How vectors lie in a page, and what pages are padded to a multiple of."""

    name: str
    vector_bytes: int
    alignment: int
    key_alignment: int


def compressed_specs(
    mixer: CompressedAttention, deployment: Deployment, release: tuple[int, ...], block_size: int
) -> list[Spec]:
    """The caches of one layer: the window, and where it has entries those, their keys, and what waits of both.

        page      = round_up(⌊block / tokens of an entry⌋ · bytes, alignment)
        waiting   4 · 2 · (1 + overlaps) · width a token, seen for (1 + overlaps) · ratio tokens

    Raises UnsupportedError for entries of another length than 4 or 128 tokens.
    """
    rows = _rows(mixer, deployment, release)
    page = round_up(WINDOW_BLOCK * rows.vector_bytes, rows.alignment)
    found = [_window("latent_sliding", WINDOW_BLOCK, mixer.window, page, rows.name, "sliding")]
    if not mixer.ratio:
        return found
    if mixer.ratio not in _WAITING_BLOCK:
        message = f"vLLM folds 4 or 128 tokens into an entry, not {mixer.ratio}"
        raise UnsupportedError(message, hint="`--engine exact` counts what the model needs")
    row = "compressed_indexed" if mixer.index_dim else "compressed"
    entries = block_size // mixer.ratio
    page = round_up(entries * rows.vector_bytes, rows.alignment)
    found.append(Spec(kind="compressed", block_size=block_size, shape=(rows.name,), padded_bytes=page, row=row))
    if mixer.index_dim:
        key = mixer.index_dim + mixer.index_dim // _KEY_SCALE_GROUP * 4
        page = round_up(entries * key, rows.key_alignment)
        found.append(Spec(kind="indexer", block_size=block_size, padded_bytes=page, row=row))
    return found + [_waiting(mixer, width, rows, row) for width in (mixer.head_dim, mixer.index_dim) if width]


def _waiting(mixer: CompressedAttention, width: int, rows: _Rows, row: str) -> Spec:
    """Tokens that are not yet in an entry: a value and a gate each, twice where entries overlap, in fp32."""
    series = 1 + mixer.overlaps
    block = _WAITING_BLOCK[mixer.ratio]
    page = round_up(block * 2 * series * width * 4, rows.alignment)
    return _window("waiting", block, series * mixer.ratio, page, "fp32", row)


def _window(kind: str, block: int, window: int, page: int, name: str, row: str) -> Spec:
    return Spec(kind=kind, block_size=block, window=window, shape=(name,), padded_bytes=page, row=row)


def _rows(mixer: CompressedAttention, deployment: Deployment, release: tuple[int, ...]) -> _Rows:
    """Packed: fp8 with 8 bytes of scales, the rotary part in bf16, 512 → 448 + 128 + 8 = 584. Plain: one format.

    Packed pages are padded to 576 bytes, plain ones to 512; before 0.25 of plain ones the indexer's alone were.
    """
    if not _is_plain(deployment):
        packed = mixer.head_dim - ROPE_DIM + 2 * ROPE_DIM + 8
        return _Rows(name="fp8_ds_mla", vector_bytes=packed, alignment=576, key_alignment=576)
    fp8 = deployment.key_dtype.name.startswith("fp8")
    aligned = release >= _ALIGNED_SINCE
    return _Rows(
        name="fp8" if fp8 else "bf16",
        vector_bytes=mixer.head_dim * (1 if fp8 else 2),
        alignment=512 if aligned else 1,
        key_alignment=512 if aligned else 576,
    )


def _is_plain(deployment: Deployment) -> bool:
    return asks_plain(deployment.gpu, deployment.switches)


def asks_plain(gpu: Gpu | None, switches: Switches) -> bool:
    """Whether the backend that is asked for reads rows of one format on such a GPU."""
    return _asked(switches) == PLAIN_ROWS and not (gpu is not None and gpu.arch.partition(".")[0] == str(_WORKSTATION))


def _asked(switches: Switches) -> str:
    return (switches.attention_backend or "").upper()


def check_compressed(model: ModelSpec, deployment: Deployment, release: tuple[int, ...]) -> None:
    """Raises InputError for what vLLM, or a kernel of its, does not take beside such layers.

    UnsupportedError for releases without them, and for devices whose layout is not known.
    """
    if not applies(model):
        return
    if release < SINCE:
        message = f"vLLM runs `{model.model_type}` from {'.'.join(map(str, SINCE))} on"
        raise UnsupportedError(message, hint="a newer version, or `--engine exact`")
    _check_device(model, deployment, release)
    _check_options(model, deployment)
    _check_rows(deployment, release)
    _check_output(model, deployment)


def _check_device(model: ModelSpec, deployment: Deployment, release: tuple[int, ...]) -> None:
    gpu = deployment.gpu
    if gpu is not None and gpu.vendor.lower() not in ("", "nvidia"):
        message = f"how vLLM keeps the cache of `{model.model_type}` on {gpu.vendor} GPUs is not known to kvplan"
        raise UnsupportedError(message, hint="an NVIDIA GPU, or `--engine exact`")
    arch = architecture(deployment)
    known = (_HOPPER, _BLACKWELL, _WORKSTATION) if release >= _WORKSTATION_SINCE else (_HOPPER, _BLACKWELL)
    if int(arch) not in known:
        message = f"vLLM's kernels for `{model.model_type}` do not run at compute capability {arch}"
        raise InputError(message, hint=f"one of {', '.join(map(str, known))}")


def _check_options(model: ModelSpec, deployment: Deployment) -> None:
    """Blocks of another length fit no kernel; the planning stops at assertions of its own for the others."""
    switches = deployment.switches
    if switches.block_size not in (None, BLOCK):
        message = f"the kernels for `{model.model_type}` take blocks of {BLOCK} tokens, not {switches.block_size}"
        raise InputError(message, hint=f"`--block-size {BLOCK}`")
    if deployment.dcp > 1:
        raise InputError("vLLM deals no window out to decode context parallelism", hint="`dcp` 1")
    if switches.hybrid_manager is False:
        message = f"vLLM does not plan the cache of `{model.model_type}` without its hybrid manager"
        raise InputError(message, hint="leave the hybrid KV cache manager on")
    if switches.num_speculative_tokens and switches.speculative_method not in _DRAFTS:
        message = f"what drafts for `{model.model_type}` by `{switches.speculative_method}` is not known to kvplan"
        raise UnsupportedError(message, hint=f"one of {', '.join(_DRAFTS)}")


def _check_rows(deployment: Deployment, release: tuple[int, ...]) -> None:
    """The formats of each kernel."""
    key, asked, arch = deployment.key_dtype, _asked(deployment.switches), int(architecture(deployment))
    if asked.startswith("FLASHINFER_MLA_SPARSE") and asked != PLAIN_ROWS:
        raise InputError(f"{asked} is not a backend of DeepSeek-V4", hint=f"`{PLAIN_ROWS}`, or none")
    if asked == PLAIN_ROWS and (release < _PLAIN_SINCE or arch not in (_BLACKWELL, _WORKSTATION)):
        message = f"{asked} runs from vLLM {'.'.join(map(str, _PLAIN_SINCE))} on, on Blackwell"
        raise InputError(message, hint="leave `--attention-backend` out")
    if asked in PACKED_ROWS and arch == _WORKSTATION:
        raise InputError(f"{asked} does not run at compute capability 12", hint="leave `--attention-backend` out")
    if _is_plain(deployment):
        if key.name not in ("fp8", "bf16") and key != deployment.dtype:
            raise InputError(f"{asked} reads rows of bf16 or fp8, not {key.name}", hint="`--kv-dtype fp8`")
        return
    if not key.name.startswith("fp8"):
        message = f"vLLM keeps DeepSeek-V4's vectors in fp8_ds_mla, not in {key.name}"
        by_itself = "`--kv-dtype fp8`" + (", or none" if release >= BY_ITSELF_SINCE else f"; {_NONE_BEFORE}")
        raise InputError(message, hint=by_itself)


def _check_output(model: ModelSpec, deployment: Deployment) -> None:
    """Each rank projects whole groups of heads."""
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name.endswith("o_a_proj.weight") and weight.split and weight.split.units % deployment.tp:
                groups = weight.split.units
                message = f"{groups} groups of the output projection cannot be dealt out to `tp` {deployment.tp}"
                raise InputError(message, hint=f"a `tp` that divides {groups}")
