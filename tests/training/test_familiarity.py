"""What a run says of images of none of its classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import elsewhere_slow
from PIL import Image
from quick_runs import BACKBONE

import multitl
from multitl.contracts import Example
from multitl.data.pixels import read_files
from multitl.files.sealed_arrays import read_sealed, write_sealed
from multitl.judging.opening import load_run
from multitl.judging.predictions import read_predictions
from multitl.models.inference import compile_forward, predict_padded
from multitl.models.strangeness import features_and_logits, with_strangeness
from multitl.onnx_graphs.running import run_onnx
from multitl.runs.familiarity import (
    FAMILIARITY,
    Familiarity,
    Usual,
    read_familiarity,
    share_as_strange,
    write_familiarity,
)
from multitl.serving.answerers import answerer_of
from multitl.training.familiarity import Seen, groups_of, learn_familiarity, rows_to_see

RANDOM = np.random.default_rng(0)


def clouds(count: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 8) around the rows of `places`, and which of these each is of."""
    groups = np.arange(count) % len(places)
    return (places[groups] + RANDOM.normal(0, 0.3, (count, places.shape[1]))).astype("float32"), groups


def seen(features: np.ndarray) -> Seen:
    return Seen(features, 4 * features[:, :3])


@pytest.fixture(scope="module")
def learned() -> Familiarity:
    trained, groups = clouds(300, np.eye(8)[:3] * 3)
    return learn_familiarity(seen(trained), groups, seen(clouds(200, np.eye(8)[:3] * 3)[0]), has_classes=True, seed=0)


def strangeness(familiarity: Familiarity, features: np.ndarray) -> np.ndarray:
    """What a network says whose head multiplies the first three features by four."""
    x, taken = keras.Input((8,)), keras.Input((8,))
    head = keras.Model(taken, 4 * taken[:, :3], name="head")
    network = with_strangeness(keras.Model(x, head(x), name="classifier"), familiarity)
    return predict_padded(compile_forward(network), features)[:, -1]


@pytest.mark.every_backend
def test_usual_images_are_as_strange_as_they_were_and_others_stranger(learned: Familiarity):
    again = strangeness(learned, clouds(32, np.eye(8)[:3] * 3)[0])
    other = strangeness(learned, clouds(32, np.eye(8)[5:] * 3)[0])
    assert learned.prototypes.shape == (12, 8) and len(learned.usual) == 200
    assert (np.diff(learned.usual) >= 0).all()
    assert (share_as_strange(learned.usual, again) < 0.05).mean() < 0.2
    assert (share_as_strange(learned.usual, other) < 0.05).mean() > 0.9
    assert np.median(again) == pytest.approx(np.median(learned.usual), abs=1.0)


def test_the_share_is_a_p_value():
    shares = share_as_strange(np.array([0.0, 1.0, 2.0, 2.0]), np.array([-1.0, 0.0, 1.5, 2.0, 3.0]))
    assert shares == pytest.approx([1.0, 1.0, 0.6, 0.6, 0.2])


@pytest.mark.parametrize("count", [1, 18, 19, 20, 38, 39, 40, 59, 99, 500])
def test_unknown_is_what_lies_above(count: int):
    familiarity = Familiarity(np.zeros(2), np.eye(2), Usual(0, 1), Usual(0, 1), np.arange(count) / 7)
    above = familiarity.unknown_above()
    for score in (*familiarity.usual, familiarity.usual[-1] + 1):
        assert familiarity.tell(np.array([score]))[0]["unknown"] == (above is not None and score > above)
    stranger = 0 if above is None else count - np.searchsorted(familiarity.usual, above)  # of count + 1 places
    assert stranger / (count + 1) <= 0.05


def test_of_large_data_some_of_each_class_are_seen():
    groups = np.repeat([0, 1, 2], [1000, 50, 3])
    rows = rows_to_see(groups, 90, seed=0)
    assert np.bincount(groups[rows]).tolist() == [30, 30, 3] and (np.diff(rows) > 0).all()
    assert len(rows_to_see(np.arange(7), 3, seed=0)) == 7
    assert rows_to_see(np.empty(0, int), 3, seed=0).size == 0
    several = [Example("a", (0, 2), "train", "0"), Example("b", (), "train", "1")]
    assert groups_of(several, "several").tolist() == [0, 0]


def test_without_classes_only_the_distance_counts():
    trained, _ = clouds(300, np.eye(8)[:3] * 3)
    found = learn_familiarity(seen(trained), np.zeros(300), seen(trained[:5]), has_classes=False, seed=0)
    assert found.energy == (0, 0) and len(found.prototypes) == 32 and len(found.usual) == 5
    again = learn_familiarity(seen(trained), np.zeros(300), seen(trained[:5]), has_classes=False, seed=0)
    assert np.array_equal(again.prototypes, found.prototypes)


