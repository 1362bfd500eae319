"""`multitl review` of a finished run: what it finds in data that were tampered with, and how its table goes back."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import keras
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from quick_runs import message_of

from multitl.cli.main import main
from multitl.data.scanning import scan_for_training
from multitl.recipes import combine

if keras.config.backend() != "jax":
    pytest.skip("what is computed is tested on every backend elsewhere", allow_module_level=True)


@pytest.fixture(scope="module")
def tampered(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos, and one of them again under another class and a hostile name."""
    note = PngInfo()
    note.add_text("Comment", "another file of the same pixels")
    data = shutil.copytree(photos, tmp_path_factory.mktemp("data") / "<b>photos")
    with Image.open(data / "cat" / "03.png") as image:
        image.save(data / "dog" / "=<script>1.png", pnginfo=note)
    return data


def test_review(finished: Path, tampered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "reviewed"
    command = ["review", str(finished), "--data", str(tampered), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert f"{out / 'issues.csv'}" in printed.out and "--relabel" in printed.out
    assert "are others by now" in printed.err
    with (out / "issues.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (copy,) = [row for row in rows if row["issue"].startswith("copy")]
    assert {Path(copy[name]).name for name in ("path", "other")} == {"03.png", "=<script>1.png"}
    assert {row["verdict"] for row in rows} == {""}
    about = json.loads((out / "review.json").read_text())
    assert sum(about["counts"].values()) == len(about["issues"]) == len(rows)
    page = (out / "review.html").read_text()
    assert "<script" not in page and "<b>photos" not in page and page.count("data:image/jpeg;base64,") >= 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)

    assert "perhaps with verdicts" in message_of(main(command), *capsys.readouterr())
    (out / "review.json").unlink()
    assert "is no review of multitl" in message_of(main([*command, "--overwrite"]), *capsys.readouterr())

    table = out / "issues.csv"
    copy["verdict"] = "remove"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    left = scan_for_training(tampered, combine(finished / "recipe.toml", {"relabel": str(table)}))
    assert len(left.examples) == 24
    gone = [one for one in left.examples if one.path == copy["path"]]
    assert not gone and scan_for_training(tampered, combine(finished / "recipe.toml", {})).examples != left.examples


def test_what_cannot_be_reviewed_is_said_at_once(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    missing = ["review", str(finished), "--data", str(tmp_path / "gone"), "--out", str(tmp_path / "out")]
    assert "Cannot find" in message_of(main(missing), *capsys.readouterr())
    moved = Path(shutil.copytree(finished, tmp_path / "run"))
    card = json.loads((moved / "card.json").read_text())
    (moved / "card.json").write_text(json.dumps(card | {"data": card["data"] | {"path": str(tmp_path / "gone")}}))
    assert "--data DATA" in message_of(main(["review", str(moved)]), *capsys.readouterr())
    shutil.rmtree(moved)
    few = ["drift", str(finished), str(tmp_path)]
    assert "There is no image" in message_of(main(few), *capsys.readouterr())
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    for images in (tmp_path, tmp_path / "one.png"):
        told = message_of(main(["drift", str(finished), str(images)]), *capsys.readouterr())
        assert "few images" in told or "not a folder" in told
        assert "--unlabelled" not in told  # which drift has not
