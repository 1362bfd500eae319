"""What is swapped is put back, and what is not as it was is left alone."""

from __future__ import annotations

import pytest

from multitl.system.swapping import FastPath, Inside, swapped


class Parent:
    def greet(self, name: str) -> str:
        return f"parent {name}"


class Child(Parent):
    @staticmethod
    def count(first: int) -> int:
        return first


HERE = __name__


def shout(self: Child, name: str) -> str:
    return name.upper()


def test_what_is_inherited_is_inherited_again():
    with swapped(Child, "greet", shout):
        assert (Child().greet("a"), Parent().greet("a")) == ("A", "parent a")
    assert Child().greet("a") == "parent a"
    assert "greet" not in vars(Child)


def test_what_is_its_own_is_put_back_as_it_was_after_an_error():
    before = vars(Child)["count"]
    with pytest.raises(ZeroDivisionError), swapped(Child, "count", staticmethod(lambda first: 1 // 0)):
        Child.count(1)
    assert vars(Child)["count"] is before


def test_an_inside_that_is_there_is_run_another_way_and_keeps_its_original():
    inside = Inside(f"{HERE}:Child.greet", "self name", "a test")
    path = FastPath("greeting", inside)
    with path.replaced(shout):
        assert Child().greet("a") == "A"
        assert inside.original(Child(), "a") == "parent a"
    assert (Child().greet("a"), inside.fault, path.faults) == ("parent a", "", ())


def test_a_function_of_a_module():
    with Inside(f"{HERE}:shout", "self name", "a test").swapped(lambda self, name: name):
        assert shout(Child(), "a") == "a"
    assert shout(Child(), "a") == "A"


@pytest.mark.parametrize(
    ("place", "parameters", "fault"),
    [
        ("nowhere.at_all:f", "self name", "nowhere.at_all:f is gone"),
        (f"{HERE}:Child.part", "self name", "Child.part is gone"),
        (f"{HERE}:HERE", "self name", "HERE is gone"),
        (f"{HERE}:Child.greet", "self", "Child.greet takes other arguments (self, name)"),
        (f"{HERE}:Child.greet", "self name more", "Child.greet takes other arguments (self, name)"),
        (f"{HERE}:Child.greet", "self more ...", "Child.greet takes other arguments (self, name)"),
        (f"{HERE}:Child.greet", "self ...", ""),
    ],
)
def test_what_is_not_as_it_was_is_left_alone(place: str, parameters: str, fault: str):
    lost, kept = Inside(place, parameters, "a test"), Inside(f"{HERE}:Child.count", "first", "a test")
    path = FastPath("greeting", lost, kept)
    assert lost.fault.endswith(fault) and bool(lost.fault) == bool(fault)
    with path.replaced(shout, lambda first: -1):
        assert Child.count(1) == (1 if fault else -1)
    assert path.faults == ((f"greeting: {lost.fault}",) if fault else ())
    if fault:
        with pytest.raises(AttributeError, match=r"is gone|takes other"):
            lost.swapped(shout)


@pytest.mark.parametrize(
    ("error", "told"), [(AttributeError("no moments"), "no moments"), (KeyError(0), "KeyError(0)")]
)
def test_a_trial_that_fails_closes_the_path(error: Exception, told: str):
    def trial() -> None:
        raise error

    path = FastPath("greeting", Inside(f"{HERE}:Child.greet", "self name", "a test"), trial=trial)
    with path.replaced(shout):
        assert Child().greet("a") == "parent a"
    assert path.faults == (f"greeting: {told}",)
