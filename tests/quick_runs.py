"""Whole jobs that take a second, and the message of one that was refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

BACKBONE = "keras/MobileNet:alpha=0.25"
QUICK = ["--backbone", BACKBONE, "--weights", "none", "--image-size", "32", "--head-epochs", "1", "--hidden", "64"]


def make_photos(root: Path, folders: Iterable[str], count: int) -> Path:
    """00.png, 01.png ... in every folder: noise of 12 x 10 pixels; no two files are equal."""
    random = np.random.default_rng(0)
    for name in folders:
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(random.integers(0, 256, (12, 10, 3), np.uint8)).save(root / name / f"{index:02}.png")
    return root


def message_of(code: int, out: str, err: str) -> str:
    """The message of a refusal; fails if it is none of ours."""
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    message = err[err.index("multitl: ") :]
    assert "\n  to mend: " in message
    return message
