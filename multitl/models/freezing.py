"""Which layers of a backbone train, and the guarantee that the others do not move.

In Keras a BatchNormalization layer updates its statistics only if it is both called in training mode and trainable, so
a frozen layer keeps them. `tests/models/test_freezing.py` holds frozen weights and statistics to bit equality on each
backend.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from multitl.contracts import Stage
from multitl.errors import BackboneError, nearest_names

MOST_WEIGHTS = 0.9


@dataclass(frozen=True)
class FreezePolicy:
    """What trains beside the head.

    unfreeze: "none", "all", "auto" (all, until it shows that there is no time for it), "last" or "last:N" (the N stages
    nearest the output that have weights), or names of stages or layers, globs allowed, separated by commas:
    "stage5,conv4_*".
    train_batch_norm: whether unfrozen BatchNormalization layers train. By default they stay frozen: statistics of a few
    dozen images per batch are worse than ImageNet's (https://keras.io/guides/transfer_learning).
    """

    unfreeze: str = "none"
    train_batch_norm: bool = False

    def select(self, stages: Sequence[Stage]) -> set[str]:
        """Names of the layers that train. Raises BackboneError for a pattern that matches nothing."""
        last = re.fullmatch(r"last(?::([1-9]\d*))?", self.unfreeze)
        if self.unfreeze == "none":
            return set()
        if self.unfreeze in ("all", "auto"):
            return _layers(stages)
        if last:
            return _layers(stages[-int(last[1] or 1) :])
        return set().union(*(_match(pattern.strip(), stages) for pattern in self.unfreeze.split(",")))


def heavy_stages(backbone: keras.Model, stages: Sequence[Stage]) -> str:
    """As in a recipe, the fewest stages nearest the output that hold MOST_WEIGHTS of all: "last:3", or "all".

    In convolutional networks they are the cheap ones: of EfficientNet-Lite0's weights 0.97 are in its last three stages
    of eight, whose training takes half the time of all. Trained so, for as many steps, it was as good on photos
    (clothing_medium, 640 steps: 0.938), and worse on a domain that is far from photos (deeppcb, 320: 0.937 and 0.98).
    """
    counts = {layer.name: layer.count_params() for layer in leaf_layers(backbone)}
    sizes = [sum(counts[name] for name in stage.layers) for stage in stages]
    number = next(n for n in range(1, len(sizes) + 1) if sum(sizes[-n:]) >= MOST_WEIGHTS * sum(sizes))
    return "all" if number == len(sizes) else f"last:{number}"


def apply_policy(policy: FreezePolicy, backbone: keras.Model, stages: Sequence[Stage]) -> list[keras.layers.Layer]:
    """Set `trainable` on every layer of the backbone. Returns the layers that train, in the model's order."""
    selected = policy.select(stages)
    backbone.trainable = True  # a frozen parent would hide its trainable children
    trained = []
    for layer in leaf_layers(backbone):
        is_held = isinstance(layer, keras.layers.BatchNormalization) and not policy.train_batch_norm
        layer.trainable = layer.name in selected and not is_held
        trained += [layer] if layer.trainable and layer.weights else []
    return trained


def leaf_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model that contain no layers themselves, nested models opened."""
    leaves = []
    for layer in model.layers:
        leaves += leaf_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return leaves


def frozen_variables(model: keras.Model) -> list[keras.Variable]:
    """Weights and statistics of a model that no training step may change."""
    return [weight for layer in leaf_layers(model) if not layer.trainable for weight in layer.weights]


def _layers(stages: Sequence[Stage]) -> set[str]:
    return {layer for stage in stages for layer in stage.layers}


def _match(pattern: str, stages: Sequence[Stage]) -> set[str]:
    by_stage = _layers([stage for stage in stages if fnmatch.fnmatchcase(stage.name, pattern)])
    by_layer = set(fnmatch.filter(_layers(stages), pattern))
    if not by_stage | by_layer:
        names = [stage.name for stage in stages]
        raise BackboneError(
            f"Nothing in the backbone is called {pattern!r}.",
            expected="none, last, last:N, all, or globs of stages (" + ", ".join(names) + ") or layers",
            received=f"unfreeze = {pattern!r}",
            nearest=nearest_names(pattern, [*names, *sorted(_layers(stages))]),
            fix="--unfreeze last",
        )
    return by_stage | by_layer
