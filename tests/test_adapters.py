from __future__ import annotations

import importlib.abc
import json
import sys
import types
from pathlib import Path

import pytest

from multitl import adapters
from multitl.errors import BackboneError, BackendError


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A process in which Keras is not loaded yet and nothing is chosen. Call it with the installed backends."""

    def prepare(*installed: str, variable: str | None = None, keras_json: str | None = None) -> None:
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.setattr(adapters, "is_installed", lambda name: name in installed)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setenv("KERAS_BACKEND", variable or "")
        monkeypatch.setattr(adapters, "BACKENDS", {name: f"fake_{name}" for name in adapters.BACKENDS})
        for name in adapters.BACKENDS:
            monkeypatch.setitem(sys.modules, f"fake_{name}", types.ModuleType(name))
        if keras_json is not None:
            (tmp_path / "keras.json").write_text(keras_json)
        monkeypatch.setattr(adapters, "has_gpu", lambda: False)

    return prepare


def test_requested_backend_is_loaded_and_told_to_keras(fresh, monkeypatch):
    fresh("jax", "torch")
    assert adapters.load_backend("torch").__name__ == "torch"
    assert adapters.os.environ["KERAS_BACKEND"] == "torch"


def test_order_is_request_then_variable_then_keras_json_then_the_fastest(fresh):
    keras_json = json.dumps({"backend": "torch"})
    fresh("jax", "tensorflow", "torch", variable="tensorflow", keras_json=keras_json)
    assert adapters.choose_backend("tensorflow") == "tensorflow"
    assert adapters.choose_backend() == "tensorflow"
    fresh("jax", "tensorflow", "torch", keras_json=keras_json)
    assert adapters.choose_backend("jax") == "jax"
    assert adapters.choose_backend() == "torch"
    fresh("tensorflow", "torch", keras_json="{}")
    assert adapters.choose_backend() == "tensorflow"


@pytest.mark.parametrize(
    ("has_gpu", "has_plugin", "installed", "chosen"),
    [
        (False, True, ["jax", "tensorflow", "torch"], "tensorflow"),
        (False, False, ["jax", "torch"], "torch"),
        (False, False, ["jax"], "jax"),
        (True, True, ["jax", "tensorflow", "torch"], "jax"),
        (True, False, ["jax", "tensorflow", "torch"], "torch"),
        (True, False, ["jax", "tensorflow"], "tensorflow"),
    ],
)
def test_the_fastest_depends_on_the_device(
    has_gpu: bool, has_plugin: bool, installed: list[str], chosen: str, fresh, monkeypatch
) -> None:
    fresh(*installed)
    monkeypatch.setattr(adapters, "has_gpu", lambda: has_gpu)
    monkeypatch.setattr(adapters.metadata, "entry_points", lambda group: ["cuda"] if has_plugin else [])
    assert adapters.choose_backend() == chosen


@pytest.mark.parametrize(
    ("system", "machine", "has_driver", "variable", "expected"),
    [
        ("linux", "x86_64", True, None, True),
        ("linux", "x86_64", True, "0", True),
        ("linux", "x86_64", True, "", False),
        ("linux", "x86_64", False, None, False),
        ("darwin", "arm64", False, None, True),
        ("darwin", "x86_64", False, None, False),
    ],
)
def test_a_gpu_is_seen_without_a_framework(
    system: str, machine: str, has_driver: bool, variable: str | None, expected: bool, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(adapters.sys, "platform", system)
    monkeypatch.setattr(adapters.platform, "machine", lambda: machine)
    monkeypatch.setattr(adapters.shutil, "which", lambda name: None)
    monkeypatch.setattr(adapters, "NVIDIA", (tmp_path if has_driver else tmp_path / "none",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert adapters.has_gpu() is expected


def test_tensorflow_in_keras_json_is_not_a_choice_since_keras_writes_it_unasked(fresh, monkeypatch):
    fresh("jax", "torch", "tensorflow", keras_json=json.dumps({"backend": "tensorflow"}))
    monkeypatch.setattr(adapters, "ON_CPU", ("jax", "torch", "tensorflow"))
    assert adapters.choose_backend() == "jax"
    assert adapters.keras_json_backend() == "tensorflow"


@pytest.mark.parametrize(
    "keras_json", ["", "[]", '"jax"', "{", '{"backend": "theano"}', '{"backend": "torch"}', "null"]
)
def test_useless_keras_json_is_stepped_over(fresh, keras_json: str):
    fresh("jax", keras_json=keras_json)
    assert adapters.choose_backend() == "jax"


def test_conflict_of_request_and_variable_names_both(fresh):
    fresh("jax", "torch", variable="torch")
    with pytest.raises(BackendError) as caught:
        adapters.load_backend("jax")
    assert "--backend jax" in str(caught.value) and "KERAS_BACKEND=torch" in str(caught.value)


def test_same_request_and_variable_is_no_conflict(fresh):
    fresh("jax", variable="jax")
    assert adapters.load_backend("jax").__name__ == "jax"


def test_unknown_backend_names_the_nearest(fresh):
    fresh("jax")
    with pytest.raises(BackendError) as caught:
        adapters.load_backend("pytorch")
    assert "torch" in caught.value.nearest


@pytest.mark.parametrize("name", adapters.BACKENDS)
def test_missing_backend_gives_the_pip_line(fresh, name: str):
    fresh(*(other for other in adapters.BACKENDS if other != name))
    with pytest.raises(BackendError, match="not installed") as caught:
        adapters.load_backend(name)
    assert caught.value.fix == f"pip install 'multitl[{name}]'"


def test_no_backend_at_all_gives_the_pip_line(fresh):
    fresh()
    with pytest.raises(BackendError, match="No backend is installed") as caught:
        adapters.load_backend()
    assert "pip install" in caught.value.fix


def test_a_running_backend_stays_and_another_needs_a_new_process(fresh, monkeypatch):
    fresh("jax", "torch", variable="torch")
    running = types.SimpleNamespace(config=types.SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", running)
    assert adapters.choose_backend() == "jax"
    assert adapters.choose_backend("jax") == "jax"
    with pytest.raises(BackendError, match="already runs Keras on 'jax'") as caught:
        adapters.load_backend("torch")
    assert "KERAS_BACKEND=torch" in caught.value.fix


def test_every_installed_backend_is_found_without_importing_it():
    assert set(filter(adapters.is_installed, adapters.BACKENDS)) >= {adapters.load_backend().name}
    assert not adapters.is_installed("no_such_framework")


def test_source_is_split_from_the_name():
    source, rest = adapters.load_source("keras/MobileNet:alpha=0.25")
    assert source.__name__ == adapters.SOURCES["keras"]
    assert rest == "MobileNet:alpha=0.25"


@pytest.mark.parametrize("path", ["my.h5", "/a/b:c/my model.keras", "~/x/y.h5", "runs/a=b/model.keras"])
def test_what_follows_file_is_a_path(path: str):
    source, rest = adapters.load_source(f"file:{path}")
    assert source.__name__ == adapters.SOURCES["file"]
    assert rest == path


@pytest.mark.parametrize("name", ["my.h5", "file/my.h5"])
def test_a_bare_path_gets_the_right_spelling(name: str):
    with pytest.raises(BackboneError) as caught:
        adapters.load_source(name)
    assert caught.value.fix == "file:my.h5"


def test_names_of_folders_leave_out_where_a_file_lies_and_what_paths_do_not_like():
    assert adapters.folder_name("file:~/models/my flowers.h5") == "file-my-flowers"
    assert adapters.folder_name("run:old runs/flowers") == "run-flowers"
    assert adapters.folder_name("file:flowers.keras") == "file-flowers"
    assert adapters.folder_name("keras/MobileNet:alpha=0.25") == "keras-MobileNet-alpha0.25"
    assert adapters.folder_name("tfhub/é\n\x1b..\\*_x") == "tfhub-é--..--_x"


@pytest.mark.parametrize("name", ["keres/ResNet50", "ResNet50", "", "/", "file", "file/"])
def test_unknown_source_is_refused(name: str):
    with pytest.raises(BackboneError, match="Unknown backbone") as caught:
        adapters.load_source(name)
    assert "keras" in caught.value.expected


def test_name_without_its_source_is_recognised():
    with pytest.raises(BackboneError) as caught:
        adapters.load_source("ResNet50")
    assert "keras/ResNet50" in caught.value.nearest


@pytest.mark.parametrize("source", adapters.SOURCES)
def test_every_source_lists_backbones_under_its_own_prefix(source: str):
    infos = adapters.backbones(source)
    prefix = f"{source}:" if source in ("file", "run") else f"{source}/"
    assert infos and all(info.name.startswith(prefix) for info in infos)
    assert len({info.name for info in infos}) == len(infos)


def test_framework_that_an_import_hook_hides_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    class Hidden(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname, path, target=None):
            raise ModuleNotFoundError(fullname)

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    assert not adapters.is_installed("torch")


def test_broken_installation_is_told_from_a_missing_one(fresh, monkeypatch: pytest.MonkeyPatch):
    fresh("torch")
    monkeypatch.setitem(sys.modules, "fake_torch", None)  # its import fails
    with pytest.raises(BackendError, match=r"'torch' is installed but cannot be loaded(.|\n)*multitl doctor"):
        adapters.load_backend("torch")
