from kvplan.core.text import join_words, printable


def test_words_for_sentences():
    assert join_words([]) == ""
    assert join_words(["a"]) == "a"
    assert join_words(["a", "b", "c"]) == "a, b and c"


def test_nothing_from_outside_moves_the_cursor():
    assert printable("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\\nc\\u202ed"
    assert printable("schön \ud800") == "schön \\ud800"
    assert printable("a" * 300) == "a" * 200 + "…"
