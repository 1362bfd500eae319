"""Two runs on the same images: by how much one is better, and whether that is more than luck. Loads no framework.

Both runs are judged on the same resamples of the images (a paired bootstrap), so what makes an image hard for either
cancels out: the interval of a difference is narrower than those of its two figures tell. Whose answers are better more
often is asked of the images on which one is right and the other wrong alone (McNemar 1947; of numbers, on which one is
nearer: a sign test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from multitl.judging.label_metrics import AT_ONCE, drawn, log_losses, resampled_figures
from multitl.judging.metrics import EPSILON, interval

FIGURES = {  # by the recipe's `labels`: what runs are compared by, the first decides
    "one": ("accuracy", "f1_macro", "log_loss"),
    "several": ("map", "f1_macro", "subset_accuracy", "log_loss"),
    "number": ("mae", "rmse", "r2"),
}
LESS_IS_BETTER = ("log_loss", "mae", "rmse")


@dataclass(frozen=True, eq=False)
class Answers:
    """What a run says of n images. kind: the recipe's `labels`.

    truth, given: class indices, int (n,); labels, bool (n, k); or numbers, float64 (n,).
    probabilities: float64 (n, k); of numbers (n, 1), what was said.
    """

    kind: str
    truth: np.ndarray
    given: np.ndarray
    probabilities: np.ndarray

    def of(self, rows: Sequence[int]) -> Answers:
        """Only of these images."""
        chosen = np.asarray(rows, dtype=int)
        return Answers(self.kind, self.truth[chosen], self.given[chosen], self.probabilities[chosen])

    @property
    def losses(self) -> np.ndarray:
        """(n,): log losses, of labels their sums; absolute errors of numbers."""
        if self.kind == "one":
            sure = self.probabilities[np.arange(len(self.truth)), self.truth]
            return -np.log(sure.clip(EPSILON, 1 - EPSILON))
        if self.kind == "several":
            return log_losses(self.truth, self.probabilities)
        return np.abs(self.given - self.truth)

    @property
    def right(self) -> np.ndarray:
        """(n,): whether all of the answer is right."""
        same = self.given == self.truth
        return same.all(axis=1) if self.kind == "several" else same

    def figures(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """FIGURES by name -> (resamples,); nan where a resample has none. counts: how often each image was drawn,
        (resamples, n).
        """
        if self.kind == "one":
            return _class_figures(self, counts)
        if self.kind == "several":
            found = resampled_figures(self.truth, self.given, self.probabilities, counts)
            found["log_loss"] = counts @ self.losses / len(self.truth)
            return {name: found[name] for name in FIGURES["several"]}
        return _number_figures(self, counts)


@dataclass(frozen=True)
class Difference:
    """A figure of two runs on the same images. difference: the second's minus the first's, with its 95 % interval."""

    first: float
    second: float
    difference: float
    interval: tuple[float, float]

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval[0] > 0 or self.interval[1] < 0


@dataclass(frozen=True)
class Duel:
    """Two runs on the same images: differences by the figure's name, and the images on which one alone does well.

    only_first, only_second: images that one run alone has right, of numbers where it is nearer.  both, neither: right;
    None of numbers.  p_value: how likely so unequal a division of those is if both runs are as good, exactly.
    """

    images: int
    differences: dict[str, Difference]
    only_first: int
    only_second: int
    both: int | None
    neither: int | None
    p_value: float


def figures_of(answers: Answers, seed: int = 0, resamples: int = 1000) -> dict[str, tuple[float, list[float]] | None]:
    """Each figure of one run with its 95 % interval; None where there is none."""
    point, parts = _resampled([answers], seed, resamples)
    return {
        name: (value, interval(parts[0][name], value)) if np.isfinite(value) else None
        for name, value in point[0].items()
    }


def compare_pair(first: Answers, second: Answers, seed: int = 0, resamples: int = 1000) -> Duel:
    """Of the same images in the same order. A figure that either does not have is left out."""
    (own, other), (ours, theirs) = _resampled([first, second], seed, resamples)
    differences = {}
    for name, before in own.items():
        after = other[name]
        if np.isfinite(before) and np.isfinite(after):
            low, high = interval(theirs[name] - ours[name], after - before)
            differences[name] = Difference(before, after, after - before, (low, high))
    if first.kind == "number":
        firsts, seconds = first.losses < second.losses, second.losses < first.losses
        both = neither = None
    else:
        firsts, seconds = first.right & ~second.right, second.right & ~first.right
        both, neither = int((first.right & second.right).sum()), int((~first.right & ~second.right).sum())
    only_first, only_second = int(firsts.sum()), int(seconds.sum())
    p_value = mcnemar(only_first, only_second)
    return Duel(len(first.truth), differences, only_first, only_second, both, neither, p_value)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value of McNemar's test: of a fair coin, so unequal or more."""
    from scipy.stats import binomtest  # a second of work

    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several questions, each made as much larger as asking so many takes (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    raised = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    adjusted = np.empty(len(p_values))
    adjusted[order] = raised
    return [float(value) for value in adjusted]


def _resampled(
    runs: Sequence[Answers], seed: int, resamples: int
) -> tuple[list[dict[str, float]], list[dict[str, np.ndarray]]]:
    """Figures of each run on all images, and on the same resamples of them (resamples,)."""
    count = len(runs[0].truth)
    whole = np.ones((1, count), "float32")
    point = [{name: float(values[0]) for name, values in run.figures(whole).items()} for run in runs]
    draws, at_once = drawn(count, seed, resamples), max(1, AT_ONCE // count)
    parts: list[list[dict[str, np.ndarray]]] = []
    while some := list(islice(draws, at_once)):
        parts.append([run.figures(np.stack(some)) for run in runs])
    return point, [
        {name: np.concatenate([part[place][name] for part in parts]) for name in point[place]}
        for place in range(len(runs))
    ]


def _class_figures(answers: Answers, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Macro F1 is over the classes that occur, as in `metrics.score`."""
    count, classes = answers.probabilities.shape
    right = answers.right
    f1 = np.empty(len(counts))
    for place, weights in enumerate(counts):
        support = np.bincount(answers.truth, weights, classes)
        named = np.bincount(answers.given, weights, classes)
        hits = np.bincount(answers.truth, weights * right, classes)
        f1[place] = (2 * hits / np.maximum(support + named, 1)).sum() / (support + named > 0).sum()
    return {
        "accuracy": counts @ right.astype(float) / count,
        "f1_macro": f1,
        "log_loss": counts @ answers.losses / count,
    }


def _number_figures(answers: Answers, counts: np.ndarray) -> dict[str, np.ndarray]:
    count, centred = len(answers.truth), answers.truth - answers.truth.mean()
    squares = counts @ np.square(answers.losses) / count
    spread = counts @ np.square(centred) / count - np.square(counts @ centred / count)
    has_spread = spread > 1e-12 * max(1e-300, float(np.square(centred).mean()))
    return {
        "mae": counts @ answers.losses / count,
        "rmse": np.sqrt(squares),
        "r2": 1 - squares / np.where(has_spread, spread, np.nan),
    }
