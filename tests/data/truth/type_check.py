"""Holds kvplan's answer for a configuration of `types.jsonl` against what the class of transformers builds."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvplan.core.cache import caches_of
from kvplan.core.dtypes import BF16
from kvplan.core.engines.transformers import TRANSFORMERS
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.model import ModelSpec, Source
from kvplan.core.weights import num_parameters
from kvplan.sources.config import spec_from_config
from tests.data.truth.type_rows import changed, default_config

Runs = list[list[int]]
"""[count, bytes] of every run of equal layers."""


@dataclass(frozen=True)
class Outcome:
    """What came of one configuration; None where it was not compared."""

    refusal: InputError | UnsupportedError | None = None
    parameters: tuple[int, int] | None = None
    """(kvplan's, the class's)."""
    caches: Mapping[str, tuple[dict[str, Runs], dict[str, Runs]]] | None = None
    """By prompt length: (kvplan's, the class's)."""

    @property
    def equal_parameters(self) -> bool:
        """Whether they are equal."""
        return self.parameters is not None and self.parameters[0] == self.parameters[1]

    @property
    def equal_cache(self) -> bool:
        """Whether every layer's bytes are equal at every length."""
        return bool(self.caches) and all(found == expected for found, expected in self.caches.values())


def load_rows() -> dict[str, list[dict[str, Any]]]:
    """The rows by model type, each type's defaults first."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in (Path(__file__).parent / "types.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["model_type"]].append(row)
    return rows


def spec_of(row: Mapping[str, Any]) -> ModelSpec:
    """The model that kvplan reads from a row's configuration."""
    config = changed(default_config(row["model_type"], row["class"]), row.get("changes", {}))
    return spec_from_config(config, id=row["model_type"], source=Source(kind="config", location="tests"))


def outcome(row: Mapping[str, Any]) -> Outcome:
    """kvplan's answer beside the class's."""
    try:
        spec = spec_of(row)
    except (InputError, UnsupportedError) as error:
        return Outcome(refusal=error)
    if "num_parameters" not in row:
        return Outcome()
    caches = {}
    for length, expected in row.get("cache", {}).items():
        found = held(spec, int(length))
        caches[length] = ({name: found[name] for name in expected}, {n: without_end(r) for n, r in expected.items()})
    return Outcome(parameters=(num_parameters(spec), row["num_parameters"]), caches=caches or None)


def held(spec: ModelSpec, tokens: int) -> dict[str, Runs]:
    """What transformers holds by kvplan's account, a decoder's own caches and those across apart."""
    sizes: dict[str, list[int]] = {"self": [], "cross": []}
    for index in spec.layer_order:
        layer = spec.layers[index]
        if layer.in_encoder:
            continue
        own = across = 0
        for mixer, needed in caches_of(layer, BF16):
            cache = TRANSFORMERS.reserve(needed, mixer)
            if not cache.over_encoder:
                own += cache.bytes_for(tokens)
            elif getattr(mixer, "over", "encoder") == "encoder":
                across += cache.bytes_for(spec.encoder_seq_len or tokens)
        sizes["self"].append(own)
        sizes["cross"].append(across)
    return {name: without_end(run_lengths(found)) for name, found in sizes.items()}


def run_lengths(sizes: list[int]) -> Runs:
    """Equal neighbours folded."""
    runs: Runs = []
    for size in sizes:
        if runs and runs[-1][1] == size:
            runs[-1][0] += 1
        else:
            runs.append([1, size])
    return runs


def without_end(runs: Runs) -> Runs:
    """Without layers at the end that keep nothing: not every class gives them a place in its cache."""
    return runs[:-1] if runs and runs[-1][1] == 0 else runs
