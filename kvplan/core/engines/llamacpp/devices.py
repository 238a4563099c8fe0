"""Which device each layer stands on, and what of the context lies there with it.

Source: llama.cpp b11434, src/llama-model.cpp `load_tensors` (`get_layer_buft_list`)
"""

import struct
from bisect import bisect_right
from dataclasses import dataclass

from kvplan.core.engines.deployment import Deployment
from kvplan.core.engines.llamacpp.architectures import ROLLBACK, architecture_of
from kvplan.core.engines.llamacpp.cells import Cells, cells_of
from kvplan.core.engines.llamacpp.memory import Held, held_by, held_by_draft
from kvplan.core.errors import InputError
from kvplan.core.model import ModelSpec

HOST = -1
"""The device of layers that stay with the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSplit:
    """The device of every layer and of the output; `HOST` where it is the CPU. The token table is always there."""

    layers: tuple[int, ...]
    output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextBytes:
    """Where a context's bytes lie."""

    devices: tuple[int, ...]
    """Bytes on each GPU."""
    host: int
    """Bytes of the layers that stay with the CPU."""

    @property
    def total(self) -> int:
        """All of them: llama.cpp's `context` in its memory breakdown."""
        return self.host + sum(self.devices)


def split_layers(
    model: ModelSpec,
    num_gpu_layers: int | None = None,
    tensor_split: tuple[float, ...] = (1.0,),
    *,
    output_last: bool = False,
) -> LayerSplit:
    """The layers and the output, L + 1 places, of which the last `num_gpu_layers` go to the GPUs by their shares.

        place i stands on the first device whose share of the sum, with all before it, is above (i − first) / count

    in single precision. The layers of a draft in the same file count as places too, and shift the cut by as many; they
    are left out here. Without `num_gpu_layers` all places. With `output_last` the places are the last layers, and the
    output stays with the CPU unless there is room for all. Raises InputError for shares that are none.

    Source of `output_last`: llama.cpp b3800, src/llama.cpp `llm_load_tensors` (`i_gpu_start`)
    """
    shares = _cumulated(tensor_split)
    places = model.num_layers + 1
    count = places if num_gpu_layers is None else num_gpu_layers
    if count < 0:
        raise InputError(f"`num_gpu_layers` cannot be {num_gpu_layers}", hint="0 or more; left out, all of them")
    count = min(count, places)
    stays = output_last and count < places
    first = places - count - stays
    found = tuple(
        HOST
        if place < first or (stays and place == places - 1)
        else min(bisect_right(shares, _single((place - first) / count)), len(shares) - 1)
        for place in range(places)
    )
    return LayerSplit(layers=found[:-1], output=found[-1])


def _cumulated(tensor_split: tuple[float, ...]) -> tuple[float, ...]:
    if not tensor_split or min(tensor_split) < 0 or not sum(tensor_split):
        raise InputError("`tensor_split` needs a share for each device, not all of them 0", hint="e.g. 3,1")
    total, sums = 0.0, []
    for share in tensor_split:
        total = _single(total + _single(share))
        sums.append(total)
    return tuple(_single(part / total) for part in sums)


def _single(number: float) -> float:
    """The nearest number in single precision, in which llama.cpp computes the cut."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


def shares_of(deployment: Deployment) -> tuple[float, ...]:
    """The shares of the devices: as told, else equal ones, as equal devices with the same free memory get."""
    return deployment.switches.tensor_split or (1.0,) * deployment.pp


def split_of(model: ModelSpec, deployment: Deployment) -> LayerSplit:
    """The layers' devices in a deployment."""
    switches = deployment.switches
    return split_layers(model, switches.num_gpu_layers, shares_of(deployment), output_last=bool(switches.output_last))


def dealt(model: ModelSpec, deployment: Deployment) -> list[tuple[int, int]]:
    """[start, stop) of the layers of each GPU; those before the first GPU's stay with the CPU."""
    layers, bounds = split_of(model, deployment).layers, []
    for device in range(len(shares_of(deployment))):
        own = [i for i, found in enumerate(layers) if found == device]
        bounds.append((own[0], own[-1] + 1) if own else (0, 0))
    return bounds


def rollback_states(model: ModelSpec, deployment: Deployment) -> int:
    """n_rs_seq: a state more for each drafted token, in the architectures that can roll back."""
    return deployment.switches.num_speculative_tokens if architecture_of(model) in ROLLBACK else 0


def context_cells(model: ModelSpec, deployment: Deployment, n_ctx: int, n_seq_max: int | None = None) -> Cells:
    """The context that a deployment makes for `n_ctx` cells."""
    states = rollback_states(model, deployment)
    return cells_of(deployment.switches, n_ctx, n_seq_max=n_seq_max, n_rs_seq=states)


def placed(model: ModelSpec, deployment: Deployment) -> dict[int, dict[Held, int]]:
    """For each device, the host first, what its layers hold, and how many layers do.

    A layer's cache lies on the layer's device (`--no-kv-offload` is not told), a draft's on the output's.
    """
    per_layer, split = held_by(model, deployment), split_of(model, deployment)
    found: dict[int, dict[Held, int]] = {device: {} for device in range(HOST, len(shares_of(deployment)))}
    for i, device in zip(model.layer_order, split.layers, strict=True):
        for held in per_layer[i]:
            found[device][held] = found[device].get(held, 0) + 1
    for held in held_by_draft(model, deployment):
        found[split.output][held] = found[split.output].get(held, 0) + 1
    return found


def context_bytes(model: ModelSpec, deployment: Deployment, context: Cells) -> ContextBytes:
    """Bytes of keys, values, indexers and states on each device, exact."""
    host, *devices = (
        sum(count * held.bytes_for(context) for held, count in holds.items())
        for holds in placed(model, deployment).values()
    )
    return ContextBytes(host=host, devices=tuple(devices))
