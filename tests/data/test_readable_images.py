"""Files that were found readable are hashed, not decoded; all others are looked at each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_folders import make_images, scan_simply

from multitl.data import inspection
from multitl.data.images import PLAINLY
from multitl.data.readable_images import ReadableImages
from multitl.system.cache import cache_folder


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "cache"))
    calls: list[int] = []
    check = inspection.check_image
    monkeypatch.setattr(inspection, "check_image", lambda data, *how: calls.append(len(data)) or check(data, *how))
    return calls


def test_a_second_look_decodes_what_is_new_or_was_unreadable(tmp_path: Path, checked: list[int]) -> None:
    folder = make_images(tmp_path / "data", {"a": 20, "b": 20})
    damaged = next(iter(sorted(folder.rglob("*.png"))))
    damaged.write_bytes(damaged.read_bytes()[:60])
    first = scan_simply(folder)
    assert len(checked) == 40
    again = scan_simply(folder)
    assert again == first and len(checked) == 41
    assert len(again.unreadable) == 1


def test_damage_to_what_is_remembered_costs_a_look(tmp_path: Path, checked: list[int]) -> None:
    folder = make_images(tmp_path / "data", {"a": 5, "b": 5})
    scan_simply(folder)
    (path,) = (cache_folder() / "images").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    scan_simply(folder)
    assert len(checked) == 20
    assert ReadableImages(PLAINLY).find("0" * 64) is None


def test_a_place_that_cannot_be_written_to_is_no_obstacle(
    tmp_path: Path, checked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "file" / "cache"))
    scan_simply(make_images(tmp_path / "data", {"a": 5, "b": 5}))
    assert len(checked) == 10
