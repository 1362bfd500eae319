"""Small data sets for tests: every image differs from every other one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from multitl.contracts import Dataset
from multitl.data.scanning import scan


def make_images(root: Path, counts: Mapping[str, int], suffix: str = ".png") -> Path:
    """`counts[folder]` images of 8 x 6 pixels, named 0, 1, ... in each folder below `root`. Returns `root`."""
    numbers = itertools.count()
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index, number in zip(range(count), numbers, strict=False):
            colour = (number % 256, number // 256, len(folder))
            Image.new("RGB", (8, 6), colour).save(root / folder / f"{index}{suffix}")
    return root


def scan_simply(path: Path | str, seed: int = 0, **options) -> Dataset:
    """`scan` with ordinary options."""
    defaults = {"validation_fraction": 0.2, "test_fraction": 0.2, "max_unreadable": 0.05}
    return scan(path, seed=seed, **{**defaults, **options})
