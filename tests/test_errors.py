from __future__ import annotations

from multitl import errors
from multitl.errors import MultitlError, nearest_names, shorten


def test_message_names_problem_expected_received_nearest_and_fix():
    error = MultitlError("Bad.", expected="a", received="b", nearest=["c", "d"], fix="do e")
    assert str(error) == "Bad.\n  expected: a\n  received: b\n  nearest: c, d\n  to mend: do e"


def test_message_leaves_out_what_is_not_known():
    assert str(MultitlError("Bad.", fix="do e")) == "Bad.\n  to mend: do e"


def test_parts_stay_available_to_callers():
    error = MultitlError("Bad.", nearest=iter(["c"]), fix="do e")
    assert (error.problem, error.expected, error.received, error.nearest, error.fix) == ("Bad.", "", "", ("c",), "do e")


def test_one_except_clause_catches_every_error_of_ours():
    children = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(children) >= 6
    assert all(issubclass(child, MultitlError) for child in children)


def test_nearest_names_ignores_case_and_puts_the_best_first():
    assert nearest_names("resnet5O", ["VGG16", "ResNet50V2", "ResNet50"])[0] == "ResNet50"


def test_nearest_names_respects_count_and_finds_nothing_for_noise():
    assert len(nearest_names("resnet", ["ResNet50", "ResNet101", "ResNet152"], count=2)) == 2
    assert nearest_names("zzzzzz", ["ResNet50"]) == []


def test_shorten():
    assert shorten("abc") == "a, b, c"
    assert shorten("abcdefg", most=2) == "a, b and 5 more"
    assert shorten([]) == ""
    assert shorten("abcd", most=2, between="\n") == "a\nb\nand 2 more"
