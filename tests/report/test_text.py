"""Text, Markdown and HTML of pages: shape, escaping, encodings."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from inline_snapshot import snapshot

from kvplan.core.hardware import Gpu, MeasuredDevice
from kvplan.core.plan import Plan, plan_memory
from kvplan.core.serving import resolve
from kvplan.core.text import printable
from kvplan.core.units import GIB
from kvplan.report import html, markdown, text
from kvplan.report.estimate import plan_page
from kvplan.report.inspect import describe_mixer
from kvplan.report.page import Line, Page, Table, exact_bytes, gib, percent, plural
from kvplan.sources.catalog import load
from tests.models import LLAMA, spec

H80 = Gpu(name="H80", memory_bytes=80 * GIB)
HOSTILE = "\x1b[2J<script>alert(1)</script>|`*_\u202eevil\n\r\x07"
MISTRAL = LLAMA | {"model_type": "mistral", "architectures": None, "sliding_window": 1024, "num_key_value_heads": 8}


def render(made, **how):
    return text.draw(plan_page(made), **how)


def plan(config: dict[str, Any] | None = None, *, id: str = "test/model", **how: Any) -> Plan:
    """The plan of a config of the tests."""
    model = replace(spec(config), id=id)
    return plan_memory(model, resolve(model, **how))


def test_where_the_memory_goes() -> None:
    shown = render(plan(gpu=H80, gpu_memory_utilization=0.9)).split("\n\n")[:2]
    assert "\n\n".join(shown) == snapshot("""\
test/model: 6.74 B parameters, 32 layers, LlamaForCausalLM
facts from a config: tests
1 sequence of 4,096 tokens, weights bf16, KV cache bf16, flash attention, engine exact

On one H80
                 GiB  of capacity                            basis
  weights      12.55         17 %  ████▏                     exact
  KV cache      2.00        2.8 %  ▋                         exact
  activations   0.31        0.4 %  ▏                         derived
  context       1.00        1.4 %  ▍                         assumed
  total        15.87         22 %  █████▎
  capacity     72.00               ████████████████████████  0.9 of the memory
  fits: 56.13 GiB free\
""")


MEASURED = MeasuredDevice(
    context_bytes=300 * 2**20,
    read_bytes_per_second=3e12,
    source="kvplan validate on Imaginary GPU, driver 580.65.06, torch 2.13.0, 2026-01-02, record "
    "imaginary-gpu--meta-llama-llama-3.1-8b--2026-01-02.json",
)


def test_what_was_measured_is_named_with_its_record() -> None:
    shown = render(plan(gpu=replace(H80, measured=MEASURED), batch_size=4)).split("\n\n")[:2]
    assert "\n\n".join(shown) == snapshot("""\
test/model: 6.74 B parameters, 32 layers, LlamaForCausalLM
facts from a config: tests
4 sequences of 4,096 tokens each, passes of 8,192, weights bf16, KV cache bf16, flash attention,
engine exact
context and bandwidth as measured: kvplan validate on Imaginary GPU, driver 580.65.06, torch 2.13.0,
2026-01-02, record imaginary-gpu--meta-llama-llama-3.1-8b--2026-01-02.json

On one H80
                 GiB  of capacity                            basis
  weights      12.55         16 %  ███▊                      exact
  KV cache      8.00         10 %  ██▍                       exact
  activations   0.63        0.8 %  ▎                         derived
  context       0.79        1.0 %  ▎                         calibrated
  total        21.97         27 %  ██████▋
  capacity     80.00               ████████████████████████
  fits: 58.03 GiB free
  decode: reads 20.31 GiB a step, 7.27 ms at 3 TB/s (measured): at most 550 tokens/s\
