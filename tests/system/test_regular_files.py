"""A pipe, a device, a folder, an empty file, a broken link in the place of a file: refused at once by every reader."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multitl.errors import MultitlError
from multitl.files.hdf5_files import open_weight_file
from multitl.files.keras_files import read_model
from multitl.files.safetensors_files import read_safetensors_file
from multitl.files.state_dict_files import read_state_dict
from multitl.files.torch_files import read_torch_file
from multitl.models.model_files import load_saved_model
from multitl.sources.tfhub import find
from multitl.system.hashes import file_sha256
from multitl.system.regular_files import read_regular

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices of POSIX")


def _weights(path: Path) -> None:
    with open_weight_file(path):
        pytest.fail("opened")


def _index(path: Path) -> None:
    """The index of a checkpoint in several files."""
    read_state_dict(path.rename(path.with_name("model.safetensors.index.json")) if path.name == "pipe" else path)


def _saved_model(path: Path) -> None:
    pytest.importorskip("tensorflow")
    from multitl_tensorflow.saved_models import read_module

    folder = path.parent / "module"
    folder.mkdir()
    (folder / "saved_model.pb").symlink_to(path)
    read_module(folder)


def _archive(path: Path) -> None:
    pytest.importorskip("tensorflow")
    from multitl_tensorflow.archives import unpacked

    with unpacked(path):
        pytest.fail("unpacked")


READERS: list[Callable[[Path], Any]] = [
    _weights, read_model, load_saved_model, read_torch_file, read_safetensors_file, read_state_dict, _index,
    _saved_model, _archive,
]  # fmt: skip


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """What waits for a pipe waits for ever."""

    def give_up(*_: object) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def a_device(folder: Path) -> Path:
    (folder / "zero").symlink_to("/dev/zero")
    return folder / "zero"


def a_folder(folder: Path) -> Path:
    (folder / "folder").mkdir()
    return folder / "folder"


def nothing_in_it(folder: Path) -> Path:
    (folder / "empty").touch()
    return folder / "empty"


def a_broken_link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nowhere")
    return folder / "link"


KINDS = [a_pipe, a_device, a_folder, nothing_in_it, a_broken_link]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", READERS)
def test_a_reader_refuses_what_is_no_file_with_something_in_it(read, kind, tmp_path: Path):
    with pytest.raises(MultitlError) as caught:
        read(kind(tmp_path))
    assert caught.value.fix


@pytest.mark.parametrize("kind", [a_pipe, a_device, a_folder, a_broken_link])
def test_what_is_no_file_has_no_hash_and_is_no_module(kind, tmp_path: Path):
    path = kind(tmp_path)
    with pytest.raises(OSError):
        file_sha256(path)
    if kind is not a_folder:
        with pytest.raises(MultitlError, match="There is no module"):
            find(str(path))


def test_a_file_is_read_without_room_for_the_largest(tmp_path: Path):
    (tmp_path / "small").write_bytes(b"abc")
    assert read_regular(tmp_path / "small", 2**60) == b"abc"
    with pytest.raises(OSError, match="at most 2"):
        read_regular(tmp_path / "small", 2)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"])
def test_a_name_that_no_file_can_have_is_a_missing_file(name: str) -> None:
    with pytest.raises(OSError):
        read_regular(name, 2**20)
