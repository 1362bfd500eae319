"""The images that the report will show, looked at in the pass that proves the saved file: it costs next to nothing.

Where maps would not be exact, nothing is looked at: `multitl explain` shows the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from multitl.contracts import Dataset, Split
from multitl.data.pixels import PixelReader
from multitl.explaining.explainers import Explainer, Heatmap, Look, exact_explainer_of
from multitl.judging.costs import cost_matrix
from multitl.judging.findings import Picture, telling_pictures
from multitl.judging.predictions import Predictions
from multitl.judging.reporting import MOST_PICTURES
from multitl.recipes import Recipe
from multitl.runs.heatmaps import ClassMap, Heatmaps, ImageMaps
from multitl.training.targets import truth_of

_DIGITS = 5  # of a number in a map, which becomes a colour


@dataclass(frozen=True, eq=False)
class Mistakes:
    """pictures: of this split; none where an image has not one class.  pixels: theirs, uint8 (n, h, w, channels)."""

    split: Split
    names: tuple[str, ...]
    pictures: list[Picture]
    pixels: np.ndarray
    _maps: list[ImageMaps] = field(default_factory=list)

    def ask(self, model: keras.Model, sample: np.ndarray) -> np.ndarray:
        """What the model says of a sample, as `save_model` wants to know it."""
        size = len(sample) + len(self.pictures)
        explainer = exact_explainer_of(model, size) if self.pictures else None
        if explainer is None:
            return np.asarray(model.predict_on_batch(sample))
        look = explainer.look(np.concatenate([sample, self.pixels]))
        self._maps[:] = self._seen(explainer, look.of(slice(len(sample), None)))
        return look.outputs[: len(sample)]

    def heatmaps(self) -> Heatmaps:
        """What was seen when the model was asked."""
        return Heatmaps(split=self.split, images=tuple(self._maps))

    def _seen(self, explainer: Explainer, look: Look) -> list[ImageMaps]:
        said, true = (
            explainer.explain(look, [self.names.index(name) for name in names])
            for names in zip(*((one.predicted, one.true) for one in self.pictures), strict=True)
        )
        rows = zip(self.pictures, said, true, strict=True)
        return [ImageMaps(place=one.place, maps=_maps_of(one, *maps)) for one, *maps in rows]


def mistakes_of(
    dataset: Dataset, judged: Mapping[Split, np.ndarray], recipe: Recipe, readers: Mapping[Split, PixelReader]
) -> Mistakes:
    """As the report will choose them. judged: probabilities by split."""
    split: Split = "test" if "test" in judged else "validation"
    examples, names = dataset.split(split), dataset.class_names
    if recipe.labels != "one":
        return Mistakes(split, names, [], np.empty(0, "uint8"))
    paths = tuple(one.path for one in examples)
    known = Predictions(names, (split,) * len(paths), paths, truth_of(dataset, recipe, split), judged[split])
    pictures, _ = telling_pictures(known, MOST_PICTURES, cost_matrix(recipe.costs, names))
    return Mistakes(split, names, pictures, readers[split].read([one.place for one in pictures]))


def _maps_of(picture: Picture, said: Heatmap, true: Heatmap) -> tuple[ClassMap, ...]:
    maps = {picture.predicted: said, picture.true: true}
    return tuple(
        ClassMap(name=name, error=float(f"{one.error or 0:.1e}"), values=_rounded(one.values))
        for name, one in maps.items()
    )


def _rounded(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{value:.{_DIGITS}g}") for value in row) for row in values)
