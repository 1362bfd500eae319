"""The three backends beside each other: same data, same recipe, one process each; then each other's models.

Runs under JAX only, since it starts its own processes. Uses the real photos and weights of ../shared.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import keras
import numpy as np
import pytest
from quick_runs import BACKBONE

from multitl.adapters import BACKENDS
from multitl.judging.predictions import read_predictions

if keras.config.backend() != "jax":
    pytest.skip("starts a process per backend itself", allow_module_level=True)


def run_python(backend: str, *arguments: str, stdin: str = "") -> None:
    environment = os.environ | {"KERAS_BACKEND": backend}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


MAIN = "import json, sys; from multitl.cli.main import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"


@pytest.fixture(scope="module")
def runs(
    photo_folder: Path, shared_data: Path, shared_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Path]]:
    """By what was trained and where: {"head": {"jax": folder}}.

    head: of MobileNet (alpha 0.25, found out from the file), on 320 photos of clothes.  light, strong: a small network,
    its last stage unfrozen, on generated photos, randomly changed that much.
    """
    folder = tmp_path_factory.mktemp("runs")
    real = ["--backbone", "keras/MobileNet", "--weights", str(shared_weights / "mobilenet_2_5_224_tf_no_top.h5")]
    deep = ["--backbone", BACKBONE, "--batch-size", "8", "--head-epochs", "3", "--unfreeze", "last",
            "--learning-rate", "5e-4", "--steps", "10"]  # fmt: skip
    jobs = {
        "head": [str(shared_data / "clothing_tiny"), *real, "--unfreeze", "none"],
        "light": [str(photo_folder), *deep],
        "strong": [str(photo_folder), *deep, "--augment", "strong"],
    }
    for backend in BACKENDS:
        commands = [["finetune", *job, "--out", str(folder / name / backend)] for name, job in jobs.items()]
        run_python(backend, "-c", MAIN, json.dumps(commands))
    return {name: {backend: folder / name / backend for backend in BACKENDS} for name in jobs}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_accuracy_on_real_photos(runs: dict[str, dict[str, Path]]) -> None:
    for run in runs["head"].values():
        assert json.loads((run / "metrics.json").read_text())["test"]["accuracy"] >= 0.85
        card = json.loads((run / "card.json").read_text())
        assert card["backbone"]["name"] == "keras/MobileNet:alpha=0.25"


def test_predictions_agree(runs: dict[str, dict[str, Path]]) -> None:
    """All probabilities, so the class as well, except where two of them are that near to each other."""
    predicted = [read_predictions(run / "predictions.csv").of("test") for run in runs["head"].values()]
    for one, other in combinations(predicted, 2):
        assert one.paths == other.paths and len(one.paths) == 80
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-3)


@pytest.mark.parametrize("trained", ["head", "light", "strong"])
def test_loss_curves_agree(trained: str, runs: dict[str, dict[str, Path]]) -> None:
    """Head phase: to 1e-3 relative. Phase 2: to 1e-2, training amplifies rounding; all see the same changed images."""
    histories = [read_csv(run / "history.csv") for run in runs[trained].values()]
    for one, other in combinations(histories, 2):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            tolerance = 1e-3 if a["phase"] == "head" else 1e-2
            for name in ("loss", "val_loss"):
                assert float(a[name]) == pytest.approx(float(b[name]), rel=tolerance), (a["epoch"], name)


LOAD = """
import sys, keras, numpy as np
for line in sys.stdin:
    model, pixels, output = line.split()
    np.save(output, np.asarray(keras.models.load_model(model).predict_on_batch(np.load(pixels))))
assert "multitl" not in sys.modules
"""


def test_saved_models_give_the_same_probabilities_everywhere(runs: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    """Saved under each backend, loaded under all three by plain Keras: within 1e-5, from raw uint8 pixels."""
    random, jobs = np.random.default_rng(0), []
    for name, size in [("head", 224), ("light", 32)]:
        np.save(tmp_path / f"{name}.npy", random.integers(0, 256, (8, size, size, 3), dtype=np.uint8))
        jobs += [(f"{name}-{on}", run / "model.keras", tmp_path / f"{name}.npy") for on, run in runs[name].items()]
    for loaded in BACKENDS:
        lines = [f"{model} {pixels} {tmp_path / job}-{loaded}.npy" for job, model, pixels in jobs]
        run_python(loaded, "-c", LOAD, stdin="\n".join(lines))
    for job, _, _ in jobs:
        outputs = [np.load(tmp_path / f"{job}-{loaded}.npy") for loaded in BACKENDS]
        for one, other in combinations(outputs, 2):
            assert np.abs(one - other).max() <= 1e-5, job
        assert np.allclose(outputs[0].sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_lite0_on_real_photos(backend: str, shared_data: Path, tmp_path: Path) -> None:
    data = str(shared_data / "clothing_tiny")
    run_python(backend, "-m", "multitl", "finetune", data, "--out", str(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] >= 0.95
