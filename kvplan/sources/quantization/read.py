"""From a config to weights that say how they are stored.

To add a scheme: a function `(Settings, DType) -> Scheme` in the file of its kin, and its line in that file's table.
A scheme that is in none is kept with `understood=False`: its weights are counted by the size of the stored files
where that is known, else as unquantised, an upper bound, and the plan says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kvplan.core.dtypes import DType
from kvplan.core.errors import InputError
from kvplan.core.model import Layer, Quantization, Weight
from kvplan.core.stored import StoredFormat, StoredTensor
from kvplan.sources.families.parts import Reading
from kvplan.sources.quantization import formats
from kvplan.sources.quantization.compressed import read_compressed_tensors
from kvplan.sources.quantization.floats import FLOATS
from kvplan.sources.quantization.integers import INTEGERS
from kvplan.sources.quantization.modules import module_of
from kvplan.sources.quantization.rarer import RARER
from kvplan.sources.quantization.scheme import Scheme
from kvplan.sources.quantization.settings import Settings

SIDE_FILE = "hf_quant_config.json"
"""Where NVIDIA's modelopt states the scheme, in repositories whose config.json does not."""

_COMPRESSED = dict.fromkeys(("compressed-tensors", "compressed_tensors", "sparseml"), read_compressed_tensors)
_SCHEMES: dict[str, Callable[[Settings, DType], Scheme]] = {**INTEGERS, **FLOATS, **_COMPRESSED, **RARER}
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")


def with_side_file(config: Mapping[str, Any], side: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The config with the scheme that stands in `hf_quant_config.json`, where it has none of its own."""
    if side is None or config.get("quantization_config"):
        return config
    return {**config, "quantization_config": {**side, "quant_method": "modelopt"}}


def apply_quantization(
    reading: Reading, config: Mapping[str, Any], dtype: DType
) -> tuple[Reading, Quantization | None]:
    """The reading with each weight's stored format, and the scheme that the config names; None for plain weights."""
    raw, nested = _stated(config)
    if not raw:
        return reading, None
    if not isinstance(raw, Mapping):
        raise InputError("`quantization_config` is not an object", hint="pass `--set quantization_config=null`")
    method = _method(raw)
    read = _SCHEMES.get(method)
    if read is None:
        return reading, Quantization(method=method, understood=False)
    expert_dtype = config.get("expert_dtype")
    settings = Settings({"expert_dtype": expert_dtype, **raw} if expert_dtype else raw)
    marked = _Marker(read(settings, dtype), dtype, text_only=nested)
    stored = replace(
        reading,
        layers=marked.layers(reading.layers),
        embeddings=marked.weights(reading.embeddings, None),
        head=marked.weights(reading.head, None),
    )
    return (stored, marked.quantization(method)) if marked.widths else (reading, _unknown(method))


def _unknown(method: str) -> Quantization:
    return Quantization(method=method, understood=False)


def _stated(config: Mapping[str, Any]) -> tuple[Any, bool]:
    """(the scheme's object, whether it is the language model's own)."""
    stated = config.get("quantization_config") or config.get("compression_config") or config.get("quantization")
    if stated or "quantization_config" in config:
        return stated, False
    for key in _NESTED:
        inner = config.get(key)
        if isinstance(inner, Mapping) and (found := _stated(inner)[0]):
            return found, True
    return None, False


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
