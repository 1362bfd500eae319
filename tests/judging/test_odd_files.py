"""How a run reads its files and its table is its own: `predict` and `evaluate` go by what it was trained with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quick_runs import QUICK

import multitl
from multitl.cli.main import main
from multitl.contracts import Decoding
from multitl.data.scanning import scan_for_training
from multitl.errors import DataError
from multitl.judging.predictions import read_predictions
from multitl.recipes import Recipe
from multitl.runs.cards import read_card


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """photos/*.tif: two pages of 12 bits in 16, the first black; labels/table.csv beside: photo,kind."""
    folder, random = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    (folder / "labels").mkdir()
    rows = ["photo,kind"]
    for index in range(24):
        bright = index % 2
        values = random.integers(2500 * bright, 2500 * bright + 1500, (12, 10)).astype(np.uint16)
        first, second = Image.fromarray(values * 0), Image.fromarray(values)
        first.save(folder / f"photos/{index}.tif", save_all=True, append_images=[second])
        rows.append(f"{index},{'bright' if bright else 'dim'}")
    (folder / "labels/table.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def run(place) -> Path:
    told = ["--images", str(place / "photos"), "--path-column", "photo", "--label-column", "kind"]
    read = ["--bits", "12", "--page", "2"]
    assert main(["finetune", str(place / "labels/table.csv"), "--out", str(place / "run"), *QUICK, *told, *read]) == 0
    return place / "run"


def test_the_card_keeps_how_files_are_read(run):
    card = read_card(run)
    assert card.preprocess.decoding == Decoding(2, (0.0, 4095.0)) == card.recipe.decoding
    assert card.data.warnings == ()
    assert (card.recipe.path_column, card.recipe.label_column, card.recipe.bits) == ("photo", "kind", 12)
    assert Recipe.read(run / "recipe.toml") == card.recipe


def test_predict_answers_as_the_run_did(run):
    told = read_predictions(run / "predictions.csv").of("test")
    answers = multitl.predict(run, told.paths)
    received = [[answer["probabilities"][name] for name in told.class_names] for answer in answers]
    np.testing.assert_allclose(received, told.probabilities, atol=1e-5)
    assert told.probabilities.std(axis=0).max() > 1e-4  # the first page would give one answer to all


def test_evaluate_reads_a_table_as_the_run_did(run, place, capsys):
    table = place / "labels/table.csv"
    figures = multitl.evaluate(run, table, images=place / "photos")
    assert figures["count"] == 24
    columns = ["--path-column", "photo", "--label-column", "kind"]
    assert main(["evaluate", str(run), str(table), "--images", str(place / "photos"), *columns, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures
    with pytest.raises(DataError, match="24 files that do not exist") as error:
        multitl.evaluate(run, table)
    assert "--images DIR" in error.value.fix
    with pytest.raises(DataError, match="has no column 'kinds'") as error:
        multitl.evaluate(run, table, images=place / "photos", label_column="kinds")
    assert error.value.nearest == ("kind",)


def test_predict_says_what_is_odd_about_other_files(run, tmp_path, capsys):
    Image.fromarray(np.full((12, 10), 60000, np.uint16)).save(tmp_path / "sixteen.png")
    assert main(["predict", str(run), str(tmp_path / "sixteen.png")]) == 0
    told = capsys.readouterr()
    assert "1 files of 16-bit grey hold values from 60000 to 60000, of which 4095 is white already" in told.err
    assert "train with another --bits or --range" in told.err and "warning" not in told.out


def test_training_without_them_would_have_been_warned(place):
    reading = {"images": str(place / "photos"), "path_column": "photo", "label_column": "kind"}
    (warning,) = scan_for_training(place / "labels/table.csv", Recipe(**reading, page=2)).warnings
    assert "24 files of 16-bit grey hold values from" in warning and "--bits 12 mends that" in warning
    (pages,) = scan_for_training(place / "labels/table.csv", Recipe(**reading, max_unreadable=0.5)).warnings
    assert "24 files have several pages, up to 2" in pages
