"""Reading an engine's start-up log: one observation for each start that it tells of."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from kvplan.core.errors import InputError
from kvplan.runtime import llamacpp_log, sglang_log, trtllm_log, vllm_log
from kvplan.runtime.flags import options_from_args
from kvplan.runtime.lines import Line, raw_lines, unwrap
from kvplan.runtime.observation import Figure, Observation
from kvplan.runtime.wording import Dialect, Start, Wording

DIALECTS: tuple[Dialect, ...] = (vllm_log.DIALECT, sglang_log.DIALECT, llamacpp_log.DIALECT, trtllm_log.DIALECT)

_WORDINGS = tuple((dialect, said) for dialect in DIALECTS for said in dialect.wordings)
_GPU = re.compile(
    r"(?:\bGPU |\|\s+)(?P<index>\d{1,2}):?\s+(?P<gpu>NVIDIA [A-Z][\w \-./]*?)(?=\s{2,}|\s*[(|]|\s+O(?:n|ff)\b|\s*$)"
)
"""A row of nvidia-smi, or a line of `nvidia-smi -L`."""
_GPU_KEY = "NVIDIA "
KEYS = tuple(dict.fromkeys([*(said.key for _, said in _WORDINGS), _GPU_KEY]))
GIST = (
    "emory", "size", " is ", "block", "odel", "e to", "for ", "version", "start", "failed", "max ", "num_", "Args",
    "Load ", "ttention ", " compute", " device", "layers", "args: ", "raph ", "build", "type", "arch", "in KV",
    "loaded ", "To serve", "dynamic", "Maximum", "Listening", "LLM engine", "_info: ", "_meta: ", "construct",
    "/snapshots/", "kv_uni", "flash_", "Operation:", "general.", "cells", "NVIDIA", "backend", "batch ", "n_ctx",
    "S (f", "paged KV", "new slot", "n_slots", "n_parallel", "breakdown", "enabled by",
    " free)", " buffer", "runner pr", "Info:]", "plugin",
    "ot be cr", "Error: ", "exception",
)  # fmt: skip
"""Each key holds one of these: most lines of a server at work hold none, or few."""
_KEYS_BY_GIST = tuple(
    (word, tuple(key for key in KEYS if next(gist for gist in GIST if gist in key) == word)) for word in GIST
)
_MAX_SOURCES = 64
_BEFORE, _AFTER = 400, 2000
"""Characters before and from its key on in which a wording is looked for: a line may be long, and of any kind."""


def read_log(source: Iterable[str] | str | os.PathLike[str] | BinaryIO) -> list[Observation]:
    """The starts of engines that a log tells of, in its order; none where no engine is known in it.

    A path, a binary stream (gzip or not) or lines. It is read once and line by line, whatever its size, and whatever
    Docker, Kubernetes or a logger put before the lines is passed over. Lines that name their container, pod or unit are
    read as one log each. Raises InputError for a file that cannot be read.
    """
    reader = _Reader()
    for number, raw in enumerate(raw_lines(source), 1):
        if _may_tell(raw):
            for line in unwrap(raw, number):
                reader.read(line)
    return reader.observations()


def _may_tell(raw: str) -> bool:
    """Whether a line holds any key: the cheap test that most lines end with."""
    for word, keys in _KEYS_BY_GIST:
        if word in raw:
            for key in keys:
                if key in raw:
                    return True
    return False


@dataclass(slots=True)
class _Source:
    """One writer of the log: the start that each engine is in, and the GPUs that were listed."""

    starts: dict[str, Start] = field(default_factory=dict)
    latest: str | None = None
    gpus: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Reader:
    sources: dict[str | None, _Source] = field(default_factory=dict)
    starts: list[tuple[Dialect, Start, _Source]] = field(default_factory=list)

    def read(self, line: Line) -> None:
        known = line.source in self.sources or len(self.sources) < _MAX_SOURCES
        source = self.sources.setdefault(line.source if known else None, _Source())
        if _GPU_KEY in line.text:
            for found in _GPU.finditer(line.text[:_AFTER]):
                source.gpus.setdefault(found["index"], found["gpu"].strip())
        for dialect, said in _WORDINGS:
            at = line.text.find(said.key)
            match = said.pattern.search(line.text, max(0, at - _BEFORE), at + _AFTER) if at >= 0 else None
            if match:
                self._take(source, dialect, said, match, line)

    def _take(self, source: _Source, dialect: Dialect, said: Wording, found: re.Match[str], line: Line) -> None:
        start = source.starts.get(dialect.engine)
        if not said.owned:
            if start is None or source.latest != dialect.engine:
                return
        elif start is None or (said.begins and start.is_over(said.begins, line, said.key)):
            start = self._begin(source, dialect, line, start)
        if start.is_ready and not said.begins and not said.after_ready:
            return
        if said.begins:
            start.mark(said.begins, line, said.key)
        source.latest = dialect.engine
        start.take(said, found, line)

    def _begin(self, source: _Source, dialect: Dialect, line: Line, before: Start | None) -> Start:
        start = Start(engine=dialect.engine, first_line=line.number, last_line=line.number)
        if before is not None:
            dialect.carry(before, start)
        source.starts[dialect.engine] = start
        self.starts.append((dialect, start, source))
        return start

    def observations(self) -> list[Observation]:
        """What was read, without the starts that say nothing where others of the same engine say something."""
        made = [_observation(dialect, start, source) for dialect, start, source in self.starts]
        telling = [one for one in made if one.figures or one.errors or one.model]
        engines = {one.engine for one in telling}
        return [one for one in made if one in telling or one.engine not in engines]


def _observation(dialect: Dialect, start: Start, source: _Source) -> Observation:
    dialect.finish(start)
    options, unread = _read_args(start)
    gpus = list(dict.fromkeys((start.gpus or source.gpus).values()))
    figures = start.figures if dialect.ranks_are_devices else _with_plain_ranks(start.figures)
    return Observation(
        engine=start.engine,
        version=start.version,
        model=start.model,
        options=options,
        unread=unread,
        gpu=" + ".join(gpus) or None,
        num_gpus=start.num_gpus or (_num_gpus(options) if start.args else None),
        ranks=tuple(sorted(start.ranks)),
        figures={name: tuple(some) for name, some in figures.items()},
        facts=dict(start.facts),
        errors=tuple(start.errors) or _vague(start),
        first_line=start.first_line,
        last_line=max(start.last_line, start.first_line),
    )


def _vague(start: Start) -> tuple[str, ...]:
    """Why it did not start where only that it did not is told: the last exception, which may be about a consequence."""
    return (start.exception or start.vague[0],) if start.vague else ()


def _read_args(start: Start) -> tuple[dict[str, object], tuple[str, ...]]:
    """What it was told and what it said that it decided; a value that no engine takes (a cut line) is unread."""
    bad = [name for name, value in start.args.items() if not _is_read(start.engine, {name: value})]
    args = {name: value for name, value in start.args.items() if name not in bad}
    if args and _is_read(start.engine, args):
        options, unread = options_from_args(start.engine, args)
    else:
        options, unread, bad = {}, (), list(start.args)
    return {**options, **start.options}, (*unread, *bad)


def _is_read(engine: str, args: Mapping[str, object]) -> bool:
    try:
        options_from_args(engine, args)
    except InputError:
        return False
    return True


def _num_gpus(options: Mapping[str, object]) -> int:
    """tp × pp × pcp × dp: data-parallel attention takes no GPUs of its own."""
    names = ("tp", "pp", "pcp") if options.get("attention_dp") else ("tp", "pp", "pcp", "dp")
    count = 1
    for name in names:
        degree = options.get(name)
        count *= degree if isinstance(degree, int) else 1
    return count


def _with_plain_ranks(figures: dict[str, list[Figure]]) -> dict[str, list[Figure]]:
    """The same without ranks that tell nothing: the one engine of `DP0`, the one worker that there is."""
    ranks = {figure.rank for some in figures.values() for figure in some} - {None}
    replicas = {rank for rank in ranks if rank and re.fullmatch(r"DP\d+", rank)}
    plain: set[str | None] = set(replicas) if len(replicas) == 1 else set()
    rest = ranks - plain
    if len(rest) == 1 and not any(_clash(some, rest | {None} | plain) for some in figures.values()):
        plain |= rest
    return {name: _renamed(some, plain) for name, some in figures.items()}


def _clash(figures: list[Figure], ranks: set[str | None]) -> bool:
    """Whether two ranks printed the same figure with unlike values, so that they are two."""
    mine = {figure.rank for figure in figures if figure.rank in ranks}
    return len(mine) > 1 and len({figure.value for figure in figures}) > 1


def _renamed(figures: list[Figure], plain: set[str | None]) -> list[Figure]:
    renamed: list[Figure] = []
    for figure in figures:
        new = replace(figure, rank=None) if figure.rank in plain else figure
        if not any((f.value, f.unit, f.rank) == (new.value, new.unit, new.rank) for f in renamed):
            renamed.append(new)
    return renamed
