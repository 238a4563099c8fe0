"""Plots are tested by the figures they draw: curves, ticks, labels and marks, not by pixels."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from kvplan import Gpu, InputError, curve
from kvplan.core.units import GIB
from kvplan.report.plots import format_context, plot_memory, save_plot
from tests.models import spec

LLAMA = spec()
GPU = Gpu(name="Card-24GB", memory_bytes=24 * GIB)
CONTEXTS = range(1024, 32 * 1024 + 1, 1024)
PARTS = ["weights", "driver context, graphs", "activations", "KV cache"]


@pytest.fixture(scope="module")
def frame():
    return curve(LLAMA, seq_lens=CONTEXTS, gpu=GPU)


def panels_of(figure):
    return [ax for ax in figure.axes if ax.get_title(loc="left")]


def drawn(ax, label):
    (artist,) = [a for a in (*ax.lines, *ax.collections) if a.get_label() == label]
    return artist


def notes(ax):
    return [text.get_text() for text in ax.texts]


def edge(ax, label, side):
    """{context: GiB} of the upper or lower edge of one part of the stack."""
    (path,) = drawn(ax, label).get_paths()
    found = {}
    for x, y in path.vertices:
        found[x] = side(found.get(x, y), y)
    return found


def test_the_curve_is_the_total_in_gib(frame):
    (ax,) = panels_of(plot_memory(frame))
    line = drawn(ax, "total")
    assert line.get_xdata().tolist() == list(CONTEXTS)
    np.testing.assert_allclose(line.get_ydata(), frame["total_bytes"] / GIB, rtol=1e-12)


def test_the_parts_stand_on_each_other_and_reach_the_total(frame):
    (ax,) = panels_of(plot_memory(frame))
    columns = [["weights_bytes"], ["context_bytes", "graph_bytes"], ["activation_bytes"], ["kv_cache_bytes"]]
    for row in frame.iloc[[0, 10, -1]].to_dict("records"):
        height = 0.0
        for part, names in zip(PARTS, columns, strict=True):
            assert edge(ax, part, min)[row["seq_len"]] == pytest.approx(height)
            height += sum(row[name] for name in names) / GIB
            assert edge(ax, part, max)[row["seq_len"]] == pytest.approx(height)
        assert height == pytest.approx(row["total_bytes"] / GIB)


def test_the_capacity_is_drawn_and_named(frame):
    (ax,) = panels_of(plot_memory(frame))
    assert drawn(ax, "capacity").get_ydata() == [24, 24]
    assert "Card-24GB: 24 GiB" in notes(ax)
    part = curve(LLAMA, seq_lens=CONTEXTS, gpu="H100", gpu_memory_utilization=0.9)
    assert "90 % of H100-SXM5-80GB: 71.68 GiB" in notes(panels_of(plot_memory(part))[0])


def test_the_longest_context_that_fits_is_marked(frame):
    (ax,) = panels_of(plot_memory(frame))
    fitting = frame[frame["fits"]].iloc[-1]
    # 24 GiB − 12.55 of weights − 1.0 of driver and context − activations, at 512 KiB a token.
    assert fitting["seq_len"] == 19 * 1024
    assert "fits up to 19K" in notes(ax)
    mark = drawn(ax, "limit")
    assert (mark.get_xdata().tolist(), mark.get_ydata().tolist()) == ([19456], [fitting["total_bytes"] / GIB])


def test_what_does_not_fit_is_shaded_and_nothing_else(frame):
    (ax,) = panels_of(plot_memory(frame))
    (path,) = drawn(ax, "over").get_paths()
    assert path.vertices[:, 1].min() == pytest.approx(24)
    assert 19 * 1024 < path.vertices[:, 0].min() < 20 * 1024
    roomy = curve(LLAMA, seq_lens=CONTEXTS, gpu="H100")
    assert drawn(panels_of(plot_memory(roomy))[0], "over").get_paths() == []


def test_where_all_or_nothing_fits_the_panel_says_so():
    small = Gpu(name="small", memory_bytes=8 * GIB)
    (ax,) = panels_of(plot_memory(curve(LLAMA, seq_lens=CONTEXTS, gpu="H100")))
    assert "fits up to 32K, the longest shown" in notes(ax)
    (ax,) = panels_of(plot_memory(curve(LLAMA, seq_lens=CONTEXTS, gpu=small)))
    assert notes(ax) == ["small: 8 GiB", "does not fit at any length shown"]


@pytest.mark.parametrize("gpu", [None, Gpu(name="unified", memory_bytes=None)], ids=["no GPU", "memory unknown"])
def test_without_a_capacity_only_the_stack_is_drawn(gpu):
    figure = plot_memory(curve(LLAMA, seq_lens=CONTEXTS, gpu=gpu))
    (ax,) = panels_of(figure)
    assert notes(ax) == []
    assert [text.get_text() for text in figure.legends[0].get_texts()] == PARTS[::-1]


@pytest.mark.parametrize(
    ("contexts", "ticks"),
    [
        ((1024, 131072), ["1K", "2K", "4K", "8K", "16K", "32K", "64K", "128K"]),
        ((1, 2**20), ["1", "8", "64", "512", "4K", "32K", "256K"]),
        ((1000, 5000), ["1K", "2K", "4K"]),
        ((300, 500), ["300", "500"]),
        ((1500, 2500), ["1,500", "2,500"]),
    ],
)
def test_contexts_stand_on_powers_of_two(contexts, ticks):
    (ax,) = panels_of(plot_memory(curve(LLAMA, seq_lens=contexts, gpu=GPU)))
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_xticklabels()] == ticks
    assert ax.get_xlim() == contexts
    assert not ax.get_xticks(minor=True).size


def test_memory_starts_at_zero_and_ends_near_the_capacity(frame):
    (ax,) = panels_of(plot_memory(curve(LLAMA, seq_lens=[1024, 2**20], gpu=GPU)))
    assert ax.get_ylim() == (0, pytest.approx(24 * 1.45))
    assert "GiB" in ax.get_ylabel()
    (ax,) = panels_of(plot_memory(frame))
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > 24


def test_a_panel_a_model_with_shared_axes():
    other = spec(num_hidden_layers=16)
    frames = [curve(LLAMA, seq_lens=CONTEXTS, gpu=GPU), curve(other, seq_lens=[512, 1024], gpu="A100", tp=2)]
    figure = plot_memory(frames, title="Two of them")
    first, second = panels_of(figure)
    assert first.get_title(loc="left") == "test/model"
    assert second.get_title(loc="left") == "test/model\n2 GPUs, the fullest is shown"
    assert first.get_ylim() == second.get_ylim()
    assert first.get_xlim() == second.get_xlim() == (512, 32768)
    assert figure.get_suptitle() == "Two of them"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["does not fit", *PARTS[::-1]]


def test_one_frame_of_several_models_gives_the_same_panels(frame):
    other = frame.assign(model="another/model")
    figure = plot_memory(pd.concat([frame, other]))
    assert [ax.get_title(loc="left") for ax in panels_of(figure)] == ["test/model", "another/model"]


@pytest.mark.parametrize("num_panels", [1, 2, 3, 4, 5, 7])
def test_every_number_of_panels_finds_its_place(frame, num_panels, tmp_path):
    figure = plot_memory([frame.assign(model=f"model/{i}") for i in range(num_panels)])
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"model/{i}" for i in range(num_panels)]
    save_plot(figure, tmp_path / "plot.png", dpi=30)


def test_the_batch_size_is_chosen_never_guessed():
    both = curve(LLAMA, seq_lens=CONTEXTS, batch_sizes=[1, 8], gpu=GPU)
    with pytest.raises(InputError, match="2 batch sizes: which one") as caught:
        plot_memory(both)
    assert "batch_size=1" in caught.value.hint
    with pytest.raises(InputError, match="not there with batch size 3"):
        plot_memory(both, batch_size=3)
    figure = plot_memory(both, batch_size=8)
    eight = both[both["batch_size"] == 8]
    np.testing.assert_allclose(drawn(panels_of(figure)[0], "total").get_ydata(), eight["total_bytes"] / GIB)
    assert figure.get_suptitle() == "Memory against context, 8 sequences at a time"


def test_frames_that_cannot_be_drawn_are_named(frame):
    one = curve(LLAMA, seq_lens=CONTEXTS, batch_sizes=[2], gpu=GPU)
    for frames, message in [
        (frame.iloc[:0], "no rows"),
        ([], "no rows"),
        (frame.drop(columns="gpu"), "no column `gpu`"),
        ([frame, 3], "int is not a frame"),
        (frame.iloc[:1], "one context length only"),
        (pd.concat([frame, frame]), "several rows for a context of 1K"),
        ([frame, one], "different batch sizes: 1, 2"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            plot_memory(frames)
        assert caught.value.hint


def test_axes_of_the_users_own(frame):
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert plot_memory([frame, frame.assign(model="other")], axes=axes) is figure
    assert [ax.get_title(loc="left") for ax in axes] == ["test/model", "other"]
    assert figure.legends == []
    assert plot_memory(frame, axes=axes[0]) is figure
    with pytest.raises(InputError, match="2 axes for 1 panels"):
        plot_memory(frame, axes=axes)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_plot_is_the_same_bytes(frame, suffix, tmp_path):
    before = dict(mpl.rcParams)
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        save_plot(plot_memory(frame), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert dict(mpl.rcParams) == before


def test_an_unknown_format_is_refused(frame, tmp_path):
    with pytest.raises(InputError, match=r"`\.bmp` is not a format"):
        save_plot(plot_memory(frame), tmp_path / "plot.bmp")


def test_a_notebook_shows_the_figure_without_a_backend(frame):
    assert plot_memory(frame)._repr_png_().startswith(b"\x89PNG")


def test_nothing_global_is_touched():
    code = "import sys, kvplan.report.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("tokens", "text"),
    [(1, "1"), (1000, "1,000"), (1024, "1K"), (1536, "1,536"), (61440, "60K"), (2**20, "1M"), (1025 * 1024, "1,025K")],
)
def test_contexts_are_written_as_people_write_them(tokens, text):
    assert format_context(tokens) == text
