"""How many GPUs a list of devices leaves visible: of `CUDA_VISIBLE_DEVICES`, and of what a container is given."""

import re
from collections.abc import Mapping

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_GIVEN = "NVIDIA_VISIBLE_DEVICES"
_ENTRY = re.compile(r"\d+|(?:GPU|MIG)-[\w/-]+")
_UNKNOWN = re.compile(r"[$`{<%]")
_NONE, _ALL = ("none", "void"), ("all", "")


def num_visible(environment: Mapping[str, str]) -> int | None:
    """The fewest GPUs that a variable leaves visible; None where none of them says it."""
    counts = [_num_listed(environment[name]) for name in VISIBLE if name in environment]
    return min((count for count in counts if count is not None), default=None)


def num_given(environment: Mapping[str, str]) -> int | None:
    """GPUs that NVIDIA's container runtime gives a container whose start does not say it by a flag.

    Source: NVIDIA Container Toolkit, its documentation of `NVIDIA_VISIBLE_DEVICES`
    """
    told = environment.get(_GIVEN, "").strip().lower()
    if told in _ALL or _UNKNOWN.search(told):
        return None
    return 0 if told in _NONE else len([one for one in told.split(",") if one.strip()])


def _num_listed(text: str) -> int | None:
    """Entries before the first that is no device, and none at all where one is repeated; None for what a shell fills.

    Sources: CUDA programming guide, environment variables; torch 2.14, cuda/__init__.py `_parse_visible_devices`
    """
    if _UNKNOWN.search(text):
        return None
    seen: list[str] = []
    for entry in map(str.strip, text.split(",")):
        if _ENTRY.fullmatch(entry) is None:
            break
        if entry in seen:
            return 0
        seen.append(entry)
    return len(seen)
