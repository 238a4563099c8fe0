from pathlib import Path

import pytest

from kvplan.core.errors import InputError
from kvplan.sources.json_file import read_json, read_json_file

KIB = 1024


def test_one_object_is_read() -> None:
    content = b'\xef\xbb\xbf{"a": 1, "b": [1.5, -2], "a": 2}'
    assert read_json(content, what="config.json", max_bytes=KIB) == {"a": 2, "b": [1.5, -2]}
    assert read_json(content.decode(), what="config.json", max_bytes=KIB) == {"a": 2, "b": [1.5, -2]}


REFUSED = {
    "empty": (b" \n", "is empty"),
    "cut short": (b'{"a": [1,', "is not valid JSON: Expecting value (line 1, column 10)"),
    "a list": (b"[]", "holds a JSON list, not an object"),
    "null": (b"null", "holds a JSON NoneType, not an object"),
    "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8 text"),
    "too large": (b'{"a": "' + b"x" * KIB + b'"}', "is larger than 1 KiB"),
    "NaN": (b'{"a": NaN}', "holds `NaN`, which is no JSON number"),
    "minus infinity": (b'{"a": -Infinity}', "holds `-Infinity`, which is no JSON number"),
    "overflowing float": (b'{"a": 1e999}', "holds `1e999`, a number that is too large"),
    "endless integer": (b'{"a": 1' + b"0" * 900 + b"}", "holds an integer of 901 digits"),
}


@pytest.mark.parametrize(("content", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read_json(content, what="config.json", max_bytes=KIB)
    assert str(caught.value) == f"`config.json` {problem}"
    assert caught.value.hint


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InputError, match="nested too deeply"):
        read_json('{"a":' + "[" * 200_000, what="config.json", max_bytes=10**6)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    assert read_json_file(path, what="config.json", max_bytes=2) == {}
    with pytest.raises(InputError, match="larger than 1 B"):
        read_json_file(path, what="config.json", max_bytes=1)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`config\.json` is no regular file"):
        read_json_file(tmp_path, what="config.json", max_bytes=KIB)
    for path in (tmp_path / "none.json",):
        with pytest.raises(InputError, match=r"`config\.json` cannot be read"):
            read_json_file(path, what="config.json", max_bytes=KIB)


def test_nothing_reaches_the_terminal_that_could_move_its_cursor() -> None:
    with pytest.raises(InputError) as caught:
        read_json("", what="evil\x1b[31m", max_bytes=KIB)
    assert "\x1b" not in str(caught.value)
