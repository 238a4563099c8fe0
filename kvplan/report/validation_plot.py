"""Pictures of validations: every term's prediction against its measurement, and the errors term by term.

Documents of `kvplan validate` or records in, a matplotlib figure out; `kvplan.report.plots` says what holds for all of
its figures.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log2, log10
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kvplan.core.errors import InputError
from kvplan.core.text import printable
from kvplan.core.units import format_bytes
from kvplan.report.page import plural
from kvplan.report.plots import Chart
from kvplan.report.validation import checked_rows
from kvplan.report.validation_tables import Document, label, seconds_text, short_names, shortened, signed, some
from kvplan.report.validation_times import timed_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito, as in `plots`: told apart with any colour vision.
_COLORS = {
    "memory": "#0072B2",
    "transient": "#56B4E9",
    "work": "#999999",
    "framework": "#009E73",
    "ranks": "#CC79A7",
    "times": "#E69F00",
}
_OTHER, _OFF, _INK, _BAND = "#F0E442", "#D55E00", "#222222", "#DDDDDD"
_PANEL_INCHES, _ERRORS_INCHES, _MARGIN_INCHES, _TERM_INCHES = 4.4, 7.4, 0.6, 0.24
_ROOM = 3.2
"""Around the points, so that an axis spans ten times at least, and has a tick."""
_MOST_LABELS = 3
_WORTH_A_LABEL = 0.005
_LINEAR_UP_TO, _ENDS_AT = 1.0, 300.0
"""Of the axis of errors, in percent: linear around zero, logarithmic past it; what is further is drawn at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """One term of one document, both of its sides there."""

    section: str
    term: str
    who: str
    unit: str
    predicted: float
    measured: float
    tolerance: float
    slack: float
    off: bool
    on_gpu: bool

    @property
    def error(self) -> float:
        """(predicted − measured) / measured; without end where nothing was measured of what was predicted."""
        if self.predicted == self.measured:
            return 0.0
        return (self.predicted - self.measured) / self.measured if self.measured else inf

    @property
    def percent(self) -> float:
        """The error as it is drawn."""
        return max(-_ENDS_AT, min(_ENDS_AT, 100 * self.error))

    @property
    def allowed(self) -> float:
        """The largest error that agrees."""
        return max(self.tolerance, self.slack / self.measured if self.measured else 0.0)


def plot_validation(documents: Document | Iterable[Document], *, title: str | None = None) -> Figure:
    """Predicted against measured, bytes and where there are any seconds; beside or below them the error of each term.

    Hollow points were measured without a GPU. What was not judged for lack of a side is left out, and so are the
    kernels' own rounding errors, which nothing predicts. Raises InputError where nothing is left, and for what is no
    document of `kvplan validate`.
    """
    listed = [documents] if isinstance(documents, Mapping) else list(documents)
    for document in listed:
        checked_rows(document)
    points = [point for document in listed for point in _points(document, _run(document, listed))]
    if not points:
        hint = "give what `kvplan validate --json` prints, or a record"
        raise InputError("there is nothing to plot: no term was both predicted and measured", hint=hint)
    figure, axes = _new_axes(points)
    for unit in ("bytes", "seconds"):
        if unit in axes:
            _draw_agreement(axes[unit], [point for point in points if point.unit == unit], unit)
    _draw_errors(axes["error"], points)
    _dress_figure(figure, points, title or _title(listed))
    return figure


def _run(document: Document, documents: Sequence[Document]) -> str:
    """By what a document is told from the others: its model, its device, or both."""
    model, device = document["name"].rpartition("/")[2], document["device"]["name"]
    names, devices = {one["name"] for one in documents}, {one["device"]["name"] for one in documents}
    words = [model] * (len(names) > 1) + [device] * (len(devices) > 1 and len(names) < len(documents))
    return "".join(f", {printable(word, max_length=30)}" for word in words)


def _plain(text: str, max_length: int = 24) -> str:
    """What matplotlib takes for text and no formula."""
    return shortened(printable(text), max_length).replace("$", r"\$")


def _points(document: Document, run: str) -> Iterator[_Point]:
    """The terms that have both sides."""
    names, on_gpu = short_names(document["cases"]), document["device"]["kind"] != "cpu"
    for row in (*document["rows"], *timed_rows(document)):
        if row["predicted"] is None or row["measured"] is None or row["unit"] == "relative error":
            continue
        yield _Point(
            section=_plain(row["section"]),
            term=_plain(row["term"]),
            who=_plain(f"{label(row, names)}{run}", max_length=44),
            unit=row["unit"],
            predicted=row["predicted"],
            measured=row["measured"],
            tolerance=row["tolerance"],
            slack=row["slack"],
            off=row["verdict"] == "off",
            on_gpu=on_gpu,
        )


