"""`multitl doctor`: what works on this machine, and which known traps (traps.py) it has.

Imports no framework: each is probed in a process of its own (probe.py), the rest is read from package metadata.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from multitl.adapters import BACKENDS, by_speed, choose_backend, keras_json_backend
from multitl.doctor.probe import Probe, probe
from multitl.doctor.traps import TRAPS, Finding, Machine
from multitl.errors import BackendError
from multitl.system.cache import cache_folder
from multitl.version import installed_versions

PACKAGES = (
    "keras", "numpy", "jax", "jaxlib", "tensorflow", "tensorflow-cpu", "torch", "torchvision", "tensorflow-hub",
    "keras-hub", "tf-keras", "setuptools",
)  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """machine: versions by name.  choice: the backend that a command without --backend would use, and why."""

    machine: dict[str, str]
    choice: str
    probes: tuple[Probe, ...]
    findings: tuple[Finding, ...]

    def insist_on_a_backend(self) -> None:
        """Raises BackendError if nothing can be trained here."""
        if not any(probe.works for probe in self.probes):
            raise BackendError(
                "No backend works on this machine.",
                expected="one of " + ", ".join(BACKENDS),
                received="; ".join(f"{probe.backend}: {probe.error}" for probe in self.probes),
                fix="pip install 'multitl[jax]'",
            )


def examine() -> Diagnosis:
    """Probe the backends, all at once, and look for every known trap. Takes several seconds."""
    with ThreadPoolExecutor(len(BACKENDS)) as pool:
        machine = gather_facts(tuple(pool.map(probe, BACKENDS)))
    versions = {
        "multitl": installed_versions(["multitl"]).get("multitl", "not installed"),
        "Python": platform.python_version(),
        "Keras": machine.packages.get("keras", "not installed"),
        "on": platform.platform(),
    }
    return Diagnosis(versions, _choice(machine), machine.probes, tuple(find(machine) for find in TRAPS))


def gather_facts(probes: tuple[Probe, ...]) -> Machine:
    """Everything the traps are judged from."""
    cache = cache_folder()
    disk = next(folder for folder in [cache, *cache.absolute().parents] if folder.is_dir())
    return Machine(
        packages=installed_versions(PACKAGES),
        modules=frozenset(name for name in ("pkg_resources", "tf_keras") if importlib.util.find_spec(name)),
        builds={name: build for name in ("torch", "torchvision") if (build := _build(name))},
        variables=dict(os.environ),
        keras_json=keras_json_backend(),
        folders=frozenset(_modules_here()),
        has_nvidia_gpu=Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None,
        cache=cache,
        cache_is_writable=_can_write(disk),
        free=shutil.disk_usage(disk).free,
        probes=probes,
    )


def _modules_here() -> Iterator[str]:
    """What Python would import from the working directory, unless that is gone."""
    with contextlib.suppress(OSError):
        yield from (path.stem for path in Path.cwd().iterdir() if path.is_dir() or path.suffix == ".py")


def _choice(machine: Machine) -> str:
    try:
        name = choose_backend()
    except BackendError as error:
        return error.problem
    if name == machine.variables.get("KERAS_BACKEND"):
        return f"{name}, from KERAS_BACKEND"
    if name == machine.keras_json:
        return f"{name}, from keras.json"
    order, device = by_speed()
    return f"{name}, the fastest of those installed ({', '.join(order)} on a {device})"


def _build(package: str) -> str | None:
    """ "cpu" or "cu130" from the package's version.py, unimported: a wheel's metadata may leave it out."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        with contextlib.suppress(OSError):
            text = (Path(folder) / "version.py").read_text(encoding="utf-8")
            if match := re.search(r"""__version__ = ['"][^'"+]*\+(\w+)""", text):
                return match[1]
    return None


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
