"""TensorRT-LLM's file of settings: on this machine, in a here-document, in the forms of YAML that people write."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.runtime.command import read_command
from kvplan.runtime.settings import settings_of

BLOCK = """\
# of a deployment guide
kv_cache_config:
  dtype: fp8            # of the cache
  free_gpu_memory_fraction: 0.5
  enable_block_reuse: false
cuda_graph_config: null
speculative_config:
    decoding_type: MTP
    num_nextn_predict_layers: 2
enable_attention_dp: true
max_batch_size: 64
"""
FLOW = """\
kv_cache_config: {dtype: "fp8", free_gpu_memory_fraction: 0.5, enable_block_reuse: false}
cuda_graph_config: ~
speculative_config: {decoding_type: 'MTP', num_nextn_predict_layers: 2}
enable_attention_dp: True
max_batch_size: 64
"""
JSON = """\
{"kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.5, "enable_block_reuse": false},
 "cuda_graph_config": null, "speculative_config": {"decoding_type": "MTP", "num_nextn_predict_layers": 2},
 "enable_attention_dp": true, "max_batch_size": 64}
"""
OPTIONS = {
    "kv_dtype": "fp8", "gpu_memory_utilization": 0.5, "prefix_caching": False, "enforce_eager": True,
    "speculative_method": "mtp", "num_speculative_tokens": 2, "attention_dp": True, "max_num_seqs": 64,
}  # fmt: skip


@pytest.mark.parametrize("flag", ["--extra_llm_api_options", "--config"])
@pytest.mark.parametrize("text", [BLOCK, FLOW, JSON], ids=["block", "flow", "json"])
def test_a_file_of_this_machine_is_read(tmp_path: Path, text: str, flag: str) -> None:
    file = tmp_path / "extra.yaml"
    file.write_text(text, encoding="utf-8")
    found = read_command(f"trtllm-serve a/b {flag} {file}")
    assert (found.options, found.unread) == (OPTIONS, ())


def test_the_file_stands_over_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "extra.yaml"
    file.write_text(BLOCK + "tensor_parallel_size: 4\n", encoding="utf-8")
    line = "trtllm-serve a/b --tp_size 2 --max_batch_size 8 --kv_cache_free_gpu_memory_fraction 0.9 --max_seq_len 4096"
    found = read_command(f"{line} --extra_llm_api_options {file}")
    assert found.options == OPTIONS | {"tp": 4, "max_model_len": 4096}


@pytest.mark.parametrize(
    "opening",
    ["cat > /tmp/x.yml <<EOF", "cat << 'EOF' > /tmp/x.yml", "FILE=/tmp/x.yml\ncat << EOF > ${FILE}", "cat >/tmp/x.yml<<-EOF"],
)  # fmt: skip
def test_a_file_that_the_text_writes(opening: str) -> None:
    name = "${FILE}" if "FILE=" in opening else "/tmp/x.yml"
    found = read_command(f"{opening}\n{BLOCK}EOF\ntrtllm-serve a/b --extra_llm_api_options {name}")
    assert (found.options, found.unread) == (OPTIONS, ())


def test_what_a_file_says_and_is_not_understood_is_told(tmp_path: Path) -> None:
    file = tmp_path / "extra.yaml"
    file.write_text("cuda_graph_config:\n  enable_padding: true\n  max_batch_size: 8\n", encoding="utf-8")
    assert read_command(f"trtllm-serve a/b --config {file}").unread == ("--cuda_graph_config.max_batch_size 8",)


@pytest.mark.parametrize(
    "text",
    ["a:\n  - b: 1\n", "a: |\n  b\n", "a: &x 1\n", "just words\n", "a: {b: 1\n", "a: 1\n   b: 2\n", "- a\n", "a: [1, }\n"],
)  # fmt: skip
def test_what_cannot_be_read_stays_a_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "extra.yaml"
    file.write_text(text, encoding="utf-8")
    assert settings_of(str(file), "", {}) is None
    assert read_command(f"trtllm-serve a/b --config {file}").unread == (f"--config {file}",)


def test_what_yaml_makes_of_words() -> None:
    body = (
        "cat > x <<E\na: [1, 2.5, 'x: y', b c, \"q\"]\nb:\n- 1\n- two\nc:\nd: {e: {f: null}, g: []}\n'h i': no:w\nE\n"
    )
    assert settings_of("x", body, {}) == {
        "a": [1, 2.5, "x: y", "b c", "q"], "b": [1, "two"], "c": None, "d": {"e": {"f": None}, "g": []}, "h i": "no:w",
    }  # fmt: skip


@given(st.text(alphabet=st.sampled_from(list("ab1:-{}[], \n'\"#|.")), max_size=40))
def test_no_file_breaks_it(body: str) -> None:
    found = settings_of("x", f"cat > x <<E\n{body}\nE\n", {})
    assert found is None or isinstance(found, dict)
