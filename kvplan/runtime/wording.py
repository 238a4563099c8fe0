"""How one line of a log is worded, and the start of an engine that is put together from such lines."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kvplan.runtime.lines import Line
from kvplan.runtime.observation import Figure

NUMBER = r"-?\d{1,18}(?:,\d{3}){0,5}(?:[.,]\d{1,18})?(?!\d)"
"""A number as logs print it: `12.56`, `136,080`, `1147,50` with a decimal comma. None has more digits."""

_COUNTS = frozenset({"tokens", "blocks", "cells", "layers", "seqs", "share"})
"""Units of what is printed whole: no rounding."""
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?$")


def number(text: str) -> tuple[float, int]:
    """The value of a printed number, and how many decimals it has."""
    plain = text.replace(",", "") if _THOUSANDS.match(text) else text.replace(",", ".")
    whole, _, decimals = plain.rpartition(".") if "." in plain else (plain, "", "")
    return float(f"{whole.replace('.', '')}.{decimals or 0}"), len(decimals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """One way in which an engine words one line, and what kvplan takes from it."""

    key: str
    """Words that each such line holds, looked for before the pattern is."""
    pattern: re.Pattern[str]
    """Its named groups are the figures; those whose names begin with `x_` are for `then`."""
    versions: str
    """Of the engine, in which it is so worded, as far as is known."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Of each figure."""
    places: int = 0
    """Decimals that a size is rounded to at least, where the engine leaves out a last zero."""
    weak: bool = False
    """Taken only as long as no other line says it: a repetition, or one rounded more."""
    last: bool = False
    """A later line takes its place: the engine says so again once it knows better."""
    begins: Literal["process", "banner", "engine", "load"] | None = None
    """What begins with this line, if a start may (`Start.is_over`)."""
    owned: bool = True
    """False of words that any engine may say: they belong to the engine that spoke last."""
    after_ready: bool = False
    """Read also once the engine has started."""
    then: "Callable[[Start, re.Match[str], Line], None] | None" = None
    """What more is read from it."""


def wording(key: str, pattern: str, versions: str, **options: object) -> Wording:
    """A wording; in the pattern `<name>` stands for the number that is this figure."""
    pattern = re.sub(r"(?<!\(\?P)<(\w+)>", lambda name: f"(?P<{name[1]}>{NUMBER})", pattern)
    return Wording(key=key, pattern=re.compile(pattern), versions=versions, **options)  # type: ignore[arg-type]


@dataclass(slots=True)
class Start:
    """One start of an engine, as far as the log has told of it."""

    engine: str
    first_line: int
    last_line: int = 0
    version: str | None = None
    model: str | None = None
    args: dict[str, object] = field(default_factory=dict)
    """What the engine was told, in its own words."""
    options: dict[str, object] = field(default_factory=dict)
    """What it said that it had decided, in kvplan's words."""
    facts: dict[str, str] = field(default_factory=dict)
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    vague: list[str] = field(default_factory=list)
    """Words that tell that it did not start, and not why."""
    exception: str = ""
    """The last that was raised before those words, or after them: it may say why."""
    gpus: dict[str, str] = field(default_factory=dict)
    num_gpus: int | None = None
    ranks: set[str] = field(default_factory=set)
    """Workers that a line which was read names in its prefix."""
    is_ready: bool = False
    marks: set[tuple[str, str | None]] = field(default_factory=set)
    """What was seen of each rank, as an engine's module likes."""
    passing: set[tuple[str, str | None]] = field(default_factory=set)
    """Figures, each by its rank, that a line which says it better takes the place of."""
    tables: list[tuple[Line, Mapping[str, str | None]]] = field(default_factory=list)
    """Rows of tables that are told apart once all are read: plans, of which one is carried out."""

    def is_over(self, begins: str, line: Line, key: str) -> bool:
        """Whether a line with which something begins cannot belong to this start any more."""
        if begins in ("process", "banner"):
            worked = bool(self.figures.keys() - _BEFORE_LOADING or self.errors or self.is_ready)
            again = begins == "process" and (("engine", None) in self.marks or (key, line.rank) in self.marks)
            return worked or again
        if begins == "engine":
            return self.is_ready or bool(self.errors) or ("engine", line.rank) in self.marks
        if ("draft", None) in self.marks:
            return self.is_ready
        pooled = any(f.rank == line.rank for name in _POOL for f in self.figures.get(name, ()))
        return self.is_ready or pooled

    def mark(self, begins: str, line: Line, key: str) -> None:
        """Remember what began."""
        self.marks.add((key, line.rank))
        if begins == "engine":
            self.marks |= {("engine", None), ("engine", line.rank)}

    def take(self, said: Wording, found: re.Match[str], line: Line) -> None:
        """The figures of one line."""
        self.last_line = line.number
        if line.rank is not None:
            self.ranks.add(line.rank)
        for name, text in found.groupdict().items():
            if text is not None and not name.startswith("x_"):
                self.add(name, text, said.units[name], line, places=said.places, weak=said.weak, last=said.last)
        if said.then:
            said.then(self, found, line)

    def add(
        self,
        name: str,
        text: str,
        unit: str,
        line: Line,
        *,
        rank: str | None = None,
        places: int = 0,
        weak: bool = False,
        last: bool = False,
    ) -> None:
        """One figure; one that repeats another is left out."""
        value, decimals = number(text)
        exact = unit in _COUNTS or (unit == "B" and not decimals)
        half_step = 0.0 if exact else 0.5 * 10.0 ** -max(decimals, places)
        rank = rank if rank is not None else line.rank
        figure = Figure(value=value, unit=unit, half_step=half_step, line_number=line.number, rank=rank)
        so_far = self.figures.get(name, [])
        mine = [f for f in so_far if f.rank == rank]
        passes = (name, rank) in self.passing
        if weak and mine and not (last and passes):
            return
        if last or (passes and not weak):
            so_far = [f for f in so_far if f.rank != rank]
        elif any((f.value, f.unit) == (value, unit) for f in mine):
            return
        if weak:
            self.passing.add((name, rank))
        else:
            self.passing.discard((name, rank))
        self.figures[name] = [*so_far, figure]

    def forget_passing(self, name: str) -> None:
        """Drop estimates of a figure, whatever they call its device: now it is told."""
        kept = [figure for figure in self.figures.pop(name, []) if (name, figure.rank) not in self.passing]
        self.passing -= {(name, rank) for one, rank in self.passing if one == name}
        if kept:
            self.figures[name] = kept

    def fail(self, words: str, line: Line) -> None:
        """Why it did not start; said once."""
        self.last_line = line.number
        words = " ".join(words.split()).rstrip("'\"]) ")[:600]
        if not self.is_ready and words and not any(words in known for known in self.errors):
            self.errors = [*(known for known in self.errors if known not in words), words]


