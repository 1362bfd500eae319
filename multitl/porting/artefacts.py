"""Formats that need no framework of the three: their writers and runtimes. See `contracts.Writer` and `Runtime`.

Every runtime gets as many threads as this process may use, so that latencies can be compared.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from multitl.contracts import FIRST_OUTPUT, Answer, Export
from multitl.system.threads import default_threads


def write_keras(export: Export, folder: Path) -> None:
    """model.keras: loads with plain Keras on JAX, TensorFlow and PyTorch."""
    from multitl.models.keras_archives import write_keras_archive

    write_keras_archive(export.model, folder / "model.keras")


def write_onnx(export: Export, folder: Path) -> None:
    """model.onnx, with the names of images and outputs, any number of images, and the classes in its metadata."""
    from multitl.onnx_graphs.writing import onnx_model, save_onnx

    classes = {"class_names": json.dumps(export.class_names)}
    save_onnx(onnx_model(export.model, list(export.outputs), classes), folder / "model.onnx")


def open_onnx(folder: Path, output: str = FIRST_OUTPUT) -> Answer:
    """By onnxruntime on the CPU."""
    from multitl.onnx_graphs.running import run_onnx

    return run_onnx(str(folder / "model.onnx"), output=output)


def open_openvino(folder: Path) -> Answer:
    """By OpenVINO on the CPU, in float32 as written: it would compute in bfloat16 on processors that can."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": default_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    return lambda images: np.array(compiled(images)[0])


def open_litert(folder: Path, output: str = FIRST_OUTPUT) -> Answer:
    """By the LiteRT interpreter, which takes any number of images."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"), num_threads=default_threads())
    run = interpreter.get_signature_runner()
    return lambda images: run(images=images)[output]
