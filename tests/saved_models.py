"""Small SavedModels in every format that modules come in, written by plain TensorFlow: for the tests that read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
SIZE, CLASSES, MOMENTUM, RATE = 24, 5, 0.9, 0.25


def values(classes: int = CLASSES, seed: int = 0) -> dict[str, np.ndarray]:
    """The weights of `Network` by name, float32; without a classifier for 0 classes."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, np.sqrt(2 / np.prod(shape[:-1], dtype=int)), shape)

    found = {
        "stem/conv/kernel": normal(3, 3, 3, 8),
        "stem/norm/gamma": random.uniform(0.6, 1.4, 8),
        "stem/norm/beta": random.normal(0, 0.1, 8),
        "stem/norm/moving_mean": random.normal(0, 0.1, 8),
        "stem/norm/moving_variance": random.uniform(0.6, 1.4, 8),
        "body/depthwise/depthwise_kernel": random.normal(0, 0.4, (3, 3, 8, 2)),
        "body/depthwise/bias": random.normal(0, 0.1, 16),
        "body/project/kernel": normal(1, 1, 16, 12),
        "body/project/bias": random.normal(0, 0.1, 12),
    }
    if classes:
        found |= {"head/kernel": normal(12, classes), "head/bias": random.normal(0, 0.1, classes)}
    return {name: array.astype("float32") for name, array in found.items()}


def forward(weights: dict[str, Any], images: Any, training: bool, update: Callable[[Any, Any], Any]) -> Any:
    """The network: images (batch, height, width, 3) -> logits, or features without a classifier.

    weights: tensors or variables by name.  update: how a moving statistic takes a new value, (variable, batch's).
    """
    x = tf.nn.conv2d(images, weights["stem/conv/kernel"], 2, "SAME", name="stem/conv")
    scale, offset = weights["stem/norm/gamma"], weights["stem/norm/beta"]
    mean, variance = weights["stem/norm/moving_mean"], weights["stem/norm/moving_variance"]
    if training:
        x, new_mean, new_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=1e-3, is_training=True
        )
        update(mean, new_mean)
        update(variance, new_variance)
    else:
        x, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=1e-3, is_training=False
        )
    x = tf.nn.relu6(x)
    x = tf.nn.depthwise_conv2d(x, weights["body/depthwise/depthwise_kernel"], [1, 1, 1, 1], "SAME")
    x = x * tf.sigmoid(tf.nn.bias_add(x, weights["body/depthwise/bias"]))
    x = tf.nn.relu(tf.nn.conv2d(x, weights["body/project/kernel"], 1, "VALID") + weights["body/project/bias"])
    x = tf.reduce_mean(x, [1, 2])
    if "head/kernel" not in weights:
        return x
    with tf.name_scope("dropout"):
        x = tf.nn.dropout(x, RATE, seed=1) if training else tf.identity(x)
    return tf.matmul(x, weights["head/kernel"]) + weights["head/bias"]


class Network(tf.Module):
    """TF Hub's interface of TensorFlow 2: https://www.tensorflow.org/hub/reusable_saved_models."""

    def __init__(self, classes: int = CLASSES, size: int | None = SIZE, seed: int = 0) -> None:
        super().__init__()
        self.held = {
            name.replace("/", "."): tf.Variable(array, trainable="moving" not in name, name=name)
            for name, array in values(classes, seed).items()
        }
        self.size = size

    @property
    def spec(self) -> tf.TensorSpec:
        """What it takes: a batch of images."""
        return tf.TensorSpec((None, self.size, self.size, 3), name="images")

    def run(self, images: Any, training: bool = False) -> Any:
        """Outputs; in training, moving statistics are updated."""
        weights = {name.replace(".", "/"): variable for name, variable in self.held.items()}
        return forward(weights, images, training, lambda old, new: old.assign_sub((old - new) * (1 - MOMENTUM)))


