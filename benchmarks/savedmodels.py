"""SavedModels of every image family and format that TF Hub has: `python benchmarks/savedmodels.py FOLDER [NAME ...]`.

Random weights with statistics as a trained network's, small images, logits or feature vectors. `zoo_tfhub.py`
translates what this writes; beside each module lies a sample.json that says what it is. Needs tf_keras, and tf_slim for
the networks of TensorFlow 1: `pip install tf_keras`, `pip install --no-deps tf_slim`. PNASNet is in neither.

Formats: "reusable" (TensorFlow 2, `__call__` with training, `trainable_variables`), "signature" (serving_default only),
"keras2" and "keras3" (as those export), "hub1" (TF Hub's of TensorFlow 1, with a graph for training), "frozen"
(constants instead of variables).
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras.src import legacy_tf_layers as legacy

apps = tf_keras.applications
tf1 = tf.compat.v1


@dataclass(frozen=True)
class Sample:
    """A network to be written. build: () -> tf_keras.Model; for "hub1": (images, training) -> tensor."""

    name: str
    family: str
    size: int
    format: str
    build: Callable[..., Any]
    features: bool = False
    brightest: float = 1.0  # of its pixels: 255 where the network scales them itself


def samples() -> Iterator[Sample]:
    """One or more of every published image family, in every format."""
    yield from _applications()
    yield from _own()
    yield from _formats()
    yield from _slim()


def _applications() -> Iterator[Sample]:
    def of(name: str, family: str, size: int, format: str = "reusable", features: bool = False, **options) -> Sample:
        def build() -> tf_keras.Model:
            head = {"classes": 10, "classifier_activation": None}
            pooled = {"include_top": False, "pooling": "avg"} if features else head
            shape = (size, size, 3)
            return getattr(apps, name)(weights=None, input_shape=shape, **pooled, **options)

        label = name + "".join(f"-{key}{value}" for key, value in options.items() if key == "alpha")
        brightest = 255.0 if name.startswith("EfficientNet") else 1.0
        return Sample(f"{label}-{format}", family, size, format, build, features, brightest)

    yield of("MobileNet", "MobileNet V1", 96, alpha=0.25)
    yield of("MobileNetV2", "MobileNet V2", 96, features=True, alpha=0.35)
    yield of("MobileNetV3Small", "MobileNet V3", 96, features=True, include_preprocessing=False)
    yield of("MobileNetV3Large", "MobileNet V3", 96, "signature", include_preprocessing=False)
    yield of("InceptionV3", "Inception V3", 96, features=True)
    yield of("InceptionResNetV2", "Inception-ResNet", 96, "signature", features=True)
    yield of("ResNet50", "ResNet V1", 64, features=True)
    yield of("ResNet50V2", "ResNet V2", 64, "signature", features=True)
    yield of("NASNetMobile", "NASNet", 224, features=True)
    yield of("EfficientNetB0", "EfficientNet", 64)
    yield of("EfficientNetB0", "EfficientNet", 64, "signature", features=True)
    yield of("EfficientNetV2B0", "EfficientNet V2", 64, features=True)
    yield of("EfficientNetV2B0", "EfficientNet V2", 64, "signature")
    yield of("DenseNet121", "DenseNet", 64, "signature", features=True)
    yield of("Xception", "Xception", 96, features=True)
    yield of("ConvNeXtTiny", "ConvNeXt", 64, features=True, include_preprocessing=False)


def _formats() -> Iterator[Sample]:
    """One small network in every other format."""

    def mobilenet() -> tf_keras.Model:
        options = {"classes": 10, "classifier_activation": None}
        return apps.MobileNetV2(alpha=0.35, weights=None, input_shape=(96, 96, 3), **options)

    def of_keras3(name: str) -> Any:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import keras

        options = {"alpha": 0.35} if name == "MobileNetV2" else {}
        options |= {"classes": 10, "classifier_activation": None}
        return getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), **options)

    for format in ("signature", "keras2", "frozen"):
        yield Sample(f"MobileNetV2-{format}", "MobileNet V2", 96, format, mobilenet)
    for name, family in (("MobileNetV2", "MobileNet V2"), ("EfficientNetV2B0", "EfficientNet V2")):
        brightest = 255.0 if name.startswith("EfficientNet") else 1.0
        build = functools.partial(of_keras3, name)
        yield Sample(f"{name}-keras3", family, 96, "keras3", build, brightest=brightest)


def _own() -> Iterator[Sample]:
    """Networks that only TF Hub has, small: BiT (arXiv:1912.11370) and ViT (arXiv:2010.11929)."""
    yield Sample("BiT-reusable", "BiT", 64, "reusable", bit, features=True)
    yield Sample("BiT-signature", "BiT", 64, "signature", bit, features=True)
    yield Sample("ViT-reusable", "ViT", 64, "reusable", vit)
    yield Sample("ViT-signature", "ViT", 64, "signature", vit)
    yield Sample("EfficientNetLite-reusable", "EfficientNet-Lite", 96, "reusable", lite)


class StandardisedConv2D(tf_keras.layers.Conv2D):
    """A convolution whose kernel has mean 0 and deviation 1 for each output."""

    def call(self, x):
        mean, variance = tf.nn.moments(self.kernel, axes=[0, 1, 2], keepdims=True)
        kernel = (self.kernel - mean) / tf.sqrt(variance + 1e-10)
        return tf.nn.conv2d(x, kernel, self.strides, self.padding.upper())


class GroupNormalisation(tf_keras.layers.Layer):
    """As BiT has it: statistics of groups of channels over themselves and space."""

    def __init__(self, groups: int, **options) -> None:
        super().__init__(**options)
        self.groups = groups

    def build(self, shape) -> None:
        self.gamma = self.add_weight(name="gamma", shape=(shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(shape[-1],), initializer="zeros")

    def call(self, x):
        shape, channels = tf.shape(x), x.shape[-1]
        grouped = tf.reshape(x, [shape[0], shape[1], shape[2], self.groups, channels // self.groups])
        mean, variance = tf.nn.moments(grouped, axes=[1, 2, 4], keepdims=True)
        places = [1, 1, 1, self.groups, channels // self.groups]
        gamma, beta = tf.reshape(self.gamma, places), tf.reshape(self.beta, places)
        return tf.reshape(tf.nn.batch_normalization(grouped, mean, variance, beta, gamma, 1e-5), shape)


def bit() -> tf_keras.Model:
    """A BiT of three blocks: padding by hand, pre-activation, a projection where the width changes."""
    layers = tf_keras.layers
    images = layers.Input((64, 64, 3))
    x = layers.Rescaling(2.0, -1.0)(images)
    x = StandardisedConv2D(16, 7, 2, "valid", use_bias=False, name="root/conv")(layers.ZeroPadding2D(3)(x))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for number, (width, stride) in enumerate([(16, 1), (32, 2), (64, 2)]):
        y = layers.ReLU()(GroupNormalisation(4, name=f"block{number}/norm_a")(x))
        shortcut = StandardisedConv2D(width, 1, stride, "valid", use_bias=False, name=f"block{number}/proj")(y)
        y = StandardisedConv2D(width, 1, 1, "valid", use_bias=False, name=f"block{number}/conv_a")(y)
        y = layers.ReLU()(GroupNormalisation(4, name=f"block{number}/norm_b")(y))
        y = layers.ZeroPadding2D(1)(y)
        y = StandardisedConv2D(width, 3, stride, "valid", use_bias=False, name=f"block{number}/conv_b")(y)
        x = layers.Add()([shortcut, y])
    x = layers.ReLU()(GroupNormalisation(4, name="norm")(x))
    return tf_keras.Model(images, layers.GlobalAveragePooling2D()(x), name="bit")


class Tokens(tf_keras.layers.Layer):
    """Patches as tokens, a class token before them, and positions."""

    def build(self, shape) -> None:
        count, width = shape[1] * shape[2], shape[3]
        self.token = self.add_weight(name="class_token", shape=(1, 1, width), initializer="random_normal")
        self.position = self.add_weight(name="position", shape=(1, count + 1, width), initializer="random_normal")

    def call(self, x):
        batch = tf.shape(x)[0]
        x = tf.reshape(x, [batch, x.shape[1] * x.shape[2], x.shape[3]])
        return tf.concat([tf.tile(self.token, [batch, 1, 1]), x], 1) + self.position


def vit() -> tf_keras.Model:
    """A ViT of two blocks."""
    layers = tf_keras.layers
    images = layers.Input((64, 64, 3))
    x = layers.Conv2D(48, 16, 16, name="embedding")(layers.Rescaling(2.0, -1.0)(images))
    x = layers.Dropout(0.1, name="dropout")(Tokens(name="tokens")(x))
    for number in range(2):
        y = layers.LayerNormalization(epsilon=1e-6, name=f"block{number}/norm_a")(x)
        x = layers.Add()([x, layers.MultiHeadAttention(3, 16, name=f"block{number}/attention")(y, y)])
        y = layers.LayerNormalization(epsilon=1e-3, name=f"block{number}/norm_b")(x)
        y = layers.Dense(96, activation="gelu", name=f"block{number}/mlp_a")(y)
        x = layers.Add()([x, layers.Dense(48, name=f"block{number}/mlp_b")(y)])
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    return tf_keras.Model(images, layers.Dense(10, name="head")(x[:, 0]), name="vit")


def lite() -> tf_keras.Model:
    """An EfficientNet-Lite of four blocks; [0, 1] in, (255 x - 127) / 128 inside, as TF Hub's has it."""
    layers = tf_keras.layers
    images = layers.Input((96, 96, 3))
    x = layers.Rescaling(255 / 128, -127 / 128)(images)
    x = _convolved(x, layers.Conv2D(32, 3, 2, "same", use_bias=False, name="stem_conv"), "stem")
    for number, (kernel, stride, channels) in enumerate([(3, 1, 16), (3, 2, 24), (3, 1, 24), (5, 2, 40)]):
        name = f"blocks_{number}"
        y = _convolved(x, layers.Conv2D(4 * x.shape[-1], 1, use_bias=False, name=f"{name}_expand"), f"{name}_a")
        y = _convolved(
            y, layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_dw"), f"{name}_b"
        )
        y = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_c_bn")(
            layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project")(y)
        )
        x = layers.Add()([x, layers.Dropout(0.1, noise_shape=(None, 1, 1, 1))(y)]) if y.shape == x.shape else y
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return tf_keras.Model(images, layers.Dense(10, name="head")(x), name="lite")


