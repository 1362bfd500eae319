"""What a race writes is read back as it was, and nothing else is taken for it."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_benches import check, measured, race

from multitl.bench.jobs import Record
from multitl.bench.results import append, read_results, rewrite, start_results, write_csv
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


def test_after_a_line_that_was_cut_off_the_next_is_a_line(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    start_results(path, {"options": {"data": "photos\u2028of caf\udce9"}})
    for name in ("jax", "torch"):
        append(path, check(name))
    path.write_text(path.read_text()[:-20])
    rewrite(path, read_results(path))
    append(path, check("tensorflow"))
    append(path, replace(check("torch"), losses=[float("nan")]))
    found = read_results(path)
    assert [record.job.cell.contender for record in found.records] == ["jax", "tensorflow", "torch"]
    assert found.head["options"]["data"] == "photos\u2028of caf\udce9" and found.records[2].losses[0] != 0


@pytest.mark.parametrize(
    "change",
    [{"window_seconds": [0.0]}, {"seconds": {"import": 1.0}}, {"seconds": 3}, {"curve": [[1.0]]}, {"state": "gone"}],
)
def test_figures_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, Any]):
    path = tmp_path / "results.jsonl"
    start_results(path, {})
    append(path, measured("jax", 3.0))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], json.dumps(json.loads(lines[1]) | change), lines[1], ""]))
    with pytest.raises(RunError, match="holds no results of multitl bench"):
        read_results(path)


def test_what_was_tried_again_counts_once(tmp_path: Path):
    path, late = tmp_path / "results.jsonl", Record(check("jax").job, "out of time", "the budget ended")
    start_results(path, {})
    for record in [late, measured("torch", 3.0), check("jax")]:
        append(path, record)
    assert read_results(path).records == [check("jax"), measured("torch", 3.0)]


@pytest.mark.parametrize(
    "text",
    ["", "not JSON\n", '{"epoch": 1}\n', "[1]\n", "[" * 100_000, '{"multitl bench": 1, "options": []}\n',
     '{"multitl bench": 1}\n{"job": 3}\n'],
)  # fmt: skip
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
