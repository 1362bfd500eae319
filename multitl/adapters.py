"""Which module serves which backend and source: two literal dicts, and how one of them is loaded.

The core names an adapter only here, as a string. Nothing registers itself by being imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import platform
import shutil
import sys
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, cast, get_args

from multitl.contracts import Backend, Head, Source, Translation, Translator
from multitl.errors import BackboneError, BackendError, WeightsError, nearest_names

BACKENDS = {
    "jax": "multitl_jax.backend",
    "tensorflow": "multitl_tensorflow.backend",
    "torch": "multitl_torch.backend",
}

# The fastest first, fine-tuning ResNet-50: on two cores 6.6, 5.7 and 3.0 images/s; on an H200 JAX had 0.9 of native
# PyTorch's speed, PyTorch 0.3 (benchmarks/translated_h200.md).
ON_CPU = ("tensorflow", "torch", "jax")
ON_GPU = ("jax", "torch", "tensorflow")
OF_RUNS = ("card.json", "run.json")  # of a finished one, and of one that was begun
NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))

SOURCES = {
    "keras": "multitl.sources.keras_applications",
    "pypi": "multitl.sources.pypi",
    "torchvision": "multitl.sources.torchvision",
    "timm": "multitl.sources.timm",
    "tfhub": "multitl.sources.tfhub",
    "file": "multitl.sources.file",
    "run": "multitl.sources.run",
}
FILE, RUN = "file:", "run:"  # and then a path, where other names have a source and "/"
_NAMED = tuple(source for source in SOURCES if f"{source}:" not in (FILE, RUN))

# Which module opens the networks of a source whose networks are translated, and the Keras backend it works under.
TRANSLATORS = {
    "torchvision": ("multitl_torch.translator", "torch"),
    "timm": ("multitl_torch.translator", "torch"),
    "tfhub": ("multitl_tensorflow.translator", "tensorflow"),
}

# Which module translates live modules of a framework.
MODULES = {"torch": "multitl_torch.translator"}


def is_installed(backend: str) -> bool:
    """Whether the framework can be found; does not import it."""
    try:
        return importlib.util.find_spec(backend) is not None
    except ModuleNotFoundError:  # an import hook hides it
        return False


def load_backend(requested: str | None = None) -> Backend:
    """Choose the framework for this process, before Keras is imported, and return its adapter.

    Order: `requested` (--backend), the KERAS_BACKEND variable, ~/.keras/keras.json (jax or torch), the fastest on this
    device of those installed.
    Keras fixes its backend when it is imported, so a second choice in the same process is an error.
    """
    name = check_backend(requested)
    os.environ["KERAS_BACKEND"] = name
    _quieten_frameworks()
    return _import_backend(name)


def check_backend(requested: str | None = None) -> str:
    """The name of the backend that `load_backend` would load, known and installed; loads nothing."""
    name = choose_backend(requested)
    if name not in BACKENDS:
        raise BackendError(
            f"Unknown backend {name!r}.",
            expected=", ".join(BACKENDS),
            received=name,
            nearest=nearest_names(name, BACKENDS),
            fix=f"use --backend {'|'.join(BACKENDS)}, or set KERAS_BACKEND to one of them",
        )
    if not is_installed(name):
        raise BackendError(
            f"The backend {name!r} is not installed.",
            expected=f"the Python package {name}",
            received="installed backends: " + (", ".join(filter(is_installed, BACKENDS)) or "none"),
            fix=f"pip install 'multitl[{name}]'",
        )
    return name


def _quieten_frameworks() -> None:
    """Hide start-up chatter before a framework loads; TF_CPP_MIN_LOG_LEVEL=0 brings that of XLA and TensorFlow back."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)  # "falling back to cpu": doctor says it better


def _import_backend(name: str) -> Backend:
    try:
        return cast(Backend, importlib.import_module(BACKENDS[name]))
    except Exception as error:  # a broken installation raises ImportError, OSError, RuntimeError, AttributeError, ...
        raise BackendError(
            f"The backend {name!r} is installed but cannot be loaded.",
            expected=f"that python -c 'import keras, {name}' works",
            received=f"{type(error).__name__}: {error}".partition("\n")[0],
            fix=f"pip install --force-reinstall 'multitl[{name}]', or choose another backend; "
            "multitl doctor says which ones work",
        ) from error


