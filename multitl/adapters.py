"""Which module serves which backend and source: two literal dicts, and how one of them is loaded.

The core names an adapter only here, as a string. Nothing registers itself by being imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, cast

from multitl.contracts import Backend, Format, Source, Translation, Translator
from multitl.errors import BackboneError, BackendError, PortError, nearest_names

BACKENDS = {
    "jax": "multitl_jax.backend",
    "tensorflow": "multitl_tensorflow.backend",
    "torch": "multitl_torch.backend",
}

SOURCES = {
    "keras": "multitl.sources.keras_applications",
    "pypi": "multitl.sources.pypi",
    "torchvision": "multitl.sources.torchvision",
    "timm": "multitl.sources.timm",
    "tfhub": "multitl.sources.tfhub",
    "file": "multitl.sources.file",
}
FILE = "file:"  # and then a path, where other names have a source and "/"
_NAMED = tuple(source for source in SOURCES if source != "file")

# Which module opens the networks of a source whose networks are translated, and the Keras backend it works under.
TRANSLATORS = {
    "torchvision": ("multitl_torch.translator", "torch"),
    "timm": ("multitl_torch.translator", "torch"),
    "tfhub": ("multitl_tensorflow.translator", "tensorflow"),
}

# In which forms models leave, which backend writes each, and what opens it again.
FORMATS = {
    "keras": Format(
        files=("model.keras",),
        summary="Keras 3, on any backend",
        backend="",
        writer="multitl.artefacts:write_keras",
        runtime="multitl.artefacts:open_keras",
        packages=(),
        extra="jax",
    ),
    "torch": Format(
        files=("model.pth",),
        summary="state_dict for torchvision's or timm's own class",
        backend="torch",
        writer="multitl_torch.export:write_state_dict",
        runtime="multitl_torch.runtime:open_state_dict",
        packages=("torchvision", "torch"),
        extra="timm",
        is_state_dict=True,
        why="torch.save and the network's own class are PyTorch's",
    ),
    "torch-export": Format(
        files=("model.pt2",),
        summary="program of torch.export, of any model",
        backend="torch",
        writer="multitl_torch.export:write_program",
        runtime="multitl_torch.runtime:open_program",
        packages=("torch",),
        extra="torch",
        why="torch.export traces PyTorch code",
    ),
    "tfhub": Format(
        files=("saved_model.pb", "variables"),
        summary="reusable SavedModel, for hub.load and hub.KerasLayer",
        backend="tensorflow",
        writer="multitl_tensorflow.export:write_reusable",
        runtime="multitl_tensorflow.runtime:open_reusable",
        packages=("tensorflow",),
        extra="tensorflow",
        takes="unit",
        why="variables of a SavedModel are TensorFlow's; jax2tf wants TensorFlow as well, and changes (jax#31404)",
    ),
    "savedmodel": Format(
        files=("saved_model.pb", "variables"),
        summary="SavedModel with a serving signature",
        backend="tensorflow",
        writer="multitl_tensorflow.export:write_serving",
        runtime="multitl_tensorflow.runtime:open_serving",
        packages=("tensorflow",),
        extra="tensorflow",
        is_folded=True,
        why="Keras needs TensorFlow beside JAX, and beside PyTorch also torch-xla, for fixed shapes (keras#20685)",
    ),
    "onnx": Format(
        files=("model.onnx", "model.onnx.data"),
        summary="ONNX, for onnxruntime and others",
        backend="torch",
        writer="multitl_torch.export:write_onnx",
        runtime="multitl.artefacts:open_onnx",
        packages=("torch", "onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
        is_folded=True,
        why="Keras needs jax2onnx under JAX, and tf2onnx under TensorFlow, which breaks with NumPy 2 (keras#22443)",
    ),
    "openvino": Format(
        files=("model.xml", "model.bin"),
        summary="OpenVINO, for Intel's processors",
        backend="torch",
        writer="multitl_torch.export:write_openvino",
        runtime="multitl.artefacts:open_openvino",
        packages=("torch", "openvino"),
        extra="openvino",
        is_folded=True,
        why="OpenVINO reads programs of PyTorch; of JAX's operations only a part (openvino#24811)",
    ),
    "litert": Format(
        files=("model.tflite",),
        summary="LiteRT (TensorFlow Lite), for phones and boards",
        backend="tensorflow",
        writer="multitl_tensorflow.export:write_litert",
        runtime="multitl.artefacts:open_litert",
        packages=("tensorflow", "ai_edge_litert"),
        extra="litert",
        is_folded=True,
        why="the converter reads TensorFlow's graphs; from PyTorch it fixes the number of images (keras#22996)",
    ),
    "litert-dynamic": Format(
        files=("model.tflite",),
        summary="LiteRT with weights of 8 bits",
        backend="tensorflow",
        writer="multitl_tensorflow.export:write_litert_dynamic",
        runtime="multitl.artefacts:open_litert",
        packages=("tensorflow", "ai_edge_litert"),
        extra="litert",
        is_folded=True,
        why="as for litert",
        bits=8,
    ),
    "litert-int8": Format(
        files=("model.tflite",),
        summary="LiteRT with weights and activations of 8 bits",
        backend="tensorflow",
        writer="multitl_tensorflow.export:write_litert_int8",
        runtime="multitl.artefacts:open_litert",
        packages=("tensorflow", "ai_edge_litert"),
        extra="litert",
        is_folded=True,
        why="as for litert",
        bits=8,
        is_calibrated=True,
    ),
    "stablehlo": Format(
        files=("model.jax",),
        summary="StableHLO of jax.export, for XLA's compilers",
        backend="jax",
        writer="multitl_jax.export:write_stablehlo",
        runtime="multitl_jax.runtime:open_stablehlo",
        packages=("jax",),
        extra="jax",
        is_folded=True,
        why="jax.export lowers JAX code",
    ),
    "flax": Format(
        files=("params",),
        summary="parameters for Flax and Optax (Orbax), and the function that takes them",
        backend="jax",
        writer="multitl_jax.export:write_params",
        runtime="multitl_jax.runtime:open_params",
        packages=("jax", "orbax"),
        extra="flax",
        why="the function is lowered from JAX code",
    ),
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

    Order: `requested` (--backend), the KERAS_BACKEND variable, ~/.keras/keras.json (jax or torch), the first installed.
    Keras fixes its backend when it is imported, so a second choice in the same process is an error.
    """
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
    os.environ["KERAS_BACKEND"] = name
    return _import_backend(name)


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
    return requested or variable or _configured_backend() or _first_installed()


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
    "ResNet50").
    """
    if name.startswith(FILE):
        return _import_source("file"), name.removeprefix(FILE)
    prefix, slash, rest = name.partition("/")
    if not slash or prefix not in SOURCES or prefix == "file":
        is_path = name.lower().endswith((".h5", ".hdf5", ".keras"))
        raise BackboneError(
            f"Unknown backbone {name!r}.",
            expected="SOURCE/NAME with a source of " + ", ".join(_NAMED) + ", or file:PATH",
            received=name,
            nearest=[] if is_path else _nearest_backbones(name),
            fix=f"{FILE}{name.removeprefix('file/')}" if is_path else "multitl backbones",
        )
    return _import_source(prefix), rest


def short_name(backbone: str) -> str:
    """A backbone's name for a folder's: that of a file goes without its folders and its ending."""
    return FILE + Path(backbone).stem if backbone.startswith(FILE) else backbone


def _nearest_backbones(name: str) -> list[str]:
    """Backbones of that very name in any source, whatever source was asked for, else the most similar ones."""
    known = [info.name for source in SOURCES for info in backbones(source)]
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


def find_format(name: str) -> Format:
    """The format of that name. Raises PortError with the nearest names."""
    if name in FORMATS:
        return FORMATS[name]
    raise PortError(
        f"Unknown format {name!r}.",
        expected="one of " + ", ".join(FORMATS),
        received=name,
        nearest=nearest_names(name, FORMATS),
        fix="multitl ports",
    )


def missing_packages(chosen: Format) -> list[str]:
    """What a format needs and this machine lacks; imports nothing."""
    return [package for package in chosen.packages if not is_present(package)]


def is_present(package: str) -> bool:
    """Whether a new process would find a package, even if this one leaves it out (session.py)."""
    return PathFinder.find_spec(package) is not None


def load_translator(source: str) -> Translator:
    """The module that opens the networks of a source."""
    return cast(Translator, importlib.import_module(TRANSLATORS[source][0]))


def backbones(source: str) -> list:
    """The `BackboneInfo` of every backbone of one source, by full name; loads no framework."""
    return list(_import_source(source).backbones())


def _import_source(source: str) -> Source:
    return cast(Source, importlib.import_module(SOURCES[source]))


def _running_backend() -> str | None:
    keras = sys.modules.get("keras")
    return keras.config.backend() if keras else None


def _configured_backend() -> str | None:
    name = keras_json_backend()
    return name if name in BACKENDS and name != "tensorflow" and is_installed(name) else None


def _first_installed() -> str:
    for name in BACKENDS:
        if is_installed(name):
            return name
    raise BackendError(
        "No backend is installed.",
        expected="one of " + ", ".join(BACKENDS),
        received="none of them",
        fix="pip install 'multitl[jax]'",
    )
