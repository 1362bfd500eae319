"""The demonstration: 2,624 real electroluminescence images of solar cells, graded by experts, from a PyPI package.

Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery",
EU PVSEC 2018. The package `elpv-dataset` is found, never imported, and its images are used where they lie.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path

from multitl.errors import DataError
from multitl.recipes import Recipe
from multitl.system.writing import write_text

GRADES = ("functional", "possibly_defective", "probably_defective", "defective")  # defect probability 0, 1/3, 2/3, 1
LICENCE = (
    "Images: ELPV, ZAE Bayern, CC BY-NC-SA 4.0 (not for commercial use); https://github.com/zae-bayern/elpv-dataset"
)
RECIPE = Recipe(backbone="pypi/efficientnet_lite0", unfreeze="none")  # JAX on a CPU would compile for most of a minute


def write_labels(path: str | Path) -> Path:
    """Write a table of path,label over the installed images and return its path.

    Raises DataError if the package is not installed, or damaged.
    """
    folder = _find_images()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "label"])
    table.writerows(_read_grades(folder))
    write_text(path, text.getvalue())
    return Path(path)


def _find_images() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / "data" / "labels.csv").is_file():
            return Path(folder) / "data"
    raise DataError(
        "The images of the demonstration are not installed.",
        expected="the Python package elpv-dataset (90 MB)",
        received=f"no data/labels.csv in {folders[0]}" if folders else "no such package",
        fix="pip install 'multitl[demo]'",
    )


def _read_grades(folder: Path) -> list[tuple[str, str]]:
    """labels.csv holds lines such as "images/cell0001.png  1.0  mono"; 1/3 is written 0.3333333333333333."""
    rows = (line.split() for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines())
    return [(str(folder / row[0]), GRADES[round(3 * float(row[1]))]) for row in rows if row]
