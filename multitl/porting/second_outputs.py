"""An artefact that also says where it looks: a second output "contributions", proved like the first.

Only where maps are exact, so that it is a sum which anyone can check: over positions it is the logit less its bias.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from multitl.errors import PortError
from multitl.explaining.contributions import bias_of
from multitl.explaining.explainers import Explainer, exact_explainer_of
from multitl.models.inference import BATCH
from multitl.porting.departures import Departure
from multitl.translation import parity

MOST_ERROR = 1e-4  # of a sum, as a share of the image's largest logit - bias


def insist_on_exact(departure: Departure) -> Explainer:
    """Raises PortError for a model whose maps are not sums that are its logits."""
    explainer = exact_explainer_of(departure.run.model, BATCH)
    if explainer is None:
        raise PortError(
            f"The maps of {departure.name} are not sums that are its logits, so no artefact can give them.",
            expected="average pooling of a feature map, and a linear head",
            received="a network with another pooling, a hidden layer, a kernel, or its original classifier",
            fix="leave --explain out; multitl explain shows where it looks by gradients",
        )
    return explainer


def prove_contributions(departure: Departure, maps: np.ndarray) -> dict[str, Any]:
    """The figures for the card: parity with Keras' own, and how far sums are from Keras' logits less their bias.

    maps: (n, h, w, k), what the artefact gives for the reference's images. Raises PortError where they differ.
    """
    explainer, pixels = insist_on_exact(departure), departure.reference.pixels
    with departure.backend.full_precision():
        looks = [explainer.look(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH)]
    found = parity.compare(np.concatenate([one.maps for one in looks]), maps)
    wanted = np.concatenate([one.logits for one in looks]).astype("float64") - bias_of(explainer.head)
    apart = np.abs(maps.sum(axis=(1, 2), dtype="float64") - wanted).max(axis=1)
    error = float((apart / np.abs(wanted).max(axis=1)).max())
    if not parity.is_close(found) or error > MOST_ERROR:
        raise PortError(
            "The artefact's maps are not those of the model it came from, so it was not kept.",
            expected=f"{parity.LIMITS}; sums within {MOST_ERROR:g} of logit - bias",
            received=f"{parity.describe(found)}; sums within {error:.1e}",
            fix="leave --explain out, and report this with the network",
        )
    return asdict(found) | {"sum_error": error}
