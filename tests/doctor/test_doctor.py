"""Doctor: every trap with and without the fault, facts from faked metadata, probes that crash and hang."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from multitl.cli import main as cli
from multitl.doctor import diagnosis as doctor
from multitl.doctor import probe, traps
from multitl.doctor.probe import Probe
from multitl.doctor.traps import TRAPS, Machine
from multitl.errors import BackendError

ROOT = Path(__file__).resolve().parents[2]
WORKING = Probe(
    "jax", True, versions={"jax": "0.10.2"}, devices=("CPU",), mixed_precision="mixed_bfloat16", seconds=1.5
)
MISSING = Probe("torch", False, error="not installed")
HEALTHY = Machine(
    packages={"keras": "3.15.1", "numpy": "2.4.6", "jax": "0.10.2"},
    modules=frozenset(),
    builds={},
    variables={"KERAS_BACKEND": "jax"},
    keras_json="jax",
    folders=frozenset({"photos"}),
    has_nvidia_gpu=False,
    cache=Path("/cache"),
    cache_is_writable=True,
    free=10**11,
    probes=(WORKING, MISSING),
)
PACKAGES = dict(HEALTHY.packages)
ON_GPU = dataclasses.replace(WORKING, devices=("NVIDIA H100",))
EXACT = {"has_nvidia_gpu": True, "variables": {"NVIDIA_TF32_OVERRIDE": "0"}}

# trap, changed facts, status, words of the finding or of the fix
CASES = [
    (traps.keras_age, {"packages": PACKAGES | {"keras": "3.9.2"}}, "trap", "3.9.2 is too old"),
    (traps.keras_age, {"packages": PACKAGES | {"keras": "2.15.0"}}, "trap", "pip install -U 'keras>=3.15,<4'"),
    (traps.keras_age, {"packages": PACKAGES | {"keras": "3.16.0.dev1"}}, "ok", "3.16.0.dev1"),
    (traps.numpy_age, {"packages": PACKAGES | {"numpy": "1.26.4"}}, "trap", "pip install -U 'numpy>=2'"),
    (traps.untested_versions, {"packages": PACKAGES | {"jax": "0.11.0"}}, "note", "pip install jax==0.10.2"),
    (traps.untested_versions, {"packages": PACKAGES | {"torch": "2.13.5+cu130"}}, "ok", "torch 2.13.5+cu130"),
    (traps.untested_versions, {"packages": PACKAGES | {"tensorflow-cpu": "2.20.0"}}, "note", "tensorflow-cpu==2.21.0"),
    (traps.backend_variable, {"variables": {}}, "ok", "not set"),
    (traps.backend_variable, {"variables": {"KERAS_BACKEND": "pytorch"}}, "trap", "export KERAS_BACKEND=torch"),
    (traps.backend_variable, {"variables": {"KERAS_BACKEND": "torch"}}, "trap", "pip install 'multitl[torch]'"),
    (traps.plain_keras, {"variables": {}, "keras_json": "tensorflow"}, "note", "export KERAS_BACKEND=jax"),
    (traps.plain_keras, {"variables": {}, "keras_json": None}, "note", "wants tensorflow"),
    (traps.plain_keras, {"variables": {}, "keras_json": "theano"}, "note", "wants theano"),
    (traps.plain_keras, {"variables": {}}, "ok", "runs on jax"),
    (traps.torchvision_build, {"builds": {"torch": "cpu", "torchvision": "cu130"}}, "note", "multitl copes"),
    (
        traps.torchvision_build,
        {"builds": {"torch": "cu130", "torchvision": "cpu"}, "packages": PACKAGES | {"torchvision": "0.28.0+cpu"}},
        "note",
        "torchvision==0.28.0 --index-url https://download.pytorch.org/whl/cu130",
    ),
    (
        traps.torchvision_build,
        {"builds": {"torch": "cpu", "torchvision": "cpu"}, "packages": PACKAGES | {"torchvision": "0.28.0"}},
        "ok",
        "fits torch",
    ),
    (traps.torchvision_build, {"packages": PACKAGES | {"torchvision": "0.28.0"}}, "ok", "fits torch"),
    (traps.torchvision_build, {"builds": {"torch": "cpu"}}, "ok", "not installed"),
    (traps.tensorflow_hub, {"packages": {"tensorflow-hub": "0.16.1"}}, "trap", "pip install 'setuptools<81' tf_keras"),
    (
        traps.tensorflow_hub,
        {"packages": {"tensorflow-hub": "0.16.1"}, "modules": frozenset({"pkg_resources"})},
        "trap",
        "pip install tf_keras",
    ),
    (
        traps.tensorflow_hub,
        {"packages": {"tensorflow-hub": "0.16.1"}, "modules": frozenset({"pkg_resources", "tf_keras"})},
        "ok",
        "importable",
    ),
    (traps.keras_hub, {"packages": {"keras-hub": "0.26", "tensorflow": "2.21"}}, "note", "pip uninstall -y keras-hub"),
    (traps.two_tensorflows, {"packages": {"tensorflow": "2.21", "tensorflow-cpu": "2.21"}}, "trap", "pip uninstall -y"),
    (traps.two_tensorflows, {"packages": {"tensorflow-cpu": "2.21"}}, "ok", "one package"),
    (traps.idle_gpu, {"has_nvidia_gpu": True}, "trap", "pip install -U 'jax[cuda13]'"),
    (traps.idle_gpu, {"has_nvidia_gpu": True, "variables": {"CUDA_VISIBLE_DEVICES": "-1"}}, "note", "hidden by"),
    (traps.idle_gpu, {"has_nvidia_gpu": True, "probes": (ON_GPU,)}, "ok", "in use"),
    (traps.tf32, {"has_nvidia_gpu": True}, "note", "export NVIDIA_TF32_OVERRIDE=0"),
    (traps.tf32, EXACT, "ok", "exact"),
    (
        traps.fast_paths,
        {"probes": (WORKING, dataclasses.replace(WORKING, backend="torch", missing=("fused Adam: a.b is gone",)))},
        "note",
        "torch (fused Adam: a.b is gone)\npip install keras==3.15.1 torch==2.13.0",
    ),
    (
        traps.fast_paths,
        {
            "packages": {"tensorflow-cpu": "2.22.0"},
            "probes": (dataclasses.replace(WORKING, backend="tensorflow", missing=("fused Adam: a.b is gone",)),),
        },
        "note",
        "pip install keras==3.15.1 tensorflow-cpu==2.21.0",
    ),
    (traps.cache_folder, {"cache_is_writable": False}, "trap", "export MULTITL_CACHE="),
    (traps.cache_folder, {"free": 10**9}, "note", "only 1.0 GB free"),
    (traps.shadowing_folder, {"folders": frozenset({"torch", "photos"})}, "note", "called torch"),
]


@pytest.mark.parametrize(
    ("trap", "facts", "status", "words"), CASES, ids=[f"{case[0].__name__}-{i}" for i, case in enumerate(CASES)]
)
def test_trap(trap, facts: dict, status: str, words: str):
    finding = trap(dataclasses.replace(HEALTHY, **facts))
    assert finding.status == status
    assert words in f"{finding.text}\n{finding.fix}"
    assert bool(finding.fix) == (status != "ok")


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_healthy_machine_has_no_trap(trap):
    assert trap(HEALTHY).status == "ok"


def test_every_trap_is_tested_with_its_fault():
    assert {case[0] for case in CASES if case[2] != "ok"} == set(TRAPS)


def test_tested_versions_are_the_constraints():
    lines = (ROOT / "constraints" / "tested.txt").read_text().splitlines()
    pins = dict(line.replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    assert {name: pins[name] for name in traps.TESTED} == traps.TESTED


@pytest.fixture
def fake_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Pretend that exactly these distributions and modules are installed; a module's value is its version.py."""

    def pretend(distributions: dict[str, str], modules: dict[str, str]) -> None:
        def version(name: str) -> str:
            if name not in distributions:
                raise metadata.PackageNotFoundError(name)
            return distributions[name]

        def find_spec(name: str) -> ModuleSpec | None:
            if name not in modules:
                return None
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(tmp_path / name)]
            return spec

        for name, text in modules.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "version.py").write_text(text)
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return pretend