def write_reusable(network: Network, folder: Path) -> Path:
    """With `__call__` for evaluation and for training, `variables` and `trainable_variables`."""
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(network.run)
    for training in (False, True):
        module.__call__.get_concrete_function(network.spec, training=training)
    module.variables, module.trainable_variables = list(network.variables), list(network.trainable_variables)
    module.regularization_losses = []
    tf.saved_model.save(module, str(folder))
    return folder


def write_signature(network: Network, folder: Path, output: str = "output_0", name: str = "serving_default") -> Path:
    """With a signature only."""
    serve = tf.function(lambda images: {output: network.run(images)}, input_signature=[network.spec])
    module = tf.Module()
    module.held = network.held
    tf.saved_model.save(module, str(folder), signatures={name: serve})
    return folder


def write_frozen(network: Network, folder: Path) -> Path:
    """Every variable a constant."""
    weights = {name.replace(".", "/"): tf.constant(variable.numpy()) for name, variable in network.held.items()}
    module = tf.Module()
    module.serve = tf.function(lambda images: forward(weights, images, False, max), input_signature=[network.spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def write_function(function: Callable[..., Any], folder: Path, spec: tf.TensorSpec, **held: Any) -> Path:
    """Any function of one tensor, as serving_default. held: what must be saved beside it."""
    module = tf.Module()
    for name, value in held.items():
        setattr(module, name, value)
    module.serve = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def write_hub1(folder: Path, classes: int = CLASSES, size: int | None = SIZE, signature: str = "default") -> Path:
    """TF Hub's format of TensorFlow 1: one graph without tags and one for training, the same variables."""
    builder = tf1.saved_model.Builder(str(folder))
    for tags, training in (([], False), (["train"], True)):
        with tf.Graph().as_default(), tf1.Session() as session:
            images = tf1.placeholder(tf.float32, (None, size, size, 3), name="images")
            weights = {
                name: tf1.get_variable(f"module/{name}", initializer=array, trainable="moving" not in name)
                for name, array in values(classes).items()
            }
            outputs = forward(weights, images, training, lambda old, new: old.assign_sub((old - new) * (1 - MOMENTUM)))
            found = {signature: tf1.saved_model.predict_signature_def({"images": images}, {"default": outputs})}
            if training:
                builder.add_meta_graph(tags, found)
            else:
                session.run(tf1.global_variables_initializer())
                builder.add_meta_graph_and_variables(session, tags, found)
    builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")
    return folder


def write_restored(folder: Path, key: Callable[[str], str], use_resource: bool = True) -> dict[str, np.ndarray]:
    """TensorFlow 1's format, as Keras exports it: the checkpoint has keys of its own, and only the operations that
    restore the variables say whose they are.

    key: of a variable's name.  Returns the variables' values.
    """
    with tf.Graph().as_default(), tf1.Session() as session:
        images = tf1.placeholder(tf.float32, (None, SIZE, SIZE, 3), name="images")
        weights = {
            name: tf1.get_variable(name, initializer=array, use_resource=use_resource)
            for name, array in values().items()
        }
        outputs = forward(weights, images, False, lambda old, new: None)
        signature = tf1.saved_model.predict_signature_def({"images": images}, {"scores": outputs})
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver({key(name): variable for name, variable in weights.items()})
        builder = tf1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, saver=saver)
        builder.save()
        return {name: session.run(variable) for name, variable in weights.items()}


def write_keras_metadata(folder: Path, layers: list[dict[str, Any]]) -> Path:
    """keras_metadata.pb beside a module, as Keras 2 writes it: of its layers and of the model itself."""
    from tensorflow.python.keras.protobuf.saved_metadata_pb2 import SavedMetadata

    written = SavedMetadata()
    described = [{"class_name": "Sequential", "config": {"name": "own", "layers": layers}}, *layers]
    kinds = ["_tf_keras_sequential", *["_tf_keras_layer"] * len(layers)]
    for number, (kind, one) in enumerate(zip(kinds, described, strict=True)):
        written.nodes.add(node_id=number, identifier=kind, metadata=json.dumps(one))
    (folder / "keras_metadata.pb").write_bytes(written.SerializeToString())
    return folder