""")


def test_only_what_rests_on_a_record_is_said_to() -> None:
    slow = replace(MEASURED, read_bytes_per_second=None)
    context = render(plan(gpu=replace(H80, measured=slow)))
    both = render(plan(gpu=replace(H80, measured=MEASURED)))
    bandwidth = render(plan(gpu=replace(H80, measured=MEASURED), tp=2))
    neither = render(plan(gpu=replace(H80, measured=slow), tp=2))
    said = [re.findall("(.*) as measured: ", shown) for shown in (context, both, bandwidth, neither)]
    assert said == [["context"], ["context and bandwidth"], ["bandwidth"], []]


RATED = replace(H80, bandwidth_bytes_per_second=0.3e12)
# Weights less the token table: 13,214,687,232 bytes (12.31 GiB), of the second of two stages 6,738,419,712 (6.28 GiB);
# the cache of a sequence: 2 GiB at 4096 tokens.
DECODES = {
    "one GPU": ({}, "decode: reads 14.31 GiB a step, 51.2 ms at 300 GB/s (data sheet): at most 20 tokens/s"),
    "slow": (
        {"seq_len": 131_072},
        "decode: reads 76.31 GiB a step, 273 ms at 300 GB/s (data sheet): at most 3.7 tokens/s",
    ),
    "stages": (
        {"pp": 2, "batch_size": 16},
        "decode: reads 22.28 GiB in turn a step, 79.7 ms at 300 GB/s (data sheet): at most 201 tokens/s",
    ),
    "does not fit": ({"batch_size": 64}, None),
}


@pytest.mark.parametrize(("how", "line"), DECODES.values(), ids=DECODES)
def test_the_speed(how: dict[str, Any], line: str | None) -> None:
    shown = [row.strip() for row in render(plan(gpu=RATED, **how)).splitlines() if "decode: " in row]
    assert shown == ([] if line is None else [line])


def test_the_whole_model_and_its_windows() -> None:
    shown = render(plan(MISTRAL, engine="transformers", batch_size=4)).split("\n\n")[2:]
    assert "\n\n".join(shown) == snapshot("""\
Whole model
  parameters   5,933,109,248
  weights     11,866,218,496 bytes (11.05 GiB)   bf16: mlp 73 %, attention 23 %, embeddings 2.2 %
  KV cache       536,870,912 bytes (512 MiB)     bf16
  reserved       536,346,624 bytes (511.50 MiB)  held by transformers 5.23
  per token                0 bytes (0 B)         the last token of one sequence

KV cache by layer
  layers        keep          bytes/token   needed    reserved
  32 × sliding  1,024 tokens      131,072  512 MiB  511.50 MiB

Transient memory of the largest attention call, by backend (the plan counts flash)
           batch × query × key      eager        math  efficient      flash
  prefill  4 × 4,096 × 4,096    20.25 GiB   19.19 GiB    128 MiB    130 MiB
  decode   4 × 1 × 1,024        65.25 MiB  224.62 MiB     32 KiB  32.50 KiB
""")


def test_a_state_is_fixed() -> None:
    model = load("Qwen/Qwen3-Next-80B-A3B-Instruct")
    assert model is not None
    shown = render(plan_memory(model, resolve(model, seq_len=8192)))
    assert shown.split("KV cache by layer\n")[1].split("\n\n")[0] == snapshot("""\
  layers       keep         bytes/token     needed
  36 × linear  fixed state            0  74.25 MiB
  12 × full    all tokens        24,576    192 MiB\
""")
    assert describe_mixer(model.layers[0].mixers[0]) == snapshot(
        "linear (gated delta), 32 heads, 16 key heads, conv channels 8,192, conv columns 4, state bits 32, dim 128"
    )


def test_stages_that_differ_are_listed() -> None:
    shown = render(plan(gpu=H80, num_gpus=4, pp=4, seq_len=1024)).split("\n\n")[1:3]
    assert "\n\n".join(shown) == snapshot("""\
On the fullest of 4 × H80 (tp 1, pp 4): stage 3
                 GiB  of capacity                            basis
  weights       3.26        4.1 %  █                         exact
  KV cache      0.12        0.2 %  ▏                         exact
  activations   0.08        0.1 %  ▏                         derived
  context       1.00        1.2 %  ▎                         assumed
  total         4.46        5.6 %  █▍
  capacity     80.00               ████████████████████████
  fits: 75.54 GiB free on the fullest GPU; 1 × H80 would do

Pipeline stages, each GPU
  stage  GPUs  weights  KV cache  activations  context  total GiB
  0      0        3.26      0.12         0.08     1.00       4.46
  1-2    1-2      3.02      0.12         0.08     1.00       4.22
  3      3        3.26      0.12         0.08     1.00       4.46\