def _title(documents: Sequence[Document]) -> str:
    devices = dict.fromkeys(_plain(document["device"]["name"], max_length=40) for document in documents)
    runs = _plain(documents[0]["name"], max_length=60) if len(documents) == 1 else f"{len(documents)} runs"
    return f"Predicted against measured: {runs} on {some(devices, 2)}"


def _new_axes(points: Sequence[_Point]) -> "tuple[Figure, dict[str, Axes]]":
    """One panel a unit, and the errors: below two of them, beside one."""
    units = [unit for unit in ("bytes", "seconds") if any(point.unit == unit for point in points)]
    below = len(units) == 2
    errors = max(2.0, _TERM_INCHES * len(_terms(points)) + 0.7)
    across = _PANEL_INCHES * len(units)
    size = (across, _PANEL_INCHES + errors) if below else (across + _ERRORS_INCHES, max(_PANEL_INCHES, errors))
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Chart(figsize=(size[0], size[1] + _MARGIN_INCHES), layout=layout, facecolor="white")
    if not units:
        return figure, {"error": figure.subplots()}
    ratios: dict[str, Any] = {"width_ratios": [_PANEL_INCHES, _ERRORS_INCHES]}
    if below:
        ratios = {"height_ratios": [_PANEL_INCHES, errors]}
    first, second = figure.subfigures(1 + below, 2 - below, squeeze=False, **ratios).ravel().tolist()
    panels = first.subplots(1, len(units), squeeze=False).ravel().tolist()
    return figure, dict(zip(units, panels, strict=True)) | {"error": second.subplots()}


def _draw_agreement(ax: "Axes", points: Sequence[_Point], unit: str) -> None:
    """A point a term, the diagonal where both agree, and how far off the tolerances reach."""
    shown = [point for point in points if point.predicted > 0 and point.measured > 0]
    values = [value for point in shown for value in (point.predicted, point.measured)] or [1.0]
    ends = (min(values) / _ROOM, max(values) * _ROOM)
    for tolerance in sorted({point.tolerance for point in points if point.tolerance}, reverse=True):
        low, high = ([end * (1 + sign * tolerance) for end in ends] for sign in (-1, 1))
        ax.fill_between(ends, low, high, color=_BAND, alpha=0.7, linewidth=0, label=f"± {100 * tolerance:g} %")
    ax.plot(ends, ends, color=_INK, linewidth=0.9, zorder=1.5, label="agreement")
    _mark(ax, [(point.measured, point.predicted) for point in shown], shown)
    for scale, limits in ((ax.set_xscale, ax.set_xlim), (ax.set_yscale, ax.set_ylim)):
        scale("log")
        limits(*ends)
    _dress_scales(ax, ends, unit)
    _number_worst(ax, shown)
    if len(shown) < len(points):
        _corner(ax, [(f"{plural(len(points) - len(shown), 'term')} of zero {unit}, see the errors", _INK)], above=False)


def _mark(ax: "Axes", places: Sequence[tuple[float, float]], points: Sequence[_Point]) -> None:
    """Hollow without a GPU, ringed where prediction and measurement do not agree."""
    groups: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for place, point in zip(places, points, strict=True):
        groups.setdefault((point.section, point.on_gpu), []).append(place)
    for (section, on_gpu), found in groups.items():
        color = _COLORS.get(section, _OTHER)
        look: dict[str, Any] = {"color": color, "markerfacecolor": color if on_gpu else "none", "alpha": 0.85}
        ax.plot(*zip(*found, strict=True), "o", markersize=6, label=section, **look)
    rings = [place for place, point in zip(places, points, strict=True) if point.off]
    if rings:
        look = {"color": _OFF, "markerfacecolor": "none", "markeredgewidth": 1.6}
        ax.plot(*zip(*rings, strict=True), "o", markersize=10, label="off", **look)


def _number_worst(ax: "Axes", points: Sequence[_Point]) -> None:
    """Numbers at what is furthest from the diagonal, and in the free corner whose they are."""
    worst: dict[tuple[str, str], _Point] = {}
    for point in sorted(points, key=lambda point: -abs(point.error)):
        if abs(point.error) >= _WORTH_A_LABEL:
            worst.setdefault((point.term, point.who), point)
    told = []
    for number, point in enumerate(list(worst.values())[:_MOST_LABELS], 1):
        color, above = _OFF if point.off else _INK, point.error > 0
        side: dict[str, Any] = {"ha": "right", "va": "bottom"} if above else {"ha": "left", "va": "top"}
        offset = (-4, 3) if above else (4, -3)
        _note(ax, f"{number}", (point.measured, point.predicted), offset, color=color, **side)
        told.append((f"{number}  {point.term} of {point.who} {signed(point.error)}", color))
    _corner(ax, told, above=True)


def _corner(ax: "Axes", lines: Sequence[tuple[str, str]], *, above: bool) -> None:
    """Lines of text in the corner above the diagonal, or below it."""
    for i, (text, color) in enumerate(lines):
        at, side = ((0, 1), ("left", "top")) if above else ((1, 0), ("right", "bottom"))
        offset = (6, -4 - 12 * i) if above else (-4, 4 + 12 * i)
        _note(ax, text, at, offset, xycoords="axes fraction", ha=side[0], va=side[1], color=color)


