"""Several goals of one network, side by side: arrays (n, all) hold the columns of one goal after those of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from multitl.contracts import Goal, Loss
from multitl.models.numbers import Numbers

MOST_SPREAD = 4.0  # of a log variance: no head weighs more than e^4, or less than e^-4


@dataclass(frozen=True)
class Together:
    """goals: of the heads, in order.  sizes: how many columns each has."""

    goals: tuple[Goal, ...]
    sizes: tuple[int, ...]

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """Those of each goal, of (n, all); what comes after them is left out."""
        return np.split(values, np.cumsum(self.sizes), axis=1)[: len(self.sizes)]

    def activate(self, logits: np.ndarray) -> np.ndarray:
        """As `Goal.activate`."""
        return self._joined([goal.activate(part) for goal, part in self._pairs(logits)])

    def exact(self, outputs: np.ndarray) -> np.ndarray:
        """As `Goal.exact`."""
        return self._joined([goal.exact(part) for goal, part in self._pairs(outputs)])

    def as_targets(self, probabilities: np.ndarray) -> np.ndarray:
        """As `Goal.as_targets`."""
        return self._joined([goal.as_targets(part) for goal, part in self._pairs(probabilities)])

    def loss(self, smoothing: float, gamma: float, *, is_learned: bool) -> SumOfLosses:
        """Of all goals. is_learned: what each weighs is told by the network, see `SumOfLosses`."""
        losses = [goal.loss(smoothing, gamma) for goal in self.goals]
        # of a Gaussian's log-probability, as of a squared error, a half belongs to the square
        shares = [0.5 if isinstance(goal, Numbers) else 1.0 for goal in self.goals]
        return SumOfLosses(losses, self.sizes, shares if is_learned else None)

    def _pairs(self, values: np.ndarray) -> list[tuple[Goal, np.ndarray]]:
        return list(zip(self.goals, self.parts(values), strict=True))

    @staticmethod
    def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts, axis=1)


class SumOfLosses(keras.losses.Loss):
    """See `multitl.contracts.Loss`: the sum of several, each on columns of its own.

    Targets (n, all + heads) have one more column a head: what an image weighs for it, 0 where its target is missing.

    Where shares are given, the network's outputs have as many more: the log variance s of each head, which is learned
    (Kendall, Gal and Cipolla 2018, arXiv:1705.07115). A loss L then counts as share * L / e^s + s / 2.
    """

    def __init__(self, losses: Sequence[Loss], sizes: Sequence[int], shares: Sequence[float] | None) -> None:
        super().__init__(name="sum_of_losses")
        self.losses, self.shares, self.width = list(losses), shares, sum(sizes)
        self.stops = np.cumsum(sizes).tolist()
        self.starts = [0, *self.stops[:-1]]

    def call(self, targets: Any, outputs: Any) -> Any:
        """(n,)"""
        return sum(
            targets[:, self.width + place] * self._balanced(place, loss, targets, outputs)
            for place, loss in enumerate(self.losses)
        )

    def right(self, targets: Any, outputs: Any, counts: Any = None) -> Any:
        """The mean of all, each of the images that have its target."""
        ops, shares = keras.ops, []
        for place, loss in enumerate(self.losses):
            has_target = ops.cast(targets[:, self.width + place] > 0, "float32")
            shares.append(loss.right(*self._columns(place, targets, outputs), has_target))
        return sum(shares) / len(shares)

    def _columns(self, place: int, targets: Any, outputs: Any) -> tuple[Any, Any]:
        start, stop = self.starts[place], self.stops[place]
        return targets[:, start:stop], outputs[:, start:stop]

    def _balanced(self, place: int, loss: Loss, targets: Any, outputs: Any) -> Any:
        losses = loss.call(*self._columns(place, targets, outputs))
        if self.shares is None:
            return losses
        ops = keras.ops
        spread = ops.clip(outputs[:, self.width + place], -MOST_SPREAD, MOST_SPREAD)
        return self.shares[place] * ops.exp(-spread) * losses + spread / 2
