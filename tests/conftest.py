"""What holds for every test: laws are not timed, since a busy machine would fail them at random."""

from hypothesis import settings

settings.register_profile("kvplan", deadline=None)
settings.load_profile("kvplan")
