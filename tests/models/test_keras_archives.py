"""The packing of .keras files: Keras reads them, the same model gives the same bytes, and no clock can spoil one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from multitl.models.keras_archives import write_keras_archive

MODEL = """
    import keras
    initial = keras.initializers.GlorotUniform(seed=1)
    inputs = keras.Input((4,), name="inputs")
    hidden = keras.layers.Dense(3, kernel_initializer=initial, kernel_regularizer=keras.regularizers.L2(0.1), name="a")
    last = keras.layers.Dense(2, kernel_initializer=initial, name="b")
    model = keras.Model(inputs, last(hidden(inputs)), name="model")
"""
INPUTS = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


def make_model() -> keras.Model:
    names: dict = {}
    exec(textwrap.dedent(MODEL), names)
    return names["model"]


def write_elsewhere(path: Path, clock: str = "") -> None:
    code = (
        textwrap.dedent(MODEL) + "import sys\nfrom multitl.models.keras_archives import write_keras_archive\n" + clock
    )
    code += "\nwrite_keras_archive(model, sys.argv[1])"
    environment = os.environ | {"KERAS_BACKEND": keras.config.backend()}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.every_backend
def test_keras_reads_it_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    model = make_model()
    write_keras_archive(model, tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(INPUTS), model.predict_on_batch(INPUTS))
    assert loaded.get_layer("a").kernel_regularizer.l2 == pytest.approx(0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.keras"]


@pytest.mark.every_backend
def test_it_holds_what_keras_itself_writes(tmp_path: Path) -> None:
    model = make_model()
    write_keras_archive(model, tmp_path / "ours.keras")
    model.save(tmp_path / "theirs.keras")
    with zipfile.ZipFile(tmp_path / "ours.keras") as ours, zipfile.ZipFile(tmp_path / "theirs.keras") as theirs:
        assert set(ours.namelist()) == set(theirs.namelist())
        kinds = [{entry.compress_type for entry in archive.infolist()} for archive in (ours, theirs)]
        assert kinds[0] == kinds[1]


@pytest.mark.every_backend
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    write_keras_archive(make_model(), tmp_path / "here.keras")
    write_elsewhere(tmp_path / "there.keras")
    assert (tmp_path / "here.keras").read_bytes() == (tmp_path / "there.keras").read_bytes()


def test_a_clock_before_1980_costs_nothing(tmp_path: Path) -> None:
    write_elsewhere(tmp_path / "a.keras", "import time\ntime.time = lambda: 3600.0")
    assert keras.models.load_model(tmp_path / "a.keras").name == "model"
