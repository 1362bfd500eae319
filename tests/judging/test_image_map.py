"""The report's map of the judged images."""

from __future__ import annotations

import re

import numpy as np
from scipy.special import softmax

from multitl.judging.image_map import MOST_IMAGES, MOST_NAMED, draw_map
from multitl.judging.predictions import Predictions


def three_clouds(count: int, classes: int = 3) -> Predictions:
    random, labels = np.random.default_rng(0), np.arange(count) % classes
    logits = 8 * np.eye(classes)[labels] + random.normal(size=(count, classes))
    names, paths = tuple(f"class {i}" for i in range(classes)), tuple(f"{i}.png" for i in range(count))
    return Predictions(names, ("test",) * count, paths, labels, softmax(logits, axis=1).astype("float32"))


def places(dots: str) -> np.ndarray:
    return np.array([[float(value) for value in pair] for pair in re.findall(r"M([\d.]+) ([\d.]+)h", dots)])


def test_classes_lie_apart_and_mistakes_are_rings():
    found = three_clouds(60)
    predicted = found.probabilities.argmax(axis=1)
    predicted[[0, 4]] = 2
    drawn = draw_map(found, predicted)
    assert (drawn.shown, drawn.total, drawn.is_named) == (60, 60, True) and 0.9 < drawn.share <= 1
    assert [dot.text for group in drawn.groups for dot in group.wrong] == [
        "class 0, called class 2", "class 1, called class 2",
    ]  # fmt: skip
    clouds = [places(group.dots) for group in drawn.groups]
    assert [len(one) for one in clouds] == [19, 19, 20]
    middles = np.array([one.mean(axis=0) for one in clouds])
    spread = max(np.linalg.norm(one - one.mean(axis=0), axis=1).mean() for one in clouds)
    apart = min(np.linalg.norm(middles[i] - middles[j]) for i in range(3) for j in range(i))
    assert apart > 5 * spread
    every = np.concatenate(clouds)
    assert (every >= 0).all() and (every <= [drawn.width, drawn.height]).all()


def test_of_many_images_some_are_shown():
    found = three_clouds(5 * MOST_IMAGES, MOST_NAMED + 1)
    drawn = draw_map(found, found.labels)
    assert drawn.shown == MOST_IMAGES and not drawn.is_named and len(drawn.groups) == MOST_NAMED + 1
    assert len({group.hue for group in drawn.groups}) == MOST_NAMED + 1


def test_without_a_plane_nothing_is_drawn():
    two = three_clouds(20, 2)
    assert draw_map(two, two.labels) is None
    few = three_clouds(2)
    assert draw_map(few, few.labels) is None
    alike = Predictions(("a", "b", "c"), ("test",) * 4, ("p",) * 4, np.zeros(4, int), np.full((4, 3), 1 / 3, "float32"))
    assert draw_map(alike, alike.labels).groups[0].wrong == []
