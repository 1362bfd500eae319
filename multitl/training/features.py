"""Which features a run needs: one pass over the training images a view, and one over each split that is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import keras
import numpy as np
import PIL

from multitl.contracts import Backend, Dataset, Example, Goal, Peers, Pretrained, Split
from multitl.data.pixels import PixelReader
from multitl.data.scanning import leave_out
from multitl.distribution.peers import ALONE_PEERS
from multitl.models.goals import GOALS
from multitl.models.inference import index_batches, predict_batches
from multitl.recipes import Recipe
from multitl.system.progress import progress_bar
from multitl.training.extractors import make_extractor, runtime_of
from multitl.training.feature_rows import Rows
from multitl.training.feature_store import DamagedImagesError, FeatureStore, View, compute_features
from multitl.version import __version__

JUDGED: tuple[Split, ...] = ("validation", "test")
HEAD_BATCH = 256


@dataclass(frozen=True)
class RunFeatures:
    """Pooled features (n, channels) float32: one array a view for training, one for each split that is judged."""

    train: list[Rows]
    judged: dict[Split, Rows]
    computed: int
    reused: int

    def probabilities(self, head: keras.Model, goal: Goal = GOALS["one"]) -> dict[Split, np.ndarray]:
        """What the whole classifier would say, at the cost of the head alone."""
        return {split: head_probabilities(head, values, goal) for split, values in self.judged.items()}


def head_probabilities(head: keras.Model, features: Rows, goal: Goal = GOALS["one"]) -> np.ndarray:
    """Features (n, channels) -> probabilities (n, classes) float32."""
    return goal.activate(head_logits(head, features))


def head_logits(head: keras.Model, features: Rows) -> np.ndarray:
    """Features (n, channels) -> (n, classes) float32."""
    batches = (features[indices] for indices in index_batches(range(len(features)), HEAD_BATCH))
    logits = predict_batches(head.predict_on_batch, batches, HEAD_BATCH)  # Keras keeps what it compiled for it
    return np.concatenate(list(logits))


def compute_run_features(
    dataset: Dataset,
    pretrained: Pretrained,
    recipe: Recipe,
    backend: Backend,
    sha256: str,
    readers: dict[Split, PixelReader],
    peers: Peers = ALONE_PEERS,
) -> RunFeatures:
    """Every pass over the images that the head's training and judging need; what the store knows is not computed.

    sha256: of the backbone's weights.  readers: give the pixels of each split's examples, in order.
    peers: who share the work.
    """
    strength = "none" if recipe.augment == "auto" else recipe.augment
    views = [View(strength, recipe.seed, index) for index in range(recipe.views)] if strength != "none" else [None]
    judged = [split for split in JUDGED if dataset.split(split)]
    passes: list[tuple[Split, View | None]] = [("train", view) for view in views] + [(split, None) for split in judged]
    runtime = runtime_of(backend, recipe)
    extractor = cache(partial(make_extractor, pretrained, recipe.pooling, runtime))
    results = []
    with progress_bar() as bar:
        task = bar.add_task("features ", total=sum(len(dataset.split(split)) for split, _ in passes), note="")
        for split, view in passes:
            channels = pretrained.backbone.output_shape[-1]  # which pooling keeps
            store = FeatureStore(feature_key(pretrained, recipe, backend.name, runtime, sha256, view), channels)
            examples, advance = dataset.split(split), partial(bar.advance, task)
            results.append(compute_features(extractor, examples, readers[split], store, view, advance, peers))
    values = [result.values for result in results]
    return RunFeatures(
        values[: len(views)],
        dict(zip(judged, values[len(views) :], strict=True)),
        sum(result.computed for result in results),
        sum(result.reused for result in results),
    )


def compute_features_of_readable(
    dataset: Dataset, pretrained: Pretrained, recipe: Recipe, backend: Backend, sha256: str,
    make_readers: Callable[[Dataset], dict[Split, PixelReader]], peers: Peers = ALONE_PEERS,
) -> tuple[Dataset, dict[Split, PixelReader], RunFeatures]:  # fmt: skip
    """`compute_run_features`, and the data set without the images that turned out to be damaged, and its readers.

    Raises DataError for more of them than the recipe puts up with.
    """
    while True:
        readers = make_readers(dataset)
        try:
            features = compute_run_features(dataset, pretrained, recipe, backend, sha256, readers, peers)
            return dataset, readers, features
        except DamagedImagesError as found:
            dataset = leave_out(dataset, found.damaged, recipe.max_unreadable)


def compute_plain_features(
    examples: Sequence[Example], reader: PixelReader, pretrained: Pretrained, recipe: Recipe, backend: Backend,
    sha256: str, peers: Peers = ALONE_PEERS,
) -> Rows:  # fmt: skip
    """Of images beside the data set's: (n, channels) float32, without augmentation."""
    runtime = runtime_of(backend, recipe)
    key = feature_key(pretrained, recipe, backend.name, runtime, sha256, None)
    store = FeatureStore(key, pretrained.backbone.output_shape[-1])
    extractor = partial(make_extractor, pretrained, recipe.pooling, runtime)
    return compute_features(extractor, examples, reader, store, peers=peers).values


def feature_key(
    pretrained: Pretrained, recipe: Recipe, backend: str, runtime: str, sha256: str, view: View | None
) -> dict:
    """Everything but the image that a stored feature depends on."""
    return {
        "multitl": __version__,  # decoding and resizing
        "pillow": PIL.__version__,
        "weights": sha256,
        "backbone": pretrained.content or pretrained.name,
        "preprocess": asdict(pretrained.preprocess),
        "pooling": recipe.pooling,
        "precision": recipe.precision,
        "backend": backend,  # whose own features they are where the runtime's were not the same
        "runtime": runtime,
        "view": asdict(view) | {"drawn": "by image"} if view else None,
    }
