"""Reading any log: wrappers and prefixes, several services, what is damaged or no log at all."""

import gzip
import io
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvplan.core.errors import InputError
from kvplan.runtime import lines
from kvplan.runtime.log import DIALECTS, GIST, KEYS, read_log
from kvplan.runtime.observation import FIGURES
from tests.runtime.logs import FOLDER, NAMES, lines_of, printed, values

MIXED = "vllm-0.19-tp2-gpt-oss.log"


def _all_printed(observations):
    return [(seen.engine, seen.model, seen.options, seen.errors, printed(seen)) for seen in observations]


@pytest.fixture(scope="module")
def plain():
    return {name: _all_printed(read_log(FOLDER / name)) for name in NAMES}


PREFIXES = {
    "kubernetes": lambda line: f"2026-01-01T00:00:00.000000000Z stdout F {line}",
    "kubectl --prefix": lambda line: f"[pod/vllm-0/server] {line}",
    "docker compose": lambda line: f"server-1  | {line}",
    "docker compose with times": lambda line: f"2025-07-16 04:09:14 gb_hub-server-1   | {line}",
    "journald": lambda line: f"Oct 03 13:18:04 host vllm[26513]: {line}",
    "syslog": lambda line: f"<14>1 2026-01-01T00:00:00.000Z host vllm[26513]: {line}",
    "loguru": lambda line: f"2026-01-01 00:00:00.000 | INFO     | runner:_drain:41 - {line}",
    "ci": lambda line: f"2026-01-01T00:00:00.0000000Z {line}",
    "docker json": lambda line: json.dumps({"log": line + "\n", "stream": "stderr", "time": "2026-01-01T00:00:00Z"}),
    "cloud json": lambda line: json.dumps({"jsonPayload": {"message": line}, "severity": "INFO"}, ensure_ascii=False),
    "json behind a time": lambda line: "2026-01-01T00:00:00Z " + json.dumps({"msg": line}),
    "colours": lambda line: f"\x1b[36m{line}\x1b[0m",
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", NAMES)
def test_prefixes_change_no_figure(name, prefix, plain):
    wrapped = [PREFIXES[prefix](line.rstrip("\n")) + "\n" for line in lines_of(name)]
    assert _all_printed(read_log(wrapped)) == plain[name]


NOISE = (
    "",
    "Traceback (most recent call last):",
    '10.0.0.1 - - [01/Jan/2026:00:00:00] "GET /health HTTP/1.1" 200',
    "GPU KV cache usage: 41.2%, Prefix cache hit rate: 33.1%",
    '{"level": "info", "msg": "memory is fine"}',
    "\x00\ufffd\x1b[0m",
    "Loading: 100%|██████████| 67/67 [00:23<00:00]\r",
)


@given(name=st.sampled_from(NAMES), prefix=st.sampled_from([None, *PREFIXES]), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_between_change_no_figure(name, prefix, data, plain):
    log = [line.rstrip("\n") for line in lines_of(name)]
    places = data.draw(st.lists(st.tuples(st.integers(0, len(log)), st.sampled_from(NOISE)), max_size=30))
    for at, noise in sorted(places, reverse=True):
        log.insert(at, noise)
    wrap = PREFIXES[prefix] if prefix else str
    assert _all_printed(read_log([wrap(line) for line in log])) == plain[name]


@given(name=st.sampled_from(NAMES), share=st.floats(0, 1), cut_line=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_log_that_was_cut_off_says_nothing_else(name, share, cut_line):
    """No figure, no option and no error that the whole log does not have."""
    data = (FOLDER / name).read_bytes()
    end = int(len(data) * share)
    end = end if cut_line else data.rfind(b"\n", 0, end) + 1
    whole = read_log(FOLDER / name)
    cut = read_log(io.BytesIO(data[:end]))
    assert len(cut) <= len(whole)
    for part, full in zip(cut, whole, strict=False):
        assert full.engine == part.engine
        everything = {(n, f.value, f.rank) for n, figures in full.figures.items() for f in figures}
        ranks = {(n, f.value) for n, figures in full.figures.items() for f in figures}
        if part.engine != "trtllm":  # whose later figures take the place of earlier ones
            for n, figures in part.figures.items():
                assert all((n, f.value, f.rank) in everything or (n, f.value) in ranks for f in figures)
        for option in ("tp", "pp", "dp", "gpu_memory_utilization", "max_num_seqs", "block_size"):
            if option in part.options and part.engine != "trtllm":
                assert part.options[option] == full.options[option]


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_is_survived(name):
    data = (FOLDER / name).read_bytes()
    step = max(1, len(data) // 400)
    for end in range(0, len(data), step):
        read_log(io.BytesIO(data[:end]))


@given(
    st.lists(
        st.one_of(
            st.text(max_size=80), st.sampled_from(KEYS), st.binary(max_size=60).map(lambda b: b.decode("latin-1"))
        )
    )
)
def test_any_lines_are_survived(log):
    read_log(log)


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data):
    read_log(io.BytesIO(data))


def test_two_services_in_one_log():
    one, two = lines_of("vllm-0.9-qwen3-8b.log"), lines_of("sglang-0.5-qwen3-8b.log")
    three = lines_of("vllm-0.33-llama.log")
    mixed = []
    for at in range(max(len(one), len(two), len(three))):
        for service, log in (("a-1", one), ("b-1", two), ("c-1", three)):
            mixed += [f"{service}  | {log[at]}"] if at < len(log) else []
    seen = {(each.engine, each.version): each for each in read_log(mixed)}
    assert values(seen["vllm", "0.9.2"], "num_tokens") == [136_080]
    assert values(seen["sglang", None], "num_tokens") == [375_106]
    assert values(seen["vllm", "0.33.0"], "num_tokens") == [457_104]


def test_restarts_come_in_order():
    log = lines_of("vllm-0.9-qwen3-8b.log") + lines_of("vllm-0.33-llama.log") + lines_of("vllm-0.9-qwen3-8b.log")
    seen = read_log(log)
    assert [each.version for each in seen] == ["0.9.2", "0.33.0", "0.9.2"]
    assert [values(each, "num_tokens") for each in seen] == [[136_080], [457_104], [136_080]]


@pytest.mark.parametrize(
    "log", [[], ["hello", "world"], ["GPU KV cache usage: 41.2%"], ["memory is fine, KV cache too"]]
)
def test_a_log_of_no_engine(log):
    assert read_log(log) == []


def test_an_engine_without_a_model():
    (seen,) = read_log(["vLLM API server version 0.9.2"])
    assert (seen.engine, seen.version, seen.model, seen.figures) == ("vllm", "0.9.2", None, {})


def test_paths_streams_and_gzip_say_the_same(tmp_path):
    data = (FOLDER / MIXED).read_bytes()
    packed = tmp_path / "log.of.any.name"
    packed.write_bytes(gzip.compress(data))
    expected = read_log(FOLDER / MIXED)
    for source in (str(FOLDER / MIXED), packed, io.BytesIO(data), io.BytesIO(gzip.compress(data))):
        assert read_log(source) == expected


def test_utf_16_as_a_windows_shell_writes_it():
    text = (FOLDER / MIXED).read_text(encoding="utf-8")
    assert read_log(io.BytesIO(text.encode("utf-16"))) == read_log(FOLDER / MIXED)


def test_gzip_that_was_cut_off_gives_what_there_is():
    packed = gzip.compress((FOLDER / MIXED).read_bytes())
    for end in range(2, len(packed), 97):
        assert len(read_log(io.BytesIO(packed[:end]))) <= 1
    assert values(read_log(io.BytesIO(packed[:-20]))[0], "num_tokens") == [2_591_776]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError) as caught:
        read_log(tmp_path / "none.log")
    assert caught.value.hint
    with pytest.raises(InputError):
        read_log(tmp_path)


def test_a_line_without_end_is_cut_and_the_next_is_read():
    long = b"x" * (3 * lines.MAX_LINE) + b" Available KV cache memory: 1.00 GiB\n"
    (seen,) = read_log(io.BytesIO(long + b"Available KV cache memory: 2.00 GiB\n"))
    assert values(seen, "kv_memory") == [2.0]
    assert seen.figures["kv_memory"][0].line_number == 2


@pytest.mark.parametrize("filling", ["a", "1", "1,111", "(", '{"a":', "GPU 0: NVIDIA A", "-", " ", "<a "])
def test_long_lines_of_any_kind_are_read(filling):
    """No pattern may take the square of a line's length: that would be minutes."""
    long = filling * (60_000 // len(filling))
    for key in KEYS:
        read_log([long + key + long, "vLLM API server version 0.9"])


def test_bytes_that_are_no_text_are_passed_over():
    (seen,) = read_log(io.BytesIO(b"\xff\x80\x00 Available KV cache memory: 2.00 GiB \xfe\n"))
    assert values(seen, "kv_memory") == [2.0]


def test_the_gpu_of_a_listing_above():
    rows = ["|   0  NVIDIA H100 80GB HBM3          On  |   00000000:0F:00.0 Off |"]
    (seen,) = read_log([*rows, "vLLM API server version 0.9.2", "Available KV cache memory: 2.00 GiB"])
    assert seen.gpu == "NVIDIA H100 80GB HBM3"
    (seen,) = read_log(["GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5f)", "Available KV cache memory: 2.00 GiB"])
    assert seen.gpu == "NVIDIA A100-SXM4-40GB"


def test_a_value_that_no_engine_takes_is_unread():
    (seen,) = read_log(["non-default args: {'model': 'a/b', 'tensor_parallel_size': 'two', 'max_model_len': 4096}"])
    assert seen.unread == ("tensor_parallel_size",)
    assert seen.options["max_model_len"] == 4096


WORDINGS = [said for dialect in DIALECTS for said in dialect.wordings]


@pytest.mark.parametrize("said", WORDINGS, ids=[f"{i}-{said.key[:30]}" for i, said in enumerate(WORDINGS)])
def test_a_wording_names_known_figures_and_states_versions(said):
    groups = [name for name in said.pattern.groupindex if not name.startswith("x_")]
    assert set(groups) <= FIGURES.keys()
    assert set(groups) <= said.units.keys()
    assert said.versions
    assert any(word in said.key for word in GIST)
    assert re.escape(said.key) == said.key or said.key.isprintable()


def test_every_figure_of_the_files_is_explained():
    for name in NAMES:
        for seen in read_log(FOLDER / name):
            assert seen.figures.keys() <= FIGURES.keys()
