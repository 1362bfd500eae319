"""Which head: a linear one, unless the same cross-validation shows that another is better by more than luck.

The textbook's rule, the simplest within one standard error of the best, was measured and is not used: with few images
that error is so large that the nearest class mean wins, and loses up to 3 points of test accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from multitl.contracts import Peers
from multitl.models.feature_maps import FeatureMap, directed, rippled, scaled
from multitl.recipes import Recipe
from multitl.runs.cards import HEAD_TITLES, Compared, HeadKind, Tried
from multitl.training.class_means import attempt_means, find_means
from multitl.training.large_tasks import draw, is_large, penalty_for
from multitl.training.softmax_regression import SoftmaxRegression, Solution
from multitl.training.solved_head import Attempt, Task, attempt, solve
from multitl.training.streamed_regression import StreamedRegression

WIDTHS = (1.0, 0.5, 2.0)  # of a kernel, in median distances; all are tried if it is asked for, else the first alone
MOST_UNASKED = 8000  # images x classes, views counted, up to which a kernel is tried unasked: three seconds
CLEAR = 2.0  # standard errors of the mean difference between two heads' losses of the same images


@dataclass(frozen=True, eq=False)
class KnownHead:
    """The linear head of an earlier run, for the classes of another. rows: (width + 1, classes), kernel and bias after
    `fixed`; zero for a class that it did not have.
    """

    fixed: FeatureMap
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class SolvedHead:
    """A head's last layer, what stands before it, and how both were chosen; see `SolvedHead` in cards.py.

    prior: what the layer was drawn towards, if it was; see `Samples`.  sample: how many images chose, if not all of
    them did.  penalties: of labels that each have their own; `penalty` is then the best one for all of them.
    """

    kind: HeadKind
    fixed: FeatureMap
    solution: Solution
    penalty: float
    scale: float | None
    tried: tuple[Tried, ...]
    compared: tuple[Compared, ...]
    prior: np.ndarray | None = None
    sample: int | None = None
    penalties: tuple[float, ...] | None = None

    def about(self) -> dict[str, Any]:
        """For the card."""
        return {
            "kind": self.kind,
            "penalty": self.penalty,
            "scale": self.scale,
            "gradient": self.solution.gradient,
            "tried": list(self.tried),
            "compared": list(self.compared),
            "sample": self.sample,
            "penalties": list(self.penalties or ()),
        }

    def __str__(self) -> str:
        if self.kind == "mean":
            return "the nearest class mean"
        least, most = min(self.penalties or (self.penalty,)), max(self.penalties or (self.penalty,))
        penalty = f"penalty {least:g}" if least == most else f"penalties {least:g} to {most:g}"
        return f"the solved {'kernel ' if self.kind == 'kernel' else ''}head, {penalty}"

    def verdict(self, loss: str = "log loss") -> str:
        """What was compared, in a line; empty where nothing was. loss: what it is called."""
        figures = (f"{HEAD_TITLES[one['kind']]} {one['log_loss']:.4f}" for one in self.compared)
        on = f" of {self.sample:,} images" if self.sample else ""
        return f"{loss} out of fold{on}: {', '.join(figures)}" if len(self.compared) > 1 else ""


@threadpool_limits.wrap(limits=1, user_api="blas")
def choose_head(task: Task, recipe: Recipe) -> SolvedHead:
    """Fit a head to stored features: the kind that the recipe names, or of "auto" the one that is clearly best.

    Raises RunError where rounding keeps the minimum from being found.

    BLAS computes in one thread: its threads wait for each other where another process holds a core, up to a hundred
    times as long as they compute; and the same sums come out on any number of cores.

    Of features that do not fit into memory a sample chooses, and all of them are passed over for the answer.

    Of several processes the first one chooses, since processors of two kinds may choose two ways.
    """
    some = draw(task)
    return _fit_to_all(_of_the_first(task.peers, lambda: _choose(some, recipe)), task, some, recipe)


@threadpool_limits.wrap(limits=1, user_api="blas")
def solve_again(chosen: SolvedHead, task: Task) -> Solution:
    """The same head fitted to other images, most or a sample of which it knows: what was chosen for it stays, and the
    search begins at its answer.
    """
    if chosen.kind == "mean" and chosen.scale:
        return find_means(task, chosen.fixed, chosen.scale)
    penalty = chosen.penalties or chosen.penalty
    if is_large(task):
        peers = task.peers
        streamed = StreamedRegression(task, chosen.fixed, chosen.prior, peers.rank, peers.size, peers.sum)
        return solve(streamed, penalty, chosen.solution)
    regression = SoftmaxRegression(task.samples(chosen.fixed, chosen.prior))
    return solve(regression, penalty, regression.coordinates(chosen.solution))


@threadpool_limits.wrap(limits=1, user_api="blas")
def draw_towards(known: KnownHead, task: Task, recipe: Recipe) -> SolvedHead:
    """A head of the same kind as one that is known, fitted to other images and drawn towards it; how strongly is chosen
    by cross-validation like any penalty, so what these images do not say stays as it was.
    """
    kind: HeadKind = "linear" if known.fixed.waves is None else "kernel"
    some = draw(task)

    def choose() -> SolvedHead:
        chosen = attempt(kind, some, known.fixed, recipe.l2, prior=known.rows)
        return SolvedHead(
            kind, known.fixed, chosen.solve(), chosen.penalty, None, chosen.tried, (), known.rows,
            penalties=chosen.penalties,
        )  # fmt: skip

    return _fit_to_all(_of_the_first(task.peers, choose), task, some, recipe)


def _choose(task: Task, recipe: Recipe) -> SolvedHead:
    attempts = _attempts(task, recipe)
    chosen = _clear_winner(attempts)
    compared = tuple(_compare(one, attempts[0]) for one in attempts if one.losses.size)
    solution = chosen.solve()
    return SolvedHead(
        chosen.kind, chosen.fixed, solution, chosen.penalty, chosen.scale, chosen.tried, compared,
        penalties=chosen.penalties,
    )  # fmt: skip


def _of_the_first(peers: Peers, choose: Callable[[], SolvedHead]) -> SolvedHead:
    """What `choose` gives on rank 0, for all."""
    head = choose() if peers.rank == 0 else None
    given = {} if head is None else _arrays_of(head)
    about = peers.first(lambda: head and head.about() | {"size": head.fixed.size, "arrays": list(given)})
    arrays = dict(zip(about["arrays"], peers.broadcast_arrays(list(given.values())), strict=True))
    if head:
        return head
    waves = (arrays["directions"], arrays["phases"]) if "directions" in arrays else None
    return SolvedHead(
        about["kind"], FeatureMap(about["size"], arrays.get("centre"), waves),
        Solution(arrays["kernel"], arrays["bias"], about["gradient"]), about["penalty"], about["scale"],
        tuple(about["tried"]), tuple(about["compared"]), arrays.get("prior"),
        penalties=tuple(about["penalties"]) or None,
    )  # fmt: skip


def _arrays_of(head: SolvedHead) -> dict[str, np.ndarray]:
    directions, phases = head.fixed.waves or (None, None)
    named = {
        "kernel": head.solution.kernel, "bias": head.solution.bias, "centre": head.fixed.centre,
        "directions": directions, "phases": phases, "prior": head.prior,
    }  # fmt: skip
    return {name: array for name, array in named.items() if array is not None}


def _fit_to_all(head: SolvedHead, task: Task, some: Task, recipe: Recipe) -> SolvedHead:
    """What was chosen on some of the images fitted to all of them, if it was not."""
    if some is task:
        return head
    penalty = recipe.l2 or penalty_for(task, some, head.penalty)
    penalties = head.penalties and tuple(penalty_for(task, some, one) for one in head.penalties)
    head = replace(head, penalty=penalty, penalties=penalties, sample=len(some.labels))
    return replace(head, solution=solve_again(head, task))


def _attempts(task: Task, recipe: Recipe) -> list[Attempt]:
    """The first is what the others have to beat. A penalty that is given leaves nothing to compare."""
    if recipe.head == "mean":
        return [attempt_means(task, directed(task.views[0][:]))]
    if recipe.head == "kernel":
        return [_attempt_kernel(task, recipe, WIDTHS)]
    linear = attempt("linear", task, scaled(task.views[0][:]), recipe.l2)
    if recipe.head == "linear" or not linear.losses.size:
        return [linear]
    means = [attempt_means(task, directed(task.views[0][:]))] if recipe.labels == "one" else []
    is_quick = task.labels.size * len(task.views) <= MOST_UNASKED
    return [linear, *means, *([_attempt_kernel(task, recipe, WIDTHS[:1])] if is_quick else [])]


def _attempt_kernel(task: Task, recipe: Recipe, widths: Sequence[float]) -> Attempt:
    """The best of some widths; the first where there is nothing to choose by."""

    def of_width(width: float) -> Attempt:
        return attempt("kernel", task, rippled(task.views[0][:], width, recipe.seed), recipe.l2, width)

    best = of_width(widths[0])
    for width in widths[1:] if best.losses.size else ():  # one after the other: each holds all images' waves
        best = min(best, of_width(width), key=lambda one: one.losses.mean())
    return best


def _clear_winner(attempts: list[Attempt]) -> Attempt:
    """The first, or of those that clearly beat it the best."""
    clear = [one for one in attempts[1:] if is_clearly_better(one, attempts[0], CLEAR)]
    return min(clear, key=lambda one: one.losses.mean(), default=attempts[0])


def is_clearly_better(one: Attempt, first: Attempt, errors: float) -> bool:
    """In log loss, by so many standard errors, and not by confidence alone: where every image is right already, there
    is nothing to gain. Of labels that an image mostly has not, "no" to each is nearly right, so the loss alone tells.
    """
    compared, is_of_labels = _compare(one, first), first.penalties is not None
    gains = first.accuracy < 1 if is_of_labels else one.accuracy > first.accuracy
    return compared["difference"] < -errors * compared["standard_error"] and gains


def _compare(one: Attempt, first: Attempt) -> Compared:
    difference = one.losses - first.losses
    return {
        "kind": one.kind,
        "log_loss": float(one.losses.mean()),
        "accuracy": one.accuracy,
        "difference": float(difference.mean()),
        "standard_error": float(difference.std() / np.sqrt(len(difference))),
    }
