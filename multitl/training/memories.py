"""What an earlier run was judged on, to see what is left of what it had learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from multitl.contracts import Backend, Dataset, Peers, Pretrained
from multitl.data.pixels import PixelReader
from multitl.recipes import Recipe
from multitl.training.features import compute_plain_features, head_probabilities
from multitl.training.starts import Remembered, Start, remember


@dataclass(frozen=True, eq=False)
class Memory:
    """Its images, to be read again, and their features (n, channels) by the backbone before it is trained further."""

    remembered: Remembered
    reader: PixelReader
    features: np.ndarray

    @classmethod
    def of(
        cls,
        start: Start,
        dataset: Dataset,
        pretrained: Pretrained,
        recipe: Recipe,
        backend: Backend,
        sha256: str,
        peers: Peers,
    ) -> Memory | None:
        """None where no such image is left. sha256: of the backbone's weights."""
        remembered = remember(start, dataset)
        if not remembered:
            return None
        reader = PixelReader(remembered.examples, pretrained.preprocess)
        features = compute_plain_features(remembered.examples, reader, pretrained, recipe, backend, sha256, peers)
        return cls(remembered, reader, features)

    def judge_head(self, head: keras.Model) -> dict[str, Any]:
        """For the card, of a head on the backbone as it was."""
        return self.remembered.about(head_probabilities(head, self.features))

    def judge_network(self, predict: Callable[[PixelReader], np.ndarray]) -> dict[str, Any]:
        """For the card. predict: gives the probabilities (n, classes) of the images of a reader."""
        return self.remembered.about(predict(self.reader))
