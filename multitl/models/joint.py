"""One network with several heads: their classifiers, whose backbones are the same, joined where features are pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from multitl.models.heads import backbone_of


def join(classifiers: Mapping[str, keras.Model]) -> keras.Model:
    """uint8 pixels (batch, height, width, 3) -> the outputs of all classifiers, by the names of their heads.

    classifiers: as `build_classifier` makes them, on backbones of equal weights, of which the first one's is taken.
    """
    first = next(iter(classifiers.values()))
    place = first.layers.index(backbone_of(first))
    features = first.layers[place + 1].output
    outputs = {
        name: _apply(model, f"head{number}", features) for number, (name, model) in enumerate(classifiers.items())
    }
    return keras.Model(first.input, outputs, name="classifiers")


def side_by_side(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """The same with one output (batch, all), in the order of these heads, whichever the file has."""
    outputs = [model.output[name] for name in names]
    return keras.Model(model.input, keras.layers.Concatenate(dtype="float32", name="all")(outputs))


def _apply(model: keras.Model, prefix: str, features: keras.KerasTensor) -> keras.KerasTensor:
    """What follows the pooled features of a classifier, its layers called with a prefix, so that no two are alike."""
    pooled = model.layers.index(backbone_of(model)) + 1
    x = features
    for layer in model.layers[pooled + 1 :]:
        called = f"{prefix}-{layer.name}"
        if isinstance(layer, keras.Model):
            x = keras.Model(layer.input, layer.output, name=called)(x)
        else:
            x = type(layer).from_config({**layer.get_config(), "name": called})(x)
    return x