@pytest.fixture(scope="module")
def run(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last stage was trained too, so that the network itself has to be asked."""
    out = tmp_path_factory.mktemp("runs") / "colours"
    multitl.finetune(
        photo_folder, backbone=BACKBONE, weights="none", image_size=32, unfreeze="all", steps=40, learning_rate=3e-3,
        output=out,
    )  # fmt: skip
    return out


@elsewhere_slow
def test_a_run_tells_strange_images(run: Path, photo_folder: Path, tmp_path: Path):
    Image.fromarray(RANDOM.integers(0, 256, (40, 48, 3), np.uint8)).save(tmp_path / "noise.png")
    known = multitl.predict(run, photo_folder)
    assert np.mean([row["unknown"] for row in known]) <= 0.2
    for row in known:
        assert 0 < row["familiarity"] <= 1 and row["unknown"] == (row["familiarity"] < 0.05)
        assert row["plausible"][0] == row["predicted"] and set(row["plausible"]) <= set(row["probabilities"])
    (strange,) = multitl.predict(run, tmp_path / "noise.png")
    assert strange["familiarity"] <= np.median([row["familiarity"] for row in known])


@elsewhere_slow
def test_the_scores_are_of_the_network_that_was_saved(run: Path):
    """What was learned from pixels in training is what the saved model gives for the validation images."""
    opened = load_run(run)
    assert opened.card.trials.kept == 1
    paths = read_predictions(run / "predictions.csv").of("validation").paths
    pixels = np.stack(list(read_files(paths, opened.card.preprocess)))
    rows = predict_padded(compile_forward(opened.network), pixels)
    assert np.sort(rows[:, -1]) == pytest.approx(opened.familiarity.usual, abs=1e-3)
    assert features_and_logits(opened.model)[1].shape[-1] == 3


@pytest.mark.parametrize("refit", [True, False])
def test_after_adapting_they_are_of_a_head_that_has_not_seen_the_images(
    photo_folder: Path, tmp_path: Path, refit: bool
):
    """Where the saved head was fitted to the validation images, they look more usual to it than what was kept."""
    multitl.finetune(
        photo_folder, backbone=BACKBONE, weights="none", image_size=32, unfreeze="none", head="linear", refit=refit,
        unlabelled=photo_folder, adapt="norm", output=tmp_path / "run",
    )  # fmt: skip
    opened = load_run(tmp_path / "run")
    paths = read_predictions(tmp_path / "run" / "predictions.csv").of("validation").paths
    pixels = np.stack(list(read_files(paths, opened.card.preprocess)))
    saved = np.sort(predict_padded(compile_forward(opened.network), pixels)[:, -1])
    assert (np.abs(saved - opened.familiarity.usual).max() > 1e-2) == refit


def test_a_run_without_the_file_says_nothing_of_it(run: Path, photo_folder: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / FAMILIARITY).unlink()
    (row,) = multitl.predict(tmp_path / "run", photo_folder / "red" / "00.png")
    assert row.keys() == {"path", "predicted", "confidence", "probabilities", "plausible"}


@pytest.mark.parametrize(
    "change",
    [
        {"centre": np.zeros(3, "float32")}, {"prototypes": np.zeros((0, 8), "float32")}, {"usual": np.zeros((2, 2))},
        {"usual": np.array([2.0, 1.0])}, {"energy": np.array([np.nan, 1.0])}, {"distance": np.array([0.0, 0.0])},
        {"usual": np.array([1, 2])}, {},
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(learned: Familiarity, tmp_path: Path, change: dict):
    write_familiarity(tmp_path, learned)
    kept = read_familiarity(tmp_path, 8)
    assert all(np.array_equal(getattr(kept, name), getattr(learned, name)) for name in ("centre", "usual", "energy"))
    arrays, _ = read_sealed(tmp_path / FAMILIARITY)
    if not change:
        del arrays["energy"]
    write_sealed(tmp_path / FAMILIARITY, arrays | change, b"")
    with pytest.raises(multitl.RunError, match=r"familiarity\.safetensors is damaged"):
        read_familiarity(tmp_path, 8)


@pytest.mark.slow
def test_an_artefact_says_how_strange_an_image_is(run: Path, photo_folder: Path, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    ported = multitl.port(run, "onnx", tmp_path / "onnx", unknown=True)
    about, opened = ported.card["strangeness"], load_run(run)
    paths = read_predictions(run / "predictions.csv").of("test").paths
    pixels = np.stack(list(read_files(paths, opened.card.preprocess)))
    given = run_onnx(str(ported.output / "model.onnx"), output="strangeness")(pixels)[:, 0]
    assert given == pytest.approx(predict_padded(compile_forward(opened.network), pixels)[:, -1], abs=1e-3)
    assert about["usual"] == pytest.approx(opened.familiarity.usual.tolist())
    assert about["unknown_above"] == opened.familiarity.unknown_above()
    assert ported.card["proof"]["strangeness"]["max_rel"] < 1e-4
    said = answerer_of(ported.output, "onnx", None).open()(list(pixels[:4]))
    known = multitl.predict(run, paths[:4])
    assert [(row["familiarity"], row["unknown"]) for row in said] == [
        (row["familiarity"], row["unknown"]) for row in known
    ]
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / FAMILIARITY).unlink()
    with pytest.raises(multitl.PortError, match="does not know what images of the usual kind look like"):
        multitl.port(tmp_path / "run", "onnx", tmp_path / "other", unknown=True)
