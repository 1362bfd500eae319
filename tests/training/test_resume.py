"""SIGKILL at any moment, then --resume: the same metrics, and next to nothing done twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import elsewhere_slow
from PIL import Image
from quick_runs import BACKBONE

import multitl
from multitl.training.checkpoints import CHECKPOINT, PREVIOUS, Row, load_state

PROGRAM = """
import signal, sys
from multitl.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
sys.exit(main())
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images: enough training images for two feature shards."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for channel, name in enumerate(["red", "green"]):
        (root / name).mkdir()
        for index in range(300):
            pixels = random.integers(0, 156, (12, 12, 3), dtype=np.uint8)
            pixels[..., channel] += random.integers(0, 100, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:03}.png")
    return root


@pytest.fixture(scope="module")
def arguments(photos: Path) -> list[str]:
    options = "--image-size 32 --batch-size 16 --head-epochs 6 --dropout 0.2 --seed 3 "
    options += "--unfreeze last --learning-rate 5e-4 --steps 90"
    return [str(photos), "--backbone", BACKBONE, *options.split()]


def start(arguments: list[str], out: Path, cache: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, "finetune", *arguments, "--out", str(out), *more]
    environment = os.environ | {"KERAS_BACKEND": keras.config.backend(), "MULTITL_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(process: subprocess.Popen, ready: Callable[[], bool]) -> None:
    """SIGKILL as soon as `ready`; fails if the process ends by itself before that."""
    deadline = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, f"ended too early:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline, "never got that far"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


def history(out: Path) -> list[dict[str, str]]:
    path = out / "history.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def rows(out: Path) -> list[Row]:
    """What training has to show so far."""
    return load_state(out).rows if (out / CHECKPOINT).exists() or (out / PREVIOUS).exists() else []


@elsewhere_slow
def test_killed_again_and_again_ends_as_if_never_interrupted(arguments: list[str], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(arguments, whole, tmp_path / "cache-whole"))

    cache = tmp_path / "cache-broken"
    shards = lambda: {path: path.stat().st_mtime_ns for path in cache.glob("features/*/[!.]*.safetensors")}  # noqa: E731
    kill_when(start(arguments, broken, cache, "--resume"), lambda: len(shards()) >= 1)
    first_shards = shards()
    kill_when(start(arguments, broken, cache, "--resume"), lambda: len(rows(broken)) >= 2)
    assert first_shards.items() <= shards().items()  # a finished shard is not computed again
    head_rows = rows(broken)
    kill_when(start(arguments, broken, cache, "--resume"), lambda: len(rows(broken)) >= 7)
    deep_rows = rows(broken)
    assert multitl.predict(broken, [next((Path(arguments[0]) / "red").iterdir())])  # the head was published
    finish(start(arguments, broken, cache, "--resume"))

    # `seconds` is part of the comparison: a leg that had been run again would differ in it
    all_rows = rows(broken)
    assert deep_rows[: len(head_rows)] == head_rows and all_rows[: len(deep_rows)] == deep_rows
    assert [row["trial"] for row in all_rows] == [0] * 6 + [1] * 8
    strip = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]  # noqa: E731
    assert strip(history(broken)) == strip(history(whole))
    assert json.loads((broken / "metrics.json").read_text()) == json.loads((whole / "metrics.json").read_text())
    assert (broken / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()
    assert {path.name for path in broken.iterdir()} == {path.name for path in whole.iterdir()}  # no leftovers


@pytest.mark.every_backend
def test_ctrl_c_says_how_to_resume(arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(arguments, out, tmp_path / "cache")
    while not history(out):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:  # Python drops an interrupt that meets it in a destructor: one presses again
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in output and "Traceback" not in output
    finish(start(arguments, out, tmp_path / "cache", "--resume"))
    assert (out / "report.html").is_file()
