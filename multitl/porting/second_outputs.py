"""An artefact that also says where it looks: a second output "contributions", proved like the first.

Only where maps are exact, so that it is a sum which anyone can check: over positions it is the logit less its bias.
"""

from __future__ import annotations

import keras

from multitl.errors import PortError
from multitl.explaining.explainers import Explainer, exact_explainer_of
from multitl.models.inference import BATCH

CONTRIBUTIONS = "contributions"


def with_contributions(model: keras.Model, source: str) -> keras.Model:
    """The model with a second output (batch, h, w, k). Raises PortError where it would not be exact."""
    maps = explainer_for(model, source).contributions
    return keras.Model(model.input, [model.output, maps], name=model.name)


def explainer_for(model: keras.Model, source: str) -> Explainer:
    """Raises PortError where maps would not be exact. source: the model, as the user has it."""
    explainer = exact_explainer_of(model, BATCH)
    if explainer is None:
        raise PortError(
            f"The maps of {source} are not sums that are its logits, so no artefact can give them.",
            expected="average pooling of a feature map, and a linear head",
            received="a network with another pooling, a hidden layer, a kernel, or its original classifier",
            fix="leave --explain out; multitl explain shows where it looks by gradients",
        )
    return explainer
