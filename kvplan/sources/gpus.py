"""The table of accelerators and the forgiving search in it.

`gpus.csv` holds one line a device. To add one: the memory in MiB as its driver prints it (empty where
memory is unified or unknown, and `memory_note` says why), dense rates, and where the figures come from.
`aliases`, parted by `|`, are further names that mean exactly this device; a short name that several
devices share (`h100`) belongs to the one that people mean by it.

`visible_mib` is what CUDA or HIP calls the device's total, as logs of torch and engines print it; after `visible:` the
source says which. It is less than the driver's figure by what the driver keeps, and drivers differ by up to 1 %: of the
values that many logs show this is the lowest, since a plan must not count on more. Where logs round, it is the least
number of MiB that rounds to theirs (`139.72 GiB` → 143,069). Empty where no log names the device.
"""

import csv
import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from kvplan.core.errors import InputError
from kvplan.core.hardware import Gpu
from kvplan.core.units import MIB, parse_bytes

_TABLE = Path(__file__).with_name("gpus.csv")
_MAKERS = {"nvidia", "geforce", "tesla", "amd", "instinct", "intel", "habana", "google", "aws", "apple"}
_NOISE = _MAKERS | {"gpu", "gb", "gib"}
_MEMORY_WORD = re.compile(r"^(\d+)g(?:i?b)?$")
_MEMORY_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B)\s*", re.IGNORECASE)


def load_gpus() -> tuple[Gpu, ...]:
    """All known devices, in the order of the table."""
    return tuple(gpu for gpu, _ in _table())


def find_gpu(name: str) -> Gpu:
    """The device that `name` means: a name, an alias, a part that only one has, or a memory size.

    Case, blanks, dashes and makers' names do not count. `80GiB` is an anonymous GPU of that size.
    """
    if size := _MEMORY_SIZE.fullmatch(name):
        return _anonymous(size[1], size[2])
    words, key = _words(name), key_of(name)
    exact = [gpu for gpu, keys in _table() if key in keys]
    found = exact or [gpu for gpu, _ in _table() if words and _holds_all(gpu, words)]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(f"`{gpu.name}`" for gpu in found)
        raise InputError(f"`{name[:40]}` may mean {len(found)} GPUs", hint=f"name one of {choices}")
    raise _unknown(name, key)


def key_of(name: str) -> str:
    """What is left of a name when all that is ignored has gone: two ways of writing one device have it in common."""
    return "".join(_words(name))


def keys_of(gpu: Gpu) -> frozenset[str]:
    """The keys that mean this device and no other; none of a device that the table does not have."""
    own = key_of(gpu.name)
    return next((keys for _, keys in _table() if own in keys), frozenset())


@cache
def _table() -> tuple[tuple[Gpu, frozenset[str]], ...]:
    """Every device with the keys that mean it and no other."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return tuple((_read(row), _keys(row)) for row in csv.DictReader(file))


def _read(row: dict[str, str]) -> Gpu:
    return Gpu(
        name=row["name"],
        vendor=row["vendor"],
        memory_bytes=int(row["memory_mib"]) * MIB if row["memory_mib"] else None,
        memory_note=row["memory_note"],
        visible_bytes=int(row["visible_mib"]) * MIB if row["visible_mib"] else None,
        marketed_gb=_scaled(row["marketed_gb"], 1),
        bandwidth_bytes_per_second=_scaled(row["bandwidth_gb_per_second"], 1e9),
        bf16_flops=_scaled(row["bf16_tflops"], 1e12),
        fp16_flops=_scaled(row["fp16_tflops"], 1e12),
        fp8_flops=_scaled(row["fp8_tflops"], 1e12),
        interconnect_bytes_per_second=_scaled(row["interconnect_gb_per_second"], 1e9),
        arch=row["arch"],
        source=row["source"],
        note=row["note"],
    )


def _scaled(text: str, unit: float) -> float | None:
    return float(text) * unit if text else None


def _keys(row: dict[str, str]) -> frozenset[str]:
    names = [row["name"], *row["aliases"].split("|")]
    return frozenset(key_of(name) for name in names if name)


def _words(name: str) -> list[str]:
    """`NVIDIA A100-SXM4-80GB` → `a100 sxm4 80`: what is left when all that is ignored has gone."""
    raw = re.findall(r"[a-z0-9]+", name.lower())
    return [_MEMORY_WORD.sub(r"\1", word) for word in raw if word not in _NOISE]


def _holds_all(gpu: Gpu, words: list[str]) -> bool:
    """Whether every word begins one of the device's own, or is its marketed memory."""
    own = [*_words(gpu.name), f"{gpu.marketed_gb or 0:g}"]
    return all(any(_begins(mine, word) for mine in own) for word in words)


def _begins(whole: str, part: str) -> bool:
    """`mi300` begins `mi300x`, but `a10` does not begin `a100`: a number is never cut."""
    rest = whole.removeprefix(part)
    return rest == "" or (len(part) > 1 and rest != whole and not (part[-1].isdigit() and rest[0].isdigit()))


def _anonymous(number: str, unit: str) -> Gpu:
    text = f"{number} {unit[0].upper()}{unit[1:-1].lower()}B"
    if (num_bytes := parse_bytes(text)) == 0:
        raise InputError("a GPU of 0 bytes holds nothing", hint="write its memory like 80GiB")
    return Gpu(name=f"{text} GPU", memory_bytes=num_bytes, memory_note="as given", source="as given")


def _unknown(name: str, key: str) -> InputError:
    by_key = {known: gpu.name for gpu, keys in _table() for known in sorted(keys)}
    near = list(dict.fromkeys(by_key[hit] for hit in get_close_matches(key, by_key, n=3, cutoff=0.6)))
    guess = f"did you mean {' or '.join(f'`{hit}`' for hit in near)}? " if near else ""
    hint = f"{guess}`kvplan gpus` lists all; a memory size such as 80GiB will do too"
    return InputError(f"no GPU named `{name[:40]}` is known", hint=hint)