def _convolved(x, convolution, name: str):
    x = tf_keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(convolution(x))
    return tf_keras.layers.ReLU(6.0)(x)


def _slim() -> Iterator[Sample]:
    """tf-slim's networks, from which TF Hub's modules of TensorFlow 1 were made."""

    def of(name: str, family: str, size: int, features: bool = False, **options) -> Sample:
        def build(images, training: bool):
            sys.modules["tf_keras.legacy_tf_layers"] = legacy  # it has moved
            for part in ("normalization", "pooling", "core", "convolutional"):
                sys.modules[f"tf_keras.legacy_tf_layers.{part}"] = importlib.import_module(f"{legacy.__name__}.{part}")
            from tf_slim import arg_scope
            from tf_slim.nets import inception, resnet_v1, resnet_v2

            networks = {"inception": inception, "resnet_v1": resnet_v1, "resnet_v2": resnet_v2}
            module = networks[next(key for key in networks if name.startswith(key))]
            scope = module.inception_v3_arg_scope if name.startswith("inception") else module.resnet_arg_scope
            with arg_scope(scope()):
                outputs, _ = getattr(module, name)(images, 10, is_training=training, **options)
            return tf.reshape(outputs, [-1, 10])

        return Sample(f"slim-{name}-hub1", family, size, "hub1", build, features)

    yield of("inception_v1", "Inception V1", 224)
    yield of("inception_v2", "Inception V2", 224)
    yield of("inception_v3", "Inception V3", 299, create_aux_logits=False)
    yield of("resnet_v1_50", "ResNet V1", 64)
    yield of("resnet_v2_50", "ResNet V2", 64)
    yield Sample("MobileNet-hub1", "MobileNet V1", 96, "hub1", _mobilenet_v1)


