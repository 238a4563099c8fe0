"""GGUF: small files written from tables that ggml's own package made of transformers' models, and damaged ones."""

import contextlib
import json
import struct
from pathlib import Path

import pytest
from family_rows import read
from gguf_writer import gguf_bytes, stored_bytes, text
from hypothesis import given
from hypothesis import strategies as st

from kvplan import estimate, load_model
from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.weights import computed_weight_bytes, num_parameters
from kvplan.sources.gguf.config import ARCHITECTURES
from kvplan.sources.gguf.header import read_header
from kvplan.sources.gguf.types import FORMATS

DATA = Path(__file__).parent.parent / "data" / "gguf"
MODELS = json.loads((DATA / "models.json").read_text())
SIZES = {name: (elements, size) for name, elements, size in json.loads((DATA / "formats.json").read_text()).values()}
VOCABULARY = {"tokenizer.ggml.tokens": [f"<{i}>" for i in range(5000)], "tokenizer.ggml.scores": list(range(5000))}
LLAMA = MODELS["llama"]


def write(path, model, **more):
    path.write_bytes(gguf_bytes(model["metadata"] | VOCABULARY | more, model["tensors"], data=100))
    return path


def header_of(raw):
    return read_header(lambda offset, size: raw[offset : offset + size], what="`x.gguf`")


def test_the_formats_are_those_of_ggml():
    known = {str(number): [f.name, f.elements, f.num_bytes] for number, f in FORMATS.items()}
    assert known == json.loads((DATA / "formats.json").read_text())


# What transformers says, by way of ggml's names.


@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_the_model_of_its_config(name, tmp_path):
    model = MODELS[name]
    spec = load_model(write(tmp_path / "m.gguf", model))
    from_config = read({**model["config"], "torch_dtype": "bfloat16"})
    assert num_parameters(spec) + model["left_out"] == model["num_parameters"] == num_parameters(from_config)
    assert spec.source.notes == ()
    assert [spec.layers[i].mixers for i in spec.layer_order] == [
        from_config.layers[i].mixers for i in from_config.layer_order
    ]
    options = {"seq_len": 200, "dtype": "bf16", "kv_dtype": "bf16"}
    by_file, by_config = estimate(spec, **options), estimate(from_config, **options)
    assert by_file.kv_cache == by_config.kv_cache


def test_every_architecture_has_a_small_model():
    assert set(ARCHITECTURES) == {model["metadata"]["general.architecture"] for model in MODELS.values()}


@pytest.mark.parametrize("name", MODELS)
def test_a_key_that_is_0_is_refused_or_does_no_harm(name, tmp_path):
    model = MODELS[name]
    for key in model["metadata"]:
        if key.startswith("general."):
            continue
        metadata = model["metadata"] | {key: 0}
        with contextlib.suppress(InputError, UnsupportedError):
            (tmp_path / "m.gguf").write_bytes(gguf_bytes(metadata, model["tensors"]))
            load_model(tmp_path / "m.gguf")


@pytest.mark.parametrize(("name", "key", "value", "message"), [
    ("gemma4", "attention.sliding_window_pattern", [True] * 12, "leaves no layer of `full_attention`"),
    ("llama", "block_count", 2**30, "gives 1,073,741,824 layers"),
    ("mamba2", "ssm.inner_size", 1000, "no multiple of the hidden size, 512"),
    ("mamba2", "ssm.time_step_rank", 0, "`mamba2.ssm.time_step_rank` is 0"),
    ("jamba", "attention.head_count_kv", [2, 2, 0, 2, 0, 0, 0, 2], "`attn_layer` has no period"),
])  # fmt: skip
def test_metadata_that_no_reader_can_use_are_named(name, key, value, message, tmp_path):
    model = MODELS[name]
    metadata = model["metadata"] | {f"{model['metadata']['general.architecture']}.{key}": value}
    with pytest.raises((InputError, UnsupportedError), match=message):
        load_model(write(tmp_path / "m.gguf", model | {"metadata": metadata}))


