"""A GGUF header to a ModelSpec: the family's own reader over the header's words, each weight as the file stores it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kvplan.core.dtypes import DType
from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec, Quantization, Source
from kvplan.core.weights import num_parameters
from kvplan.sources.config import spec_from_raw
from kvplan.sources.families.bricks.parts import Reading
from kvplan.sources.gguf.config import config_of
from kvplan.sources.gguf.header import GgufHeader
from kvplan.sources.gguf.metadata import Gguf
from kvplan.sources.gguf.stored import as_stored, scheme_name

IDLE = ("rope_freqs", "rope_factors_long", "rope_factors_short", "attn_rot_embd", "layer_output_scale")
"""Tensors that are no parameters: what positions are turned by, and Gemma 4's scalar of each layer."""
CORRECTION = "exp_probs_b"
"""What corrects a router: a parameter to some families, a buffer to others."""
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def spec_from_gguf(
    header: GgufHeader, *, id: str, source: Source, overrides: Mapping[str, Any] | None = None
) -> ModelSpec:
    """The model that a header describes.

    Its dtype is that of the file where it is not quantised, else fp16, in which llama.cpp keeps its KV cache. Where
    the tensors do not add up to the family's parameters, a note says by how much. Raises InputError for a file that
    is no language model, UnsupportedError for an architecture that kvplan does not read in this format.
    """
    what = "the GGUF file"
    if header.metadata.get("general.type") in ("adapter", "mmproj", "imatrix"):
        kind = header.metadata["general.type"]
        raise InputError(f"the GGUF file is no model but of type `{kind}`", hint="name the model that it belongs to")
    gguf = Gguf(header, what=what)
    main = scheme_name(gguf).removeprefix("gguf ")
    config = config_of(header, what=what) | {"dtype": _DTYPES.get(main, "float16")}

    def store(reading: Reading, config: Mapping[str, Any], dtype: DType) -> tuple[Reading, Quantization | None]:
        return as_stored(reading, gguf)

    model = spec_from_raw(
        config, id=id, source=source, overrides=overrides, stored_weight_bytes=header.total_bytes, store=store
    )
    positions = model.max_seq_len or gguf.number("context_length", 0) or None
    source = replace(source, notes=(*source.notes, *_notes(model, gguf)))
    return replace(model, source=source, max_seq_len=positions)


def _notes(model: ModelSpec, gguf: Gguf) -> list[str]:
    """Where the file's tensors and the family's parameters differ."""
    elements = _num_elements(gguf) - _num_elements(gguf, *IDLE)
    surplus = elements - num_parameters(model)
    correcting = _num_elements(gguf, CORRECTION)
    if surplus in (0, correcting):
        return []
    surplus -= correcting
    more = "more" if surplus > 0 else "fewer"
    return [f"the file holds {abs(surplus):,} parameters {more} than `{model.model_type}` has by its metadata"]


def _num_elements(gguf: Gguf, *roles: str) -> int:
    """Elements of all tensors, or of those of these roles."""
    return sum(
        tensor.num_elements
        for tensor in gguf.header.tensors
        if not roles or any(f"{role}." in f"{tensor.name}." for role in roles)
    )
