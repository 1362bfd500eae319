"""A contender that computes something else is found, whatever it is."""

from __future__ import annotations

import dataclasses

import pytest
from sample_benches import LOSSES, check

from multitl.bench.agreement import deviations, judge


def test_those_that_agree_have_no_fault():
    verdicts = judge(
        {name: check(name, shift=shift) for name, shift in (("a", 0.0), ("b", 1e-5), ("c", -1e-5))}, "float32"
    )
    assert [verdict.faults for verdict in verdicts.values()] == [(), (), ()]
    assert verdicts["b"].logits == pytest.approx(1e-5 / 2, rel=1e-3)


def test_of_three_the_one_that_errs_is_marked():
    verdicts = judge({"a": check("a"), "b": check("b", shift=0.01), "c": check("c")}, "float32")
    assert {name: verdict.faults for name, verdict in verdicts.items()} == {"a": (), "b": ("logits",), "c": ()}


def test_sixteen_bits_may_differ_more():
    checks = {"a": check("a"), "b": check("b", shift=0.01), "c": check("c")}
    assert judge(checks, "bfloat16")["b"].faults == ()


def test_losses_and_trained_parameters_count_too():
    bad = dataclasses.replace(check("b", trainable=999), losses=[LOSSES[0], LOSSES[1], LOSSES[2] + 0.1])
    verdicts = judge({"a": check("a"), "b": bad, "c": check("c")}, "float32")
    assert verdicts["b"].faults == ("losses", "trained parameters")
    assert verdicts["a"].faults == verdicts["c"].faults == ()


def test_a_number_that_is_none_disagrees():
    bad = dataclasses.replace(check("b"), losses=[2.5, float("nan"), 1.5])
    verdicts = judge({"a": check("a"), "b": bad, "c": check("c")}, "float32")
    assert "losses" in verdicts["b"].faults


def test_another_shape_is_infinitely_far_and_nothing_is_no_difference():
    assert deviations({"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [1.0], "d": []}) == {
        "a": 0.0,
        "b": 0.0,
        "c": float("inf"),
        "d": None,
    }