def test_facts_come_from_metadata_and_version_files(fake_packages):
    modules = {
        "torch": "__version__ = '2.13.0+cpu'\ncuda = None\n",
        "torchvision": "__version__ = '0.28.0+cu130'\n",
        "tf_keras": "",
    }
    fake_packages({"torch": "2.13.0", "keras": "3.15.1"}, modules)
    machine = doctor.gather_facts(())
    assert machine.packages == {"keras": "3.15.1", "torch": "2.13.0"}
    assert machine.builds == {"torch": "cpu", "torchvision": "cu130"}
    assert machine.modules == {"tf_keras"}


def test_facts_of_a_machine_without_any_package(fake_packages):
    fake_packages({}, {})
    machine = doctor.gather_facts(())
    assert (machine.packages, machine.builds, machine.modules) == ({}, {}, frozenset())
    assert [trap(machine).status for trap in (traps.keras_age, traps.numpy_age)] == ["trap", "trap"]


def test_version_file_without_a_build_or_missing_says_nothing(fake_packages, tmp_path: Path):
    fake_packages({}, {"torch": "__version__ = '2.13.0'\n", "torchvision": ""})
    (tmp_path / "torchvision" / "version.py").unlink()
    assert doctor.gather_facts(()).builds == {}


def test_cache_that_does_not_exist_yet_is_judged_by_its_parent(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "not" / "yet"))
    machine = doctor.gather_facts(())
    assert machine.cache == tmp_path / "not" / "yet" and machine.cache_is_writable and machine.free > 0
    assert not (tmp_path / "not").exists()


