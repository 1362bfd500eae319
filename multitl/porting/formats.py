"""In which forms models leave, which backend writes each, and what opens it again: one literal table."""

from __future__ import annotations

from dataclasses import dataclass

from multitl.adapters import is_present
from multitl.contracts import CONTRIBUTIONS, STRANGENESS, Takes
from multitl.errors import BackendError, PortError, nearest_names

SECOND = {CONTRIBUTIONS: "--explain", STRANGENESS: "--unknown"}  # outputs beside the first, and how to ask for them


@dataclass(frozen=True)
class Format:
    """A form in which models leave: one row of `FORMATS`.

    files: the artefact, in the folder that `multitl.port` makes.  backend: Keras' when the artefact is written, ""
    for whichever runs.  writer, runtime: "module:function" that writes an artefact and that opens it again: see
    `contracts.Writer` and `Runtime`.  packages: needed for both, by the names they are imported by.  extra: installs
    them.  why: what stands against writing it under another backend.  takes: "unit" where the format's own custom is
    images in [0, 1], else 8-bit pixels.  is_state_dict: the tensors of the network that the model came from are what
    is written.  is_folded: for inference alone, so batch normalisation goes into the layers before it.  bits: 8 where
    numbers are rounded to that many.  is_calibrated: images show the writer which range of activations to round.
    has_further: it may have outputs beside the first, see `SECOND`.
    """

    files: tuple[str, ...]
    summary: str
    backend: str
    writer: str
    runtime: str
    packages: tuple[str, ...]
    extra: str
    why: str = ""
    takes: Takes = "pixels"
    is_state_dict: bool = False
    is_folded: bool = False
    bits: int = 32
    is_calibrated: bool = False
    has_further: bool = False


FORMATS = {
    "keras": Format(
        files=("model.keras",),
        summary="Keras 3, on any backend",
        backend="",
        writer="multitl.porting.artefacts:write_keras",
        runtime="multitl.standalone.runtimes:open_keras",
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
        runtime="multitl.standalone.runtimes:open_program",
        packages=("torch",),
        extra="torch",
        why="torch.export traces PyTorch code",
    ),
    "tfhub": Format(
        files=("saved_model.pb", "variables"),
        summary="reusable SavedModel, for hub.load and hub.KerasLayer",
        backend="tensorflow",
        writer="multitl_tensorflow.export:write_reusable",
        runtime="multitl.standalone.runtimes:open_reusable",
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
        runtime="multitl.standalone.runtimes:open_serving",
        packages=("tensorflow",),
        extra="tensorflow",
        is_folded=True,
        why="Keras needs TensorFlow beside JAX, and beside PyTorch also torch-xla, for fixed shapes (keras#20685)",
    ),
    "onnx": Format(
        files=("model.onnx", "model.onnx.data"),
        summary="ONNX, for onnxruntime and others",
        backend="",
        writer="multitl.porting.artefacts:write_onnx",
        runtime="multitl.porting.artefacts:open_onnx",
        packages=("onnx", "onnxruntime"),
        extra="onnx",
        is_folded=True,
        has_further=True,
    ),
    "openvino": Format(
        files=("model.xml", "model.bin"),
        summary="OpenVINO, for Intel's processors",
        backend="torch",
        writer="multitl_torch.export:write_openvino",
        runtime="multitl.porting.artefacts:open_openvino",
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
        runtime="multitl.porting.artefacts:open_litert",
        packages=("tensorflow", "ai_edge_litert"),
        extra="litert",
        is_folded=True,
        has_further=True,
        why="the converter reads TensorFlow's graphs; from PyTorch it fixes the number of images (keras#22996)",
    ),
    "litert-dynamic": Format(
        files=("model.tflite",),
        summary="LiteRT with weights of 8 bits",
        backend="tensorflow",
        writer="multitl_tensorflow.export:write_litert_dynamic",
        runtime="multitl.porting.artefacts:open_litert",
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
        runtime="multitl.porting.artefacts:open_litert",
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
        runtime="multitl.standalone.runtimes:open_stablehlo",
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
        runtime="multitl.standalone.runtimes:open_params",
        packages=("jax", "orbax"),
        extra="flax",
        why="the function is lowered from JAX code",
    ),
}


def second_outputs(*, explain: bool, unknown: bool) -> tuple[str, ...]:
    """Their names, as asked for."""
    return tuple(name for name, is_asked in {CONTRIBUTIONS: explain, STRANGENESS: unknown}.items() if is_asked)


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


def check_format(to: str) -> None:
    """Raises PortError for an unknown format, BackendError where this machine lacks packages for it."""
    chosen = find_format(to)
    if missing := missing_packages(chosen):
        raise BackendError(
            f"The format {to} cannot be written here.",
            expected=f"the Python packages {', '.join(chosen.packages)}",
            received=f"no {', '.join(missing)}",
            fix=f"pip install 'multitl[{chosen.extra}]'",
        )
