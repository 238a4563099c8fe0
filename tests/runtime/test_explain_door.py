"""`kvplan.explain`: logs as files and lines, the model and the GPU that they name."""

from typing import Any

import pytest

import kvplan
from kvplan.core.errors import InputError
from tests.runtime.explaining import LOGS, row


class TestTheDoor:
    CACHE = "llama_kv_cache_unified:      CUDA0 KV buffer size =  {:.2f} MiB"

    def test_an_older_build_of_llama_cpp_may_be_named(self) -> None:
        """DeepSeek-R1, 2048 cells: every head of 61 layers, 9760 MiB; the line itself may be of any build to b8000."""
        lines = ["llama_context: n_ctx         = 2048", self.CACHE.format(9760)]
        told = {
            version: row(
                kvplan.explain(lines, model="deepseek-ai/DeepSeek-R1", engine=version)[0], "given", "keys and values"
            )
            for version in ("llamacpp", "llamacpp@b4950", "llamacpp@b9000")
        }
        assert {version: (one.verdict, one.judged) for version, one in told.items()} == {
            "llamacpp": ("off", None), "llamacpp@b4950": ("equal", "exact"), "llamacpp@b9000": ("off", "exact"),
        }  # fmt: skip
        for wrong in ("llamacpp@newest", "llamacpp@"):
            with pytest.raises(InputError):
                kvplan.explain(lines, engine=f"{wrong}x")

    def test_a_file_without_a_known_name_is_planned_by_its_numbers_or_its_base(self) -> None:
        """Llama-3.1-8B's: 32 layers · 8192 · 8 · 128 · 4 bytes are 1024 MiB."""
        head = "llama_model_loader: loaded meta data with 36 key-value pairs and 292 tensors from /blobs/sha256-ab (version GGUF V3)"
        rest = ["llama_context: n_ctx         = 8192", self.CACHE.format(1024)]
        numbers = {
            "n_ctx_train": 131072, "n_embd": 4096, "n_layer": 32, "n_head": 32, "n_head_kv": 8, "n_swa": 0,
            "n_embd_head_k": 128, "n_embd_head_v": 128, "n_ff": 14336, "n_expert": 0, "n_vocab": 128256,
        }  # fmt: skip
        said = [
            "print_info: arch             = llama",
            *(f"print_info: {name} = {value}" for name, value in numbers.items()),
        ]
        base = ["llama_model_loader: - kv 9: general.base_model.0.name str = Llama 3.1 8B"]
        for lines, note in ((said, "by the numbers that the log prints"), (base, "which its file names as its base")):
            (found,) = kvplan.explain([head, *lines, *rest], offline=True)
            assert row(found, "given", "keys and values").verdict == "equal"
            assert any(note in one for one in found.notes)
        (unknown,) = kvplan.explain([head, *said[:4], *rest], offline=True)
        assert row(unknown, "given", "keys and values").verdict == "unknown"

    def test_the_logs_that_are_kept(self) -> None:
        """What is exact is equal in every one of them."""
        for path in sorted(LOGS.glob("*.log")):
            for found in kvplan.explain(path, offline=True):
                assert [one.name for one in found.rows if one.judged == "exact" and one.verdict != "equal"] == [], (
                    path.name
                )
                assert any(one.judged == "exact" for one in found.rows), path.name

    def test_lines_will_do(self) -> None:
        lines = (LOGS / "vllm-0.19-codellama-7b.log").read_text(encoding="utf-8").splitlines()
        assert kvplan.explain(lines, offline=True)[0].model == "codellama/CodeLlama-7b-hf"

    def test_every_prefix_of_a_log_is_explained_or_refused(self) -> None:
        lines = (LOGS / "vllm-0.19-too-long.log").read_text(encoding="utf-8").splitlines()
        with pytest.raises(InputError, match="no start of an engine"):
            kvplan.explain(lines[:2], offline=True)
        for end in range(len(lines), 2, -7):
            answers = kvplan.explain(lines[:end], offline=True)
            assert all(answer.is_within_tolerance is not False for answer in answers), end

    def test_options_given_here_stand_over_the_logs(self) -> None:
        path = LOGS / "vllm-0.19-codellama-7b.log"
        found = kvplan.explain(path, offline=True, max_num_seqs=64)[0]
        assert found.serving is not None
        assert found.serving.switches.max_num_seqs == 64

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"tolerance": 2.0}, "tolerance"),
            ({"engine": "sglang"}, "no start of sglang .* it is of vllm"),
            ({"engine": "nothing"}, "not an engine"),
            ({"gpu": "no such"}, "no GPU named"),
        ],
        ids=["tolerance", "other engine", "no engine", "no gpu"],
    )
    def test_refusals(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            kvplan.explain(LOGS / "vllm-0.19-codellama-7b.log", offline=True, **given)

    def test_a_model_that_cannot_be_loaded_leaves_the_sums(self) -> None:
        log = (
            (LOGS / "vllm-0.33-llama.log")
            .read_text(encoding="utf-8")
            .replace("meta-llama/Llama-3.1-8B-Instruct", "nobody/nothing")
        )
        found = kvplan.explain(log.splitlines(), offline=True)[0]
        assert found.model is None
        assert found.is_within_tolerance
        assert any("`--model` says which" in note for note in found.notes)
