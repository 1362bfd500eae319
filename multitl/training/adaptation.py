"""A finished classifier adapted to images of another domain, of which no labels are known.

Three things can be done, in closed form or forward only: batch normalisation is moved (`norm_statistics.py`), the head
is solved on training features that are coloured like the others (`coral.py`), or on the training images and the others
together, with labels that were carried to those (`transport.py`). The first goes with either of the rest. A head that
was trained rather than solved, as in fine-tuning, stays as it is; then only the first is left.

Which is best is judged without a label of the other domain: there and back (`domain_heads.py`), and the last by whether
the other domain shows the same things again, which alone decides whether it helps by 4 points or costs as many. Of
several labels an image nothing is carried, since that takes the shares of classes to be those of both domains. Of a
number, which has no probability, what comes back from there says little, so the way has to be named. How sure a
classifier is of those images (entropy, mutual information) was measured as well, and always prefers what was fitted to
them: see benchmarks/adaptation.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from scipy.special import entr

from multitl.contracts import Backend, Dataset, Example, Goal, Split
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader
from multitl.errors import RecipeError
from multitl.models.goals import goal_of
from multitl.models.norm_statistics import measure_moments, movable_norms, move_statistics
from multitl.models.weight_hashes import weights_sha256
from multitl.recipes import Recipe
from multitl.system.messages import say
from multitl.system.progress import waiting
from multitl.training.checkpoints import TrainingState
from multitl.training.domain_heads import (
    CORAL,
    NONE,
    NORM,
    TRANSPORT,
    and_back,
    fit_to_both,
    there_and_back,
)
from multitl.training.extractors import make_extractor, runtime_of
from multitl.training.feature_rows import Rows, joined
from multitl.training.feature_store import FeatureStore, compute_features
from multitl.training.features import JUDGED, feature_key, head_probabilities
from multitl.training.heads import task_of
from multitl.training.publishing import Publisher
from multitl.training.solved_head import Task, fill_head
from multitl.training.targets import goal_for, targets_of, truth_of
from multitl.training.transport import find_counterparts

BATCH = 64  # images that are normalised by their own moments while those of all are found
PRIOR = 32.0  # images that the training images' moments count as, beside the others' own

TRAIN: tuple[Split, ...] = ("train",)
ALL: tuple[Split, ...] = ("train", "validation")

Weights = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True, eq=False)
class Seen:
    """Features (n, channels) as the network sees images in one of its two states: with the batch normalisations
    (`norms`: their weights) that it has, or with moved ones. target: of the unlabelled images.  judged: by split."""

    name: str
    norms: Weights
    target: Rows
    judged: dict[Split, Rows]


@dataclass(frozen=True, eq=False)
class Way:
    """One way to adapt, what it promises, and what it gives.

    kind: what the head is fitted to; NONE, CORAL or TRANSPORT.  log_loss, accuracy: there and back.
    entropy: mean, of the probabilities of the unlabelled images, in nats.  judged: probabilities by split; of the
    validation images from before the head was fitted to them too.
    """

    seen: Seen
    kind: str
    log_loss: float
    accuracy: float
    entropy: float
    judged: dict[Split, np.ndarray]

    @property
    def name(self) -> str:
        return name_way(self.seen, self.kind)


def adapt(publisher: Publisher, state: TrainingState, backend: Backend) -> dict[str, Any]:
    """Try the ways on a classifier that was published, and publish the most promising in its place, if it is not none.

    Returns what the card says: see `Adaptation` in cards.py.
    """
    adapter, asked = Adapter(publisher, state, backend), publisher.recipe.adapt
    with waiting("adapting "):
        ways = list(adapter.ways())
        share, are_clear = adapter.counterparts(ways[0])
        chosen = choose(ways, are_clear) if asked == "auto" else ways[-1]
        about = {
            "images": len(publisher.dataset.unlabelled),
            "chosen": chosen.name,
            "counterparts": share,
            "tried": [_describe(way, publisher) for way in ways],
        }
        is_refitted = publisher.recipe.refit
        if chosen.name == NONE:
            adapter.settle(chosen, ALL if is_refitted else TRAIN)
        else:
            answers, familiarity = adapter.settle(chosen, TRAIN), publisher.learn_familiarity()
            if is_refitted:
                answers = adapter.settle(chosen, ALL)
            publisher.publish_adapted(answers, chosen.judged, state, about, familiarity)
    say(describe_adaptation(about))
    return about


def choose(ways: Sequence[Way], has_counterparts: bool) -> Way:
    """Labels are carried where the other domain shows the same things again, and only there; else what promises most.

    That promise is out of fold, where the counterpart of what is held out has no label: it says nothing of them.
    """
    by_name = {way.name: way for way in ways}
    if has_counterparts and TRANSPORT in by_name:
        return by_name[TRANSPORT]
    return min((way for way in ways if way.kind != TRANSPORT), key=lambda way: way.log_loss)


def check_adaptable(network: keras.Model, recipe: Recipe) -> None:
    """Raises RecipeError where the recipe asks to move batch normalisations, and the network has none."""
    if recipe.unlabelled and NORM in recipe.adapt.split("+") and not movable_norms(network):
        raise RecipeError(
            f"{recipe.backbone} has no batch normalisation that could be moved.",
            expected="a network with batch normalisation, or another way to adapt",
            received=f"adapt = {recipe.adapt!r}",
            fix="--adapt auto",
        )


def describe_adaptation(about: Mapping[str, Any]) -> str:
    """Lines for the terminal."""
    by_name = {one["name"]: one for one in about["tried"]}
    promises = ", ".join(f"{name} {one['log_loss']:.4f}" for name, one in by_name.items())
    relatives = (
        f"; {about['counterparts']:.0%} of the training images have a closer relative there than among themselves"
    )
    are_carried = any(TRANSPORT in name for name in by_name)
    lines = [
        f"to {about['images']} images without labels: log loss there and back: {promises}{relatives * are_carried}",
        f"adapted by: {about['chosen']}",
    ]
    if about["chosen"] != NONE:
        before, after = by_name[NONE]["figures"], by_name[about["chosen"]]["figures"]
        changes = (f"{it} {before[it]['accuracy']:.3f} -> {after[it]['accuracy']:.3f}" for it in before)
        lines[-1] += f"; accuracy: {', '.join(changes)}"
    return "\n".join(lines)


def entropy(given: np.ndarray, labels: str) -> float:
    """The mean of images, in nats: of classes, or of labels that are there or not, in all; numbers have none."""
    if labels == "number":
        return 0.0
    surprise = entr(given) if labels == "one" else entr(given) + entr(1 - given)
    return float(surprise.sum(axis=1).mean())


def name_way(seen: Seen, kind: str) -> str:
    """As the option `adapt` has it."""
    return "+".join(part for part in (seen.name, kind) if part != NONE) or NONE


class Adapter:
    """Puts a published classifier into the states that the ways ask for."""

    def __init__(self, publisher: Publisher, state: TrainingState, backend: Backend) -> None:
        self._publisher, self._backend = publisher, backend
        self._solved = None if state.kept else publisher.solved
        self._network = publisher.pretrained.backbone
        preprocess = publisher.pretrained.preprocess
        self._unlabelled = PixelReader(publisher.dataset.unlabelled, preprocess, store=PixelStore(preprocess))

    def ways(self) -> Iterator[Way]:
        """The first leaves the classifier as it is; then all others, or the one that is asked for."""
        asked = self._publisher.recipe.adapt
        own = self._see(NONE)
        kinds: tuple[str, ...] = (NONE, CORAL, TRANSPORT) if self._solved else (NONE,)
        kinds = kinds if self._publisher.recipe.labels == "one" else kinds[:2]
        yield from (self._try(own, kind, own) for kind in kinds if self._is_wanted(own, kind))
        if movable_norms(self._network) and (asked == "auto" or NORM in asked.split("+")):
            self._move()
            moved = self._see(NORM)
            yield from (self._try(moved, kind, own) for kind in kinds if self._is_wanted(moved, kind))

    def counterparts(self, way: Way) -> tuple[float, bool]:
        """See `find_counterparts`. way: one in which the network is as it was trained."""
        if not self._solved or self._publisher.recipe.labels != "one":
            return 0.0, False
        return find_counterparts(self._publisher.features.train[0], way.seen.target, self._publisher.recipe.seed)

    def settle(self, way: Way, splits: Sequence[Split]) -> np.ndarray:
        """Leave the classifier as this way has it, its head fitted to these parts; what it says of the validation
        images then (n, classes)."""
        for layer, weights in zip(movable_norms(self._network), way.seen.norms, strict=True):
            layer.set_weights(weights)
        self._fit(way.kind, splits, way.seen.target)
        return head_probabilities(self._publisher.head, way.seen.judged["validation"], self._goal)

    def _is_wanted(self, seen: Seen, kind: str) -> bool:
        return self._publisher.recipe.adapt in ("auto", name_way(seen, kind)) or name_way(seen, kind) == NONE

    def _see(self, name: str) -> Seen:
        dataset, readers = self._publisher.dataset, self._publisher.readers
        return Seen(
            name,
            [layer.get_weights() for layer in movable_norms(self._network)],
            self._features(dataset.unlabelled, self._unlabelled),
            {one: self._features(dataset.split(one), readers[one]) for one in JUDGED if dataset.split(one)},
        )

    def _move(self) -> None:
        preprocess, count = self._publisher.pretrained.preprocess, len(self._unlabelled)
        source = measure_moments(self._network, preprocess, _batches(self._publisher.readers["train"]))
        share = count / (count + PRIOR)
        target = measure_moments(self._network, preprocess, _batches(self._unlabelled), source, share)
        move_statistics(self._network, source, {name: source[name].mixed(target[name], share) for name in source})

    def _try(self, seen: Seen, kind: str, own: Seen) -> Way:
        """own: as the network saw the images in training."""
        self._fit(kind, TRAIN, seen.target)
        given, judged = head_probabilities(self._publisher.head, seen.target, self._goal), self._judge(seen)
        if self._solved:
            loss, accuracy = there_and_back(kind, self._solved, self._task(TRAIN), seen.target)
            if self._publisher.recipe.refit:
                self._fit(kind, ALL, seen.target)
                judged = self._judge(seen) | {"validation": judged["validation"]}
        else:
            labels, _ = targets_of(*self._about, ("validation",))
            aims, goal = self._goal.as_targets(given), goal_of(self._publisher.recipe)
            loss, accuracy = and_back(aims, seen.target, own.judged["validation"], labels, goal)
        return Way(seen, kind, loss, accuracy, entropy(given, self._publisher.recipe.labels), judged)

    def _judge(self, seen: Seen) -> dict[Split, np.ndarray]:
        return {
            split: head_probabilities(self._publisher.head, values, self._goal) for split, values in seen.judged.items()
        }

    def _fit(self, kind: str, splits: Sequence[Split], target: Rows) -> None:
        """Solve the head anew, if it was solved."""
        if self._solved:
            fill_head(self._publisher.head, fit_to_both(kind, self._solved, self._task(splits), target).solution)

    def _task(self, splits: Sequence[Split]) -> Task:
        features = self._publisher.features
        more = [features.judged[split] for split in JUDGED if split in splits]
        return task_of([joined([view, *more]) for view in features.train], splits, *self._about)

    @property
    def _goal(self) -> Goal:
        return goal_for(*self._about)

    @property
    def _about(self) -> tuple[Dataset, Recipe]:
        return self._publisher.dataset, self._publisher.recipe

    def _features(self, examples: Sequence[Example], reader: PixelReader) -> Rows:
        """Of the network as it is now, (n, channels): stored ones, where it was like that before."""
        pretrained, recipe = self._publisher.pretrained, self._publisher.recipe
        runtime, sha256 = runtime_of(self._backend, recipe), weights_sha256(self._network)
        key = feature_key(pretrained, recipe, self._backend.name, runtime, sha256, None)
        extractor = partial(make_extractor, pretrained, recipe.pooling, runtime)
        return compute_features(extractor, examples, reader, FeatureStore(key, self._network.output_shape[-1])).values


def _batches(reader: PixelReader) -> Iterator[np.ndarray]:
    """All images in batches of nearly one size, none so small that its moments say little."""
    parts = max(1, len(reader) // BATCH)
    return reader.batches(part.tolist() for part in np.array_split(np.arange(len(reader)), parts))


def _describe(way: Way, publisher: Publisher) -> dict[str, Any]:
    """For the card."""
    figures, goal = {}, goal_for(publisher.dataset, publisher.recipe)
    for split, probabilities in way.judged.items():
        truth = truth_of(publisher.dataset, publisher.recipe, split)
        loss, accuracy = goal.log_loss_and_accuracy(truth, probabilities)
        figures[split] = {"log_loss": loss, "accuracy": accuracy}
    promise = {name: getattr(way, name) for name in ("name", "log_loss", "accuracy", "entropy")}
    return promise | {"figures": figures}
