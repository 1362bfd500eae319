"""A run that goes on from another: what of that one is the start, and how much of what it had learned is left.

Its backbone is the start as it is. Of its head the rows of classes or labels that are still there are kept and new ones
begin at zero; the row of a number is kept. What that means hangs on which images are given. Where those that the run
was trained on are among them, they say it all again, and a head that is solved is solved anew: its answer does not
depend on a start. Where they are not, the old rows are all that is left of them, so the head is drawn towards them
(head_choice.py:draw_towards). A head that is trained starts from them. Old images stay in the part that they were in,
so that none is judged on that was trained on; where the old rows were fitted to validation images too, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Dataset, Pretrained, Scale, Split
from multitl.errors import RunError, shorten
from multitl.judging.opening import load_run
from multitl.models.feature_maps import FeatureMap, read_feature_map
from multitl.recipes import Recipe
from multitl.runs.cards import Card
from multitl.runs.images import BETWEEN, KnownImage, content_of, read_images
from multitl.sources.run import open_model, pretrained_of
from multitl.system.hashes import file_sha256
from multitl.system.paths import expanded
from multitl.training.head_choice import KnownHead, SolvedHead
from multitl.training.solved_head import is_solved

ENOUGH = 0.5  # of the images that a run was trained on: with fewer, its rows say more than they do


@dataclass(frozen=True)
class Start:
    """A finished run, opened. sha256: of its model.keras.  images: None where it did not write them down."""

    folder: Path
    card: Card
    sha256: str
    images: tuple[KnownImage, ...] | None

    def settle(self, recipe: Recipe) -> Recipe:
        """The recipe with what the run's backbone is made of, as the run's own card has it."""
        return replace(recipe, backbone=self.card.recipe.backbone, weights=self.card.recipe.weights)

    def split_before(self, sha256: str) -> Split | None:
        """The part that an image was in."""
        known = self._by_content.get(content_of(sha256))
        return known.split if known else None

    @cached_property
    def model(self) -> keras.Model:
        return open_model(self.folder, self.card)

    def pretrained(self) -> Pretrained:
        """Its backbone, as it was fine-tuned."""
        return pretrained_of(self.folder, self.card, self.model)

    @cached_property
    def head(self) -> keras.Model:
        """Features (batch, channels) -> logits (batch, classes). Raises RunError for a damaged one."""
        try:
            head = self.model.get_layer("head")
            is_head = head.output_shape == (None, len(self.card.class_names))
            if is_head and len(head.get_layer("logits").get_weights()) == 2:
                return head
        except (ValueError, AttributeError) as error:
            raise self._damaged(f"{error}"[:200]) from error
        raise self._damaged(f"a head that gives {head.output_shape}")

    def rows(self, class_names: tuple[str, ...], scale: Scale | None = None) -> np.ndarray:
        """Kernel and bias of the last layer (width + 1, classes): of each class its own, zero for a new one.

        scale: by which numbers are standardised now; the rows then say the same numbers as before.
        """
        old = np.vstack([weight.reshape(-1, len(self.card.class_names)) for weight in self._last_layer()])
        if scale and self.card.scale:
            old *= self.card.scale.deviation / scale.deviation
            old[-1] += (self.card.scale.mean - scale.mean) / scale.deviation
        rows = np.zeros((len(old), len(class_names)))
        for place, name in enumerate(class_names):
            if name in self.card.class_names:
                rows[:, place] = old[:, self.card.class_names.index(name)]
        return rows

    def known_head(self, class_names: tuple[str, ...], scale: Scale | None = None) -> KnownHead | None:
        """For these classes, or by this scale; None where it is not linear in something fixed."""
        is_linear = not any(layer.name == "hidden" for layer in self.head.layers)
        return KnownHead(self.fixed, self.rows(class_names, scale)) if is_linear else None

    @cached_property
    def fixed(self) -> FeatureMap:
        """What its head begins with."""
        try:
            return read_feature_map(self.head)
        except (ValueError, AttributeError, ZeroDivisionError) as error:
            raise self._damaged(f"{error}"[:200]) from error

    def fill(self, head: keras.Model, class_names: tuple[str, ...], scale: Scale | None = None) -> None:
        """Make a new head of the same form begin where the old one ended; one of another form stays as it is drawn."""
        old, new = ([layer.name for layer in one.layers if layer.weights] for one in (self.head, head))
        if old != new or [one.shape for one in self.head.weights[:-2]] != [one.shape for one in head.weights[:-2]]:
            return
        for name in new[:-1]:
            head.get_layer(name).set_weights(self.head.get_layer(name).get_weights())
        rows = self.rows(class_names, scale).astype("float32")
        head.get_layer("logits").set_weights([rows[:-1], rows[-1]])

    def stands(self, dataset: Dataset) -> bool:
        """Whether its head may be the best as it is: one that was trained together with the backbone, and so saw no
        validation image, of which no class is wanting.
        """
        is_trained = bool(self.card.trials and self.card.trials.kept)
        has_all = set(dataset.class_names) <= set(self.card.class_names)
        return is_trained and has_all and self.is_all_here(dataset) and self.known_head(dataset.class_names) is not None

    def is_same(self, dataset: Dataset) -> bool:
        """Whether it was made of these very images, labels and parts, so that they say nothing new."""
        return dataset.fingerprint == self.card.data.fingerprint

    def presence(self, dataset: Dataset) -> tuple[int, int] | None:
        """How many images of classes that are still there it was trained on, and how many of them are here."""
        if self.images is None:
            return None
        here = {content_of(one.sha256) for one in dataset.examples}
        trained = [one for one in self.images if one.split != "test" and self._is_of(one, dataset.class_names)]
        return len(trained), sum(one.content in here for one in trained)

    def is_all_here(self, dataset: Dataset) -> bool:
        """Whether the images say again what the run had learned; where it is not known, they are taken to."""
        counts = self.presence(dataset)
        return counts is None or counts[1] >= ENOUGH * counts[0]

    def about(self, dataset: Dataset) -> dict[str, Any]:
        """For the card."""
        old, counts = self.card.class_names, self.presence(dataset)
        return {
            "run": str(self.folder),
            "model_sha256": self.sha256,
            "kept": [name for name in dataset.class_names if name in old],
            "new": [name for name in dataset.class_names if name not in old],
            "dropped": [name for name in old if name not in dataset.class_names],
            "images": counts and counts[0],
            "known": counts and counts[1],
        }

    def _is_of(self, image: KnownImage, class_names: tuple[str, ...]) -> bool:
        """Whether what was true of it can be said: its class, one of its labels if it has any, a number always."""
        if self.card.recipe.labels == "several":
            return not image.label or any(name in class_names for name in image.label.split(BETWEEN))
        return image.label in class_names

    @cached_property
    def _by_content(self) -> Mapping[str, KnownImage]:
        return {one.content: one for one in self.images or ()}

    def _last_layer(self) -> list[np.ndarray]:
        return [np.asarray(weight, "float64") for weight in self.head.get_layer("logits").get_weights()]

    def _damaged(self, received: str) -> RunError:
        return RunError(
            f"The classifier of {self.folder} cannot be gone on from.",
            expected="the model that multitl finetune wrote, with one output a class",
            received=received,
            fix=f"take its backbone alone: --backbone {self.folder} without --from",
        )


def open_start(recipe: Recipe) -> Start | None:
    """The run that a recipe goes on from; None if it begins anew. Raises RunError for a missing or damaged one."""
    if not recipe.from_run:
        return None
    run = load_run(expanded(recipe.from_run))
    path = run.card.model_file(run.folder)
    try:
        return Start(run.folder, run.card, file_sha256(path), read_images(run.folder))
    except OSError as error:
        raise RunError(
            f"Cannot read {path}.",
            expected="the model that multitl finetune wrote",
            received=error.strerror or str(error),
            fix="go on from another run, or make this one again with --overwrite",
        ) from error


def what_became(recipe: Recipe, solved: SolvedHead | None) -> str:
    """Of the run's head, for the card."""
    if not is_solved(recipe):
        return "trained on"
    if solved is None:
        return "as it was"
    return "solved anew" if solved.prior is None else "drawn towards it"


