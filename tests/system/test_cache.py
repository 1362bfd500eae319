"""What lies in the cache, how much of it there may be, and how it goes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from multitl.cli.main import main
from multitl.errors import CacheError
from multitl.system import cache
from multitl.system.cache import LIMIT, cache_limit, look, make_room, remove


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """500 bytes of pixels of two geometries, and 30 of features."""
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "SPARED", 0)  # however full the disk of this machine is
    for name, size in (("pixels/one/a", 200), ("pixels/two/b", 300), ("features/x/f", 30)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"0" * size)
    return tmp_path


def test_kinds_are_counted() -> None:
    found = {one.kind: (one.files, one.size) for one in look()}
    assert found == {"features": (1, 30), "given": (0, 0), "images": (0, 0), "pixels": (2, 500), "translations": (0, 0)}


def test_one_kind_goes_and_the_others_stay(folder: Path) -> None:
    (gone,) = remove(["pixels"])
    assert (gone.files, gone.size) == (2, 500)
    assert [one.size for one in look() if one.files] == [30]


def test_a_kind_that_is_a_link_is_emptied(folder: Path, tmp_path: Path) -> None:
    (folder / "pixels").rename(tmp_path / "large disk")
    (folder / "pixels").symlink_to(tmp_path / "large disk")
    (gone,) = remove(["pixels"])
    assert gone.files == 2 and not list((tmp_path / "large disk").iterdir()) and (folder / "pixels").is_symlink()


def test_files_that_stay_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rmdir", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(CacheError, match="2 of 2 files"):
        remove(["pixels"])


def refuse(*given: object, **named: object) -> None:
    raise PermissionError


def test_an_unknown_kind_removes_nothing(folder: Path) -> None:
    with pytest.raises(CacheError, match=r"pixel'(.|\n)*nearest:\s+pixels"):
        remove(["features", "pixel"])
    assert len(look()) == 5 and sum(one.files for one in look()) == 3


@pytest.mark.parametrize(
    ("limit", "size", "has_room", "left"),
    [(1000, 100, True, 530), (600, 100, True, 330), (430, 100, True, 330), (429, 100, False, 530), (0, 1, False, 530)],
)
def test_room_is_made_of_others_pixels(
    limit: int, size: int, has_room: bool, left: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, str(limit / 1e9))
    assert make_room(size, keep=[folder / "pixels/two/b"]) is has_room
    assert sum(one.size for one in look()) == left


@pytest.mark.parametrize(
    ("free", "size", "has_room", "left"),
    [(150, 50, True, 530), (120, 50, True, 330), (101, 50, True, 330), (0, 50, True, 330), (0, 101, False, 530)],
)
def test_of_a_full_disk_others_keep_their_part(
    free: int, size: int, has_room: bool, left: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SPARED", 100)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: SimpleNamespace(total=10**12, free=free))
    assert make_room(size, keep=[folder / "pixels/two/b"]) is has_room
    assert sum(one.size for one in look()) == left


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(CacheError, match=rf"{LIMIT}(.|\n)*unset"):
        cache_limit()


def test_the_command_shows_and_clears(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["cache", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["folder"] == str(folder) and not shown["removed"]
    assert {one["kind"]: one["size"] for one in shown["kinds"]}["pixels"] == 500
    assert main(["cache", "--clear", "pixels", "features"]) == 0
    assert "removed from" in capsys.readouterr().out
    assert main(["cache"]) == 0
    assert "0.00 GB of at most 20 GB" in capsys.readouterr().out
    assert main(["cache", "--clear", "nothing"]) == 2