""")


VERDICTS = {
    "fits": ({"gpu": H80}, "fits: "),
    "too many GPUs": ({"gpu": H80, "num_gpus": 4}, "free on each GPU; 1 × H80 would do"),
    "does not fit": ({"gpu": H80, "batch_size": 64}, "GiB too much; smallest that would do: 2 × H80 (tp 2)"),
    "fits nowhere": ({"gpu": replace(H80, memory_bytes=2**20)}, "too much; nor do 512 GPUs hold it"),
}


@pytest.mark.parametrize(("how", "sentence"), VERDICTS.values(), ids=VERDICTS)
def test_the_verdict(how: dict[str, Any], sentence: str) -> None:
    assert sentence in render(plan(**how))


def test_no_verdict_without_a_gpu_or_its_memory() -> None:
    for gpu in (None, replace(H80, memory_bytes=None)):
        shown = render(plan(gpu=gpu))
        assert "fit" not in shown
        assert "capacity" not in shown


def test_lines_stay_within_a_terminal() -> None:
    shown = render(plan(MISTRAL, gpu=H80, num_gpus=4, pp=2, batch_size=1024, engine="transformers"))
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("draw", [text.draw, markdown.draw, html.draw], ids=["text", "markdown", "html"])
def test_hostile_strings_stay_text(draw: Any) -> None:
    shown = draw(plan_page(plan(id=HOSTILE, gpu=replace(H80, name=HOSTILE))))
    assert not set(shown) & set("\x1b\x07\r\u202e")
    assert "\\x1b[2J" in shown.replace("\\\\", "\\").replace("\\[", "[")
    if draw is not text.draw:
        assert "<script>" not in re.sub(r"\\<", "", shown)


def test_markdown_tables_have_as_many_cells_as_columns() -> None:
    shown = markdown.draw(plan_page(plan(id=HOSTILE)))
    for block in re.findall(r"(?:^\|.*\n)+", shown, flags=re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
        assert len(counts) == 1


class Balance(HTMLParser):
    """Counts open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_balanced_and_stands_alone() -> None:
    shown = html.render(plan(gpu=H80, id=HOSTILE))
    parser = Balance()
    parser.feed(shown)
    assert parser.open == []
    assert "http" not in shown
    assert "2,147,483,648 bytes (2 GiB)" in shown


def test_colour_only_where_it_is_asked_for() -> None:
    assert "\x1b" not in render(plan(gpu=H80))
    colored = render(plan(gpu=H80), color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == render(plan(gpu=H80))
    assert "\x1b[1;32mfits" in colored


def test_an_output_that_cannot_carry_blocks_gets_ascii() -> None:
    page = Page(title="é ×", tables=(Table(title="", header=("", ""), align="ll", rows=(("a", "b"),), bars=(0.5,)),))
    drawn = text.draw(page)
    assert text.encodable(drawn, "utf-8") == drawn
    assert text.encodable(drawn, "ascii") == "\\xe9 x\n\na  ############  b\n"
    assert text.encodable(drawn, None).isascii()
    assert text.encodable(drawn, "no-such-codec").isascii()
    assert text.encodable("\udc80", "utf-8") == "\\udc80"


def test_bars() -> None:
    assert [text.bar(share, 4) for share in (0, 0.001, 0.25, 0.5, 1, 7, -1)] == ["", "▏", "█", "██", "████", "████", ""]


def test_long_lines_are_wrapped() -> None:
    drawn = text.draw(Page(title="t", lines=(Line("word " * 60),)))
    assert max(map(len, drawn.splitlines())) <= 100


def test_numbers_for_people() -> None:
    assert (gib(0), gib(1), gib(GIB), gib(1234 * GIB)) == ("0.00", "<0.01", "1.00", "1,234.00")
    assert exact_bytes(1_342_177_280) == "1,342,177,280 bytes (1.25 GiB)"
    assert [percent(part, 1000) for part in (0, 1, 12, 99, 100, 1000, 1640)] == [
        "0 %", "0.1 %", "1.2 %", "9.9 %", "10 %", "100 %", "164 %",
    ]  # fmt: skip
    assert percent(1, 10**6) == "<0.1 %"
    assert percent(0, 0) == "0 %"
    assert (plural(1, "layer"), plural(2, "layer")) == ("1 layer", "2 layers")
    assert printable("a\nb\x9b\u2066") == "a\\nb\\x9b\\u2066"
    assert printable("x" * 300, max_length=10) == "x" * 10 + "…"