def warn_of_start(start: Start, dataset: Dataset, recipe: Recipe) -> list[str]:
    """What whoever goes on from a run should know: classes that are gone, images that are not given again, and images
    that are judged on now though the run was trained on them."""
    about, is_all_here, warnings = start.about(dataset), start.is_all_here(dataset), list[str]()
    if about["dropped"]:
        warnings.append(
            f"No image shows {shorten(about['dropped'])}, so the new classifier does not know that any more: "
            "give images of each class that is to be kept."
        )
    if not is_all_here:
        warnings.append(
            f"{about['known']:,} of the {about['images']:,} images that {start.folder} was trained on are among these: "
            "of the others its classifier is what is left. All images together give the better one."
        )
    warnings += _warn_of_seen(start, dataset, "test", "train", "were training images of")
    keeps_rows = not (is_solved(recipe) and is_all_here)
    if keeps_rows and start.card.solved_head and start.card.solved_head.refitted:
        warnings += _warn_of_seen(start, dataset, "validation", "validation", "in the end trained the head of")
    return warnings


def _warn_of_seen(start: Start, dataset: Dataset, now: Split, before: Split, how: str) -> list[str]:
    there = dataset.split(now)
    seen = sum(start.split_before(one.sha256) == before for one in there)
    if not seen:
        return []
    return [f"{seen:,} of the {len(there):,} {now} images {how} {start.folder}, so the figures on them flatter."]
