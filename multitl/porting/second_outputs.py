"""Outputs of an artefact beside the first, each proved like that: where it looks, and how strange an image is.

Where it looks only if maps are exact, so that it is a sum which anyone can check: over positions it is the logit less
its bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from multitl.contracts import CONTRIBUTIONS, STRANGENESS
from multitl.errors import PortError
from multitl.explaining.contributions import bias_of
from multitl.explaining.explainers import Explainer, exact_explainer_of
from multitl.models.inference import BATCH, compile_forward, predict_padded
from multitl.porting.departures import Departure
from multitl.porting.formats import SECOND
from multitl.runs.familiarity import FALSE_ALARMS, FAMILIARITY, Familiarity
from multitl.translation import parity

MOST_ERROR = 1e-4  # of a sum, as a share of the image's largest logit - bias


class SecondOutput(Protocol):
    def prove(self, values: np.ndarray) -> dict[str, Any]:
        """The figures for the card. values: what the artefact gives for the reference's images.

        Raises PortError where they are not those of the model.
        """

    def about(self) -> dict[str, Any]:
        """What else its users have to know, for the card."""


def second_output(name: str, departure: Departure) -> SecondOutput:
    """Raises PortError for a model that cannot give it."""
    return Contributions.of(departure) if name == CONTRIBUTIONS else Strangeness.of(departure)


@dataclass(frozen=True, eq=False)
class Contributions:
    """(n, h, w, k): what each place gives to each logit."""

    departure: Departure
    explainer: Explainer

    @classmethod
    def of(cls, departure: Departure) -> Contributions:
        explainer = exact_explainer_of(departure.run.model, BATCH)
        if explainer is None:
            raise PortError(
                f"The maps of {departure.name} are not sums that are its logits, so no artefact can give them.",
                expected="average pooling of a feature map, and a linear head",
                received="a network with another pooling, a hidden layer, a kernel, or its original classifier",
                fix="leave --explain out; multitl explain shows where it looks by gradients",
            )
        return cls(departure, explainer)

    def prove(self, values: np.ndarray) -> dict[str, Any]:
        """Parity with Keras' own, and how far sums are from Keras' logits less their bias."""
        with self.departure.backend.full_precision():
            looks = [self.explainer.look(pixels) for pixels in _batches(self.departure)]
        found = parity.compare(np.concatenate([one.maps for one in looks]), values)
        wanted = np.concatenate([one.logits for one in looks]).astype("float64") - bias_of(self.explainer.head)
        apart = np.abs(values.sum(axis=(1, 2), dtype="float64") - wanted).max(axis=1)
        error = float((apart / np.abs(wanted).max(axis=1)).max())
        sums = f"sums within {error:.1e} of logit - bias, where {MOST_ERROR:g} is the most"
        _insist(CONTRIBUTIONS, found, sums, is_right=error <= MOST_ERROR)
        return asdict(found) | {"sum_error": error}

    def about(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, eq=False)
class Strangeness:
    """(n, 1): the higher, the less like the usual images."""

    departure: Departure
    familiarity: Familiarity

    @classmethod
    def of(cls, departure: Departure) -> Strangeness:
        familiarity = departure.run.familiarity
        if familiarity is None:
            raise PortError(
                f"{departure.name} does not know what images of the usual kind look like.",
                expected=f"a run with the file {FAMILIARITY}",
                received="a network that was not fine-tuned, one of several heads, or a run of an older version",
                fix="leave --unknown out; or make the run again with multitl finetune --overwrite",
            )
        return cls(departure, familiarity)

    def prove(self, values: np.ndarray) -> dict[str, Any]:
        """Parity with Keras' own."""
        forward = compile_forward(self.departure.run.network)
        with self.departure.backend.full_precision():
            wanted = np.concatenate([predict_padded(forward, pixels)[:, -1:] for pixels in _batches(self.departure)])
        found = parity.compare(wanted, values)
        _insist(STRANGENESS, found)
        return asdict(found)

    def about(self) -> dict[str, Any]:
        """unknown_above: null where there are too few usual images to tell."""
        usual = [float(value) for value in self.familiarity.usual]
        return {"false_alarms": FALSE_ALARMS, "unknown_above": self.familiarity.unknown_above(), "usual": usual}


def _batches(departure: Departure) -> Iterator[np.ndarray]:
    pixels = departure.reference.pixels
    return (pixels[first : first + BATCH] for first in range(0, len(pixels), BATCH))


def _insist(name: str, found: parity.Parity, more: str = "", *, is_right: bool = True) -> None:
    if not parity.is_close(found) or not is_right:
        raise PortError(
            f"The artefact's output {name!r} is not that of the model it came from, so it was not kept.",
            expected=parity.LIMITS,
            received="; ".join(filter(None, [parity.describe(found), more])),
            fix=f"leave {SECOND[name]} out, and report this with the network",
        )
