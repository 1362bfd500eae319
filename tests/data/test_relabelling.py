"""Verdicts on images: how a table of them is read, which images it means, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from multitl.data.listings import Record
from multitl.data.relabelling import check_relabelling, relabelled
from multitl.data.scanning import scan_for_training
from multitl.errors import DataError, MultitlError
from multitl.recipes import Recipe, combine
from multitl.system.hashes import file_sha256
from multitl.verdicts import verdicts_in

HEADER = "path,label,part,issue,suggested,score,other,verdict,sha256\n"
CLASSES = ("cat", "dog")


def table(*rows: tuple[str, str, str], header: str = HEADER) -> str:
    """rows: path, verdict, and one hex digit of the content."""
    lines = (f"{path},cat,train,label,dog,0.9,,{verdict},sha256:{digit * 16}\n" for path, verdict, digit in rows)
    return header + "".join(lines)


RECORDS = [Record(f"/new/{name}", "cat", "train") for name in ("a.png", "b.png", "x/c.png", "y/c.png")]
HASHES = dict(zip((one.path for one in RECORDS), ("a" * 64, "b" * 64, "c" * 64, "c" * 64), strict=True))


def test_images_are_known_by_content_and_copies_by_their_path():
    text = table(("/old/was-a.png", "dog", "a"), ("/old/b.png", "keep", "b"), ("/old/y/c.png", "remove", "c"),
                 ("/old/gone.png", "remove", "d"))  # fmt: skip
    kept, notes = relabelled(RECORDS, HASHES, verdicts_in(text), CLASSES)
    assert [(one.path, one.label) for one in kept] == [
        ("/new/a.png", "dog"), ("/new/b.png", "cat"), ("/new/x/c.png", "cat")
    ]  # fmt: skip
    assert notes == [
        "Verdicts: 1 images got another class, 1 were removed, 1 stayed as they are; 1 are not among these images."
    ]


def test_a_spreadsheet_may_have_saved_the_table():
    """With semicolons, its own mark of text, and rows without a verdict."""
    text = table(("'=a.png", "Keep", "a"), ("b.png", "", "b")).replace(",", ";")
    assert verdicts_in(text).count("\n") == 2
    check_relabelling(verdicts_in(text), CLASSES, "one")


@pytest.mark.parametrize(
    ("text", "classes", "labels", "message"),
    [
        (table(("a.png", "", "a")), CLASSES, "one", "There is no verdict in this table"),
        (table(("a.png", "dgo", "a")), CLASSES, "one", "nearest: dog"),
        (table(("a.png", "dog", "a"), ("a.png", "remove", "a")), CLASSES, "one", "exclude each other"),
        (table(("a.png", "dog", "a")), CLASSES, "several", "expected: keep or remove"),
        (table(("a.png", "keep", "a")), ("cat", "keep"), "one", "A class cannot be called keep"),
        (table(("a.png", "dog", "a")).replace("sha256:", "1e"), CLASSES, "one", "did not write"),
        (table(("a.png", "dog", "a")).replace("verdict", "Verdicts"), CLASSES, "one", "has no column verdict"),
    ],
)
def test_what_is_no_verdict_is_refused(text: str, classes: tuple[str, ...], labels: str, message: str):
    with pytest.raises(MultitlError, match=message):
        check_relabelling(verdicts_in(text), classes, labels)


def test_keep_beside_another_verdict_says_that_one_issue_is_none():
    text = verdicts_in(table(("a.png", "keep", "a"), ("a.png", "remove", "a")))
    assert len(relabelled(RECORDS, HASHES, text, CLASSES)[0]) == 3


def test_verdicts_on_other_data_are_refused():
    with pytest.raises(DataError, match="None of the images"):
        relabelled(RECORDS, HASHES, verdicts_in(table(("a.png", "dog", "e"))), CLASSES)


def test_parts_stay_as_they_are_without_verdicts(photos: Path, tmp_path: Path):
    """And a recipe holds what the file said, so that it means the same when the file is gone."""
    plain = scan_for_training(photos, Recipe())
    wrong, gone = plain.split("train")[0], plain.split("train")[1]
    rows = "".join(
        f"{one.path},cat,train,label,dog,0.9,,{verdict},sha256:{file_sha256(one.path)[:16]}\n"
        for one, verdict in ((wrong, "dog"), (gone, "remove"))
    )
    file = tmp_path / "issues.csv"
    file.write_text("\ufeff" + HEADER + rows)
    recipe = combine(None, {"relabel": str(file)})
    file.unlink()
    moved = shutil.copytree(photos, tmp_path / "moved")
    mended = scan_for_training(moved, recipe)
    before = {one.sha256: (one.split, plain.class_names[one.label]) for one in plain.examples}
    after = {one.sha256: (one.split, mended.class_names[one.label]) for one in mended.examples}
    assert after == {k: v for k, v in before.items() if k != gone.sha256} | {wrong.sha256: ("train", "dog")}
    assert "1 images got another class, 1 were removed" in " ".join(mended.warnings)