def _mobilenet_v1(images, training: bool):
    options = {"classes": 10, "classifier_activation": None}
    model = apps.MobileNet(alpha=0.25, weights=None, input_shape=(96, 96, 3), **options)
    return model(images, training=training)


# --- writing ---


def write(sample: Sample, folder: Path) -> None:
    """The sample as a SavedModel in `folder`."""
    folder.mkdir(parents=True)
    write_format(sample, folder)
    known = {"name": sample.name, "family": sample.family, "format": sample.format, "brightest": sample.brightest}
    (folder / "sample.json").write_text(json.dumps(known))


def write_format(sample: Sample, folder: Path) -> None:
    """In the way that its format asks for."""
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(0)
    if sample.format == "hub1":
        write_hub1(sample.build, sample.size, folder)
        return
    model = sample.build()
    randomise(model, sample.brightest)
    WRITERS[sample.format](model, folder)


def randomise(model: tf_keras.Model, brightest: float, seed: int = 0) -> None:
    """Weights as a trained network might have them: each layer hands on about as much as it is given."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(random_values(getattr(variable, "path", variable.name), variable.shape, random))
    images = random.normal(0.5, 0.25, (4, *model.input_shape[1:])) * brightest
    calibrate(model, images.astype("float32"))


def calibrate(model: Any, images: np.ndarray) -> None:
    """Give batch normalisations the statistics of `images`, in one pass that trains nothing else."""
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def random_values(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Kernels after He et al. (arXiv:1502.01852), scales and variances around 1, offsets and means around 0."""
    if any(word in name for word in ("gamma", "variance")):
        return random.uniform(0.6, 1.4, shape)
    if len(shape) < 2:
        return random.normal(0, 0.1, shape)
    inputs = np.prod(shape[:2]) if "depthwise" in name else np.prod(shape[:-1])
    return random.normal(0, np.sqrt(2 / inputs), shape)