def choose_backend(requested: str | None = None) -> str:
    """The name `load_backend` would use; it may be unknown or not installed. Raises BackendError for a conflict."""
    variable = os.environ.get("KERAS_BACKEND") or None
    running = _running_backend()
    if running:
        if requested and requested != running:
            raise BackendError(
                f"This process already runs Keras on {running!r}; Keras cannot change its backend once imported.",
                expected=f"backend={running!r}, or a new process",
                received=f"backend={requested!r}",
                fix=f"start a new process with KERAS_BACKEND={requested}",
            )
        return running
    if requested and variable and requested != variable:
        raise BackendError(
            "Two different backends were asked for.",
            expected="one backend, or the same one twice",
            received=f"--backend {requested} and KERAS_BACKEND={variable}",
            fix=f"leave --backend out, or: unset KERAS_BACKEND, or: KERAS_BACKEND={requested}",
        )
    return requested or variable or _configured_backend() or _fastest_installed()


def keras_json_backend() -> str | None:
    """The backend that ~/.keras/keras.json names, or None.

    "tensorflow" says nothing: Keras writes it there unasked, at its first import, whatever backend is in use.
    """
    path = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(name)


def load_source(name: str) -> tuple[Source, str]:
    """Split "source/rest" or "file:path" and import the source. Returns the module and the rest ("keras/ResNet50" ->
    "ResNet50"). The folder of a run is a name too.
    """
    if name.startswith(FILE):
        return _import_source("file"), name.removeprefix(FILE)
    if is_run(name):
        return _import_source("run"), name.removeprefix(RUN)
    prefix, slash, rest = name.partition("/")
    if not slash or prefix not in _NAMED:
        is_path = name.lower().endswith((".h5", ".hdf5", ".keras"))
        raise BackboneError(
            f"Unknown backbone {name!r}.",
            expected="SOURCE/NAME with a source of " + ", ".join(_NAMED) + ", the folder of a run, or file:PATH",
            received=name,
            nearest=[] if is_path else _nearest_backbones(name),
            fix=f"{FILE}{name.removeprefix('file/')}" if is_path else "multitl backbones",
        )
    return _import_source(prefix), rest


def is_run(name: str) -> bool:
    """Whether a backbone's name is the folder of a run: after "run:", or by itself where there is such a folder. What
    begins like a name of another source is one.
    """
    if name.startswith(RUN):
        return True
    return bool(name) and name.partition("/")[0] not in _NAMED and any(holds(name, file) for file in OF_RUNS)


def check_backbone(name: str, weights: str = "default") -> None:
    """What shows before a framework is loaded: BackboneError for a name that its source does not know, WeightsError for
    a file that is not there, or whose package is not installed, RunError for a run that is not, or not finished.
    """
    check_weights(weights)
    source, rest = load_source(name)
    source.check(rest, weights)


def check_weights(weights: str) -> None:
    """Raises WeightsError for a file or folder that is not there."""
    if weights not in ("default", "none", "imagenet"):
        expected = "default or imagenet (the official ones), none (random), or the path of a file or folder"
        check_path(weights, "weights file", expected, "--weights")


def check_head(head: str) -> None:
    """Raises BackboneError for what is no `contracts.Head`."""
    if head not in get_args(Head):
        raise BackboneError(
            f"The head cannot be {head!r}.",
            expected=" or ".join(get_args(Head)),
            received=str(head),
            nearest=nearest_names(str(head), get_args(Head)),
            fix='head="keep" for the whole network with its classifier, "cut" without',
        )


def holds(folder: str, file: str) -> bool:
    """Whether there is such a folder with such a file in it."""
    try:
        return Path(folder).expanduser().joinpath(file).is_file()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a home of nobody; ValueError: a NUL
        return False


def known_runs() -> list[str]:
    """Folders in runs/, where they are made by default."""
    return [str(card.parent) for card in Path("runs").glob("*/card.json")]


