"""A finished classifier adapted to images of another domain, of which no labels are known.

Three things can be done, in closed form or forward only: batch normalisation is moved (`norm_statistics.py`), the head
is solved on training features that are coloured like the others (`coral.py`), or on the training images and the others
together, with labels that were carried to those (`transport.py`). The first goes with either of the rest. A head that
was trained rather than solved, as in fine-tuning, stays as it is; then only the first is left.

Which is best is judged there and back, without a label of the other domain (`domain_heads.py`). How sure a classifier
is of those images (entropy, mutual information) was measured as well, and always prefers what was fitted to them: see
benchmarks/adaptation.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
from scipy.special import entr

from multitl.contracts import Backend, Dataset, Example, Split
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader
from multitl.errors import RecipeError
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
from multitl.training.feature_store import FeatureStore, compute_features
from multitl.training.features import JUDGED, feature_key, head_probabilities
from multitl.training.heads import task_of
from multitl.training.publishing import Publisher
from multitl.training.solved_head import Task, fill_head
from multitl.training.targets import labels_of, log_loss_and_accuracy, targets_of

BATCH = 64  # images that are normalised by their own moments while those of all are found
PRIOR = 32.0  # images that the training images' moments count as, beside the others' own

Weights = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True, eq=False)
class Way:
    """One way to adapt, and what it promises.

    norms: the weights of the batch normalisations, moved or not.  head: NONE, CORAL or TRANSPORT.
    target: features (m, channels) of the unlabelled images.  log_loss, accuracy: there and back.
    entropy: mean, of the probabilities of the unlabelled images, in nats.
    """

    name: str
    norms: Weights
    head: str
    target: np.ndarray
    log_loss: float
    accuracy: float
    entropy: float

    def about(self) -> dict[str, Any]:
        """For the card."""
        return {name: getattr(self, name) for name in ("name", "log_loss", "accuracy", "entropy")}


@dataclass(frozen=True, eq=False)
class Judged:
    """answers: probabilities of the validation images that the model gives which is saved.  by_split: those to judge
    it by, of the validation images from before the head was fitted to them too."""

    answers: np.ndarray
    by_split: dict[Split, np.ndarray]


def adapt(publisher: Publisher, state: TrainingState, backend: Backend) -> dict[str, Any]:
    """Try the ways on a classifier that was published, and publish the most promising in its place, if it is not none.

    Returns what the card says: see `Adaptation` in cards.py.
    """
    adapter, asked = Adapter(publisher, state, backend), publisher.recipe.adapt
    with waiting("adapting "):
        ways = list(adapter.ways())
        chosen = min(ways, key=lambda way: way.log_loss) if asked == "auto" else ways[-1]
        before = adapter.judge(ways[0])
        after = adapter.judge(chosen)  # the network is left like that
        about = {
            "images": len(publisher.dataset.unlabelled),
            "chosen": chosen.name,
            "tried": [way.about() for way in ways],
            "before": _figures(publisher, before),
            "after": _figures(publisher, after),
        }
        if chosen.name != NONE:
            publisher.publish_adapted(after.answers, after.by_split, state, about)
    say(describe_adaptation(about))
    return about


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
    promises = ", ".join(f"{one['name']} {one['log_loss']:.4f}" for one in about["tried"])
    lines = [f"adapted to {about['images']} images without labels: {about['chosen']}; there and back: {promises}"]
    if about["chosen"] != NONE:
        changes = (
            f"{split} {about['before'][split]['accuracy']:.3f} -> {after['accuracy']:.3f}"
            for split, after in about["after"].items()
        )
        lines.append(f"accuracy on images like those of training: {', '.join(changes)}")
    return "\n".join(lines)


class Adapter:
    """Puts a published classifier into the states that the ways ask for."""

    def __init__(self, publisher: Publisher, state: TrainingState, backend: Backend) -> None:
        self._publisher, self._backend = publisher, backend
        self._solved = None if state.kept else publisher.solved
        self._network = publisher.pretrained.backbone
        self._own = self._norms()
        preprocess = publisher.pretrained.preprocess
        self._unlabelled = PixelReader(publisher.dataset.unlabelled, preprocess, store=PixelStore(preprocess))

    def ways(self) -> Iterator[Way]:
        """The first leaves the classifier as it is; all others, or the one that is asked for."""
        asked = self._publisher.recipe.adapt
        for norms in self._states(asked):
            self._put(norms)
            target = self._features(self._publisher.dataset.unlabelled, self._unlabelled)
            for head in (NONE, CORAL, TRANSPORT) if self._solved else (NONE,):
                parts = [NORM] * (norms is not self._own) + [head] * (head != NONE)
                name = "+".join(parts) or NONE
                if name in (NONE, asked) or asked == "auto":
                    yield self._try(name, norms, head, target)

    def judge(self, way: Way) -> Judged:
        """The classifier stays as this way has it."""
        self._put(way.norms)
        publisher = self._publisher
        splits = [split for split in JUDGED if publisher.dataset.split(split)]
        seen = {split: self._features(publisher.dataset.split(split), publisher.readers[split]) for split in splits}
        self._fit(way.head, ("train",), way.target)
        by_split = {split: head_probabilities(publisher.head, values) for split, values in seen.items()}
        if not self._solved or not publisher.recipe.refit:
            return Judged(by_split["validation"], by_split)
        self._fit(way.head, ("train", "validation"), way.target)
        refitted = {split: head_probabilities(publisher.head, values) for split, values in seen.items()}
        return Judged(refitted["validation"], refitted | {"validation": by_split["validation"]})

    def _states(self, asked: str) -> Iterator[Weights]:
        """Weights of the batch normalisations: the network's own, and those moved to the other domain."""
        yield self._own
        if self._own and (asked == "auto" or NORM in asked.split("+")):
            self._put(self._own)
            yield self._moved()

    def _moved(self) -> Weights:
        preprocess, count = self._publisher.pretrained.preprocess, len(self._unlabelled)
        source = measure_moments(self._network, preprocess, _batches(self._publisher.readers["train"]))
        share = count / (count + PRIOR)
        target = measure_moments(self._network, preprocess, _batches(self._unlabelled), source, share)
        move_statistics(self._network, source, {name: source[name].mixed(target[name], share) for name in source})
        return self._norms()

    def _try(self, name: str, norms: Weights, kind: str, target: np.ndarray) -> Way:
        head = self._publisher.head
        if self._solved:
            loss, accuracy = there_and_back(kind, self._solved, self._task(("train",)), target)
            self._fit(kind, ("train",), target)
            given = head_probabilities(head, target)
        else:
            given = head_probabilities(head, target)
            loss, accuracy = and_back(given, target, self._held, targets_of(*self._about, ("validation",))[0])
        return Way(name, norms, kind, target, loss, accuracy, float(entr(given).sum(axis=1).mean()))

    @cached_property
    def _held(self) -> np.ndarray:
        """Features of the validation images, as they were trained for."""
        now = self._norms()
        self._put(self._own)
        found = self._features(self._publisher.dataset.split("validation"), self._publisher.readers["validation"])
        self._put(now)
        return found

    def _fit(self, kind: str, splits: Sequence[Split], target: np.ndarray) -> None:
        """Solve the head anew, if it was solved."""
        if self._solved:
            fill_head(self._publisher.head, fit_to_both(kind, self._solved, self._task(splits), target).solution)

    def _task(self, splits: Sequence[Split]) -> Task:
        features = self._publisher.features
        more = [features.judged[split] for split in JUDGED if split in splits]
        return task_of([np.concatenate([view, *more]) for view in features.train], splits, *self._about)

    @property
    def _about(self) -> tuple[Dataset, Recipe]:
        return self._publisher.dataset, self._publisher.recipe

    def _features(self, examples: Sequence[Example], reader: PixelReader) -> np.ndarray:
        """Of the network as it is now, (n, channels): stored ones, where it was like that before."""
        pretrained, recipe = self._publisher.pretrained, self._publisher.recipe
        runtime, sha256 = runtime_of(self._backend, recipe), weights_sha256(self._network)
        key = feature_key(pretrained, recipe, self._backend.name, runtime, sha256, None)
        extractor = partial(make_extractor, pretrained, recipe.pooling, runtime)
        return compute_features(extractor, examples, reader, FeatureStore(key, self._network.output_shape[-1])).values

    def _norms(self) -> Weights:
        return [layer.get_weights() for layer in movable_norms(self._network)]

    def _put(self, norms: Weights) -> None:
        for layer, weights in zip(movable_norms(self._network), norms, strict=True):
            layer.set_weights(weights)


def _batches(reader: PixelReader) -> Iterator[np.ndarray]:
    """All images in batches of nearly one size, none so small that its moments say little."""
    parts = max(1, len(reader) // BATCH)
    return reader.batches(part.tolist() for part in np.array_split(np.arange(len(reader)), parts))


def _figures(publisher: Publisher, judged: Judged) -> dict[Split, dict[str, float]]:
    """Log loss and accuracy by split."""
    found: dict[Split, dict[str, float]] = {}
    for split, probabilities in judged.by_split.items():
        loss, accuracy = log_loss_and_accuracy(labels_of(publisher.dataset, split), probabilities)
        found[split] = {"log_loss": loss, "accuracy": accuracy}
    return found
