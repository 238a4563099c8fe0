"""The shape of an engine's table: its arguments, how each is spelled, read and written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Options = dict[str, object]


class UnknownValueError(Exception):
    """A value that the engine may know and kvplan does not: the argument is handed on as unread."""


@dataclass(frozen=True, slots=True)
class Value:
    """How an argument's value is read, from a word of a command line or from what a log prints, and written."""

    read: Callable[[object], object]
    """None says nothing. Raises ValueError for what the engine would refuse, UnknownValueError for what kvplan does
    not know."""
    write: Callable[[object], str]
    """Raises InputError for what the engine cannot be told."""
    what: str
    """For the error: `a whole number`."""
    bare: bool = False
    """The flag stands alone."""
    many: bool = False
    """Several words may follow."""
    maybe: frozenset[str] = frozenset()
    """The flag may stand alone, and is then true; these are the words that it may be followed by."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of an engine that bears on memory."""

    option: str | None
    """kvplan's name; None where it is read together with others (`Dialect.joint_read`)."""
    flags: tuple[str, ...]
    """Its spellings on the command line; the first is the one that is written."""
    value: Value
    off: tuple[str, ...] = ()
    """Spellings that say the contrary; the first is the one that is written."""
    name: str = ""
    """As the engine's log names it, where that is not the first flag's name."""
    older: tuple[str, ...] = ()
    """Names in logs of other versions."""
    in_file: bool = False
    """It has no flag: it stands in a file of settings."""

    @property
    def key(self) -> str:
        """The name that logs print: `max_model_len`."""
        return self.name or key_of(self.flags[0])


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment that an option is written to."""

    name: str
    write: Callable[[object], str]


JointRead = Callable[[Mapping[str, object]], tuple[Options, tuple[str, ...]]]
JointWrite = Callable[[Mapping[str, object]], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """All that kvplan knows of one engine's arguments."""

    engine: str
    arguments: tuple[Argument, ...]
    silent: frozenset[str]
    """Arguments without a bearing on the GPU's memory that take a value."""
    silent_bare: frozenset[str]
    """The same, of flags that stand alone."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Of arguments that kvplan does not read, where a log prints every argument: what need not be told."""
    joint_options: frozenset[str] = frozenset()
    """The options that `joint_write` writes."""
    joint_read: JointRead = lambda args: ({}, ())
    """Arguments that speak together, by their names → (options, unread)."""
    joint_write: JointWrite = lambda options: []
    """Options → words of the command line."""
    joint_settings: Callable[[Mapping[str, object]], Options] = lambda options: {}
    """Options → what stands in the file of settings, by dotted names, beside the arguments with `in_file`."""
    expand: Callable[[str], list[str]] = lambda word: [word]
    """A word of the command line → the words that it stands for."""
    refuse: Callable[[Mapping[str, object]], None] = lambda args: None
    """Raises RefusedError for words of a command line that the engine's parser does not take."""
    silent_many: frozenset[str] = frozenset()
    """Of `silent`, those that several words may follow."""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    """Options that no flag sets → their variable."""
    environment: Mapping[str, Callable[[str], Options]] = field(default_factory=dict)
    """Variables that bear on memory → the options that their value stands for."""
    argument_variables: Mapping[str, str] = field(default_factory=dict)
    """Variables that stand for arguments → the argument's name."""
    abbreviates: bool = False
    """A flag may be cut short where that is unambiguous, as argparse allows."""
    nested: bool = False
    """Arguments may be given as trees: `kv_cache_config: {dtype: fp8}` is `kv_cache_config.dtype`."""


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def key_of(flag: str) -> str:
    """`--max-model-len` → `max_model_len`."""
    return flag.lstrip("-").replace("-", "_")


def spelled(name: str, value: object) -> str:
    """An argument as it is told to be unread: `--offload-group-size 8`."""
    flag = name if name.startswith("-") else f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag} {value}"
