"""What holds for every test: kernels are interpreted, and laws are not timed, since a busy machine would fail them."""

import os
from importlib.util import find_spec

# Before anything imports Triton: the choice holds for the whole process. Compiled code is judged in child processes.
os.environ["TRITON_INTERPRET"] = "1"

from hypothesis import settings

settings.register_profile("kvplan", deadline=None)
settings.load_profile("kvplan")

if find_spec("triton") is None:  # there is none but for Linux
    collect_ignore = ["validate"]
