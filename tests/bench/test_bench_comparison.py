"""What changed between two races, and what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_benches import check, race

from multitl.bench.comparison import compare
from multitl.bench.jobs import Record
from multitl.bench.results import append, start_results
from multitl.errors import RunError


def written(folder: Path, records: list[Record]) -> Path:
    start_results(folder / "results.jsonl", {})
    for record in records:
        append(folder / "results.jsonl", record)
    return folder


def test_faster_slower_and_no_clear_change(tmp_path: Path):
    before = written(tmp_path / "a", race({"jax": [10.0, 10.1], "torch": [8.0, 8.1], "native-jax": [5.0, 5.1]}))
    after = written(tmp_path / "b", race({"jax": [15.0, 15.1], "torch": [6.0, 6.1], "native-jax": [5.05, 5.0]}))
    found = {change.contender: change for change in compare(before, after / "results.jsonl")}
    verdicts = {name: change.verdict for name, change in found.items()}
    assert verdicts == {"jax": "faster", "torch": "slower", "native-jax": "no clear change"}
    assert found["jax"].ratio is not None
    assert found["jax"].ratio.value == pytest.approx(1.5, rel=0.02)


def test_one_that_only_one_race_has_is_told(tmp_path: Path):
    before = written(tmp_path / "a", race({"jax": [10.0], "torch": [8.0]}))
    after = written(tmp_path / "b", race({"jax": [10.0], "native-tf": [7.0]}))
    assert {change.contender: change.verdict for change in compare(before, after)} == {
        "jax": "no clear change", "torch": "only before", "native-tf": "only after",
    }  # fmt: skip


def test_races_with_nothing_in_common_are_refused(tmp_path: Path):
    before, after = written(tmp_path / "a", race({"jax": [10.0]})), written(tmp_path / "b", [check("jax")])
    with pytest.raises(RunError, match="nothing in common"):
        compare(before, after)
