"""Write the files in this folder anew: `python tests/keras_files/write.py`, where tf_keras is installed.

Each network is saved by tf_keras as .h5 and as .keras; expected.npz holds images and what tf_keras says of them. With
the name of a network of keras.applications and a folder, that network is written there instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras.src.applications import convnext

HERE = Path(__file__).parent
SIZE = 16
layers = tf_keras.layers
CLASSES_OF_CONVNEXT = {kind.__name__: kind for kind in (convnext.LayerScale, convnext.StochasticDepth)}


def functional() -> tf_keras.Model:
    """Rescaling, every kind of convolution, a nested Sequential, a layer called twice, squeeze and excite by Keras 2's
    own hard sigmoid, and a softmax inside the last layer.
    """
    block = [
        layers.Input((8, 8, 6)),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(6.0),
    ]
    image = layers.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="stem/conv")(x)
    x = layers.Add(name="add")([x, tf_keras.Sequential(block, name="block")(x)])
    twice = layers.SeparableConv2D(6, 3, padding="same", name="twice")
    x = layers.Activation("swish")(twice(layers.LeakyReLU(0.1)(twice(x))))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(6, 1, activation="hard_sigmoid", name="gate")(gate)
    x = layers.Multiply()([x, gate]) + 1.0
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return tf_keras.Model(image, layers.Dense(5, activation="softmax", name="classes")(x), name="functional")


def nested() -> tf_keras.Model:
    """As in TensorFlow's tutorial on transfer learning: augmentation, arithmetic, a frozen backbone, one sigmoid."""
    inner = layers.Input((None, None, 3))
    x = inner
    for index, width in enumerate((4, 4, 8)):  # equal shapes: only names or order tell them apart
        x = layers.Conv2D(width, 3, padding="same", strides=1 + index % 2, use_bias=False, name=f"conv{index}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"bn{index}")(x))
    backbone = tf_keras.Model(inner, x, name="backbone")
    backbone.trainable = False
    image = layers.Input((SIZE, SIZE, 3))
    x = tf_keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(image)
    x = tf.math.subtract(tf.math.truediv(x, 127.5), 1.0)
    x = layers.GlobalAveragePooling2D()(backbone(x, training=False))
    return tf_keras.Model(image, layers.Dense(1, activation="sigmoid")(layers.Dropout(0.2)(x)), name="nested")


def sequential() -> tf_keras.Model:
    """Normalization with learnt figures, and a classifier bound to the size of the image, without a softmax."""
    stack = [
        layers.Normalization(input_shape=(SIZE, SIZE, 3)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(4, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(6, activation="relu"),
        layers.Dense(3),
    ]
    return tf_keras.Sequential(stack, name="sequential")


def randomise(model: tf_keras.Model, random: np.random.Generator) -> None:
    """Numbers that no layer starts with."""
    for weight in model.weights:
        if "variance" in weight.name or "gamma" in weight.name:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif "count" not in weight.name:
            weight.assign(random.normal(0, 0.4, weight.shape))


def of_applications(name: str) -> tf_keras.Model:
    """With logits of 10 classes; kernels as He et al. draw them, so that outputs depend on the image.

    EfficientNetV2 gets 3/4 of that variance: else what its blocks add up to grows a hundredfold, its gates (a sigmoid
    of that) become switches, and float32's rounding 1 % of the answer, in tf_keras alone against its own float64.
    """
    gain = 1.5 if name.startswith("EfficientNetV2") else 2
    size = {"Xception": 71, "InceptionV3": 75}.get(name, 64)
    network = getattr(tf_keras.applications, name)
    model = network(input_shape=(size, size, 3), weights=None, classes=10, classifier_activation=None)
    random = np.random.default_rng(0)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if "variance" in weight.name or "gamma" in weight.name:
            weight.assign(random.uniform(0.7, 1.3, shape))
        elif len(shape) > 1:
            inputs = np.prod(shape[:2] if "depthwise" in weight.name else shape[:-1])
            weight.assign(random.normal(0, np.sqrt(gain / inputs), shape))
        elif "count" not in weight.name:
            weight.assign(random.normal(0, 0.1, shape))
    return model


def write(models: dict[str, tf_keras.Model], images: np.ndarray, folder: Path) -> None:
    """Each model in both formats, and what the file says once it is loaded again."""
    expected = {"images": images}
    for name, model in models.items():
        for ending in ("h5", "keras"):
            path = folder / f"{name}.{ending}"
            model.save(path)
            loaded = tf_keras.models.load_model(path, CLASSES_OF_CONVNEXT, compile=False)
            expected[path.name] = loaded.predict(images, verbose=0)
    np.savez(folder / "expected.npz", **expected)


def main(arguments: list[str]) -> None:
    random = np.random.default_rng(0)
    if arguments:
        name, folder = arguments
        model = of_applications(name)
        colours, noise = random.uniform(0, 200, (4, 1, 1, 3)), random.uniform(0, 55, (4, *model.input_shape[1:]))
        images = (colours + noise).astype("float32")  # noise alone looks the same to EfficientNetB0
        scales_itself = name.startswith(("Efficient", "MobileNetV3", "ConvNeXt", "RegNet"))
        write({name: model}, images if scales_itself else images / 127.5 - 1, Path(folder))
        return
    images = random.integers(0, 256, (4, SIZE, SIZE, 3)).astype("float32")
    models = {model.name: model for model in (functional(), nested(), sequential())}
    for model in models.values():
        randomise(model, random)
    write(models, images, HERE)


if __name__ == "__main__":
    main(sys.argv[1:])
