"""One network with several heads on a backbone: as it is saved, as it is trained, and cut to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Goal, Pretrained
from multitl.errors import WeightsError
from multitl.models.heads import pixel_input, pool
from multitl.models.model_files import load_saved_model
from multitl.models.preprocessing import normalise_in_model

QUICK = 10.0  # so many times as far as a weight goes in a step, a log variance goes


def build_classifiers(
    pretrained: Pretrained, heads: Mapping[str, tuple[keras.Model, Goal]], pooling: str
) -> keras.Model:
    """The model that is saved: uint8 pixels (batch, height, width, 3) -> what each head gives, by its name."""
    pixels = pixel_input(pretrained.preprocess)
    features = pool(pretrained.backbone(normalise_in_model(pixels, pretrained.preprocess)), pooling)
    outputs = {}
    for place, (name, (head, goal)) in enumerate(heads.items()):
        last = goal.last_layer()
        last = type(last).from_config({**last.get_config(), "name": f"head{place}-{last.name}"})
        outputs[name] = last(_called(head, f"head{place}")(features))
    return keras.Model(pixels, outputs, name="classifiers")


def stack(heads: Sequence[keras.Model], log_variances: Sequence[float] | None) -> keras.Model:
    """Pooled features (batch, channels) -> the logits of all heads side by side, (batch, all).

    log_variances: where they are learned, what they start from; they stand behind the logits, see `SumOfLosses`.
    """
    features = keras.Input(heads[0].input_shape[1:], name="features")
    logits = [_called(head, f"head{place}")(features) for place, head in enumerate(heads)]
    x = keras.layers.Concatenate(dtype="float32", name="all")(logits)
    if log_variances is not None:
        x = LogVariances(log_variances, dtype="float32", name="log_variances")(x)
    return keras.Model(features, x, name="heads")


def side_by_side(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """The same with one output (batch, all), in the order of these heads, whichever the file has."""
    outputs = [model.output[name] for name in names]
    return keras.Model(model.input, keras.layers.Concatenate(dtype="float32", name="all")(outputs))


def load_network(path: Path, head: str = "", *, in_float32: bool = False) -> keras.Model:
    """The network in a `.keras` file, or that of one of its heads: see `load_saved_model`, whose errors it raises."""
    model = load_saved_model(path, in_float32=in_float32)
    if not head:
        return model
    if not isinstance(model.output, dict) or head not in model.output:
        raise WeightsError(
            f"The model {path} has no head {head!r}.",
            expected="the network that multitl wrote for all heads of a run",
            received="a model of other outputs",
            fix="train it again with --overwrite; stored features are kept",
        )
    return keras.Model(model.input, model.output[head], name="classifier")


class LogVariances(keras.layers.Layer):
    """Logits (batch, all) -> the same, and a number a head behind them, which is learned and alike for each image."""

    def __init__(self, start: Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        values = np.asarray(start, "float32") / QUICK
        self.values = self.add_weight(shape=values.shape, initializer="zeros", name="values")
        self.values.assign(values)

    def call(self, logits: Any) -> Any:
        ops = keras.ops
        ones = ops.ones_like(logits[:, :1])
        return ops.concatenate([logits, QUICK * ones * ops.expand_dims(self.values, 0)], axis=-1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], (shape[1] or 0) + self.values.shape[0])


def _called(head: keras.Model, name: str) -> keras.Model:
    """The same layers by another name: in a network no two layers are called alike."""
    return keras.Model(head.input, head.output, name=name)
