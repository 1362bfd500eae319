"""`--unlabelled` where an image has several labels, or a number: photos of a second, darker camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_photos import make_labelled, save_small_backbone
from numbered_photos import make_numbered
from PIL import Image

import multitl
from multitl.contracts import Result
from multitl.runs.cards import Adaptation
from multitl.training.adaptation import entropy

pytestmark = pytest.mark.every_backend


def darken(photos: Path, target: Path) -> Path:
    target.mkdir()
    for path in sorted(photos.glob("*.png"))[::2]:
        Image.fromarray(np.asarray(Image.open(path)) // 2 + 40).save(target / path.name)
    return target


def adapted(photos: Path, root: Path, **options: str) -> tuple[Result, Adaptation]:
    backbone = f"file:{save_small_backbone(root / 'small.keras')}"
    fixed = {"backbone": backbone, "image_size": 32, "unfreeze": "none", "head": "linear"}
    unlabelled = str(darken(photos, root / "dark"))
    made = multitl.finetune(photos / "photos.csv", output=root / "run", unlabelled=unlabelled, **fixed, **options)
    found = multitl.load(made.output).card.adaptation
    assert found
    return made, found


def test_of_several_labels_the_most_promising_way_is_chosen(tmp_path: Path) -> None:
    made, found = adapted(make_labelled(tmp_path / "photos"), tmp_path, labels="several")
    assert [one["name"] for one in found.tried] == ["none", "coral", "norm", "norm+coral"]
    assert found.chosen == min(found.tried, key=lambda one: one["log_loss"])["name"]
    by_name = {one["name"]: one for one in found.tried}
    told = made.metrics["test"]["log_loss"]  # its accuracy is by thresholds, the other by one half
    assert by_name[found.chosen]["figures"]["test"]["log_loss"] == pytest.approx(told, rel=1e-3)


@pytest.mark.parametrize("way", ["coral", "norm"])
def test_a_number_is_adapted_the_way_that_is_named(way: str, tmp_path: Path) -> None:
    made, found = adapted(
        make_numbered(tmp_path / "photos"), tmp_path, labels="number", label_column="width", adapt=way
    )
    assert [one["name"] for one in found.tried] == ["none", way] and found.chosen == way
    scale, told = multitl.load(made.output).card.scale, made.metrics["test"]
    assert scale
    assert found.tried[1]["figures"]["test"]["log_loss"] == pytest.approx((told["rmse"] / scale[1]) ** 2, rel=1e-3)
    assert found.tried[0]["log_loss"] < 1  # of a variance of one
    assert found.tried[1]["figures"] != found.tried[0]["figures"]


def test_entropy_by_hand() -> None:
    assert entropy(np.array([[0.5, 0.5], [1.0, 0.0]]), "one") == pytest.approx(np.log(2) / 2)
    assert entropy(np.array([[0.5, 0.5], [1.0, 0.0]]), "several") == pytest.approx(np.log(2))
