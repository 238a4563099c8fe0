"""Towers that a config only names: the sizes that the repository of that name publishes.

Source: config.json of each repository; timm's model of that name. To add one: its line in `NAMED`.
"""

from collections.abc import Mapping
from typing import Any

from kvplan.core.errors import UnsupportedError
from kvplan.core.text import printable
from kvplan.sources.class_defaults import class_defaults
from kvplan.sources.facts import Facts

Sizes = Mapping[str, Any]


def _sizes(*sizes: int) -> Sizes:
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "image_size")
    return {**dict(zip(keys, sizes, strict=True)), "num_channels": 3}


CLIP, SIGLIP, SAM = "clip_vision_model", "siglip_vision_model", "sam_vision_model"

NAMED: dict[str, tuple[str, Sizes]] = {
    "clip-l-14-224": (CLIP, _sizes(1024, 4096, 24, 16, 14, 224)),
    "google/siglip-base-patch16-224": (SIGLIP, _sizes(768, 3072, 12, 12, 16, 224)),
    "google/siglip-large-patch16-384": (SIGLIP, _sizes(1024, 4096, 24, 16, 16, 384)),
    "google/siglip-so400m-patch14-384": (SIGLIP, _sizes(1152, 4304, 27, 16, 14, 384)),
    "openai/clip-vit-large-patch14": (CLIP, _sizes(1024, 4096, 24, 16, 14, 224)),
    "openai/clip-vit-large-patch14-336": (CLIP, _sizes(1024, 4096, 24, 16, 14, 336)),
    "sam_vit_b": (SAM, {}),
    "siglip_large_patch16_384": (SIGLIP, _sizes(1024, 4096, 24, 16, 16, 384)),
    "siglip_so400m_patch14_224": (SIGLIP, _sizes(1152, 4304, 27, 16, 14, 224)),
    "siglip_so400m_patch14_384": (SIGLIP, _sizes(1152, 4304, 27, 16, 14, 384)),
}
"""For each name its model type and sizes; SAM's are those of its class."""


def named_part(facts: Facts, key: str, **changes: Any) -> Facts:
    """The facts of the tower whose name the config states at `key`; `changes` are the owner's own.

    Raises UnsupportedError for a name that is not in `NAMED`: its sizes stand in a file that kvplan has not.
    """
    name = facts.text(key)
    if name not in NAMED:
        raise UnsupportedError(
            f"`{key}` names the tower `{printable(name)}`, whose sizes the config does not state",
            hint=f"known here: {', '.join(NAMED)}",
        )
    return known_part(facts, name, **changes)


def known_part(facts: Facts, name: str, **changes: Any) -> Facts:
    """The facts of a tower in `NAMED`, for a class that always has that one."""
    model_type, sizes = NAMED[name]
    inner = Facts(
        {**sizes, **changes},
        model_type=model_type,
        origin=name,
        prefix=f"{name.rpartition('/')[2]}.",
        defaults=class_defaults(model_type),
        bare=True,
    )
    inner.read = facts.read
    return inner