def test_a_bert_without_token_types_is_refused(tmp_path):
    model = MODELS["bert"]
    tensors = [entry for entry in model["tensors"] if entry[0] != "token_types.weight"]
    with pytest.raises(UnsupportedError, match="no table of token types"):
        load_model(write(tmp_path / "m.gguf", model | {"tensors": tensors}))


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_counted_as_the_file_stores_it(name, tmp_path):
    model = MODELS[name]
    spec = load_model(write(tmp_path / "m.gguf", model))
    stored = stored_bytes(model["tensors"], SIZES)
    assert spec.stored_weight_bytes == stored
    # The correction of a router is stored but is no parameter; kvplan counts its bytes too.
    assert computed_weight_bytes(spec, spec.dtype, spec.quantization) == stored
    plan = estimate(spec)
    assert plan.weights.total_bytes == stored
    assert plan.evidence["weights"] == "exact"
    assert [warning.code for warning in plan.warnings if warning.code == "stored-differs"] == []


def test_figures_worked_by_hand(tmp_path):
    # 4 layers of 8 query and 2 KV heads of 64, hidden 512, width 1024, 1024 tokens. Rows of 512 or 1024 are 2 or 4
    # blocks of 144 bytes (Q4_K) or 210 (Q6_K, in layers 1 and 3 for v and down, and for the output).
    q4, q6 = 144 // 2, 210 // 2  # bytes of 128 elements
    attention = 2 * 512 * 512 // 128 * q4 + 128 * 512 // 128 * q4
    mlp = 2 * 1024 * 512 // 128 * q4
    heavy, light = (128 * 512 + 512 * 1024) // 128 * q6, (128 * 512 + 512 * 1024) // 128 * q4
    layers = 4 * (attention + mlp + 2 * 512 * 4) + 2 * heavy + 2 * light
    tables = 1024 * 512 // 128 * (q4 + q6) + 512 * 4
    spec = load_model(write(tmp_path / "m.gguf", LLAMA))
    assert spec.stored_weight_bytes == layers + tables
    assert estimate(spec, seq_len=1).kv_cache.bytes_per_token == 4 * 2 * 2 * 64 * 2
    assert spec.quantization.method == "gguf Q4_K"
    assert spec.dtype.name == "fp16"


def test_a_plain_file_has_its_own_dtype(tmp_path):
    tensors = [[name, shape, "BF16" if len(shape) > 1 else "F32"] for name, shape, _ in LLAMA["tensors"]]
    spec = load_model(write(tmp_path / "m.gguf", LLAMA | {"tensors": tensors}))
    assert spec.dtype.name == "bf16"
    assert estimate(spec).weights.total_bytes == stored_bytes(tensors, SIZES)


def test_tensors_that_the_family_does_not_have_are_told(tmp_path):
    extra = [*LLAMA["tensors"], ["blk.0.strange.weight", [256, 256], "F16"], ["rope_freqs.weight", [32], "F32"]]
    spec = load_model(write(tmp_path / "m.gguf", LLAMA | {"tensors": extra}))
    assert spec.source.notes == ("the file holds 65,536 parameters more than `llama` has by its metadata",)
    assert [w.code for w in estimate(spec).warnings if w.code == "stored-differs"] == ["stored-differs"]


# Files in parts, folders.


