"""How each kind of artefact is opened by its own runtime alone: functions whose text goes into classify.py.

Each takes the artefact's folder and gives a function of images (n, height, width, 3), as `takes` says, whose result are
probabilities (n, classes). Nothing outside of a function is used in it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Answer = Callable[[np.ndarray], np.ndarray]


def open_keras(folder: Path) -> Answer:
    """model.keras, under any backend: see KERAS_BACKEND."""
    import keras

    model = keras.models.load_model(folder / "model.keras", compile=False)
    return lambda images: np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(images)))


def open_onnx(folder: Path) -> Answer:
    """model.onnx, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def open_openvino(folder: Path) -> Answer:
    """model.xml, by OpenVINO, in float32 as written."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    return lambda images: np.array(compiled(images)[0])


def open_litert(folder: Path) -> Answer:
    """model.tflite, by LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(folder / "model.tflite")).get_signature_runner()
    return lambda images: run(images=images)["probabilities"]


def open_serving(folder: Path) -> Answer:
    """A SavedModel by its signature, as TensorFlow Serving calls it."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda images: next(iter(serve(images=tf.constant(images)).values())).numpy()


def open_reusable(folder: Path) -> Answer:
    """A SavedModel that is called, as by hub.load's users."""
    import tensorflow as tf

    module = tf.saved_model.load(str(folder))
    return lambda images: module(tf.constant(images), training=False).numpy()


def open_program(folder: Path) -> Answer:
    """model.pt2, by torch.export.load."""
    import torch

    module = torch.export.load(folder / "model.pt2").module()

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images.copy())).numpy()

    return answer


def open_state_dict(folder: Path) -> Answer:
    """model.pth, in the network's own class: see load.py."""
    import torch
    from load import classify as classify_pixels
    from load import load_network

    network = load_network()

    def answer(images: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(images.copy())
        if images.dtype == np.uint8:
            return classify_pixels(network, tensor).numpy()
        with torch.no_grad():
            return network(tensor.permute(0, 3, 1, 2)).softmax(dim=1).numpy()

    return answer


def open_stablehlo(folder: Path) -> Answer:
    """model.jax, by jax.export."""
    import jax.export

    call = jax.jit(jax.export.deserialize((folder / "model.jax").read_bytes()).call)
    return lambda images: np.asarray(call(images))


def open_params(folder: Path) -> Answer:
    """Parameters restored by Orbax, in the function beside them."""
    import jax.export
    import orbax.checkpoint

    params = orbax.checkpoint.StandardCheckpointer().restore((folder / "params").resolve())
    call = jax.jit(jax.export.deserialize((folder / "apply.jax").read_bytes()).call)
    return lambda images: np.asarray(call(params, images))
