"""What stands between pooled features and a head's last layer, fixed before anything is fitted.

In NumPy, so that a head is solved on the same numbers whatever the backend; and as stock Keras layers, which are saved
and exported like any others.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

LEAST = 1e-12  # of a squared length, as in Keras' UnitNormalization
WAVES = 2048  # of a kernel: with 1,024 what it gains is gone again (elpv: log loss 0.682 for 0.664)
MOST_PAIRED = 500  # features whose distances are measured


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features (n, channels) -> (n, width): divided by `size`, and no more unless the others are given.

    centre: (channels,), subtracted first; then each feature is brought to length 1.  waves: directions
    (channels, width) and phases (width,), radians: then cos(features @ directions + phases).
    """

    size: float
    centre: np.ndarray | None = None
    waves: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, features: np.ndarray) -> np.ndarray:
        if self.centre is None:
            return features / np.float32(self.size)
        mapped = (features - self.centre) / np.float32(self.size)
        mapped /= np.sqrt(np.maximum(np.square(mapped).sum(axis=1, keepdims=True), LEAST))
        return mapped if self.waves is None else np.cos(mapped @ self.waves[0] + self.waves[1])

    def layers(self, features: keras.KerasTensor, name: str = "feature") -> keras.KerasTensor:
        """The same as layers without anything that trains. name: theirs begin with it."""
        offset = 0.0 if self.centre is None else (-self.centre / np.float32(self.size)).tolist()
        x = keras.layers.Rescaling(1 / self.size, offset, name=f"{name}_scale", dtype="float32")(features)
        if self.centre is not None:
            x = keras.layers.UnitNormalization(name=f"{name}_length", dtype="float32")(x)
        if self.waves is not None:
            dense = keras.layers.Dense(self.waves[1].size, name=f"{name}_waves", dtype="float32", trainable=False)
            x = keras.ops.cos(dense(x))
            dense.set_weights(list(self.waves))
        return x


def read_feature_map(head: keras.Model) -> FeatureMap:
    """The map that a saved head begins with. Raises ValueError for a head that begins otherwise."""
    names = {layer.name for layer in head.layers}
    scale = head.get_layer("feature_scale")
    size = 1 / float(scale.scale)
    if "feature_length" not in names:
        return FeatureMap(size)
    centre = -np.asarray(scale.offset, "float32") * np.float32(size)
    if "feature_waves" not in names:
        return FeatureMap(size, centre)
    directions, phases = head.get_layer("feature_waves").get_weights()
    return FeatureMap(size, centre, (directions, phases))


def scaled(features: np.ndarray) -> FeatureMap:
    """Divides by the root mean square, so that one rate or penalty suits backbones of any size of feature."""
    return FeatureMap(float(np.sqrt(np.mean(np.square(features, dtype="float64")))) or 1.0)


def directed(features: np.ndarray) -> FeatureMap:
    """Only the direction from the mean of all features is left."""
    return FeatureMap(scaled(features).size, features.mean(axis=0, dtype="float64").astype("float32"))


def rippled(features: np.ndarray, width: float, seed: int) -> FeatureMap:
    """Random Fourier features of a Gaussian kernel on directions (Rahimi and Recht 2007): a Dense on them is a kernel
    machine. width: of the Gaussian, in median distances of two features.
    """
    plain, random = directed(features), np.random.default_rng(seed)
    deviation = width * _median_distance(plain(features), random)
    directions = random.normal(0, 1 / deviation, (features.shape[1], WAVES)).astype("float32")
    phases = random.uniform(0, 2 * np.pi, WAVES).astype("float32")
    return FeatureMap(plain.size, plain.centre, (directions, phases))


def _median_distance(features: np.ndarray, random: np.random.Generator) -> float:
    """Between two features of length 1, drawn at random; 1 where there are no two that differ."""
    some = features[random.permutation(len(features))[:MOST_PAIRED]]
    squared = 2 - 2 * (some @ some.T)[np.triu_indices(len(some), 1)]
    return float(np.sqrt(np.median(squared))) if squared.size and np.median(squared) > LEAST else 1.0
