"""How strange an image is to a saved classifier, as one more number beside what it says: see `runs/familiarity.py`.

Of stock layers and operations, so that it is computed where the classifier is, under any backend and in an artefact.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from multitl.errors import RunError
from multitl.models.feature_maps import FeatureMap
from multitl.models.insides import calls_in
from multitl.runs.familiarity import Familiarity

HEAD = "head"  # as `heads.build_head` calls it


def features_and_logits(classifier: keras.Model) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Of a classifier as `heads.build_classifier` makes it: what its head takes (batch, channels), what it gives
    (batch, k). Raises RunError for any other.
    """
    for call in calls_in(classifier):
        if isinstance(call.operation, keras.Model) and call.operation.name == HEAD:
            return call.arguments.args[0], call.outputs[0]
    raise RunError(
        f"{classifier.name} has no head that was trained.",
        expected="a classifier that multitl finetune made",
        received=", ".join(layer.name for layer in classifier.layers)[:200],
        fix="multitl finetune DATA makes one",
    )


def strangeness_of(classifier: keras.Model, familiarity: Familiarity) -> keras.KerasTensor:
    """Of the classifier's own input: (batch, 1) float32, the higher the stranger."""
    features, logits = features_and_logits(classifier)
    nearness = layers.Dense(len(familiarity.prototypes), use_bias=False, dtype="float32", name="prototypes")
    cosines = nearness(FeatureMap(1.0, familiarity.centre).layers(features, "familiarity"))
    nearness.set_weights([familiarity.prototypes.T])
    found = familiarity.distance.standardised(1.0 - ops.max(cosines, axis=1, keepdims=True))
    if familiarity.energy.deviation:
        found = found + familiarity.energy.standardised(-ops.logsumexp(logits, axis=1, keepdims=True))
    return found


def with_strangeness(classifier: keras.Model, familiarity: Familiarity) -> keras.Model:
    """The same with one number more: (batch, k + 1), the last of them the strangeness."""
    both = [classifier.output, strangeness_of(classifier, familiarity)]
    return keras.Model(classifier.input, layers.Concatenate(dtype="float32")(both), name=classifier.name)
