"""predictions.csv keeps every bit of every probability, and any name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.errors import RunError
from multitl.predictions import read_predictions, write_predictions

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
