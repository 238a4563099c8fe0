"""The errors a user can meet: one sentence, a hint with the next step, and an exit code.

To add one: a subclass here, with the exit code that the command line promises for its sort.
"""


class KvplanError(Exception):
    """Something the user can act on; `hint` is the next step, `exit_code` what the shell sees."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InputError(KvplanError):
    """An argument, a file or a config that cannot be used as it stands: exit 2."""


class RefusedError(InputError):
    """What an engine would refuse to start with: exit 2, and 1 where the question was whether it starts."""


class UnsupportedError(KvplanError):
    """An architecture, or a feature of one, that kvplan does not understand: exit 3, never a guess."""

    exit_code = 3


class HubError(KvplanError):
    """The Hub could not be reached, or it does not show this repository to us: exit 4."""

    exit_code = 4
