"""A model's own cache class in transformers, filled as the model fills it, and the bytes that it then holds.

The model is built from its config on torch's meta device, where tensors have shapes and no memory, and reads a prompt
and one token more; all that it hands to its cache is recorded. The same class, made anew, is then handed real tensors
of those shapes: what it slices, pads, joins and keeps alive is its own doing. No weights, and no formula of ours.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from kvplan.validate.measure.recording import Call, Recording, Replay

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STATES = ("past_key_values", "cache_params", "past_buckets_states", "state", "mems")
"""What models call that in their output which the next step goes on from."""


class FrameworkError(Exception):
    """Why the framework gives no figure, in one sentence; `hint` is the next step."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NoFigure(FrameworkError):
    """The framework runs such a model in a way that shows no cache to measure: told, and no failure of ours."""

    kind = "no figure"


@dataclass(frozen=True)
class Run:
    """One prompt and one token more on the meta device: the cache, what filled it, and what it held at both points."""

    model: Any
    cache: Any
    """None for a model that keeps nothing."""
    recording: Recording
    steps: tuple[list[Call], list[Call]]
    held: tuple[dict[str, Any], dict[str, Any]]


def measure_framework(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the cache of the class that a config.json names holds after a prompt, and one token later.

    A job has `config`, the raw config.json, and may have `batch` (2), `seq_len` (512), `encoder_seq_len` (by default
    the same), `dtype` (bf16), `device` (cpu) and `max_bytes`. The reading, at its top and again in `after_decode`:

        tensor_bytes        elements · element size, of all tensors
        storage_bytes       the storages under them, each once: a view keeps all of its own alive
        bookkeeping_bytes   single numbers beside them
        requested_bytes     what torch's allocator was asked for and has not got back; None on a CPU

    `layers` is run-length coded: [count, class, tensor bytes of one]. `kinds` are full, sliding and linear as the
    classes say, cross by the cache that a layer stands in, latent where the config has a `kv_lora_rank`.
    Raises FrameworkError where transformers or its class is missing, cannot be built, run or recorded, and for a cache
    past `max_bytes`, before any of it is allocated.
    """
    seq_len = job.get("seq_len", 512)
    model = build_model(job["config"], job.get("dtype") or "bf16")
    run = _run_on_meta(model, job.get("batch", 2), seq_len, job.get("encoder_seq_len") or seq_len)
    _check_size(run, job.get("max_bytes"))
    held, requested = _replay(run, torch.device(job.get("device") or "cpu"))
    if held != run.held:
        mine, own = (one[0]["storage_bytes"] for one in (held, run.held))
        raise _unrecorded(run, f"it holds {own} bytes when the model runs and {mine} when its calls are repeated")
    return {
        "framework": "transformers",
        "version": _library().__version__,
        "torch": str(torch.__version__),
        "model_class": type(model).__name__,
        "cache_class": None if run.cache is None else type(run.cache).__name__,
        **held[0],
        "requested_bytes": requested[0],
        "after_decode": {**held[1], "requested_bytes": requested[1]},
    }


def _library() -> Any:
    """transformers, kept off the network. Raises FrameworkError where it is missing or older than its linear layers."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
    try:
        library = import_module("transformers")
        _cache_classes()
    except (ImportError, AttributeError) as error:
        raise FrameworkError(
            f"transformers cannot be used: {error}", hint="pip install 'transformers>=5.23,<6'"
        ) from error
    library.logging.set_verbosity_error()
    return library


def _cache_classes() -> tuple[type, type, type]:
    """The class of caches, and the two that all their layers come from."""
    utils = import_module("transformers.cache_utils")
    return utils.Cache, utils.CacheLayerMixin, utils.LinearAttentionCacheLayerMixin


def build_model(config: Mapping[str, Any], dtype: str = "bf16") -> Any:
    """The model that a config names, without storage, without its quantisation, with eager attention.

    Only classes of transformers itself: `auto_map`, which would fetch code, is dropped.
    """
    if dtype not in DTYPES:
        raise FrameworkError(f"`{dtype}` is not a type that a model runs in", hint=f"one of {', '.join(DTYPES)}")
    library = _library()
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in library.CONFIG_MAPPING:
        raise FrameworkError(
            f"transformers {library.__version__} does not know the model type `{model_type}`",
            hint="a later version may: pip install --upgrade transformers",
        )
    model_class = _model_class(library, config, model_type)
    plain = {key: value for key, value in config.items() if key not in ("quantization_config", "auto_map")}
    try:
        with torch.device("meta"):
            model = model_class._from_config(
                library.CONFIG_MAPPING[model_type].from_dict(plain),
                dtype=DTYPES[dtype],
                attn_implementation="eager",
            )
        if any(".experts." in name for name, _ in model.named_parameters()):
            model.set_experts_implementation("batched_mm")  # runs on meta whatever the experts' width
    except Exception as error:
        raise _failed(f"cannot build `{model_class.__name__}` from this config", error) from error
    if "SequenceClassification" in model_class.__name__ and model.config.pad_token_id is None:
        model.config.pad_token_id = 0  # asked for when the batch is larger than 1
    return model.eval()


def _model_class(library: Any, config: Mapping[str, Any], model_type: str) -> Any:
    """The class that `architectures` names, else the one that generates text with this type of model."""
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if name is None:
        auto = import_module("transformers.models.auto.modeling_auto")
        generating = (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
        name = next((names[model_type] for names in generating if model_type in names), None)
    found = getattr(library, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, library.PreTrainedModel)):
        raise FrameworkError(
            f"transformers {library.__version__} has no model class `{name}` for the model type `{model_type}`",
            hint="`architectures` in the config names the class",
        )
    return found


def _failed(what: str, error: Exception, kind: type[FrameworkError] = FrameworkError) -> FrameworkError:
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return kind(f"transformers {_library().__version__} {what}: {said}")


def _unrecorded(run: Run, why: str) -> FrameworkError:
    return NoFigure(f"`{type(run.model).__name__}` fills its cache in a way that is not recorded: {why}")


def _run_on_meta(model: Any, batch: int, seq_len: int, encoder_seq_len: int) -> Run:
    """The model's own run over shapes, recorded."""

    def ids(length: int) -> torch.Tensor:
        return torch.zeros((batch, length), dtype=torch.long, device="meta")

    recording, meta, encodes = Recording(), torch.device("meta"), model.config.is_encoder_decoder
    try:
        with torch.no_grad(), recording.running(_cache_classes(), made=_cache_classes()[0]):
            prompt = {"decoder_input_ids": ids(seq_len)} if encodes else {}
            given = _sound(model, batch) or {"input_ids": ids(encoder_seq_len if encodes else seq_len)}
            out = model(**given, **prompt, use_cache=True)
            name, cache = _cache_in(model, out)
            prefill, held = list(recording.calls), _held(model, cache, meta)
            if cache is not None:
                encoded = {"encoder_outputs": (out.encoder_last_hidden_state,)} if encodes else {}
                model(
                    **{"decoder_input_ids" if encodes else "input_ids": ids(1), name: cache}, **encoded, use_cache=True
                )
    except FrameworkError:
        raise
    except Exception as error:
        raise _failed(f"cannot run `{type(model).__name__}` on torch's meta device", error, NoFigure) from error
    steps = (prefill, recording.calls[len(prefill) :])
    return Run(model, cache, recording, steps, (held, _held(model, cache, meta)))


def _sound(model: Any, batch: int) -> dict[str, torch.Tensor]:
    """What an encoder of sound reads in the place of tokens, as long as it must be: two frames a position (Whisper).

    Source: transformers 5.23, models/whisper/modeling_whisper.py `WhisperEncoder.forward`
    """
    if model.main_input_name != "input_features" or not hasattr(model.config, "max_source_positions"):
        return {}
    shape = (batch, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    return {"input_features": torch.zeros(shape, dtype=model.dtype, device="meta")}


def _cache_in(model: Any, out: Mapping[str, Any]) -> tuple[str, Any]:
    """(name, cache) of what a model gives back to go on from; ("", None) of one that keeps nothing."""
    name, cache = next(((name, out[name]) for name in _STATES if out.get(name) is not None), ("", None))
    if cache is None and (model.can_generate() or not _encodes(model)):
        raise NoFigure(f"`{type(model).__name__}` is no encoder, but gives no cache back that could be measured")
    if cache is not None and not isinstance(cache, _cache_classes()[0]):
        what = type(cache).__name__
        raise NoFigure(f"`{type(model).__name__}` keeps its state in a {what}, which is no cache of transformers")
    return name, cache


def _encodes(model: Any) -> bool:
    """Whether transformers counts a model's type among those that read text and write none."""
    auto = import_module("transformers.models.auto.modeling_auto")
    listed = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys() | auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.keys()
    return model.config.model_type in listed


def _check_size(run: Run, max_bytes: int | None) -> None:
    """Refuse what would not fit: all that is held, and beside it the operands and the result of the largest call."""
    largest = [call.handed_bytes for calls in run.steps for call in calls]
    largest += [size for held in run.held for _, _, size in held["layers"]]
    needed = max(held["storage_bytes"] for held in run.held) + 2 * max(largest, default=0)
    if max_bytes is not None and needed > max_bytes:
        raise FrameworkError(
            f"to measure this cache takes {needed} bytes, more than the {max_bytes} that may be used",
            hint="a smaller batch or seq_len",
        )


def _replay(run: Run, device: torch.device) -> tuple[tuple[dict[str, Any], ...], list[int | None]]:
    """(held, requested bytes) of a cache made anew, after the prompt's calls and after those of one token more."""
    before = _requested_bytes(device)
    replay = Replay(run.recording, device)
    held, requested = [], []
    for calls in run.steps:
        try:
            cache = None if run.cache is None else replay.twin(run.cache)
            for call in calls:
                replay.run(call)
        except LookupError as error:
            raise _unrecorded(run, str(error)) from error
        now = _requested_bytes(device)
        requested.append(None if before is None or now is None else now - before)
        held.append(_held(run.model, cache, device))
    return tuple(held), requested


def _requested_bytes(device: torch.device) -> int | None:
    """Bytes that torch's allocator was asked for and has not got back; a CPU's keeps no count."""
    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.synchronize(device)
    return int(torch.cuda.memory_stats(device).get("requested_bytes.all.current", 0))


def _held(model: Any, cache: Any, device: torch.device) -> dict[str, Any]:
    """The bytes of all tensors on `device` that a cache's layers hold; those without a dimension are bookkeeping."""
    kinds: dict[str, Counter[str]] = {}
    layers, storages, bookkeeping = [], set(), 0
    for layer, kind in _layers(model, cache):
        layer_bytes = 0
        for name, tensor in _tensors(layer, device):
            if tensor.dim() == 0:
                bookkeeping += tensor.nbytes
                continue
            counts = kinds.setdefault("linear" if name in ("conv_states", "recurrent_states") else kind, Counter())
            storage = tensor.untyped_storage()
            counts["tensor_bytes"] += tensor.nbytes
            counts["storage_bytes"] += 0 if storage._cdata in storages else storage.nbytes()
            storages.add(storage._cdata)
            layer_bytes += tensor.nbytes
        layers.append((type(layer).__name__, layer_bytes))
    return {
        "layers": [[len(list(same)), *what] for what, same in groupby(layers)],
        "kinds": {kind: dict(counts) for kind, counts in sorted(kinds.items())},
        "tensor_bytes": sum(counts["tensor_bytes"] for counts in kinds.values()),
        "storage_bytes": sum(counts["storage_bytes"] for counts in kinds.values()),
        "bookkeeping_bytes": bookkeeping,
    }


def _layers(model: Any, cache: Any) -> list[tuple[Any, str]]:
    """All layers of a cache, each with the kind of its keys and values."""
    if cache is None:
        return []
    plain = "latent" if getattr(model.config.get_text_config(decoder=True), "kv_lora_rank", None) else "full"
    own = getattr(cache, "self_attention_cache", cache).layers
    across = cache.cross_attention_cache.layers if hasattr(cache, "cross_attention_cache") else []
    kinds = ["sliding" if getattr(layer, "is_sliding", False) else plain for layer in own]
    return [*zip(own, kinds, strict=True), *((layer, "cross") for layer in across)]


def _tensors(layer: Any, device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    """(attribute, tensor) of all that a layer holds on a device, also inside lists and mappings."""
    for name, value in vars(layer).items():
        for leaf in tree_leaves(value):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == device.type:
                yield name, leaf
