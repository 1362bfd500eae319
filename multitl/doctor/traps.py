"""The known traps of a machine with several frameworks: one small pure function each, from facts to a finding.

`diagnosis.py` gathers the facts. To add a trap: write its function, append it to `TRAPS`, test both outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from multitl.adapters import BACKENDS
from multitl.doctor.probe import Probe
from multitl.errors import nearest_names

TESTED = {  # as in constraints/tested.txt
    "keras": "3.15.1",
    "jax": "0.10.2",
    "tensorflow": "2.21.0",
    "tensorflow-cpu": "2.21.0",
    "torch": "2.13.0",
    "torchvision": "0.28.0",
}
OLDEST_KERAS = (3, 15)
ENOUGH_DISK = 2 * 10**9
GPU_BUILDS = {
    "jax": "pip install -U 'jax[cuda13]'",
    "tensorflow": "pip uninstall -y tensorflow-cpu; pip install --force-reinstall 'tensorflow[and-cuda]'",
    "torch": "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130",
}


@dataclass(frozen=True)
class Machine:
    """The facts that traps are judged from.

    packages: distribution -> version, of the installed ones among those that matter.  modules: importable modules.
    builds: "torch" and "torchvision" -> "cpu", "cu130", ... where their version says so.
    variables: the environment.  keras_json: the backend that the file names, if any.
    folders: names in the current folder.  free: bytes on the cache's disk.
    """

    packages: Mapping[str, str]
    modules: frozenset[str]
    builds: Mapping[str, str]
    variables: Mapping[str, str]
    keras_json: str | None
    folders: frozenset[str]
    has_nvidia_gpu: bool
    cache: Path
    cache_is_writable: bool
    free: int
    probes: tuple[Probe, ...]

    def has_framework(self, name: str) -> bool:
        return self.package_of(name) in self.packages

    def package_of(self, backend: str) -> str:
        """What pip calls it; TensorFlow comes in two packages, of which one is enough."""
        is_other = backend == "tensorflow" and backend not in self.packages and "tensorflow-cpu" in self.packages
        return "tensorflow-cpu" if is_other else backend


@dataclass(frozen=True)
class Finding:
    """ok; note: works, but know this; trap: something will fail. `fix` is a command."""

    check: str
    status: Literal["ok", "note", "trap"]
    text: str
    fix: str = ""


def keras_age(machine: Machine) -> Finding:
    version = machine.packages.get("keras", "0")
    if _numbers(version) < OLDEST_KERAS:
        return Finding(
            "Keras", "trap", f"Keras {version} is too old; 3.15 is needed", "pip install -U 'keras>=3.15,<4'"
        )
    return Finding("Keras", "ok", f"Keras {version}")


def numpy_age(machine: Machine) -> Finding:
    version = machine.packages.get("numpy", "0")
    if _numbers(version) < (2,):
        return Finding("NumPy", "trap", f"NumPy {version}: multitl needs NumPy 2", "pip install -U 'numpy>=2'")
    return Finding("NumPy", "ok", f"NumPy {version}")


def untested_versions(machine: Machine) -> Finding:
    found = {name: version for name, version in machine.packages.items() if name in TESTED}
    others = {name: version for name, version in found.items() if _minor(version) != _minor(TESTED[name])}
    if others:
        text = "not tested with " + ", ".join(f"{name} {version}" for name, version in others.items())
        return Finding("tested versions", "note", text, "pip install " + " ".join(f"{n}=={TESTED[n]}" for n in others))
    return Finding("tested versions", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def backend_variable(machine: Machine) -> Finding:
    name = machine.variables.get("KERAS_BACKEND", "")
    if not name:
        return Finding("KERAS_BACKEND", "ok", "not set")
    if name not in BACKENDS:
        nearest = next(iter(nearest_names(name, BACKENDS)), "jax")
        return Finding(
            "KERAS_BACKEND", "trap", f"names an unknown backend, {name!r}", f"export KERAS_BACKEND={nearest}"
        )
    if not machine.has_framework(name):
        return Finding(
            "KERAS_BACKEND", "trap", f"names {name}, which is not installed", f"pip install 'multitl[{name}]'"
        )
    return Finding("KERAS_BACKEND", "ok", name)


def plain_keras(machine: Machine) -> Finding:
    """multitl steps over a missing framework in keras.json; Keras alone, which may load model.keras, does not."""
    name = machine.variables.get("KERAS_BACKEND") or machine.keras_json or "tensorflow"  # as Keras decides
    if machine.has_framework(name):
        return Finding("keras.json", "ok", f"plain `import keras` runs on {name}")
    installed = next(filter(machine.has_framework, BACKENDS), "jax")
    text = f"plain `import keras` wants {name}, which is not installed"
    return Finding("keras.json", "note", text, f"export KERAS_BACKEND={installed}")


def torchvision_build(machine: Machine) -> Finding:
    """multitl mends the import of such a pair in its own process (multitl_torch/torchvision.py); others cannot."""
    torch, torchvision = machine.builds.get("torch"), machine.builds.get("torchvision")
    version = machine.packages.get("torchvision")
    if torch and torchvision and torch != torchvision:
        text = (
            f"torch is built for {torch}, torchvision for {torchvision}: multitl copes, but a plain "
            "`import torchvision` may fail (operator torchvision::nms does not exist)"
        )
        pinned = f"torchvision=={version.partition('+')[0]}" if version else "torchvision"
        index = f"https://download.pytorch.org/whl/{torch}"
        fix = f"pip install --force-reinstall --no-deps {pinned} --index-url {index}"
        return Finding("torchvision", "note", text, fix)
    return Finding("torchvision", "ok", "fits torch" if version else "not installed")


def tensorflow_hub(machine: Machine) -> Finding:
    if "tensorflow-hub" not in machine.packages:
        return Finding("tensorflow_hub", "ok", "not installed")
    needs = {"pkg_resources": "'setuptools<81'", "tf_keras": "tf_keras"}
    missing = [module for module in needs if module not in machine.modules]
    if missing:
        fix = "pip install " + " ".join(needs[module] for module in missing)
        return Finding("tensorflow_hub", "trap", f"cannot be imported without {' and '.join(missing)}", fix)
    return Finding("tensorflow_hub", "ok", "importable")


def keras_hub(machine: Machine) -> Finding:
    if "keras-hub" in machine.packages and machine.has_framework("tensorflow"):
        text = "imports TensorFlow under every backend: slower start, more memory"
        return Finding("keras-hub", "note", text, "pip uninstall -y keras-hub tensorflow-text")
    return Finding("keras-hub", "ok", "not installed")


def two_tensorflows(machine: Machine) -> Finding:
    if {"tensorflow", "tensorflow-cpu"} <= set(machine.packages):
        text = "tensorflow and tensorflow-cpu overwrite each other's files"
        fix = "pip uninstall -y tensorflow tensorflow-cpu && pip install tensorflow"
        return Finding("TensorFlow", "trap", text, fix)
    return Finding("TensorFlow", "ok", "one package" if machine.has_framework("tensorflow") else "not installed")


def idle_gpu(machine: Machine) -> Finding:
    idle = [probe.backend for probe in machine.probes if probe.works and probe.devices == ("CPU",)]
    if machine.has_nvidia_gpu and machine.variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding("GPU", "note", "hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES")
    if machine.has_nvidia_gpu and idle:
        fix = "\n".join(GPU_BUILDS[name] for name in idle)
        return Finding("GPU", "trap", f"this machine has an NVIDIA GPU that {', '.join(idle)} cannot use", fix)
    return Finding("GPU", "ok", "in use" if machine.has_nvidia_gpu else "no NVIDIA GPU")


def tf32(machine: Machine) -> Finding:
    if machine.has_nvidia_gpu and machine.variables.get("NVIDIA_TF32_OVERRIDE") != "0":
        text = "float32 may run as TF32 (10 bits of mantissa): fine for training, not for comparing backends"
        return Finding("TF32", "note", text, "export NVIDIA_TF32_OVERRIDE=0")
    return Finding("TF32", "ok", "float32 is exact")


def fast_paths(machine: Machine) -> Finding:
    """Off where Keras or a framework has changed inside (insides.py): the results are the same."""
    missing = {probe.backend: "; ".join(probe.missing) for probe in machine.probes if probe.missing}
    if missing:
        text = "slower than it could be: " + ", ".join(f"{backend} ({why})" for backend, why in missing.items())
        packages = ["keras", *map(machine.package_of, missing)]
        fix = "pip install " + " ".join(f"{name}=={TESTED[name]}" for name in packages)
        return Finding("fast paths", "note", text, fix)
    return Finding("fast paths", "ok", "all on")


def cache_folder(machine: Machine) -> Finding:
    if not machine.cache_is_writable:
        return Finding("cache", "trap", f"cannot write to {machine.cache}", "export MULTITL_CACHE=/a/folder/of/yours")
    free = f"{machine.free / 1e9:.1f} GB free for {machine.cache}"
    if machine.free < ENOUGH_DISK:
        return Finding("cache", "note", f"only {free}", "export MULTITL_CACHE=/a/larger/disk")
    return Finding("cache", "ok", free)


def shadowing_folder(machine: Machine) -> Finding:
    """`python -m multitl` and scripts put the current folder first on the import path."""
    shadows = sorted({"keras", *BACKENDS} & machine.folders)
    if shadows:
        text = f"a file or folder here is called {', '.join(shadows)} and may be imported in the framework's place"
        return Finding("current folder", "note", text, "cd elsewhere, or rename it")
    return Finding("current folder", "ok", "hides no framework")


TRAPS = (
    keras_age,
    numpy_age,
    untested_versions,
    backend_variable,
    plain_keras,
    torchvision_build,
    tensorflow_hub,
    keras_hub,
    two_tensorflows,
    idle_gpu,
    tf32,
    fast_paths,
    cache_folder,
    shadowing_folder,
)


def _numbers(version: str) -> tuple[int, ...]:
    """ "2.13.0+cpu" -> (2, 13, 0); what is not a number ends it."""
    numbers: list[int] = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _minor(version: str) -> tuple[int, ...]:
    return _numbers(version)[:2]
