"""predictions.csv keeps every bit of every probability, and any name."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.errors import RunError
from multitl.judging.predictions import read_predictions, write_predictions

names = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, unique=True)


@given(names, st.integers(0, 5), st.integers(0, 1000))
def test_what_is_written_is_read_back(tmp_path_factory, names: list[str], count: int, seed: int) -> None:
    random, path = np.random.default_rng(seed), tmp_path_factory.mktemp("p") / "predictions.csv"
    probabilities = random.dirichlet(np.full(len(names), 0.05), count).astype(np.float32)
    labels = random.integers(0, len(names), count)
    rows = [("test", f"{i},\r\n.png", names[label], probabilities[i]) for i, label in enumerate(labels)]
    write_predictions(path, rows, names)
    back = read_predictions(path)
    assert back.class_names == tuple(names)
    assert back.paths == tuple(f"{Path.cwd()}/{row[1]}" for row in rows)
    assert np.array_equal(back.labels, labels)
    assert np.array_equal(back.probabilities, probabilities)
    assert back.probabilities.dtype == np.float32


def test_columns_and_splits(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    rows = [
        ("validation", "../a.png", "hat", np.array([0.25, 0.75])),
        ("test", "b\udcff.png", "shoe", np.array([0.9, 0.1])),
    ]
    write_predictions(path, rows, ["hat", "shoe"])
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    assert lines[0] == "split,path,label,predicted,confidence,p:hat,p:shoe"
    assert lines[1] == f"validation,{Path.cwd().parent}/a.png,hat,shoe,0.75,0.25,0.75"
    test = read_predictions(path).of("test")
    assert test.paths == (f"{Path.cwd()}/b\udcff.png",)
    assert test.labels.tolist() == [1]
    assert read_predictions(path).of("train").probabilities.shape == (0, 2)


@pytest.mark.parametrize(
    "text", ["", "split,path\n1,2\n", "split,path,label,predicted,confidence,p:a\ntest,x,b,a,1,1\n"]
)
def test_a_damaged_file_is_a_run_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(RunError, match="Cannot read"):
        read_predictions(tmp_path / "predictions.csv")
    with pytest.raises(RunError, match="Cannot read"):
        read_predictions(tmp_path / "missing.csv")


SIGNS = st.sampled_from(["", "'", "''", "'=", "=", "+", "-", "@", "\t", "\r", "\n", ";", "\uff1d"])


@given(st.lists(st.builds(str.__add__, SIGNS, st.text(max_size=5)), min_size=2, max_size=6, unique=True))
def test_no_cell_is_a_formula_and_every_name_comes_back(tmp_path_factory, names: list[str]) -> None:
    names = [name.encode("utf-8", "ignore").decode() or "x" for name in names]
    names = list(dict.fromkeys(names))
    path = tmp_path_factory.mktemp("p") / "predictions.csv"
    probabilities = np.full((len(names), len(names)), 0.1, np.float32) + np.eye(len(names), dtype=np.float32)
    rows = [("test", f"{i}.png", name, probabilities[i]) for i, name in enumerate(names)]
    write_predictions(path, rows, names)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(tuple("=+-@\t\r\n\uff1d")) for cell in row)
    back = read_predictions(path)
    assert back.class_names == tuple(names) and back.labels.tolist() == list(range(len(names)))


def test_a_file_of_an_older_version_with_apostrophes(tmp_path: Path) -> None:
    text = "split,path,label,predicted,confidence,p:'tis,p:-rf\ntest,/a.png,'tis,-rf,0.75,0.25,0.75\n"
    (tmp_path / "predictions.csv").write_text(text)
    back = read_predictions(tmp_path / "predictions.csv")
    assert back.class_names == ("'tis", "-rf") and back.labels.tolist() == [0]


@pytest.mark.parametrize("what", ["pipe", "endless", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / "predictions.csv"
    {"pipe": os.mkfifo, "endless": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[what](path)
    with pytest.raises(RunError, match="Cannot read"):
        read_predictions(path)
