"""What holds for every test: kernels are interpreted, and laws are not timed, since a busy machine would fail them."""

import os

# Before anything imports Triton: the choice holds for the whole process. Compiled code is judged in child processes.
os.environ["TRITON_INTERPRET"] = "1"

from hypothesis import settings

settings.register_profile("kvplan", deadline=None)
settings.load_profile("kvplan")