def parts(folder, count=2, model=LLAMA):
    step = -(-len(model["tensors"]) // count)
    for i in range(count):
        metadata = (model["metadata"] if i == 0 else {}) | {"split.no": i, "split.count": count}
        tensors = model["tensors"][i * step : (i + 1) * step]
        (folder / f"m-{i + 1:05d}-of-{count:05d}.gguf").write_bytes(gguf_bytes(metadata, tensors))
    return folder / f"m-00001-of-{count:05d}.gguf"


def test_a_split_file_is_read_whole(tmp_path):
    whole = load_model(write(tmp_path / "m.gguf", LLAMA))
    split = load_model(parts(tmp_path, 3))
    assert split.stored_weight_bytes == whole.stored_weight_bytes
    assert num_parameters(split) == LLAMA["num_parameters"]


def test_a_missing_part_is_named(tmp_path):
    first = parts(tmp_path)
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(InputError, match=r"`m-00002-of-00002.gguf`, a part of the model, is not there"):
        load_model(first)
    with pytest.raises(InputError, match="one of 2 parts"):
        load_model(first.rename(tmp_path / "renamed.gguf"))


def test_a_folder_with_one_file_is_that_file(tmp_path):
    write(tmp_path / "m.gguf", LLAMA)
    assert load_model(f"{tmp_path}/").id == "m"
    write(tmp_path / "n.gguf", LLAMA)
    with pytest.raises(InputError, match="holds 2 GGUF files"):
        load_model(f"{tmp_path}/")


# What is refused.


def test_an_unknown_architecture_is_unsupported(tmp_path):
    metadata = {"general.architecture": "acme", "acme.block_count": 2}
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(metadata, LLAMA["tensors"]))
    with pytest.raises(UnsupportedError, match="`acme`"):
        load_model(tmp_path / "m.gguf")


def test_a_projector_is_no_model(tmp_path):
    with pytest.raises(InputError, match="of type `mmproj`"):
        load_model(write(tmp_path / "m.gguf", LLAMA, **{"general.type": "mmproj"}))


def test_a_missing_key_is_named(tmp_path):
    metadata = {k: v for k, v in LLAMA["metadata"].items() if k != "llama.attention.head_count"}
    with pytest.raises(InputError, match=r"`llama.attention.head_count` is missing"):
        load_model(write(tmp_path / "m.gguf", LLAMA | {"metadata": metadata}))


WRONG = {
    "empty": (b"", "ends inside its header"),
    "another format": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "countless tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "states 1,152,921,504,606,846,976 tensors"),
    "countless keys": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "keys"),
    "an endless name": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "bytes of one text"),
    "a type that is none": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 99), "type 99"),
    "no dimensions": (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 0), "0 dimensions"),
    "an impossible shape": (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQQIQ", 2, 2**50, 2**50, 0, 0),
        "impossible shape",
    ),
    "half a block": (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQIQ", 1, 100, 12, 0),
        "no whole blocks of Q4_K",
    ),
    "twice": (gguf_bytes({}, [["t", [1], "F32"], ["t", [1], "F32"]]), "names a tensor twice"),
}


@pytest.mark.parametrize(("raw", "message"), WRONG.values(), ids=WRONG)
def test_a_damaged_file_is_refused(raw, message):
    with pytest.raises(InputError, match=message):
        header_of(raw)


def test_a_newer_format_is_unsupported():
    raw = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQIQ", 1, 32, 99, 0)
    with pytest.raises(UnsupportedError, match="format 99"):
        header_of(raw)


WHOLE = gguf_bytes(LLAMA["metadata"] | {"tokenizer.ggml.tokens": ["a", "bc"]}, LLAMA["tensors"])


@given(cut=st.integers(0, len(WHOLE) - 1))
def test_a_file_that_is_cut_short_is_refused(cut):
    with pytest.raises(InputError, match=r"ends inside its header|not a GGUF file"):
        header_of(WHOLE[:cut])


@given(data=st.binary(max_size=200))
def test_noise_is_refused(data):
    with pytest.raises((InputError, UnsupportedError)):
        header_of(b"GGUF\x03\x00\x00\x00" + data)


def test_only_the_header_is_fetched():
    """A vocabulary of some MB is read in pieces; of the weights behind it nothing."""
    tokens = ["x" * 20] * 200_000
    raw = gguf_bytes(LLAMA["metadata"] | {"tokenizer.ggml.tokens": tokens}, LLAMA["tensors"]) + bytes(64 * 2**20)
    asked = []

    def fetch(offset, size):
        asked.append((offset, size))
        return raw[offset : offset + size]

    header = read_header(fetch, what="`x.gguf`")
    assert len(header.tensors) == len(LLAMA["tensors"])
    assert header.lengths["tokenizer.ggml.tokens"] == 200_000
    assert [offset for offset, _ in asked] == [0, *(sum(size for _, size in asked[:i]) for i in range(1, len(asked)))]
    assert sum(size for _, size in asked) <= 16 * 2**20
