"""Pictures of sweeps: frames of `kvplan.curve` in, matplotlib figures out.

Figures are objects of their own: nothing here touches pyplot, its current figure or its settings, so that a
script without a screen, a notebook and a web server all draw the same. To add a plot: a function that takes
frames and returns a figure, in words and colours of this module.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil, log2
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from kvplan.core.errors import InputError
from kvplan.core.units import GIB, KIB, MIB, format_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Okabe & Ito, https://jfly.uni-koeln.de/color/: told apart with any colour vision, and in grey by lightness.
_PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "weights": ("#0072B2", ("weights_bytes",)),
    "driver context, graphs": ("#999999", ("context_bytes", "graph_bytes")),
    "activations": ("#56B4E9", ("activation_bytes",)),
    "KV cache": ("#E69F00", ("kv_cache_bytes",)),
}
"""From the bottom up: what hardly grows first, so that the cache is seen to fill the room that is left."""
_OVER = "#D55E00"
_INK = "#222222"
_PANEL_INCHES = (3.7, 3.5)
_LEGEND_INCHES = 1.9
_PANELS_PER_ROW = 3
_MAX_TICKS = 8
_HEADROOM = 1.45
"""How far above the capacity the axis goes: past it, how much does not fit no longer matters."""

_KEYS = ("model", "gpu", "num_gpus", "gpu_memory_utilization")
"""What one panel has one of."""
_FIGURES = ("seq_len", "batch_size", "total_bytes", "capacity_bytes")
_COLUMNS = (*_KEYS, *_FIGURES, *(column for _, columns in _PARTS.values() for column in columns))


class Chart(Figure):
    """A figure that a notebook shows by itself, whatever backend it has or has not."""

    def _repr_png_(self) -> bytes:
        out = BytesIO()
        save_plot(self, out)
        return out.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One model on one sort of GPU: a point a context length, shortest first."""

    model: str
    gpu: str | None
    num_gpus: int
    utilization: float
    batch_size: int
    capacity_bytes: int | None
    points: "pd.DataFrame"

    @property
    def contexts(self) -> "pd.Series[int]":
        """Tokens per sequence."""
        return self.points["seq_len"]

    @property
    def total_gib(self) -> "pd.Series[float]":
        """The height of the stack."""
        return self.points["total_bytes"] / GIB


def plot_memory(
    frames: "pd.DataFrame | Iterable[pd.DataFrame]",
    *,
    batch_size: int | None = None,
    axes: "Axes | Sequence[Axes] | None" = None,
    title: str | None = None,
) -> Figure:
    """Memory of the fullest GPU against context, stacked, with the capacity and the longest context that fits.

    One panel a model and GPU, in the order of the frames; `batch_size` picks one where the frames hold several;
    `axes` are as many axes of your own, which get no legend but labelled artists. The y axis ends somewhat above
    the capacity, where a curve may run on.
    """
    panels = _panels(frames, batch_size)
    chosen = _new_axes(len(panels)) if axes is None else _given_axes(axes, len(panels))
    top, span = _top_gib(panels), _span(panels)
    for panel, ax in zip(panels, chosen, strict=True):
        _dress(ax, panel, top, span)
        _draw_stack(ax, panel)
        _draw_capacity(ax, panel)
        _draw_limit(ax, panel)
    figure: Figure = chosen[0].figure.figure
    if axes is None:
        _dress_figure(figure, chosen, panels, title)
    elif title is not None:
        figure.suptitle(title)
    return figure


def save_plot(figure: Figure, path: "str | PathLike[str] | BytesIO", *, dpi: int = 150) -> None:
    """Write a figure as its file's ending says (PNG, SVG, PDF); the same figure is the same bytes."""
    kind = "png" if isinstance(path, BytesIO) else Path(path).suffix.lower().removeprefix(".")
    stamps = {"png": ("Software",), "svg": ("Creator", "Date"), "pdf": ("Creator", "Producer", "CreationDate")}
    if kind not in stamps:
        raise InputError(f"`.{kind[:10]}` is not a format of plots", hint="end the file's name in .png, .svg or .pdf")
    with rc_context({"svg.hashsalt": "kvplan"}):
        figure.savefig(path, format=kind, dpi=dpi, metadata=dict.fromkeys(stamps[kind]))


def format_context(num_tokens: int) -> str:
    """A context length as people write it: `32K` = 32 · 1024, `1M` = 1024², all others in full."""
    for unit, suffix in ((MIB, "M"), (KIB, "K")):
        if num_tokens >= unit and num_tokens % unit == 0:
            return f"{num_tokens // unit:,}{suffix}"
    return f"{num_tokens:,}"


def _panels(frames: "pd.DataFrame | Iterable[pd.DataFrame]", batch_size: int | None) -> list[_Panel]:
    import pandas as pd

    tables = [frames] if isinstance(frames, pd.DataFrame) else list(frames)
    panels = []
    for table in tables:
        _check_columns(table)
        for key, points in table.groupby(list(_KEYS), sort=False, dropna=False, observed=True):
            panels.append(_panel(key, points, batch_size))
    if not panels:
        raise InputError("there is nothing to plot: the frame has no rows", hint="give what `kvplan.curve` returns")
    if len({panel.batch_size for panel in panels}) > 1:
        sizes = ", ".join(f"{panel.batch_size}" for panel in panels)
        raise InputError(f"the panels are of different batch sizes: {sizes}", hint="sweep all models with one")
    return panels


