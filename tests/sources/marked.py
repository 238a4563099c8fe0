"""Matrices and models with the formats that a quantisation config gives them."""

from typing import Any

from kvplan.core.dtypes import BF16
from kvplan.core.model import Layer, ModelSpec, Quantization, Weight
from kvplan.core.weights import computed_weight_bytes, stored_as, weight_bytes
from kvplan.sources.families.bricks.parts import Reading
from kvplan.sources.quantization import apply_quantization


def marked(config: dict[str, Any], *weights: Weight, layers: int = 1) -> tuple[list[Layer], Quantization | None]:
    layer = Layer(mixers=(), weights=weights)
    reading = Reading(hidden_size=1, vocab_size=1, layers=[layer] * layers, embeddings=(), head=())
    found, quantization = apply_quantization(reading, {"quantization_config": config}, BF16)
    return found.layers, quantization


def matrix(rows: int, columns: int, name: str = "mlp.down_proj.weight", part: Any = "mlp", **more: Any) -> Weight:
    return Weight(name=name, shape=(rows, columns), part=part, linear=True, **more)


def stored_bytes(config: dict[str, Any], weight: Weight) -> int:
    [layer], quantization = marked(config, weight)
    return weight_bytes(layer.weights[0], BF16, quantization)


def by_name(model: ModelSpec) -> dict[str, str]:
    """The format of each linear layer; of a layer's with the layer's number."""
    found = {}
    for i, index in enumerate(model.layer_order):
        for weight in model.layers[index].weights:
            stored = stored_as(weight, model.quantization)
            found[f"{i}.{weight.name.removesuffix('.weight')}"] = stored.name if stored else "plain"
    for weight in (*model.embeddings, *model.head):
        stored = stored_as(weight, model.quantization)
        found[weight.name.removesuffix(".weight")] = stored.name if stored else "plain"
    return found


def total(model: ModelSpec) -> int:
    return computed_weight_bytes(model, model.dtype or BF16, model.quantization)
