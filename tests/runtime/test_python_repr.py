import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.runtime.python_repr import literal, read_items

VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text("abc/-_. ,()[]{}=:'\"\\", max_size=12),
        st.floats(0.01, 0.99),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
ARGS = st.dictionaries(st.from_regex(r"\A[a-z][a-z_]{0,8}\Z"), VALUES, max_size=8)


@given(ARGS)
def test_what_python_prints_of_a_dict_is_read_back(args):
    assert read_items(repr(args), 1) == args


@given(ARGS)
def test_what_a_dataclass_prints_is_read_back(args):
    text = "Args(" + ", ".join(f"{name}={value!r}" for name, value in args.items()) + ") and more, c=1"
    assert read_items(text, 5) == args


@given(ARGS, st.integers(0, 200))
def test_a_text_that_was_cut_off_gives_no_other_value(args, length):
    cut = repr(args)[: min(length, len(repr(args)) - 1)]
    assert read_items(cut, 1).items() <= args.items()


@given(st.text(max_size=200), st.integers(0, 5))
def test_any_text_is_survived(text, at):
    read_items(text, at)
    literal(text)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("model='a/b', dtype=torch.bfloat16, seed=0, ", {"model": "a/b", "dtype": "torch.bfloat16", "seed": 0}),
        ("load=<LoadFormat.AUTO: 'auto'>, n=1)", {"load": "<LoadFormat.AUTO: 'auto'>", "n": 1}),
        ("a=Foo(b=1, c='x, y'), d=2)", {"a": "Foo(b=1, c='x, y')", "d": 2}),
        ("a={'b': [1, 2]}, d={})", {"a": {"b": [1, 2]}, "d": "{}"}),
        ("chunked=False multi=True, n=3)", {"chunked": False, "multi": True, "n": 3}),
        ("share=0.9, small=1e-05, text='0.9')", {"share": 0.9, "small": 1e-05, "text": "0.9"}),
        (r"model='D:\\Models\\x', n=1)", {"model": r"D:\Models\x", "n": 1}),
        ("", {}),
    ],
    ids=range(8),
)
def test_what_engines_print(text, items):
    assert read_items(text) == items


def test_depth_has_an_end():
    assert isinstance(literal("[" * 500 + "]" * 500), list)
