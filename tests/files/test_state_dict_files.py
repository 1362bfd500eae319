"""state_dict_files.py: files by their content, folders, checkpoints in several files, and what is no state_dict."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from twin_networks import Network, arrays, assert_equal, read_fitting, write

from multitl.errors import WeightsError
from multitl.files.state_dict_files import read_state_dict


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "pytorch_model.bin", "x.PT", "model.pth.tar"])
def test_a_folder_with_one_file(tmp_path: Path, name: str):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "logs.pth").mkdir()
    write(tmp_path / name, Network().state_dict())
    state = read_state_dict(tmp_path)
    assert state.file == tmp_path / name
    np.testing.assert_array_equal(state.tensors["conv.weight"], arrays(Network())["conv.weight"])


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path: Path):
    for name, other in (("a.safetensors", "a.pth"), ("b.pth", "b.safetensors")):
        write(tmp_path / name, Network().state_dict()).rename(tmp_path / other)
        assert_equal(read_fitting(tmp_path / other).tensors, Network())


def test_a_model_hubs_folder(tmp_path: Path):
    """Two copies of the weights and a trainer's files: what the hub itself would load is taken."""
    write(tmp_path / "model.safetensors", Network().state_dict())
    write(tmp_path / "pytorch_model.bin", Network(seed=1).state_dict())
    write(tmp_path / "optimizer.pt", {"state": {}})
    assert_equal(read_fitting(tmp_path).tensors, Network())
    (tmp_path / "model.safetensors").unlink()
    assert_equal(read_fitting(tmp_path).tensors, Network(seed=1))


def test_folders_that_leave_a_choice_or_none(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"holds no files(.|\n)*no such file"):
        read_state_dict(tmp_path)
    for name in ("a.pth", "b.safetensors"):
        write(tmp_path / name, Network().state_dict())
    with pytest.raises(WeightsError, match=r"holds 2 files(.|\n)*a\.pth, b\.safetensors"):
        read_state_dict(tmp_path)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A checkpoint in two files with its index, as Hugging Face writes it."""
    tensors = list(Network().state_dict().items())
    places = {}
    for number, some in enumerate([dict(tensors[:4]), dict(tensors[4:])], 1):
        name = f"model-{number:05}-of-00002.safetensors"
        write(tmp_path / name, some)
        places |= dict.fromkeys(some, name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return tmp_path


def test_a_checkpoint_in_several_files(parts: Path):
    index = parts / "model.safetensors.index.json"
    for path in (parts, index):
        assert read_state_dict(path).file == index
        assert_equal(read_fitting(path).tensors, Network())
    (parts / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors cannot be read.*no such file"):
        read_state_dict(parts)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError|JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'weight_map'"),
        ('{"weight_map": []}', "AttributeError"),
        ('{"weight_map": {}}', "does not name files beside it"),
        ('{"weight_map": {"a": 1}}', "TypeError"),
        ('{"weight_map": {"a": []}}', "TypeError"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "does not name files beside it"),
        ('{"weight_map": {"a": "../x.pth"}}', "does not name files beside it"),
        ('{"weight_map": {"a": ".."}}', "it is a folder"),
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "not in the files that it names: a"),
    ],
)
def test_bad_indices(parts: Path, index: str, message: str):
    (parts / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(parts)


class Evil:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.system, ("touch evil",)


def test_files_that_are_no_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    cases: list[tuple[Any, str]] = [
        ([torch.ones(1)], "no state_dict(.|\n)*no dict"),
        ({}, "no state_dict(.|\n)*no dict"),
        ({"epoch": 3}, r"no state_dict(.|\n)*\['epoch'\]"),
        ({"a": torch.ones(1), "b": 2}, "no state_dict"),
        ({1: torch.ones(1)}, "no state_dict"),
        ({"state_dict": Evil()}, "can run code"),
        ({"model": nn.Linear(1, 1)}, "can run code"),
    ]
    for tree, message in cases:
        torch.save(tree, "file.pth")
        with pytest.raises(WeightsError, match=message):
            read_state_dict("file.pth")
    Path("file.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError, match=r"not one that torch\.save wrote"):
        read_state_dict("file.pth")
    with pytest.raises(WeightsError, match="no such file"):
        read_state_dict("none.safetensors")
    assert not Path("evil").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    for name in ("pipe.pth", "pipe.safetensors", "pipe.index.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(WeightsError, match="cannot be read"):
            read_state_dict(tmp_path / name)
