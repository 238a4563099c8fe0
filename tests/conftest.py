"""What holds for every test: kernels are interpreted, and laws are not timed, since a busy machine would fail them."""

import os
from importlib.util import find_spec

# Before anything imports Triton: the choice holds for the whole process. Compiled code is judged in child processes.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
from hypothesis import settings

settings.register_profile("kvplan", deadline=None)
settings.load_profile("kvplan")


@pytest.fixture(autouse=True, scope="session")
def _no_records_of_the_users_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was measured on the machine that runs the tests must not change their figures."""
    os.environ["KVPLAN_RECORDS"] = str(tmp_path_factory.mktemp("records"))


if find_spec("triton") is None:  # there is none but for Linux
    collect_ignore = ["validate"]