def test_unwritable_cache_is_noticed(monkeypatch):
    def refuse(dir: Path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert not doctor.gather_facts(()).cache_is_writable


def test_current_folder_with_a_framework_s_name_is_noticed(monkeypatch, tmp_path: Path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "keras.py").touch()
    (tmp_path / "jax.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert doctor.gather_facts(()).folders == {"torch", "keras"}


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch):
    def give(*results: Probe) -> None:
        by_name = {result.backend: result for result in results}
        monkeypatch.setattr(doctor, "probe", lambda name: by_name.get(name, Probe(name, False, error="not installed")))

    return give


def test_one_working_backend_is_enough(probes, capsys):
    probes(WORKING)
    assert cli.main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert "mixed_bfloat16" in out and "no: not installed" in out and "tested versions" in out
    assert err == ""


def test_no_working_backend_is_exit_code_2_after_the_table(probes, capsys):
    probes(Probe("jax", False, error="killed by SIGILL"))
    assert cli.main(["doctor"]) == 2
    out, err = capsys.readouterr()
    assert "killed by SIGILL" in out and "No backend works" in err and "pip install 'multitl[jax]'" in err


def test_json_is_all_that_stdout_holds(probes, capsys):
    probes(WORKING)
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["probes"][0]["versions"] == {"jax": "0.10.2"}
    assert len(report["findings"]) == len(TRAPS)
    assert report["machine"]["multitl"]


@pytest.mark.parametrize(
    ("variable", "keras_json", "choice"),
    [
        ("torch", "jax", "torch, from KERAS_BACKEND"),
        (None, "torch", "torch, from keras.json"),
        (None, None, ", the fastest of those installed ("),
    ],
)
def test_choice_says_why(probes, monkeypatch, tmp_path: Path, variable, keras_json, choice):
    probes(WORKING)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", variable or "")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if keras_json:
        (tmp_path / "keras.json").write_text(json.dumps({"backend": keras_json}))
    assert choice in doctor.examine().choice


def test_choice_without_any_backend_says_so(probes, monkeypatch):
    def none_installed():
        raise BackendError("No backend is installed.", fix="pip")

    monkeypatch.setattr(doctor, "choose_backend", none_installed)
    probes()
    assert doctor.examine().choice == "No backend is installed."


def fake_framework(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Put a `jax` that runs `code` on the import path of child processes."""
    (tmp_path / "jax.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(probe, "is_installed", lambda name: True)


def test_import_that_fails_is_reported_in_one_line(monkeypatch, tmp_path: Path):
    fake_framework(monkeypatch, tmp_path, "raise RuntimeError('operator torchvision::nms does not exist')")
    found = probe.probe("jax")
    assert (found.works, found.error) == (False, "RuntimeError: operator torchvision::nms does not exist")


def test_import_that_kills_its_process_is_survived(monkeypatch, tmp_path: Path):
    code = "import os, signal, sys; print('no AVX here', file=sys.stderr); os.kill(os.getpid(), signal.SIGKILL)"
    fake_framework(monkeypatch, tmp_path, code)
    assert probe.probe("jax").error == "killed by SIGKILL: no AVX here"


def test_import_that_hangs_is_given_up(monkeypatch, tmp_path: Path):
    fake_framework(monkeypatch, tmp_path, "import time; time.sleep(600)")
    assert probe.probe("jax", timeout=1).error == "no answer within 1 s"


def test_missing_framework_is_not_tried(monkeypatch):
    monkeypatch.setattr(probe, "is_installed", lambda name: False)
    monkeypatch.setattr(probe.children, "run", lambda *args, **kwargs: pytest.fail("started a process"))
    assert probe.probe("torch") == MISSING


@pytest.mark.every_backend
def test_probe_of_a_real_backend_works():
    import keras

    name = keras.config.backend()
    found = probe.probe(name)
    assert found.works, found.error
    assert name in found.versions and found.devices and found.seconds > 0
    assert found.mixed_precision.startswith("mixed_") and isinstance(found.devices, tuple)
    assert found.missing == ()
