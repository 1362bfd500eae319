"""Who is ranked, where, and what is said of the others."""

from __future__ import annotations

import dataclasses

import pytest
from sample_benches import check, job, measured, race

from multitl.bench.jobs import Record
from multitl.bench.standings import rank

RATES = {"torch": [9.0, 9.2, 9.1], "native-torch": [10.0, 10.1, 9.9], "textbook": [5.0, 5.0, 5.1]}


def test_the_fastest_is_first_and_everybody_is_compared():
    (contest,) = rank(race(RATES))
    assert [standing.contender for standing in contest.standings] == ["native-torch", "torch", "textbook"]
    ours = contest.standings[1]
    assert ours.to_best is not None
    assert ours.to_native == ours.to_best
    assert ours.to_native.value == pytest.approx(0.91, abs=0.005)
    assert ours.seconds == {"import": 2.0, "load": 0.5, "compile": 8.0}
    assert contest.gap == 0.0


def test_one_that_disagrees_is_last_and_nobody_is_compared_with_it():
    records = [record for record in race(RATES) if record.job.stage != "check"]
    checks = [check("torch"), check("native-torch", shift=0.1), check("textbook")]
    (contest,) = rank([*checks, *records])
    assert [standing.contender for standing in contest.standings] == ["torch", "textbook", "native-torch"]
    outsider = contest.standings[-1]
    assert outsider.status == "disagrees"
    assert "logits" in outsider.note
    assert outsider.to_best is None
    assert contest.standings[0].to_native is None


@pytest.mark.parametrize("state", ["not installed", "not available", "crashed", "hung", "out of time"])
def test_one_that_failed_is_told_with_its_reason(state: str):
    failed = Record(job("native-jax", "check", -1), state, "because")  # type: ignore[arg-type]
    (contest,) = rank([failed, *race(RATES)])
    standing = contest.standings[-1]
    assert (standing.contender, standing.status, standing.note) == ("native-jax", state, "because")


def test_a_run_that_failed_later_is_told_and_the_others_count():
    records = race(RATES)
    records[-1] = dataclasses.replace(records[-1], state="crashed", note="killed", window_seconds=[])
    (contest,) = rank(records)
    standing = contest.standings[-1]
    assert standing.is_ranked
    assert standing.note == "1 of its runs failed; killed"
    assert standing.rate is not None
    assert standing.rate.count == 2


def test_contests_are_kept_apart():
    other = measured("torch", 3.0)
    cell = dataclasses.replace(other.job.cell, dtype="bfloat16")
    other = dataclasses.replace(other, job=dataclasses.replace(other.job, cell=cell))
    contests = rank([*race(RATES), other])
    assert [contest.cell.dtype for contest in contests] == ["float32", "bfloat16"]
    assert len(contests[1].standings) == 1