class Reusable(tf.Module):
    """TF Hub's interface of TensorFlow 2: https://www.tensorflow.org/hub/reusable_saved_models."""

    def __init__(self, model: tf_keras.Model) -> None:
        super().__init__()
        self.model = model
        self.variables_, self.trainable_variables_ = model.variables, model.trainable_variables

    @tf.function
    def __call__(self, inputs, training=False):
        return self.model(inputs, training=training)


class Interface(tf.train.Checkpoint):
    """An object with just what the interface asks for."""

    def __init__(self, module: Reusable) -> None:
        super().__init__()
        self.__call__ = module.__call__
        self.variables = list(module.model.variables)
        self.trainable_variables = list(module.model.trainable_variables)
        self.regularization_losses: list = []


def write_reusable(model: tf_keras.Model, folder: Path) -> None:
    """With `__call__` for evaluation and for training."""
    module = Reusable(model)
    for training in (False, True):
        module.__call__.get_concrete_function(tf.TensorSpec(model.input_shape, name="inputs"), training=training)
    tf.saved_model.save(Interface(module), str(folder))


def write_signature(model: tf_keras.Model, folder: Path) -> None:
    """With serving_default only."""
    module = tf.train.Checkpoint()
    module.model_variables = list(model.variables)

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, name="inputs")])
    def serve(inputs):
        return {"output_0": model(inputs, training=False)}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


def write_keras2(model: tf_keras.Model, folder: Path) -> None:
    """As Keras 2 saves in its SavedModel format."""
    model.save(str(folder), save_format="tf")


def write_keras3(model: tf_keras.Model, folder: Path) -> None:
    """As Keras 3 exports."""
    model.export(str(folder), verbose=False)


def write_frozen(model: tf_keras.Model, folder: Path) -> None:
    """Every variable a constant, as old converters left them."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    run = tf.function(lambda inputs: model(inputs, training=False))
    concrete = run.get_concrete_function(tf.TensorSpec(model.input_shape, name="inputs"))
    frozen = convert_variables_to_constants_v2(concrete)
    module = tf.Module()
    module.serve = tf.function(lambda inputs: frozen(inputs), input_signature=[tf.TensorSpec(model.input_shape)])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


WRITERS = {
    "reusable": write_reusable,
    "signature": write_signature,
    "keras2": write_keras2,
    "keras3": write_keras3,
    "frozen": write_frozen,
}


def write_hub1(build: Callable, size: int, folder: Path) -> None:
    """TF Hub's format of TensorFlow 1: a graph without tags, one for training, the same variables."""
    folder.rmdir()  # which the builder insists on making
    builder = tf1.saved_model.Builder(str(folder))
    for tags, training in (([], False), (["train"], True)):
        with tf.Graph().as_default(), tf1.Session() as session:
            images = tf1.placeholder(tf.float32, (None, size, size, 3), name="images")
            signature = tf1.saved_model.predict_signature_def({"images": images}, {"default": build(images, training)})
            if training:
                builder.add_meta_graph(tags, {"default": signature})
                continue
            random = np.random.default_rng(0)
            session.run(tf1.global_variables_initializer())
            for variable in tf1.global_variables():
                variable.load(random_values(variable.op.name, tuple(variable.shape), random), session)
            builder.add_meta_graph_and_variables(session, tags, {"default": signature})
    builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for sample in samples():
        if (not names or sample.name in names) and not (folder / sample.name / "sample.json").exists():
            shutil.rmtree(folder / sample.name, ignore_errors=True)
            write(sample, folder / sample.name)
            print(sample.name, flush=True)


if __name__ == "__main__":
    main()
