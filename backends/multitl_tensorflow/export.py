"""Models leave by way of TensorFlow: as SavedModels and for LiteRT. See `contracts.Writer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from multitl.contracts import VALUE, Export


def write_serving(export: Export, folder: Path) -> None:
    """A SavedModel whose signature serving_default takes `images` and gives `probabilities`, or a `value`."""
    module = _trackable(export.model)
    serve = _inference(export)
    given = VALUE if export.class_names == (VALUE,) else "probabilities"
    module.serve = tf.function(lambda images: {given: serve(images)}, input_signature=[_spec(export)])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve.get_concrete_function()})


def write_reusable(export: Export, folder: Path) -> None:
    """A SavedModel with TF Hub's interface: https://www.tensorflow.org/hub/reusable_saved_models.

    It is called with images and `training`, has variables, trainable_variables and regularization_losses, and the
    signature serving_default. Everything in it can be trained, whatever was frozen before.
    """
    model = export.model
    model.trainable = True
    module = _trackable(model)
    module.variables = [variable.value for variable in model.weights]
    module.trainable_variables = [variable.value for variable in model.trainable_weights]
    module.regularization_losses = [tf.function(loss, input_signature=[]) for loss in _penalties(model)]
    spec = _spec(export)
    call = tf.function(lambda images, training=False: model(images, training=training))
    for training in (False, True):
        call.get_concrete_function(spec, training=training)
    call.get_concrete_function(spec)
    module.__call__ = call
    module.serve = tf.function(_inference(export), input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve.get_concrete_function()})


def write_litert(export: Export, folder: Path) -> None:
    """model.tflite in float32."""
    _convert(export, folder, lambda converter: None)


def write_litert_dynamic(export: Export, folder: Path) -> None:
    """model.tflite with weights of 8 bits, which the interpreter multiplies with activations rounded as they come."""
    _convert(export, folder, _rounded)


def write_litert_int8(export: Export, folder: Path) -> None:
    """model.tflite with weights and activations of 8 bits, whose ranges the calibration images show."""
    _convert(export, folder, partial(_rounded, images=export.calibration))


def _convert(export: Export, folder: Path, set_up: Callable[[tf.lite.TFLiteConverter], None]) -> None:
    """With a signature from `images` to outputs by their names."""
    module, serve = _trackable(export.model), _inference(export)

    def named(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(export.outputs, keras.tree.flatten(serve(images)), strict=True))

    module.serve = tf.function(named, input_signature=[_spec(export)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)
    set_up(converter)
    (folder / "model.tflite").write_bytes(converter.convert())


def _rounded(converter: tf.lite.TFLiteConverter, images: np.ndarray | None = None) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if images is not None:
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]


def _trackable(model: keras.Model) -> Any:
    """What tf.saved_model.save follows to the variables; Keras' own exporter uses the same class."""
    module = tf.__internal__.tracking.AutoTrackable()
    module.held = [variable.value for variable in model.variables]  # states of random draws included
    return module


def _inference(export: Export) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda images: export.model(images, training=False)


def _spec(export: Export) -> tf.TensorSpec:
    taken = export.model.input
    return tf.TensorSpec([None, *taken.shape[1:]], taken.dtype, name="images")


def _penalties(model: keras.Model) -> Iterator[Callable[[], tf.Tensor]]:
    """The weight penalties of each layer."""
    for variable in model.trainable_weights:
        if variable.regularizer is not None:
            yield partial(_penalty, variable)


def _penalty(variable: keras.Variable) -> tf.Tensor:
    return variable.regularizer(variable.value)
