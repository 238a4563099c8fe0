"""Marks the weights of a reading with the formats that a scheme chooses for them.

To add a scheme: a function `(Settings, DType) -> Scheme` in the file of its kin, and its line in that file's table.
A scheme that is in none is kept with `understood=False`: its weights are counted by the size of the stored files
where that is known, else as unquantised, an upper bound, and the plan says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kvplan.core.dtypes import DType
from kvplan.core.model import Draft, Layer, Quantization, Weight
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.core.text import printable
from kvplan.sources.families.bricks.parts import Reading
from kvplan.sources.quantization import formats
from kvplan.sources.quantization.compressed import read_compressed_tensors
from kvplan.sources.quantization.floats import FLOATS
from kvplan.sources.quantization.integers import INTEGERS
from kvplan.sources.quantization.modules import module_of
from kvplan.sources.quantization.rarer import RARER
from kvplan.sources.quantization.scheme import NotModelledError, Scheme
from kvplan.sources.quantization.settings import Settings

_COMPRESSED = dict.fromkeys(("compressed-tensors", "compressed_tensors", "sparseml"), read_compressed_tensors)
_SCHEMES: dict[str, Callable[[Settings, DType], Scheme]] = {**INTEGERS, **FLOATS, **_COMPRESSED, **RARER}


def mark(reading: Reading, raw: Mapping[str, Any], dtype: DType, *, text_only: bool) -> tuple[Reading, Quantization]:
    """The reading with each weight's stored format, and the scheme; `text_only` leaves towers plain."""
    method = _method(raw)
    read = _SCHEMES.get(method)
    if read is None:
        return reading, Quantization(method=method, understood=False)
    try:
        marker = _Marker(read(Settings(raw), dtype), dtype, text_only=text_only)
    except NotModelledError as kind:
        return reading, Quantization(method=f"{method} ({printable(str(kind), max_length=40)})", understood=False)
    stored = replace(
        reading,
        layers=marker.layers(reading.layers),
        embeddings=marker.weights(reading.embeddings, None),
        head=marker.weights(reading.head, None),
    )
    if not marker.widths:  # a scheme that replaces nothing means something else than was read
        return reading, Quantization(method=method, understood=False)
    quantization = marker.quantization(method)
    return replace(stored, draft=reading.draft and marker.draft(reading.draft)), quantization


def _method(raw: Mapping[str, Any]) -> str:
    """The method's name; where the config leaves it out, what only one method's configs hold."""
    stated = raw.get("quant_method")
    if isinstance(stated, str):
        return stated
    marks = {
        "quant_algo": "modelopt",
        "config_groups": "compressed-tensors",
        "load_in_4bit": "bitsandbytes",
        "load_in_8bit": "bitsandbytes",
        "bits": "mlx",
    }
    return next((method for key, method in marks.items() if key in raw), "unnamed")


class _Marker:
    """Marks every weight with the format that a scheme chooses for it."""

    def __init__(self, scheme: Scheme, dtype: DType, *, text_only: bool) -> None:
        self._scheme = scheme
        self._dtype = dtype
        self._text_only = text_only
        self._kv_scale = StoredTensor("kv_scale", scheme.kv_scale_bits, formats.WHOLE) if scheme.kv_scale_bits else None
        self.widths: set[int] = set()
        """Bits of the elements of all formats that were chosen."""

    def quantization(self, method: str) -> Quantization:
        """The scheme as the model states it."""
        return Quantization(
            method=method,
            understood=True,
            bits=min(self.widths),
            exact=self._scheme.exact,
            kv_cache=self._scheme.kv_cache,
        )

    def layers(self, layers: Sequence[Layer]) -> list[Layer]:
        """The layers with their weights marked; equal ones stay one object."""
        made: dict[tuple[int, tuple[StoredFormat | None, ...]], Layer] = {}
        marked = []
        for i, layer in enumerate(layers):
            weights = self.weights(layer.weights, i)
            key = (id(layer), tuple(weight.stored for weight in weights))
            if key not in made:
                made[key] = replace(layer, weights=weights)
            marked.append(made[key])
        return marked

    def draft(self, draft: Draft) -> Draft:
        """The draft with its weights marked: layers under their numbers, or by names of their own."""
        first = draft.first_layer
        layers = tuple(
            replace(layer, weights=self.weights(layer.weights, None if first is None else first + i))
            for i, layer in enumerate(draft.layers)
        )
        return replace(draft, layers=layers, shared=self.weights(draft.shared, None))

    def weights(self, weights: Sequence[Weight], layer: int | None) -> tuple[Weight, ...]:
        """The weights marked; of the pieces of a fused matrix only the first holds what all of them share."""
        fused: set[str] = set()
        marked = []
        for weight in weights:
            stored = self._stored(weight, layer)
            name, bracket, _ = weight.name.partition("[")
            if stored is not None and bracket:
                if name in fused:
                    stored = stored.later_piece()
                fused.add(name)
            marked.append(weight if stored is None else replace(weight, stored=stored))
        return tuple(marked)

    def _stored(self, weight: Weight, layer: int | None) -> StoredFormat | None:
        module = module_of(weight, layer, self._dtype.bits)
        if module is None or (self._text_only and module.role == "tower"):
            return None
        stored = self._scheme.choose(module)
        if stored is not None:
            self.widths.add(stored.bits)
        if self._kv_scale is not None and layer is not None and module.last in ("k_proj", "v_proj"):
            stored = (stored or formats.plain(module.dtype_bits)).beside(self._kv_scale)
        return stored