def _panel(key: "tuple[Any, ...]", points: "pd.DataFrame", batch_size: int | None) -> _Panel:
    import pandas as pd

    model, gpu, num_gpus, utilization = key
    sizes = sorted({int(size) for size in points["batch_size"]})
    if batch_size is None and len(sizes) > 1:
        raise InputError(
            f"`{model}` is there with {len(sizes)} batch sizes: which one?",
            hint=f"plot_memory(…, batch_size={sizes[0]}); there are {_listed(sizes)}",
        )
    size = sizes[0] if batch_size is None else batch_size
    if size not in sizes:
        raise InputError(f"`{model}` is not there with batch size {size}", hint=f"there are {_listed(sizes)}")
    points = points[points["batch_size"] == size].sort_values("seq_len", kind="stable")
    repeated = points.loc[points["seq_len"].duplicated(), "seq_len"]
    if len(repeated):
        message = f"`{model}` has several rows for a context of {format_context(int(repeated.iloc[0]))}"
        raise InputError(message, hint="give variants of one model as frames of their own: [frame, other]")
    if len(points) < 2:
        raise InputError(f"`{model}` has one context length only", hint="a curve needs two at least, better fifty")
    capacity = points["capacity_bytes"].iloc[0]
    return _Panel(
        model=str(model),
        gpu=None if pd.isna(gpu) else str(gpu),
        num_gpus=int(num_gpus),
        utilization=float(utilization),
        batch_size=size,
        capacity_bytes=None if pd.isna(capacity) else int(capacity),
        points=points,
    )


def _listed(sizes: list[int]) -> str:
    return ", ".join(str(size) for size in sizes[:8]) + (" …" if len(sizes) > 8 else "")


def _check_columns(table: object) -> None:
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise InputError(f"a {type(table).__name__} is not a frame", hint="give what `kvplan.curve` returns")
    if missing := [column for column in _COLUMNS if column not in table.columns]:
        raise InputError(f"the frame has no column `{missing[0]}`", hint="give what `kvplan.curve` returns")


def _new_axes(num_panels: int) -> "list[Axes]":
    num_columns = _num_columns(num_panels)
    num_rows = ceil(num_panels / num_columns)
    width, height = _PANEL_INCHES
    size = (width * num_columns + _LEGEND_INCHES, height * num_rows + 0.4)
    figure = Chart(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08), facecolor="white")
    grid = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).ravel().tolist()
    for unused in grid[num_panels:]:
        unused.remove()
    axes: list[Axes] = grid[:num_panels]
    return axes


def _num_columns(num_panels: int) -> int:
    """Rows are filled one by one, but four panels are two rows of two."""
    return 2 if num_panels == 4 else min(num_panels, _PANELS_PER_ROW)


def _given_axes(axes: "Axes | Sequence[Axes]", num_panels: int) -> "list[Axes]":
    import numpy as np

    given: list[Axes] = np.ravel(np.asarray(axes, dtype=object)).tolist()
    if len(given) != num_panels:
        raise InputError(f"{len(given)} axes for {num_panels} panels", hint="one axes a model and GPU")
    return given


def _top_gib(panels: list[_Panel]) -> float:
    """Where the shared y axis ends: above all curves, or above the capacity where they run far past it."""
    tops = []
    for panel in panels:
        top = 1.08 * float(panel.total_gib.max())
        if panel.capacity_bytes is not None:
            shown = max(panel.capacity_bytes / GIB, float(panel.total_gib.min()))
            top = min(max(top, 1.1 * shown), _HEADROOM * shown)
        tops.append(top)
    return max(tops)


def _span(panels: list[_Panel]) -> tuple[int, int]:
    """The shortest and the longest context of all panels, so that they can be compared by eye."""
    return min(int(p.contexts.min()) for p in panels), max(int(p.contexts.max()) for p in panels)


def _draw_stack(ax: "Axes", panel: _Panel) -> None:
    bottom = 0 * panel.total_gib
    for name, (color, columns) in _PARTS.items():
        top = bottom + panel.points[list(columns)].sum(axis=1) / GIB
        ax.fill_between(panel.contexts, bottom, top, color=color, linewidth=0, label=name)
        bottom = top
    ax.plot(panel.contexts, panel.total_gib, color=_INK, linewidth=1.4, label="total")


