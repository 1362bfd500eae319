"""JSON files as people and programs read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from multitl.judging.metrics import score
from multitl.runs.cards import read_metrics
from multitl.system.regular_files import MOST_CARD
from multitl.system.writing import read_json, write_json

VALUE = {"a": [], "b": {}, "matrix": [[1, 2], [3, 4.5]], "names": ["ü", "x"], "deep": [{"c": None, "d": [True, 1]}]}


def test_what_is_written_is_what_is_read_with_numbers_beside_each_other(tmp_path: Path):
    write_json(tmp_path / "value.json", VALUE)
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "value.json", missing="") == json.loads(text) == VALUE
    assert text.startswith('{\n  "a": [],\n  "b": {},\n  "matrix": [\n    [1, 2],\n    [3, 4.5]\n  ],\n  "names": [\n')
    assert "ü" in text


def test_what_is_no_json_is_refused_and_nothing_is_written(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", {"matrix": [[float("nan")]]})
    assert not (tmp_path / "value.json").exists()


def test_figures_of_thousands_of_classes_are_read_again(tmp_path: Path):
    """They are larger than any card may be, which ended a run after its work was done."""
    truth = np.arange(40)
    figures = {"validation": score(truth, np.eye(40), [str(name) for name in truth]), "test": None}
    write_json(tmp_path / "metrics.json", figures)
    with (tmp_path / "metrics.json").open("a") as file:
        file.write(" " * MOST_CARD)
    assert read_metrics(tmp_path)["validation"]["count"] == 40
