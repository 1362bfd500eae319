"""A module's .tar.gz: unpacked as it is, or refused before anything of it is written outside."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from multitl_tensorflow import archives
from multitl_tensorflow.archives import unpacked

from multitl.errors import WeightsError


def write(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("prefix", ["", "./", "mobilenet/"])
def test_files_come_out_as_they_are_and_go_afterwards(prefix: str, tmp_path: Path):
    files = ((f"{prefix}saved_model.pb", b"graph"), (f"{prefix}variables/variables.index", b"index"))
    with unpacked(write(tmp_path / "module.tar.gz", *files)) as folder:
        assert (folder / "saved_model.pb").read_bytes() == b"graph"
        assert (folder / "variables" / "variables.index").read_bytes() == b"index"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("../escaped", b"x"), "a file outside the archive: ../escaped"),
        (("variables/../../escaped", b"x"), "outside"),
        (("..\\escaped", b"x"), "outside"),
        (("C:\\escaped", b"x"), "outside"),
        (link("saved_model.pb", "/etc/passwd", tarfile.SYMTYPE), "a link or a device: saved_model.pb"),
        (link("saved_model.pb", "../../etc/passwd", tarfile.LNKTYPE), "a link or a device"),
        (link("variables", "/tmp", tarfile.SYMTYPE), "a link or a device"),
        (link("pipe", "", tarfile.FIFOTYPE), "a link or a device"),
        (link("disk", "", tarfile.BLKTYPE), "a link or a device"),
    ],
)
def test_what_reaches_outside_is_refused(member, said: str, tmp_path: Path):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = write(inner / "module.tar.gz", ("saved.txt", b"first"), member)
    with pytest.raises(WeightsError, match="cannot be unpacked safely") as caught, unpacked(path):
        pytest.fail("unpacked")
    assert said in caught.value.received
    assert caught.value.expected and caught.value.fix
    assert [one.name for one in tmp_path.rglob("*escaped*")] == []


def test_an_absolute_path_is_refused(tmp_path: Path):
    target = tmp_path / "absolute"
    path = write(tmp_path / "module.tar.gz", (str(target), b"x"))
    with pytest.raises(WeightsError, match="a file outside the archive"), unpacked(path):
        pytest.fail("unpacked")
    assert not target.exists()


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path):
    """64 MiB of zeros in 64 KiB; and many files of nothing."""
    path = write(tmp_path / "bomb.tar.gz", ("saved_model.pb", bytes(2**26)))
    assert path.stat().st_size < 2**17
    with pytest.raises(WeightsError, match="more than 16777216 bytes"), unpacked(path):
        pytest.fail("unpacked")


def test_very_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "MOST_FILES", 10)
    path = write(tmp_path / "many.tar.gz", *((f"file{number}", b"") for number in range(11)))
    with pytest.raises(WeightsError, match="10 files once unpacked"), unpacked(path):
        pytest.fail("unpacked")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"\x1f\x8b\x08\x00 cut off"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "module.tar.gz").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be unpacked safely"), unpacked(tmp_path / "module.tar.gz"):
        pytest.fail("unpacked")


def test_a_truncated_archive_is_refused(tmp_path: Path):
    path = write(tmp_path / "module.tar.gz", ("saved_model.pb", os.urandom(100_000)))
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(WeightsError, match="cannot be unpacked safely"), unpacked(path):
        pytest.fail("unpacked")


def test_a_file_twice_is_refused(tmp_path: Path):
    path = write(tmp_path / "module.tar.gz", ("saved_model.pb", b"one"), ("saved_model.pb", b"two"))
    with pytest.raises(WeightsError, match="cannot be unpacked safely"), unpacked(path):
        pytest.fail("unpacked")


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08", b"\xfd7zXZ\x00" + bytes(20), b"BZh9" + bytes(20)])
def test_a_packing_that_is_cut_off_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "module.tar.gz").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be unpacked safely"), unpacked(tmp_path / "module.tar.gz"):
        pytest.fail("unpacked")


@pytest.mark.parametrize("depth", [17, 1500])
def test_deep_folders_are_refused(depth: int, tmp_path: Path):
    path = write(tmp_path / "module.tar.gz", ("a/" * depth + "saved_model.pb", b"x"))
    with pytest.raises(WeightsError, match=f"folders {depth + 1} deep"), unpacked(path):
        pytest.fail("unpacked")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_refused(kind: bytes, tmp_path: Path):
    """tarfile reads it as a whole, whatever may be unpacked."""
    with tarfile.open(tmp_path / "module.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, 2**24
        archive.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(info.size))
    with pytest.raises(WeightsError, match="a header of 16777216 bytes"), unpacked(tmp_path / "module.tar.gz"):
        pytest.fail("unpacked")
