"""What is reviewed: the images of a finished run, in the parts that they were in, and their features."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from multitl.contracts import Backend, Dataset, Example, Forward, Pretrained, Split
from multitl.data.pixels import PixelReader
from multitl.data.scanning import leave_out
from multitl.judging.evaluation import tell_left_out
from multitl.judging.opening import Run
from multitl.models.weight_hashes import weights_sha256
from multitl.recipes import Recipe
from multitl.reviewing.asked import find_data
from multitl.runs.images import content_of, read_images
from multitl.sources.run import open_model, pretrained_of
from multitl.system.messages import warn
from multitl.system.progress import progress_bar
from multitl.training.extractors import make_extractor, runtime_of
from multitl.training.feature_rows import Rows
from multitl.training.feature_store import DamagedImagesError, FeatureStore, compute_features
from multitl.training.features import feature_key
from multitl.training.finetuning import scan_for


@dataclass(frozen=True, eq=False)
class Subject:
    """features: (n, channels), of `dataset.examples` in their order: train, validation, test."""

    run: Run
    dataset: Dataset
    recipe: Recipe
    features: Rows
    extracting: Extracting

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.dataset.examples]

    def rows(self, *splits: Split) -> list[int]:
        """Of the examples, those of these parts."""
        return [row for row, one in enumerate(self.dataset.examples) if one.split in splits]


def open_subject(run: Run, data: str | os.PathLike[str] | None, backend: Backend) -> Subject:
    """Features are those in the store, of images that it lacks they are computed. What cannot be read is left out, and
    named on stderr, however much it is.
    """
    recipe, path = replace(run.card.recipe, max_unreadable=1.0), find_data(run, data)
    known = {one.content: one.split for one in read_images(run.folder) or ()}
    dataset = scan_for(path, recipe, lambda sha256: known.get(content_of(sha256)))
    if not recipe.unlabelled and dataset.fingerprint != run.card.data.fingerprint:
        warn(f"The images, labels or parts in {path} are others by now than {run.folder} was made of.")
    extracting = Extracting(run, backend, recipe.with_all_channels(dataset.channels))
    while True:
        try:
            features = extracting.features(dataset.examples)
        except DamagedImagesError as found:
            dataset = leave_out(dataset, found.damaged, recipe.max_unreadable)
        else:
            tell_left_out(dataset.unreadable)
            return Subject(run, dataset, recipe, features, extracting)


class NotStoredError(Exception):
    """Some features are not in the store."""


class Extracting:
    """The backbone of a run, as it was fine-tuned, and the features that it gives."""

    def __init__(self, run: Run, backend: Backend, recipe: Recipe) -> None:
        self.backend, self.recipe = backend, recipe
        self.pretrained = pretrained_of(run.folder, run.card, open_model(run.folder, run.card))
        self.runtime = runtime_of(backend, recipe)
        self._sha256 = weights_sha256(self.pretrained.backbone)

    def features(self, examples: Sequence[Example]) -> Rows:
        """(n, channels) float32. Raises DamagedImagesError.

        Those of a backbone that stayed as it was have been stored by its name. They are taken if all are there, and
        none is added by that name: a card may say any.
        """
        reader = PixelReader(examples, self.pretrained.preprocess, memory_limit=0)
        make = partial(make_extractor, self.pretrained, self.recipe.pooling, self.runtime)
        with contextlib.suppress(NotStoredError):
            return compute_features(_refuse, examples, reader, self._store(replace(self.pretrained, content=""))).values
        with progress_bar() as bar:
            advance = partial(bar.advance, bar.add_task("features ", total=len(examples), note=""))
            return compute_features(make, examples, reader, self._store(self.pretrained), advance=advance).values

    def _store(self, pretrained: Pretrained) -> FeatureStore:
        key = feature_key(pretrained, self.recipe, self.backend.name, self.runtime, self._sha256, None)
        return FeatureStore(key, pretrained.backbone.output_shape[-1])


def _refuse() -> Forward:
    raise NotStoredError