def check_path(path: str, what: str, expected: str, after: str) -> None:
    """Raises WeightsError, with those beside it whose names are similar, for a file or folder that is not there."""
    try:
        Path(path).expanduser().stat()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a home of nobody; ValueError: a NUL
        raise WeightsError(
            f"There is no {what} {path}: {getattr(error, 'strerror', None) or error}.",
            expected=expected,
            received=path,
            nearest=_similar_files(path),
            fix=f"check the path after {after}",
        ) from error


def _similar_files(path: str) -> list[str]:
    """Those beside a path that is not there."""
    folder = os.path.dirname(path)  # noqa: PTH120  (as it was typed)
    with contextlib.suppress(OSError, ValueError):
        near = nearest_names(os.path.basename(path), os.listdir(folder or "."))  # noqa: PTH119, PTH208
        return [os.path.join(folder, name) for name in near]  # noqa: PTH118
    return []


def folder_name(backbone: str) -> str:
    """A backbone's name as a folder's, where only letters, digits and "._-" stay: "keras-MobileNet-alpha0.25".

    That of a file goes without its folders and its ending, that of a run without the folders around it.
    """
    name = backbone
    if backbone.startswith(FILE):
        name = FILE + Path(backbone.removeprefix(FILE)).stem
    elif is_run(backbone):
        name = RUN + Path(backbone.removeprefix(RUN)).name
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name.replace("=", ""))


def _nearest_backbones(name: str) -> list[str]:
    """Backbones of that very name in any source, whatever source was asked for, else the most similar ones."""
    known = [info.name for source in SOURCES for info in backbones(source)] + known_runs()
    plain = name.rpartition("/")[2].lower()
    return [full for full in known if full.partition("/")[2].lower() == plain] or nearest_names(name, known)


def translate_module(framework: str, module: Any, example: Any) -> Translation:
    """A live module of another framework, translated in this process. Raises BackendError without that framework."""
    if not is_installed(framework):
        raise BackendError(
            f"Modules of {framework} cannot be read without it.",
            expected=f"the Python package {framework}",
            received="it is not installed",
            fix=f"pip install 'multitl[{framework}]'",
        )
    return importlib.import_module(MODULES[framework]).translate_module(module, example)


def load_function(name: str) -> Any:
    """What "module:function" names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def is_present(package: str) -> bool:
    """Whether a new process would find a package, even if this one leaves it out (session.py)."""
    return PathFinder.find_spec(package) is not None


def load_translator(source: str) -> Translator:
    """The module that opens the networks of a source."""
    return cast(Translator, importlib.import_module(TRANSLATORS[source][0]))


def backbones(source: str) -> list:
    """The `BackboneInfo` of every backbone of one source, by full name; loads no framework."""
    return list(_import_source(source).backbones())


def at_hand(image_size: int = 0) -> list[str]:
    """Backbones of all sources whose official weights lie on this machine, by full name; loads no framework."""
    return [name for source in SOURCES for name in _import_source(source).at_hand(image_size)]


def _import_source(source: str) -> Source:
    return cast(Source, importlib.import_module(SOURCES[source]))


def _running_backend() -> str | None:
    keras = sys.modules.get("keras")
    return keras.config.backend() if keras else None


def _configured_backend() -> str | None:
    name = keras_json_backend()
    return name if name in BACKENDS and name != "tensorflow" and is_installed(name) else None


def by_speed() -> tuple[tuple[str, ...], str]:
    """The backends, the fastest here first, and for which device that holds; loads no framework."""
    if not has_gpu():
        return ON_CPU, "CPU"
    if metadata.entry_points(group="jax_plugins"):
        return ON_GPU, "GPU"
    return tuple(sorted(ON_GPU, key=lambda name: name == "jax")), "GPU, for which JAX has no plug-in"


def has_gpu() -> bool:
    """One of NVIDIA's, on Linux, on Windows and in its WSL, unless it is hidden; or Apple's."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and (any(path.exists() for path in NVIDIA) or shutil.which("nvidia-smi") is not None)


def _fastest_installed() -> str:
    for name in by_speed()[0]:
        if is_installed(name):
            return name
    raise BackendError(
        "No backend is installed.",
        expected="one of " + ", ".join(BACKENDS),
        received="none of them",
        fix="pip install 'multitl[jax]'",
    )
