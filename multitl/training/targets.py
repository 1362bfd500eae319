"""What training aims at and is judged by: labels, their weights, log loss and accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multitl.contracts import Dataset, Split
from multitl.recipes import Recipe


def targets_of(dataset: Dataset, recipe: Recipe, splits: Sequence[Split] = ("train",)) -> tuple[np.ndarray, np.ndarray]:
    """One-hot labels (n, classes) and weights (n,) of the images of these splits, float32."""
    labels = labels_of(dataset, *splits)
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    by_class = len(labels) / (len(counts) * counts) if recipe.class_weights == "balanced" else np.ones(len(counts))
    return np.eye(len(counts), dtype="float32")[labels], by_class[labels].astype("float32")


def labels_of(dataset: Dataset, *splits: Split) -> np.ndarray:
    """Class indices (n,) of the images of these splits, one split after the other."""
    return np.array([example.label for split in splits for example in dataset.split(split)])


def log_loss_and_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Mean negative log-probability of the true class, and the share of images whose best class is the true one."""
    chosen = probabilities[np.arange(len(labels)), labels].astype("float64")
    accuracy = np.mean(probabilities.argmax(axis=1) == labels)
    return float(-np.log(np.maximum(chosen, 1e-12)).mean()), float(accuracy)
