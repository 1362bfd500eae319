"""What a user is told, and that it arrives whole: in a copy, a file, and from another process."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

import multitl
from multitl import errors
from multitl.errors import DataError, MultitlError, TranslationError, nearest_names, shorten

PARTS = {"fix": "do e", "expected": "a", "received": "b"}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MultitlError)]


def make(kind: type[MultitlError]) -> MultitlError:
    """An error with every field filled, and a note."""
    if issubclass(kind, TranslationError):
        error: MultitlError = kind("Bad.", **PARTS, missing=("aten.c", "aten.d"))
    else:
        error = kind("Bad.", **PARTS, nearest=iter(["c", "d"]))
    error.add_note("while testing")
    return error


def fail(kind: type[MultitlError]) -> None:
    """For another process."""
    raise make(kind)


def assert_same(error: BaseException, original: MultitlError) -> None:
    assert type(error) is type(original)
    assert (str(error), error.args, vars(error)) == (str(original), original.args, vars(original))


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
    assert children == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_public(kind: type[MultitlError]):
    assert getattr(multitl, kind.__name__) is kind and kind.__name__ in multitl.__all__


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", KINDS)
def test_pickling_loses_nothing(kind: type[MultitlError], protocol: int):
    assert_same(pickle.loads(pickle.dumps(make(kind), protocol)), make(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_whole_and_their_own(kind: type[MultitlError]):
    error = make(kind)
    for same in (copy.copy(error), copy.deepcopy(error)):
        assert_same(same, error)
        same.fix = "do f"
    assert error.fix == "do e"


class PluginError(DataError):
    """A child made elsewhere, whose `__init__` asks for something else."""

    def __init__(self, path: str) -> None:
        super().__init__(f"Bad: {path}.", fix="do e")
        self.path = path


def test_children_made_elsewhere_need_nothing_of_their_own():
    assert_same(pickle.loads(pickle.dumps(PluginError("a.png"))), PluginError("a.png"))


def test_every_error_arrives_from_another_process():
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned) as pool:
        arrived = [pool.submit(fail, kind).exception(timeout=60) for kind in KINDS]
    for error, kind in zip(arrived, KINDS, strict=True):
        assert error
        assert_same(error, make(kind))


def test_a_pool_of_multiprocessing_does_not_wait_for_ever():
    """As it does for an error that cannot be unpickled: the thread that reads answers dies of it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        waiting = pool.apply_async(fail, (DataError,))
        with pytest.raises(DataError) as caught:
            waiting.get(timeout=60)
    assert_same(caught.value, make(DataError))


def test_a_notebook_shows_the_message_and_the_users_own_lines():
    with pytest.raises(MultitlError) as caught:
        multitl.finetune("photos", hiden=3)  # type: ignore[call-arg]
    head, blank, *frames = caught.value._render_traceback_()
    assert head == f"RecipeError: {caught.value}" and blank == ""
    (frame,) = frames
    assert __file__ in frame and 'multitl.finetune("photos", hiden=3)' in frame


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
