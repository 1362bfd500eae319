"""Two steps of a tiny network on the fast paths, in a process of its own: what they gave, as a line of JSON."""

import json

import keras
import numpy as np

from multitl.adapters import load_backend
from multitl.models import insides
from multitl.models.initialisers import numpy_initialisers

layers = keras.layers


def network() -> keras.Model:
    """A layer of each kind that is run another way."""
    x = pixels = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.BatchNormalization(trainable=False)(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(pixels, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def main() -> None:
    random = np.random.default_rng(0)
    backend = load_backend(keras.config.backend())
    with backend.fast_paths():
        with numpy_initialisers(seed=None):
            model = network()
        for weight in model.weights:
            weight.assign(random.uniform(0.1, 1, weight.shape))
        model.compile(keras.optimizers.Adam(0.01), "mse")
        images, wanted = random.normal(size=(8, 12, 12, 3)).astype("float32"), np.ones((8, 2), "float32")
        losses = [float(model.train_on_batch(images, wanted)) for _ in range(2)]
        answers = np.asarray(model.predict_on_batch(images)).tolist()
    missing = [*insides.missing_insides(), *backend.missing_insides()]
    print(json.dumps({"losses": losses, "answers": answers, "missing": missing}))


if __name__ == "__main__":
    main()
