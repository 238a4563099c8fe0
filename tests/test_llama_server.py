"""What llama-server does by itself where nobody says otherwise: `--fit`, devices, layers."""

import pytest

import kvplan
from kvplan import InputError
from kvplan.inverse import serve_check
from kvplan.runtime.command import read_command
from kvplan.runtime.starting import start_line

LLAMA, MIXED = "meta-llama/Llama-3.1-8B", "openai/gpt-oss-120b"
CACHE = 32 * 2 * 8 * 128 * 2  # bytes of one token


def checked(line, model=LLAMA, gpu="L4", **how):
    return serve_check(f"llama-server -m x.gguf {line}", gpu, model=model, offline=True, **how)


def notes(found):
    return [note for note in found.fit.notes if note.startswith("`--fit`")]


def test_the_context_is_shortened_until_a_gib_stays_free():
    off, on = checked("--fit off"), checked("")
    assert (off.starts, on.starts) == (False, True)
    # One request may have the whole of it, and 1 GiB is 8192 tokens of 128 KiB.
    assert CACHE == 131_072
    assert on.longest == off.longest - 8192 == on.fit.serving.seq_len
    assert notes(on) == [f"`--fit` shortens the context to {on.longest:,} tokens"]
    assert on.fit.serving.seq_len % 256 == 0


def test_what_fits_is_left_as_it_is():
    assert notes(checked("", gpu="H100")) == []
    assert notes(checked("-c 8192")) == []


def test_a_length_that_is_given_is_kept_and_layers_are_not():
    found = checked("-c 131072")
    assert found.starts
    layers = found.fit.serving.switches.num_gpu_layers
    assert 0 < layers < 33
    assert notes(found) == [f"`--fit` leaves about {33 - layers} of 32 layers with the CPU: slower"]
    assert found.fit.serving.seq_len == 131_072


@pytest.mark.parametrize(
    "line", ["-c 131072 -ngl 99", "-c 131072 --fit off", "-c 131072 -ncmoe 1", "-c 131072 -ts 1,0"]
)
def test_what_is_said_is_not_changed(line):
    found = checked(line)
    assert not found.starts
    assert notes(found) == []


def test_experts_stay_with_the_cpu_before_whole_layers_do():
    found = checked("", MIXED, "RTX 4090")
    kept = found.fit.serving.switches.num_cpu_moe_layers
    assert found.starts
    assert 0 < kept < 36
    assert notes(found) == [
        f"`--fit` leaves the experts of about {kept} of 36 layers with the CPU: slower, and shortens the context to 4,096"
        " tokens"
    ]
    fewer = checked(f"-c 4096 -ncmoe {kept - 1}", MIXED, "RTX 4090").fit
    assert fewer.kv_memory_bytes is None
    assert fewer.boot.kv_memory_bytes < found.fit.boot.kv_memory_bytes


def test_devices_are_those_that_have_a_share_or_are_seen():
    for line in (
        "llama-server -m x.gguf -c 131072 -ts 1,1",
        "CUDA_VISIBLE_DEVICES=0,1 llama-server -m x.gguf -c 131072",
    ):
        found = serve_check(line, "L4", model=LLAMA, offline=True)
        assert found.starts
        assert found.fit.serving.num_gpus == 2


def test_a_line_that_is_pasted_starts_as_it_was_planned():
    """Without `-ngl` llama.cpp would leave layers with the CPU so that 1 GiB stays free."""
    for count in (1, 2):
        planned = kvplan.fit(LLAMA, "L4", engine="llamacpp", num_gpus=count, max_model_len=-1)
        line = start_line(planned.model, planned.serving).text
        assert "-ngl 999" in line
        assert read_command(line).options.get("tensor_split") == (None if count == 1 else (1.0, 1.0))
        again = serve_check(line, "L4", model=LLAMA, offline=True)
        assert again.starts
        assert (again.fit.max_model_len, again.fit.serving.num_gpus) == (planned.max_model_len, count)
        assert notes(again) == []


def test_no_layer_on_a_gpu_is_nothing_to_check():
    with pytest.raises(InputError, match="no layer is on a GPU"):
        checked("-ngl 0")


def test_how_far_fit_goes_may_be_said():
    plain, roomy = checked(""), checked("--fit-target 4096")
    # 3 GiB more stay free: 24,576 tokens of 128 KiB.
    assert roomy.longest == plain.longest - 3 * 8192
    assert checked("--fit-target 512,4096 -np 1").longest == checked("--fit-target 4096 -np 1").longest
    longer = checked("--fit-ctx 65536")
    assert longer.longest == 65_536
    assert longer.fit.serving.switches.num_gpu_layers < 33
    with pytest.raises(InputError, match="not a number of MiB"):
        checked("--fit-target abc")


def test_devices_that_it_has_no_backend_for():
    found = checked("-c 4096", gpu="TPU v5e")
    assert "no device that llama.cpp has a backend for" in found.refusal
    assert checked("-c 4096", gpu="MI300X").starts
    assert not any("weights in" in change for change in checked("-c 131072 -ngl 99").fit.flags)