def _draw_capacity(ax: "Axes", panel: _Panel) -> None:
    if panel.capacity_bytes is None:
        return
    capacity = panel.capacity_bytes / GIB
    over = panel.total_gib > capacity
    region: dict[str, Any] = {"where": over, "interpolate": True, "linewidth": 0}
    ax.fill_between(panel.contexts, capacity, panel.total_gib, color="white", alpha=0.72, **region)
    region |= {"facecolor": "none", "edgecolor": _OVER, "hatch": "////", "label": "over"}
    ax.fill_between(panel.contexts, capacity, panel.total_gib, **region)
    ax.axhline(capacity, color=_OVER, linewidth=1.6, label="capacity")
    share = "" if panel.utilization == 1 else f"{100 * panel.utilization:.4g} % of "
    _note(ax, f"{share}{panel.gpu}: {format_bytes(panel.capacity_bytes)}", (0, capacity), (5, 5), color=_OVER, on="x")


def _draw_limit(ax: "Axes", panel: _Panel) -> None:
    """Mark the longest context of the frame that fits, or say that none does."""
    if panel.capacity_bytes is None:
        return
    capacity = panel.capacity_bytes / GIB
    fitting = panel.points[panel.points["total_bytes"] <= panel.capacity_bytes]
    if fitting.empty:
        _note(ax, "does not fit at any length shown", (0.5, capacity), (0, -8), ha="center", va="top", on="x")
        return
    last = fitting.iloc[-1]
    tokens, height = int(last["seq_len"]), float(last["total_bytes"]) / GIB
    ax.vlines(tokens, 0, height, color=_INK, linewidth=0.9, linestyle=(0, (2, 2)))
    ax.plot(tokens, height, "o", markersize=6, color=_INK, markeredgecolor="white", clip_on=False, label="limit")
    whole = tokens == int(panel.contexts.max())
    text = f"fits up to {format_context(tokens)}" + (", the longest shown" if whole else "")
    shortest, longest = ax.get_xlim()
    early = log2(tokens / shortest) < 0.5 * log2(longest / shortest)
    # Above the curve where the capacity's own label is far away, else in the corner below the capacity.
    above = capacity - height > 0.15 * ax.get_ylim()[1]
    offset = (8 if early else -8, 8 if above else -8)
    side: dict[str, Any] = {"ha": "left" if early else "right", "va": "bottom" if above else "top"}
    _note(ax, text, (tokens, height), offset, fontweight="normal" if whole else "bold", **side)


def _note(
    ax: "Axes", text: str, at: tuple[float, float], offset: tuple[int, int], *, on: str = "data", **style: Any
) -> None:
    """Text beside a point, readable on any ground; `on="x"` counts x from 0 to 1 along the axis."""
    ground = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1.5}
    coords: Any = ax.get_yaxis_transform() if on == "x" else "data"
    look: dict[str, Any] = {"fontsize": 9, "color": _INK, "ha": "left", "va": "bottom", "bbox": ground, "zorder": 5}
    note = ax.annotate(text, at, xycoords=coords, xytext=offset, textcoords="offset points", **look | style)
    note.set_in_layout(False)


def _dress(ax: "Axes", panel: _Panel, top_gib: float, span: tuple[int, int]) -> None:
    """Scales, ticks and the panel's name; no frame, no box."""
    shortest, longest = span
    ax.set_xscale("log", base=2)
    ax.set_xlim(shortest, longest)
    powers = range(ceil(log2(shortest)), int(log2(longest)) + 1)
    powers = powers[:: ceil(len(powers) / _MAX_TICKS)] if powers else powers
    ticks = [2**power for power in powers] if len(powers) > 1 else [shortest, longest]
    ax.set_xticks(ticks, [format_context(tick) for tick in ticks], fontsize=9)
    ax.minorticks_off()
    ax.set_ylim(0, top_gib)
    ax.tick_params(axis="both", length=3, color="#888888", labelsize=9)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color("#888888")
    layout = f"\n{panel.num_gpus} GPUs, the fullest is shown" if panel.num_gpus > 1 else ""
    ax.set_title(panel.model + layout, loc="left", fontsize=10, color=_INK)
    ax.set_xlabel("context, tokens per sequence", fontsize=9)
    ax.set_ylabel("memory, GiB", fontsize=9)


def _dress_figure(figure: Figure, axes: "list[Axes]", panels: list[_Panel], title: str | None) -> None:
    """One title and one legend for all panels, the axes' names only at the rim."""
    num_columns = _num_columns(len(axes))
    for i, ax in enumerate(axes):
        if i % num_columns:
            ax.set_ylabel("")
            ax.tick_params(axis="y", length=0, labelleft=False)
        if i + num_columns < len(axes):
            ax.set_xlabel("")
    batch = panels[0].batch_size
    held = "one sequence" if batch == 1 else f"{batch:,} sequences at a time"
    title = title or f"Memory against context, {held}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=_INK)
    handles = [Patch(facecolor=color, label=name) for name, (color, _) in _PARTS.items()]
    if any(panel.total_gib.max() > (panel.capacity_bytes or float("inf")) / GIB for panel in panels):
        handles.append(Patch(facecolor="white", edgecolor=_OVER, hatch="////", linewidth=0, label="does not fit"))
    # From the top down, as the parts are stacked.
    figure.legend(handles=handles[::-1], loc="outside right center", frameon=False, fontsize=9, labelspacing=0.9)
