"""Which pictures are the same, and which merely look alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multitl.contracts import Dataset, Decoding, Example
from multitl.reviewing import neighbours
from multitl.reviewing.copies import ALIKE_TINY, SAME, Copy, Likeness, compare, copy_issues, families, pairs_of, verify
from multitl.reviewing.issues import Issue, by_importance, undecided, write_issues
from multitl.reviewing.looks import look_at
from multitl.reviewing.neighbours import Neighbours, centre_of, nearest
from multitl.verdicts import verdicts_in


def picture(seed: int) -> Image.Image:
    """Blots of 300 x 200 pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((300, 200), Image.Resampling.BICUBIC)


def test_copies_are_told_from_pictures_that_are_alike(tmp_path: Path):
    """Saved again, of half the size, a corner of 90 %; and one with another print in the middle, and a brighter one."""
    plain = picture(0)
    printed = plain.copy()
    printed.paste(picture(1).resize((60, 40)), (120, 80))
    files = {
        "plain.png": plain, "jpeg.jpg": plain, "small.png": plain.resize((150, 100)),
        "crop.png": plain.crop((25, 15, 295, 195)), "printed.png": printed,
        "bright.png": plain.point(lambda v: v // 2 + 120),
    }  # fmt: skip
    for name, image in files.items():
        image.save(tmp_path / name, quality=60)
    looks = look_at([str(tmp_path / name) for name in (*files, "gone.png")], Decoding(), range(6))
    found = [compare(looks.grey[0], looks.grey[other]) for other in range(1, 6)]
    assert [one.is_same for one in found] == [True, True, True, False, False]
    assert found[3].left < SAME  # its details tell
    assert compare(looks.grey[3], looks.grey[0]) == pytest.approx(found[2], abs=1e-5)

    assert looks.width.tolist()[:3] == [300, 300, 150] and looks.aspect[3] == 1.5
    assert np.isnan(looks.width[6]) and 6 not in looks.grey
    assert looks.brightness[5] > looks.brightness[0] and looks.contrast[5] < looks.contrast[0]
    candidates = pairs_of(nearest(looks.tiny, looks.tiny, 5), ALIKE_TINY)  # a bright one is a candidate, and no copy
    assert {(0, 1), (0, 2), (0, 5)} <= candidates
    every = {(one, other) for one in range(6) for other in range(one + 1, 7)}
    assert {copy.pair for copy in verify(every, looks.grey)} == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def test_blurred_pictures_are_less_sharp(tmp_path: Path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8))
    noise.save(tmp_path / "sharp.png")
    noise.resize((64, 64)).resize((256, 256), Image.Resampling.BICUBIC).save(tmp_path / "blurred.png")
    looks = look_at([str(tmp_path / name) for name in ("sharp.png", "blurred.png")], Decoding())
    assert looks.sharpness[0] > 3 * looks.sharpness[1] and not looks.grey


def test_the_one_that_judges_stays():
    splits = ["train", "train", "train", "validation", "test"]
    dataset = Dataset("", ("cat",), tuple(Example(f"{i}.png", 0, s, f"{i}" * 64) for i, s in enumerate(splits)))
    copies = [Copy(pair, Likeness(0.01, 0.9)) for pair in ((0, 1), (1, 4), (2, 3))]
    assert families(copies) == [[0, 1, 4], [2, 3]]
    rows = {(one.image, one.kind, one.other, one.suggested) for one in copy_issues(copies, dataset)}
    assert rows == {
        (1, "copy across parts", 4, "remove"), (0, "copy", 1, "remove"), (2, "copy across parts", 3, "remove")
    }  # fmt: skip


def test_earlier_verdicts_go_on_and_what_was_kept_is_not_asked_again(tmp_path: Path):
    dataset = Dataset("", ("cat",), tuple(Example(f"{i}.png", 0, "train", f"{i}" * 64) for i in range(3)))
    issues = [Issue("label", 0, 0.9, "cat"), Issue("outlier", 0, 2.0), Issue("copy", 1, 0.99, "remove", 2)]
    rows = [("0.png", "label", "keep", "0"), ("2.png", "label", "dog", "2")]
    text = "path,issue,verdict,sha256\n" + "".join(f"{p},{i},{v},sha256:{c * 16}\n" for p, i, v, c in rows)
    left = undecided(issues, dataset, text)
    assert [one.kind for one in by_importance(left)] == ["copy", "outlier"]
    write_issues(tmp_path, left, dataset, text)
    assert verdicts_in((tmp_path / "issues.csv").read_text()) == text


@pytest.mark.parametrize("block", [1000, 7])
def test_nearest_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    rows = np.random.default_rng(0).normal(3, 1, (20, 4)).astype("float32")
    centre = centre_of(rows)
    found = nearest(rows, rows, 3, centre)
    unit = (rows - rows.mean(axis=0)) / np.linalg.norm(rows - rows.mean(axis=0), axis=1, keepdims=True)
    cosines = unit @ unit.T - 9 * np.eye(20)
    np.testing.assert_allclose(found.cosines, -np.sort(-cosines, axis=1)[:, :3], atol=1e-5)
    np.testing.assert_array_equal(found.places, np.argsort(-cosines, axis=1)[:, :3])


def test_pairs_are_named_once():
    both = Neighbours(np.array([[0.9, 0.2], [0.9, 0.8], [0.8, -1.0]]), np.array([[1, 2], [0, 2], [1, 0]]))
    assert pairs_of(both, 0.7) == {(0, 1), (1, 2)}
