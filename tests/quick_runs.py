"""Whole jobs that take a second, and the message of one that was refused."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multitl
from multitl.cli.main import main

MOBILENET = "keras/MobileNet:alpha=0.25"  # where it matters that it takes any size, or has official weights
SMALL = Path(__file__).parent / "keras_files" / "small.keras"  # of `save_backbone`, after a Rescaling
BACKBONE = f"file:{SMALL}"  # a program for it compiles, and its file is written, in a fraction of a second
QUICK = ["--backbone", BACKBONE, "--weights", "none", "--image-size", "32", "--head-epochs", "1", "--hidden", "64",
         "--unfreeze", "none"]  # fmt: skip


def make_photos(root: Path, folders: Iterable[str], count: int) -> Path:
    """00.png, 01.png ... in every folder: noise of 12 x 10 pixels; no two files are equal."""
    random = np.random.default_rng(0)
    for name in folders:
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(random.integers(0, 256, (12, 10, 3), np.uint8)).save(root / name / f"{index:02}.png")
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12. Not to be changed: damage a copy."""
    return make_photos(tmp_path_factory.mktemp("data") / "photos", ["cat", "dog"], 12)


@pytest.fixture(scope="session")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on `photos`. Not to be changed: damage a copy."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "meta_path", sys.meta_path[:])  # as `import_hooks`
        assert main(["finetune", str(photos), "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture(scope="session")
def linear(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a solved head, whose maps are exact."""
    out = tmp_path_factory.mktemp("runs") / "linear"
    multitl.finetune(photos, backbone=BACKBONE, weights="none", image_size=32, unfreeze="none", output=out)
    return out


def message_of(code: int, out: str, err: str) -> str:
    """The message of a refusal; fails if it is none of ours."""
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    message = err[err.index("multitl: ") :]
    assert "\n  to mend: " in message
    return message
