"""Whether an artefact gives the answers of the model that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from multitl.contracts import Goal, Parity
from multitl.errors import PortError
from multitl.models.goals import goal_of
from multitl.models.preprocessing import normalise
from multitl.porting.departures import Departure
from multitl.porting.divergence import first_divergence
from multitl.porting.formats import FORMATS, Format
from multitl.porting.references import Reference
from multitl.translation import parity

MIN_AGREEMENT = 0.9  # share of images with the same class, of an artefact of 8 bits,
NEAR = 0.1  # deviations of the training images' numbers up to which two are taken for the same
MAX_LOSS = 0.03  # unless it is hardly less accurate: images that the model is unsure of change sides both ways


def prove(departure: Departure, outputs: np.ndarray, to: str, scratch: Path) -> dict[str, Any]:
    """The figures for the card. Raises PortError where the answers are not the same."""
    chosen, reference = FORMATS[to], departure.reference
    found = parity.compare(reference.outputs, outputs)
    card = departure.run.card
    goal = goal_of(card.recipe, card.scale)
    before, after = (_accuracy(reference, given, goal, card.thresholds) for given in (reference.outputs, outputs))
    if card.thresholds:  # nor have several labels one that is best
        found = replace(found, top1=overlap(*(given >= card.thresholds for given in (reference.outputs, outputs))))
    if card.scale:  # a number has no best class: those count as the same that are hardly apart
        found = replace(found, top1=_share_near(goal.as_targets(reference.outputs) - goal.as_targets(outputs)))
    if not _is_same(found, chosen, before, after):
        limit = f"the same answer on {MIN_AGREEMENT:.0%} of the images, or at most {MAX_LOSS:g} less accuracy"
        accuracies = "" if before is None else f"; accuracy {before:.3f}, now {after:.3f}"
        raise PortError(
            f"The model in the format {to} does not give the answers of the one it came from, so it was not kept.",
            expected=limit if chosen.bits < 32 else parity.LIMITS,
            received=f"{parity.describe(found)}{accuracies}{_where(departure, chosen, scratch)}",
            fix="choose another format (multitl ports lists them), and report this with the network",
        )
    return {
        "on": reference.origin,
        "calibrated_on": reference.calibrated_on if chosen.is_calibrated else None,
        **asdict(found),
        "accuracy_before": before,
        "accuracy_after": after,
    }


def _where(departure: Departure, chosen: Format, scratch: Path) -> str:
    """The first place that differs, where another backend may be to blame."""
    if chosen.bits < 32 or chosen.backend in ("", departure.backend.name):
        return ""
    images = normalise(departure.reference.pixels[:2], departure.run.card.preprocess)
    return f"; {first_divergence(departure.run.folder, images, chosen.backend, scratch)}"


def _is_same(found: Parity, chosen: Format, before: float | None, after: float | None) -> bool:
    if chosen.bits == 32:
        return parity.is_close(found)
    keeps_accuracy = before is not None and after is not None and after >= before - MAX_LOSS
    return found.top1 >= MIN_AGREEMENT or keeps_accuracy


def _share_near(differences: np.ndarray) -> float:
    """Of numbers, which differ by so many deviations of the training images'."""
    return float((np.abs(differences) <= NEAR).mean())


def overlap(labels: np.ndarray, others: np.ndarray) -> float:
    """F1 of all labels together, bool (n, k) both: answers of "no", which are most, count for nothing."""
    count = int(labels.sum() + others.sum())
    return 2 * int((labels & others).sum()) / count if count else 1.0


def _accuracy(reference: Reference, outputs: np.ndarray, goal: Goal, thresholds: Sequence[float]) -> float | None:
    """The share of right answers; of several labels F1; of numbers the share of the variance that is explained."""
    if reference.labels is None:
        return None
    if thresholds:
        return overlap(reference.labels, outputs >= thresholds)
    return goal.log_loss_and_accuracy(reference.labels, outputs)[1]
