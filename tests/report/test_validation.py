"""What a person and a program see of a validation. The two documents are imaginary, as their round numbers show."""

import copy
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from kvplan.core.errors import InputError
from kvplan.report import data, html, markdown, schema, text
from kvplan.report.plots import save_plot
from kvplan.report.validation import validation_page, validation_rows
from kvplan.report.validation_plot import plot_validation
from kvplan.report.validation_tables import multiple, seconds_text, share, short_names, signed, some

FOLDER = Path(__file__).parents[1] / "data" / "validate"
CPU, GPU = (json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in ("cpu", "gpu"))
HOSTILE = "\x1b[2J<script>alert(1)</script>|`*_\u202eevil$\\frac$\n\r\x07"


def changed(document: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A copy with other parts."""
    return copy.deepcopy(document) | parts


def row(**given: Any) -> dict[str, Any]:
    """A row that agrees, unless `given` says otherwise."""
    plain = {
        "section": "memory",
        "case": "all layers",
        "term": "pools",
        "unit": "bytes",
        "tolerance": 0.0,
        "slack": 0.0,
    }
    sides = {"predicted": 4096, "measured": 4096, "error": 0.0, "spread": None, "note": "", "verdict": "ok"}
    return plain | sides | given


def shown(document: dict[str, Any]) -> str:
    return text.draw(validation_page(document))


def block(document: dict[str, Any], title: str) -> str:
    """One table of the page as text."""
    (found,) = [part for part in shown(document).split("\n\n") if part.startswith(title)]
    return found


def last_line(document: dict[str, Any]) -> str:
    return validation_page(document).tables[-1].after[-1].text


def test_the_page_of_a_cpu() -> None:
    assert shown(CPU) == snapshot("""\
imaginary/small on Imaginary CPU: predicted and measured
Imaginary CPU, torch 2.13.0+cpu, Triton 3.7.1, Python 3.11.0, kvplan 0.1.0, 2026-01-02 03:04 UTC
not run on a GPU: no figure below is a GPU's; allocations are main memory's, kernels interpreted
imaginary, 4 of 4 layers tried, level quick, took 20 s
error: (predicted - measured) / measured; below zero, the plan counts too little

Layers tried
  layers       count  each            sequences  tokens  dtype  KV cache
  sliding 100      2  8/2 heads × 64          1   1,000  bf16   bf16
  full             2  8/2 heads × 64          1   1,000  bf16   bf16

Memory, bytes
  layers                                 predicted   measured  error  verdict
  sliding 100  pools           1,015,808 (992 KiB)      equal         ok
  full         pools      1,032,192 (1,008.00 KiB)      equal         ok
  all layers   requested      2,049,024 (1.95 MiB)      equal         ok
  all layers   process        2,049,024 (1.95 MiB)  4,194,304  -51 %  ok
  process may differ by 1 % or 64 MiB, whichever is more

Correctness of the kernels that are measured, against float64
  layers       phase    largest error  allowed  verdict
  sliding 100  decode           0.002     0.01  ok
  sliding 100  prefill          0.003     0.01  ok
  full         decode           0.002     0.01  ok
  full         prefill          0.003     0.01  ok

Transient memory of one attention call (batch × query × key); ratio: eager to flash
  layers                call     eager      math    flash  ratio  error
  sliding 100  1 × 128 × 128  1.50 MiB  2.31 MiB  132 KiB    12×  equal
  full         1 × 128 × 128  1.50 MiB  2.31 MiB  132 KiB    12×  equal
  eager, math and flash may differ by 1 %

Verdict
               agree  off  inconclusive  not judged
  memory           4    -             -           -
  correctness      4    -             -           -
  transient        6    -             -           -
  ok: 14 of 14 terms agree
""")


def test_the_page_of_a_gpu() -> None:
    assert shown(GPU) == snapshot("""\
imaginary/hybrid on Imaginary GPU: predicted and measured
Imaginary GPU, 64 GiB, 100 SMs, compute capability 99.0, driver 100.10, CUDA 99.0, torch 2.13.0,
Triton 3.7.1, Python 3.11.0, kvplan 0.1.0, 2026-01-02 03:04 UTC
at that time: SM clock 1,000 MHz, memory clock 2,000 MHz, 50 °C, 500 W
imaginary, 14 of 28 layers tried, as many as the memory for it holds, level quick, took 100 s
error: (predicted - measured) / measured; below zero, the plan counts too little

Layers tried
  layers        count  each                    sequences  tokens  dtype  KV cache
  sliding 1024      6  32/8 heads × 128                8  10,000  bf16   bf16
  full              6  32/8 heads × 128                8  10,000  bf16   bf16
  linear            2  32 states of 128 × 128          8  10,000  bf16   bf16

In use at each point, MiB: by torch's allocator, by this process, by all on the device
           requested  allocated  reserved  process  device
  context        0.0        0.0       0.0    500.0       -
  warm-up        0.0        0.0      20.0    520.0       -
  pool       2,484.2    2,484.2   2,518.0  3,018.0       -
  run        2,484.2    2,484.2   2,518.0  3,019.0       -
  graphs     2,484.2    2,484.2   2,518.0  3,029.0       -

Memory, bytes
  layers                                      predicted       measured   error  verdict
  sliding 1024  pools             603,979,776 (576 MiB)          equal          ok
  full          pools          1,966,080,000 (1.83 GiB)  1,955,594,240  +0.5 %  off
  linear        pools               34,603,008 (33 MiB)          equal          ok
  all layers    requested      2,604,903,168 (2.43 GiB)          equal          ok
  all layers    allocated      2,604,914,688 (2.43 GiB)          equal          ok
  all layers    reserved       2,619,342,848 (2.44 GiB)          equal          ok
  sliding 1024  workspace             598,016 (584 KiB)          equal          ok
  full          workspace             598,016 (584 KiB)          equal          ok
  all layers    left by a run                         0          equal          ok
  process       context           503,316,480 (480 MiB)    524,288,000  -4.0 %  ok
  process       total          3,143,630,848 (2.93 GiB)  3,164,602,368  -0.7 %  ok
  process       graphs                                -     10,485,760          not judged
  context may differ by 32 MiB
  total may differ by 1 % or 64 MiB, whichever is more
  not judged: graphs of process: one captured decode step through all layers

Correctness of the kernels that are measured, against float64
  layers        phase    largest error  allowed  verdict
  sliding 1024  decode           0.002     0.01  ok
  sliding 1024  prefill          0.003     0.01  ok
  full          decode           0.002     0.01  ok
  full          prefill          0.003     0.01  ok
  linear        decode               -        -  not judged
  not judged: decode of linear: this device has no such type

Transient memory of one attention call (batch × query × key); ratio: eager to flash
  layers                     call     eager      math  efficient      flash  ratio       error
  sliding 1024  1 × 2,048 × 2,048  1.28 GiB  1.28 GiB  16.25 MiB  16.25 MiB    81×       equal
  full          1 × 2,048 × 2,048  1.28 GiB  1.31 GiB    refused  16.25 MiB    81×  -2.2 % off
  eager, math, efficient and flash may differ by 1 %
  off: math of full: predicted 1,375,797,248 (1.28 GiB), measured 1,407,254,528; 1 × 2,048 × 2,048
  not judged: efficient of full: torch refuses: Mem efficient kernel does not take this.

Bytes and operations of the timed calls, counted on tensors and by the plan
                 calls  equal  worst error  verdict
  decode bytes      17     17        equal  ok
  decode flops      17     17        equal  ok
  prefill bytes      8      8        equal  ok
  prefill flops      8      8        equal  ok

Best rates, one layer's attention
  layers        phase    loads  GB/s  of ceiling  TFLOP/s  of ceiling
  sliding 1024  decode       6   785        78 %      3.1       3.1 %
  sliding 1024  prefill      2   118        12 %     49.8        50 %
  full          decode       6   985        98 %      3.9       3.9 %
  full          prefill      6   118        12 %     71.2        71 %
  linear        decode       5   694        77 %      0.5       0.5 %
  ceilings of the same run: read 1,000 GB/s, copy 900 GB/s (for states) and product 100 TFLOP/s

Times: t0 + the longer of bytes and operations at a share of the ceilings, fitted on half the loads
  layers        phase         t0  memory  product  n  median    p90  worst    bias  verdict
  sliding 1024  decode   9.91 µs    80 %        -  2   1.3 %  1.5 %  1.5 %  -0.2 %  ok
  sliding 1024  prefill        -       -        -  -       -      -      -       -  not judged
  full          decode   10.9 µs    91 %        -  2    22 %   30 %   32 %   -22 %  inconclusive
  full          prefill  23.8 µs       -     56 %  2    34 %   42 %   43 %   -34 %  off
  linear        decode   10.1 µs    79 %        -  2   2.0 %  2.0 %  2.0 %  +2.0 %  ok
  errors on the other half, n of them; allowed are a median and a worst of decode 5.0 % and 15 %,
  prefill 10 % and 30 %
  not judged: prefill of sliding 1024: calls of 2 sizes are too few to fit and to judge a speed
  inconclusive: decode of full: median 22 %, worst 32 % at 1 × 30,000, measurements spread 20 %
  off: prefill of full: median 34 %, worst 43 % at 8 × 1,000, measurements spread 1.0 %

Decode steps, the attention of all the model's layers and nothing else
  sequences  tokens each   a step  tokens/s
          1        2,000   246 µs     4,068
          1       30,000   1.4 ms       715
          4        8,000  1.09 ms     3,676
         16        4,000  2.79 ms     5,730
         32        8,000  11.8 ms     2,719
         64        2,000  6.02 ms    10,632

Verdict
               agree  off  inconclusive  not judged
  memory          10    1             -           1
  correctness      4    -             -           1
  transient        6    1             -           1
  work            50    -             -           -
  times            2    1             1           1
  not measured: throughput, prefill, full: too little memory
  framework failed: transformers 5.23.0 does not know the model type `imaginary` (FrameworkError)
  off: 3 of 76 terms do not agree: pools of full (memory, +0.5 %), math of full (transient, -2.2 %)
  and prefill of full (times, median 34 %); 1 spread too widely to be judged; 1 part failed
""")


def test_markdown() -> None:
    made = markdown.draw(validation_page(GPU))
    assert made.split("\n\n")[0] == snapshot("### imaginary/hybrid on Imaginary GPU: predicted and measured")
    (memory,) = re.findall(r"\*\*Memory, bytes\*\*\n\n((?:\|.*\n)+)", made)
    assert memory == snapshot("""\
| layers |  | predicted | measured | error | verdict |
| :--- | :--- | ---: | ---: | ---: | :--- |
| sliding 1024 | pools | 603,979,776 (576 MiB) | equal |  | ok |
| full | pools | 1,966,080,000 (1.83 GiB) | 1,955,594,240 | +0.5 % | off |
| linear | pools | 34,603,008 (33 MiB) | equal |  | ok |
| all layers | requested | 2,604,903,168 (2.43 GiB) | equal |  | ok |
| all layers | allocated | 2,604,914,688 (2.43 GiB) | equal |  | ok |
| all layers | reserved | 2,619,342,848 (2.44 GiB) | equal |  | ok |
| sliding 1024 | workspace | 598,016 (584 KiB) | equal |  | ok |
| full | workspace | 598,016 (584 KiB) | equal |  | ok |
| all layers | left by a run | 0 | equal |  | ok |
| process | context | 503,316,480 (480 MiB) | 524,288,000 | -4.0 % | ok |
| process | total | 3,143,630,848 (2.93 GiB) | 3,164,602,368 | -0.7 % | ok |
| process | graphs | - | 10,485,760 |  | not judged |
""")
    for found in re.findall(r"(?:^\|.*\n)+", made, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in found.splitlines()}) == 1


def test_variants_stand_beside_multi_head_attention() -> None:
    timed = {"decode_seconds": 1e-4, "decode_load": [8, 4000], "decode_speed_against_mha": 3.9}
    not_timed = {"prefill_seconds": None, "prefill_load": None, "prefill_speed_against_mha": None}
    nothing = {"decode_seconds": None, "decode_load": None, "decode_speed_against_mha": None}
    fused = {"flash_memory_against_eager": 12.5, "flash_speed_against_eager": 2.5}
    refused = dict.fromkeys(fused)
    found = [
        {"name": "MHA", "predicted_bytes": 2**25, "measured_bytes": 2**25, "memory_against_mha": 1.0, **timed, **fused},
        {
            "name": "GQA",
            "predicted_bytes": 2**23,
            "measured_bytes": 2**23 + 1,
            "memory_against_mha": 4.0,
            **timed,
            **refused,
        },
        {"name": "sparse", "predicted_bytes": 0, "measured_bytes": 0, "memory_against_mha": None, **nothing, **fused},
    ]
    document = changed(CPU, variants=[one | not_timed for one in found])
    assert block(document, "Variants") == snapshot("""\
Variants at one shape; less memory and faster: against MHA
                  pool, bytes   measured  less  decode  faster
  MHA     33,554,432 (32 MiB)      equal  1.0×  100 µs    3.9×
  GQA       8,388,608 (8 MiB)  8,388,609  4.0×  100 µs    3.9×
  sparse              nothing      equal     -       -       -\
""")
    assert block(document, "Flash") == snapshot("""\
Flash attention against eager, one call: less memory, faster
          less  faster
  MHA      12×    2.5×
  sparse   12×    2.5×\
""")
    STRICT.validate(document)
    slow = {"flash_speed_against_eager": None}
    on_a_cpu = changed(CPU, variants=[one | nothing | not_timed | slow for one in found])
    assert block(on_a_cpu, "Flash").splitlines()[1].split() == ["less"]
    without = changed(CPU, variants=[one | not_timed | refused for one in found])
    assert "Flash attention" not in shown(without)
    assert block(on_a_cpu, "Variants").splitlines()[1].split() == ["pool,", "bytes", "measured", "less"]


def test_ranks_and_what_a_later_version_adds() -> None:
    rows = [
        row(section="ranks", case="rank 0 (tp 0, cp 0, stage 0)", term="cache"),
        row(section="ranks", case="rank 1 (tp 1, cp 0, stage 0)", term="cache", measured=0, error=None, verdict="off"),
        row(section="ranks", case="rank 0 to 1", term="decode", unit="relative error", predicted=0.0, measured=0.002,
            slack=0.01, error=-1.0),
        row(section="moons", case="one of them", term="mass", unit="kg", predicted=2.5, measured=2.0, error=0.25,
            tolerance=0.5),
    ]  # fmt: skip
    document = changed(CPU, rows=rows, inputs={"tp": 2, "pp": 1, "cp": 1}, verdict="off")
    made = shown(document).split("\n\n")
    assert made[0].splitlines()[3] == "imaginary, tp 2, pp 1, cp 1, took 20 s"
    assert "\n\n".join(made[2:]) == snapshot("""\
Ranks
  rank                                      predicted  measured  error  verdict
  rank 0 (tp 0, cp 0, stage 0)  cache   4,096 (4 KiB)     equal         ok
  rank 1 (tp 1, cp 0, stage 0)  cache   4,096 (4 KiB)         0         off
  rank 0 to 1                   decode   at most 0.01     0.002         ok

moons
  layers             predicted  measured  error  verdict
  one of them  mass      2.500         2  +25 %  ok

Verdict
         agree  off  inconclusive  not judged
  ranks      2    1             -           -
  moons      1    -             -           -
  off: 1 of 4 terms does not agree: cache of rank 1 (tp 1, cp 0, stage 0) (ranks)
""")


def test_the_framework_names_itself_once() -> None:
    rows = [row(section="framework", case=kind, term="after the prompt", note="transformers 5.23") for kind in "ab"]
    assert block(changed(CPU, rows=rows), "The framework").count("transformers 5.23") == 1


VERDICTS: dict[str, tuple[dict[str, Any], str]] = {
    "all agree": ({}, "ok: 14 of 14 terms agree"),
    "one term": ({"rows": [row()]}, "ok: 1 of 1 term agree"),
    "one of two does not": (
        {"rows": [row(), row(verdict="off", error=-0.25, measured=5461)], "verdict": "off"},
        "off: 1 of 2 terms does not agree: pools of all layers (memory, -25 %)",
    ),
    "kernels compute wrong": (
        {"rows": [row(unit="relative error", verdict="off", error=-1.0, term="decode")], "verdict": "off"},
        "off: 1 of 1 term does not agree: decode of all layers (memory)",
    ),
    "measured unsteadily": (
        {"rows": [row(), row(verdict="inconclusive", error=0.1, measured=1)], "verdict": "inconclusive"},
        "inconclusive: 1 of 2 terms agree, 1 spread too widely to be judged: pools of all layers (memory, +10 %)",
    ),
    "nothing was judged": ({"rows": [row(measured=None, verdict="info")], "verdict": "info"}, "info: nothing was judged"),
    "only a job failed": (
        {"failures": [{"where": "memory", "kind": "crash", "message": "it fell"}], "verdict": "off"},
        "off: 14 of 14 terms agree; 1 part failed",
    ),
    "many are off": (
        {"rows": [row(verdict="off", error=-0.5, term=f"t{i}") for i in range(9)], "verdict": "off"},
        "off: 9 of 9 terms do not agree: t0 of all layers (memory, -50 %), t1 of all layers (memory, -50 %), "
        "t2 of all layers (memory, -50 %), t3 of all layers (memory, -50 %) and 5 more",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "sentence"), VERDICTS.values(), ids=VERDICTS)
def test_the_last_line_is_the_verdict(parts: dict[str, Any], sentence: str) -> None:
    assert last_line(changed(CPU, **parts)) == sentence


def test_what_is_off_is_red_and_what_agrees_green() -> None:
    assert "\x1b[1;32mok: 14 of 14" in text.draw(validation_page(CPU), color=True)
    colored = text.draw(validation_page(GPU), color=True)
    assert "\x1b[1;31moff: 3 of" in colored
    assert "\x1b[1;31mframework failed" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == shown(GPU)


def test_what_was_not_measured_is_told() -> None:
    late = {"failure": {"kind": "not run", "message": "the time was up"}}
    crash = [{"where": "memory", "kind": "crash", "message": "ended by SIGSEGV: it said nothing"}]
    document = changed(CPU, failures=crash, verdict="off")
    document["readings"]["framework"] = late
    told = [line.text for line in validation_page(document).tables[-1].after]
    assert told[:-1] == [
        "not measured: framework: the time was up",
        "memory failed: ended by SIGSEGV: it said nothing (crash)",
    ]


def test_a_cpu_is_never_taken_for_a_gpu() -> None:
    (told,) = [line for line in validation_page(CPU).lines if "not run on a GPU" in line.text]
    assert "no figure below is a GPU's" in told.text
    assert not [line for line in validation_page(GPU).lines if "not run on a GPU" in line.text]


def many_kinds(number: int) -> dict[str, Any]:
    """The CPU's document with as many kinds of layers, told apart by their heads."""
    document = copy.deepcopy(CPU)
    case, rows = document["cases"][1], [one for one in document["rows"] if one["case"] == document["cases"][1]["name"]]
    names = [f"12 × full, {i}/{i} heads × 64" for i in range(number)]
    document["cases"] = [case | {"name": name} for name in names]
    document["rows"] = [one | {"case": name} for name in names for one in rows]
    return document


def test_twenty_kinds_of_layers_get_letters() -> None:
    document = many_kinds(20)
    memory = block(document, "Memory").splitlines()
    assert [line.split("pools")[0].strip() for line in memory[2:]] == [
        f"{letter} full" for letter in "ABCDEFGHIJKLMNOPQRST"
    ]
    assert max(map(len, shown(document).splitlines())) <= 100


def test_short_names() -> None:
    names = ["18 × sliding 128, 64/8 heads × 64, sinks", "18 × full, 64/8 heads × 64", "GQA, 8 KV heads", "MHA"]
    made = short_names([{"name": name} for name in names])
    assert list(made.values()) == ["sliding 128", "full", "GQA", "MHA"]
    assert list(made) == names


@given(st.lists(st.text(max_size=80), min_size=2, max_size=2, unique=True), st.integers(0, 10**12))
def test_every_line_fits_whatever_the_layers_are_called(names: list[str], more: int) -> None:
    document = copy.deepcopy(GPU)
    for found in (document["cases"], document["rows"], document["fits"]):
        for one in found:
            for case, name in zip(GPU["cases"][:2], names, strict=True):
                field = "name" if "name" in one else "case"
                one[field] = name if one[field] == case["name"] else one[field]
    document["rows"][0] |= {"measured": document["rows"][0]["predicted"] + more, "verdict": "off", "error": -0.5}
    for table in validation_page(document).tables:
        drawn = text.draw(type(validation_page(CPU))(title="", tables=(table,)))
        assert max(map(len, drawn.splitlines())) <= 100


@pytest.mark.parametrize("draw", [text.draw, markdown.draw, html.draw], ids=["text", "markdown", "html"])
def test_hostile_strings_stay_text(draw: Any) -> None:
    made = draw(validation_page(hostile()))
    assert not set(made) & set("\x1b\x07\r\u202e")
    if draw is not text.draw:
        assert "<script>" not in re.sub(r"\\<", "", made)


def hostile() -> dict[str, Any]:
    """Every string of rows, cases and device that a file may hold, as bad as can be."""
    document = changed(GPU, name=HOSTILE, failures=[dict.fromkeys(("where", "kind", "message"), HOSTILE)])
    document["device"] |= dict.fromkeys(("name", "driver", "torch", "triton", "python", "compute_capability"), HOSTILE)
    document["model"], document["inputs"]["level"] = {"model_type": HOSTILE}, HOSTILE
    for one in document["rows"]:
        one |= {"term": HOSTILE, "note": HOSTILE, "case": HOSTILE}
    document["rows"].append(row(section=HOSTILE))
    for one in document["fits"]:
        one |= {"case": HOSTILE, "phase": HOSTILE}
    return document


def test_csv_is_tidy() -> None:
    made = data.dump_csv(validation_rows(GPU))
    assert made.splitlines()[0] == snapshot(
        "model,device,device_kind,date,section,case,term,unit,predicted,measured,error,tolerance,slack,spread,verdict,note"
    )
    rows = list(csv.DictReader(io.StringIO(made)))
    assert len(rows) == len(GPU["rows"]) + sum("model" in fit and fit["num_points"] for fit in GPU["fits"])
    assert {one["device_kind"] for one in rows} == {"cuda"}
    kernels = [one for one in rows if one["section"] == "correctness"]
    assert {one["error"] for one in kernels} == {""}
    assert made.splitlines()[1] == snapshot(
        'imaginary/hybrid,Imaginary GPU,cuda,2026-01-02T03:04:05+00:00,memory,"6 × sliding 1024, 32/8 heads × 128",pools,bytes,603979776,603979776,0.0,0.0,0.0,,ok,"6 layers, 1,536 pages a layer"'
    )


def test_a_timed_load_stands_beside_the_model_of_its_kind() -> None:
    # t0 + flops / (share · 100 TFLOP/s): these prompts are bound by arithmetic at every length.
    fit = next(one for one in GPU["fits"] if one["phase"] == "prefill" and "model" in one)
    found = [one for one in validation_rows(GPU) if (one["section"], one["term"]) == ("times", "prefill")]
    loads = [one for one in GPU["readings"]["throughput"] if one["case"] == fit["case"] and one["phase"] == "prefill"]
    done = [one for one in loads if "failure" not in one]
    assert [one["measured"] for one in found] == [one["seconds"] for one in done]
    model = fit["model"]
    arithmetic = [one["flops"] / (model["flops_share"] * 1e14) for one in done]
    expected = [model["overhead_seconds"] + seconds for seconds in arithmetic]
    assert [one["predicted"] for one in found] == pytest.approx(expected)
    assert {one["verdict"] for one in found} == {"info"}
    worst = max(found, key=lambda one: abs(one["error"]))
    assert worst["error"] == pytest.approx((worst["predicted"] - worst["measured"]) / worst["measured"])


def test_a_call_bound_by_what_no_fitted_call_was_bound_by_has_no_prediction() -> None:
    document = copy.deepcopy(GPU)
    timed = next(one for one in document["readings"]["throughput"] if one["phase"] == "decode")
    timed["flops"] = 10**18
    unknown = [one for one in validation_rows(document) if one["section"] == "times" and one["predicted"] is None]
    assert [(one["case"], one["measured"], one["error"]) for one in unknown] == [
        (timed["case"], timed["seconds"], None)
    ]


BROKEN: dict[str, tuple[Any, str]] = {
    "a list": ([], "no document of the schema"),
    "another schema": ({"schema": "kvplan/estimate/1"}, "no document of the schema `kvplan/validate/1`"),
    "a part is missing": ({key: value for key, value in CPU.items() if key != "fits"}, "has no `fits`"),
    "a column is missing": (changed(CPU, rows=[{"section": "memory"}]), "a row .* has no `case`"),
    "a word for a number": (changed(CPU, rows=[row(measured="much")]), "`measured` in a row .* is no number"),
    "another verdict": (changed(CPU, rows=[row(verdict="splendid")]), "`splendid` is not a verdict"),
    "another verdict of all": (changed(CPU, verdict="splendid"), "`splendid` is not a verdict"),
}


@pytest.mark.parametrize("show", [validation_page, validation_rows, lambda one: plot_validation([one])])
@pytest.mark.parametrize(("document", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_document_is_refused(document: Any, message: str, show: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        show(document)
    assert caught.value.hint


def test_figures_for_people() -> None:
    errors = (None, 0.0, 0.0004, -0.0004, 0.023, -0.045, -0.14, 0.0995, 4.0, 12.0)
    assert [signed(error) for error in errors] == [
        "", "equal", "<0.1 %", "<0.1 %", "+2.3 %", "-4.5 %", "-14 %", "+10 %", "+400 %", ">999 %",
    ]  # fmt: skip
    assert [multiple(ratio) for ratio in (None, 4.0, 32.0, 0.25, 1.0, 9.96, 1024.0)] == [
        "-", "4.0×", "32×", "0.25×", "1.0×", "10×", "1,024×",
    ]  # fmt: skip
    assert [seconds_text(seconds) for seconds in (None, 1.23e-5, 0.00456, 7.8, 5000.0)] == [
        "-", "12.3 µs", "4.56 ms", "7.8 s", "5,000 s",
    ]  # fmt: skip
    assert [share(fraction) for fraction in (None, 0.875, 0.0321, 0.0995, 1.2)] == [
        "-",
        "88 %",
        "3.2 %",
        "10 %",
        "120 %",
    ]
    assert [some("abcde"[:number]) for number in (1, 2, 3, 5)] == ["a", "a and b", "a, b and c", "a, b, c and 2 more"]


# The schema


def strict(node: Any) -> Any:
    """The schema with every object closed: what kvplan prints must be published."""
    if isinstance(node, dict):
        closed = {"additionalProperties": False} if "properties" in node else {}
        return {key: strict(value) for key, value in node.items()} | closed
    return [strict(item) for item in node] if isinstance(node, list) else node


PUBLISHED = json.loads(schema.schema_text("validate"))
STRICT = jsonschema.Draft202012Validator(strict(PUBLISHED))


@pytest.mark.parametrize("document", [CPU, GPU], ids=["CPU", "GPU"])
def test_documents_are_what_the_schema_says_and_nothing_else(document: dict[str, Any]) -> None:
    STRICT.validate(document)
    for wrong in (
        {"verdict": "splendid"},
        {"schema": "kvplan/validate/2"},
        {"rows": [row(measured="much")]},
        {"rows": [row(more=1)]},
        {"rows": [{"section": "memory"}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            STRICT.validate(changed(document, **wrong))


def test_the_schema_is_fresh_and_leaves_room_for_new_keys() -> None:
    assert schema.build_schema("validate") == PUBLISHED, "run `python -m kvplan.report.schema`"
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)
    newer = changed(CPU, a_key_of_tomorrow=1, rows=[row(a_key_of_tomorrow=1)])
    jsonschema.Draft202012Validator(PUBLISHED).validate(newer)
    with pytest.raises(jsonschema.ValidationError):
        STRICT.validate(newer)


@pytest.mark.parametrize("document", [CPU, GPU], ids=["CPU", "GPU"])
def test_what_is_judged_today_is_what_the_schema_says(document: dict[str, Any]) -> None:
    record = pytest.importorskip("kvplan.validate.record")
    judged = json.loads(data.dump_json(record.recompute(document)))
    STRICT.validate(document | judged)
    assert {(one["section"], one["verdict"]) for one in judged["rows"]} == {
        (one["section"], one["verdict"]) for one in document["rows"]
    }


# The plot


def panel(figure: Any, ylabel: str) -> Any:
    (found,) = [ax for ax in figure.axes if ax.get_ylabel() == ylabel]
    return found


def errors_panel(figure: Any) -> Any:
    (found,) = [ax for ax in figure.axes if ax.get_xlabel().startswith("error")]
    return found


def points(ax: Any) -> list[tuple[float, float]]:
    """(x, y) of all that is drawn as a point, rings left out."""
    return [
        place
        for line in ax.lines
        if line.get_marker() == "o" and line.get_label() != "off"
        for place in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def comparable(document: dict[str, Any], unit: str | None = None) -> list[dict[str, Any]]:
    found = [one for one in validation_rows(document) if one["unit"] != "relative error"]
    both = [one for one in found if one["predicted"] is not None and one["measured"] is not None]
    return [one for one in both if unit is None or one["unit"] == unit]


def test_a_point_a_term_in_bytes_and_in_seconds() -> None:
    figure = plot_validation(GPU)
    assert len(figure.axes) == 3
    for unit in ("bytes", "seconds"):
        ax = panel(figure, f"predicted {unit}")
        assert ax.get_xlabel().startswith(f"measured {unit}")
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert ax.get_xlim() == ax.get_ylim()
        rows = [one for one in comparable(GPU, unit) if one["predicted"] > 0 and one["measured"] > 0]
        assert sorted(points(ax)) == sorted((one["measured"], one["predicted"]) for one in rows)
    assert "half of the loads made the model" in panel(figure, "predicted seconds").get_xlabel()


def test_every_error_has_its_line_in_percent() -> None:
    ax = errors_panel(plot_validation(GPU))
    terms = [label.get_text() for label in ax.get_yticklabels()]
    rows = comparable(GPU)
    assert set(terms) == {f"{one['section']}: {one['term']}" for one in rows}
    assert len(terms) == len(set(terms))
    expected = sorted((100 * one["error"], terms.index(f"{one['section']}: {one['term']}")) for one in rows)
    assert [value for point in sorted(points(ax)) for value in point] == pytest.approx(
        [value for point in expected for value in point]
    )
    counted = [int(re.match(r"n = (\d+)", one.get_text())[1]) for one in ax.texts]
    assert sum(counted) == len(rows)


def test_the_worst_are_named_and_what_is_off_is_ringed() -> None:
    figure = plot_validation(GPU)
    told = [one.get_text() for one in panel(figure, "predicted bytes").texts]
    assert "2  math of full -2.2 %" in told
    rings = [x for ax in figure.axes for line in ax.lines if line.get_label() == "off" for x in line.get_xdata()]
    # In both panels, of the pools and of one call.
    assert len(rings) == 4
    legend = [one.get_text() for one in figure.legends[0].get_texts()]
    assert legend == ["memory", "transient", "work", "times", "off", "allowed"]
    assert "n = 3; full +0.5 %" in [one.get_text() for one in errors_panel(figure).texts]


def test_without_a_gpu_there_are_no_seconds_and_points_are_hollow() -> None:
    figure = plot_validation(CPU)
    assert [ax.get_ylabel() for ax in figure.axes] == ["predicted bytes", ""]
    faces = {line.get_markerfacecolor() for ax in figure.axes for line in ax.lines if line.get_marker() == "o"}
    assert faces == {"none"}
    assert "hollow: no GPU" in [one.get_text() for one in figure.legends[0].get_texts()]
    gpu = plot_validation(GPU)
    assert "none" not in {
        line.get_markerfacecolor()
        for line in gpu.axes[0].lines
        if line.get_marker() == "o" and line.get_label() != "off"
    }


def test_several_records_are_told_apart() -> None:
    figure = plot_validation([CPU, GPU])
    assert figure.get_suptitle() == "Predicted against measured: 2 runs on Imaginary CPU and Imaginary GPU"
    assert len(points(errors_panel(figure))) == len(comparable(CPU)) + len(comparable(GPU))
    assert "n = 1; process, hybrid -4.0 %" in [one.get_text() for one in errors_panel(figure).texts]
    other = changed(CPU, device=CPU["device"] | {"name": "Another"})
    texts = [one.get_text() for one in errors_panel(plot_validation([CPU, other])).texts]
    assert any("Imaginary CPU" in one or "Another" in one for one in texts)


def test_what_has_no_place_on_a_logarithmic_scale_is_among_the_errors() -> None:
    rows = [
        row(),
        row(term="nothing", predicted=0, measured=0),
        row(term="unforeseen", predicted=0, measured=512, error=-1.0, verdict="off"),
        row(term="never came", predicted=512, measured=0, error=None, verdict="off"),
        row(term="unknown", predicted=512, measured=None, error=None, verdict="info"),
    ]
    figure = plot_validation(changed(CPU, rows=rows))
    ax = panel(figure, "predicted bytes")
    assert points(ax) == [(4096, 4096)]
    assert "3 terms of zero bytes, see the errors" in [one.get_text() for one in ax.texts]
    assert sorted(x for x, _ in points(errors_panel(figure))) == [-100, 0, 0, 300]
    no_bytes = plot_validation(changed(CPU, rows=rows[1:2]))
    assert points(panel(no_bytes, "predicted bytes")) == []


def test_nothing_to_draw_is_said() -> None:
    for documents in ([], [changed(CPU, rows=[])], [changed(CPU, rows=[row(measured=None, verdict="info")])]):
        with pytest.raises(InputError, match="nothing to plot"):
            plot_validation(documents)


@pytest.mark.parametrize("document", [CPU, GPU, hostile(), many_kinds(20)], ids=["CPU", "GPU", "hostile", "many"])
def test_every_plot_can_be_written(document: dict[str, Any], tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.svg" for i in range(2)]
    for path in paths:
        save_plot(plot_validation(document), path, dpi=30)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_only_flops_leave_the_errors_alone(tmp_path: Path) -> None:
    figure = plot_validation(changed(CPU, rows=[row(section="work", unit="flops")]))
    assert len(figure.axes) == 1
    save_plot(figure, tmp_path / "plot.png", dpi=30)
