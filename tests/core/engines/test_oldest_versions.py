"""The oldest version of each engine, as `kvplan/core/engines/README.md` names them."""

import re
from pathlib import Path

import pytest

import kvplan
from kvplan import InputError
from kvplan.core.engines.table import find_engine

README = Path(kvplan.__file__).parent / "core" / "engines" / "README.md"
OLDEST = re.findall(r"`(\w+@[\w.]+)`", README.read_text().partition("the oldest are")[2].partition("`explain`")[0])


def test_the_readme_names_the_oldest_version_of_each_engine():
    assert [name.partition("@")[0] for name in OLDEST] == ["vllm", "sglang", "trtllm", "llamacpp", "transformers"]
    for name in OLDEST:
        find_engine(name)
        engine = name.partition("@")[0]
        older = "b5000" if engine == "llamacpp" else "0.0.5"
        with pytest.raises(InputError, match="as old as") as refused:
            find_engine(f"{engine}@{older}")
        assert refused.value.hint == f"`{name}` is the oldest"