def _note(ax: "Axes", text: str, at: tuple[float, float], offset: tuple[int, int], **style: Any) -> None:
    """Text beside a point, which moves no panel."""
    note = ax.annotate(text, at, xytext=offset, textcoords="offset points", **({"fontsize": 8} | style))
    note.set_in_layout(False)


def _terms(points: Sequence[_Point]) -> list[tuple[str, str]]:
    """(section, term) in the sections' order, then in that of the rows."""
    order = [*_COLORS, *dict.fromkeys(point.section for point in points)]
    found = dict.fromkeys((point.section, point.term) for point in points)
    return sorted(found, key=lambda one: order.index(one[0]))


def _draw_errors(ax: "Axes", points: Sequence[_Point]) -> None:
    """A line a term: what may differ in grey, every point, how many they are, and whose the worst one is."""
    terms = _terms(points)
    for height, term in enumerate(terms):
        own = [point for point in points if (point.section, point.term) == term]
        allowed = 100 * max(point.allowed for point in own)
        ax.barh(height, 2 * min(allowed, _ENDS_AT), left=-min(allowed, _ENDS_AT), height=0.7, color=_BAND, zorder=1)
        _mark(ax, [(point.percent, height) for point in own], own)
        place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "fontsize": 8, "va": "center"}
        ax.text(1.01, height, _told(own), color=_OFF if any(point.off for point in own) else _INK, **place)
    ax.set_yticks(range(len(terms)), [f"{section}: {term}" for section, term in terms], fontsize=8)
    ax.set_ylim(len(terms) - 0.4, -0.6)
    ax.set_xscale("symlog", linthresh=_LINEAR_UP_TO)
    ax.set_xlim(-1.3 * _ENDS_AT, 1.3 * _ENDS_AT)
    ticks = [-100, -10, -1, 0, 1, 10, 100]
    ax.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks], fontsize=8)
    ax.minorticks_off()
    ax.axvline(0, color=_INK, linewidth=0.9, zorder=1.5)
    ax.set_xlabel("error in %; left of zero the plan counts too little", fontsize=9)
    _dress(ax)


def _told(points: Sequence[_Point]) -> str:
    """`n = 17; full -32 %`: the worst, where its error is worth a word."""
    worst = max(points, key=lambda point: abs(point.error))
    name = f"; {worst.who} {signed(worst.error)}" if abs(worst.error) >= _WORTH_A_LABEL else ""
    return f"n = {len(points)}{name}"


def _dress_scales(ax: "Axes", ends: tuple[float, float], unit: str) -> None:
    """Ticks in words, the same on both axes: every 2^10 bytes, every tenfold of a second."""
    if unit == "bytes":
        powers = range(ceil(log2(ends[0])), floor(log2(ends[1])) + 1)
        step = next(step for step in (1, 2, 5, 10, 20) if len(powers) / step <= 6 or step == 20)
        ticks = [float(2**power) for power in powers if power % step == 0]
        texts = [format_bytes(int(tick)) for tick in ticks]
    else:
        ticks = [10.0**power for power in range(ceil(log10(ends[0])), floor(log10(ends[1])) + 1)]
        texts = [seconds_text(tick) for tick in ticks]
    ax.set_xticks(ticks, texts, fontsize=8)
    ax.set_yticks(ticks, texts, fontsize=8)
    ax.minorticks_off()
    ax.set_box_aspect(1)
    ax.grid(color="#EEEEEE", linewidth=0.6)
    told = "; half of the loads made the model" if unit == "seconds" else ""
    ax.set_xlabel(f"measured {unit}{told}", fontsize=9)
    ax.set_ylabel(f"predicted {unit}", fontsize=9)
    _dress(ax)


def _dress(ax: "Axes") -> None:
    ax.tick_params(axis="both", length=3, color="#888888")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")


def _dress_figure(figure: Figure, points: Sequence[_Point], title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=_INK)
    sections = dict.fromkeys(section for section, _ in _terms(points))
    handles: list[Any] = [_dot(name, color=_COLORS.get(name, _OTHER)) for name in sections]
    if any(point.off for point in points):
        handles.append(_dot("off", markerfacecolor="none", markeredgecolor=_OFF, markeredgewidth=1.6))
    if not all(point.on_gpu for point in points):
        handles.append(_dot("hollow: no GPU", markerfacecolor="none", markeredgecolor=_INK))
    handles.append(Patch(facecolor=_BAND, label="allowed"))
    figure.legend(handles=handles, loc="outside lower left", frameon=False, fontsize=9, ncols=len(handles))


def _dot(name: str, **look: Any) -> Line2D:
    return Line2D([], [], linestyle="none", marker="o", markersize=6, label=name, **look)
