"""What a race writes is read back as it was, and nothing else is taken for it."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
from sample_benches import check, measured, race

from multitl.bench.jobs import Record
from multitl.bench.results import append, read_results, start_results, write_csv
from multitl.errors import RunError


def test_records_come_back_as_they_were(tmp_path: Path):
    path, records = tmp_path / "results.jsonl", [check("jax"), measured("jax", 10.0)]
    start_results(path, {"machine": {"cores": 2}, "options": {"budget": 60}})
    for record in records:
        append(path, record)
    found = read_results(path)
    assert found.records == records
    assert found.head["machine"] == {"cores": 2}


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    start_results(path, {})
    append(path, check("jax"))
    append(path, check("torch"))
    path.write_text(path.read_text()[:-20])
    assert [record.job.cell.contender for record in read_results(path).records] == ["jax"]


def test_what_was_tried_again_counts_once(tmp_path: Path):
    path, late = tmp_path / "results.jsonl", Record(check("jax").job, "out of time", "the budget ended")
    start_results(path, {})
    for record in [late, measured("torch", 3.0), check("jax")]:
        append(path, record)
    assert read_results(path).records == [check("jax"), measured("torch", 3.0)]


@pytest.mark.parametrize("text", ["", "not JSON\n", '{"epoch": 1}\n', "[1]\n", '{"multitl bench": 1}\n{"job": 3}\n'])
def test_other_files_are_refused_with_what_to_do(tmp_path: Path, text: str):
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(RunError, match="holds no results of multitl bench") as caught:
        read_results(path)
    assert "results.jsonl" in caught.value.fix


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "results.jsonl")
    with pytest.raises(RunError, match="holds no results of multitl bench"):
        read_results(tmp_path / "results.jsonl")


def test_the_table_has_a_line_a_process(tmp_path: Path):
    write_csv(tmp_path / "results.csv", race({"jax": [10.0, 12.0]}))
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == ["check", "measure", "measure"]
    assert float(rows[1]["images_per_second"]) == pytest.approx(10, rel=1e-3)
    assert rows[1]["compile_seconds"] == "8.0"


def test_no_cell_of_the_table_is_a_formula(tmp_path: Path):
    """A note or the path of a backbone may begin with anything."""
    (record,) = (one for one in race({"jax": [10.0]}) if one.job.stage == "measure")
    write_csv(tmp_path / "results.csv", [replace(record, note="=HYPERLINK(1)")])
    with (tmp_path / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["note"] == "'=HYPERLINK(1)" and float(row["images_per_second"]) == pytest.approx(10, rel=1e-3)