_BEFORE_LOADING = frozenset({
    "device_total", "device_free", "gpu_layers", "model_layers", "expected_total", "expected_weights",
    "expected_kv_cache", "expected_graph",
})  # fmt: skip
"""Figures that a process may print before it says who it is."""

_POOL = ("kv_memory", "num_blocks", "num_tokens", "cells", "kv_buffer", "max_concurrency", "kv_cache", "key_cache")


def fails(start: Start, found: re.Match[str], line: Line) -> None:
    """The line says why the engine did not start: from where the pattern matches to its end."""
    start.fail(line.text[found.start() :], line)


def fails_vaguely(start: Start, found: re.Match[str], line: Line) -> None:
    """The same of a line that does not say why: it counts where no other does."""
    if not start.is_ready and not start.vague:
        start.vague.append(" ".join(line.text[found.start() : found.end()].split()))
        start.last_line = line.number


def is_ready(start: Start, found: re.Match[str], line: Line) -> None:
    """The engine has started, whatever it had to try twice; what its log says from here on is about its work."""
    del found
    start.is_ready = True
    start.errors, start.vague = [], []
    start.last_line = line.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one engine words its log."""

    engine: str
    wordings: tuple[Wording, ...]
    finish: Callable[[Start], None]
    """What is made of a start once all its lines are read: its model, its options, the number of its GPUs."""
    carry: "Callable[[Start, Start], None]" = lambda before, start: None
    """What of the start before still holds in one that begins anew."""
    ranks_are_devices: bool = False
    """Figures tell their devices, and do so where there is one only, too."""


def _read_exception(start: Start, found: re.Match[str], line: Line) -> None:
    del line
    if not start.is_ready and "See root cause above" not in found["x_words"]:
        start.exception = " ".join(found["x_words"].split())[:600]


EXCEPTION = wording(
    "Error: ",
    r"(?:^|[\])] +)(?P<x_words>(?:[a-z_]\w*\.)*[A-Z]\w*Error: \S.*)",
    "all",
    owned=False,
    then=_read_exception,
)
"""What Python ends a traceback with; `Start.vague` says whether it ended the engine."""
OUT_OF_MEMORY = (
    wording(
        "out of memory",
        r"(?:(?:CUDA|HIP|XPU|NPU) out of memory|(?:CUDA|HIP) error: out of memory|cudaMalloc failed: out of memory)",
        "all",
        owned=False,
        then=fails,
    ),
    wording("OutOfMemoryError", r"OutOfMemoryError: (?!CUDA out of memory)\S.*", "all", owned=False, then=fails),
    wording(
        "out of memory",
        r"out of memory\. .{0,200}?GPU \d+ has a total capacity of <device_total> GiB",
        "torch 2.1+",
        units={"device_total": "GiB"},
        places=2,
        weak=True,
        owned=False,
    ),
)
"""What torch, CUDA and HIP say, whoever asked them."""
