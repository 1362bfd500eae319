"""Packages that must not meet are kept apart for a while, and what was there is put back."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

pytest.importorskip("torch")

from multitl_torch.rivals import tensorflow_unseen, triton_kept_out


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """TensorFlow and Triton, as far as sys.modules knows."""
    modules = {name: ModuleType(name) for name in ("tensorflow", "triton")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def test_triton_does_not_come_after_tensorflow(loaded: dict[str, ModuleType]):
    del sys.modules["triton"]
    with triton_kept_out(), pytest.raises(ImportError):
        importlib.import_module("triton")
    assert "triton" not in sys.modules


def test_triton_that_came_first_stays(loaded: dict[str, ModuleType]):
    with triton_kept_out():
        assert importlib.import_module("triton") is loaded["triton"]


def test_triton_is_free_without_tensorflow(loaded: dict[str, ModuleType]):
    del sys.modules["tensorflow"], sys.modules["triton"]
    with triton_kept_out():
        assert "triton" not in sys.modules


def test_tensorflow_is_put_back_whatever_happens(loaded: dict[str, ModuleType]):
    with pytest.raises(KeyError), tensorflow_unseen():
        assert "tensorflow" not in sys.modules
        raise KeyError
    assert sys.modules["tensorflow"] is loaded["tensorflow"]


def test_tensorflow_that_was_not_there_is_not_there_later(loaded: dict[str, ModuleType]):
    del sys.modules["tensorflow"]
    with tensorflow_unseen():
        pass
    assert "tensorflow" not in sys.modules
