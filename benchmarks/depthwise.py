"""JAX on a CPU: depthwise convolutions as shifted products beside XLA's own: `python benchmarks/depthwise.py [RUNS]`.

Interleaved in one process, batch 32 of EfficientNet-Lite0 at 224 px: features (inference), and one training step of the
whole network (forward, backward, Adam). Prints medians and the ratio of medians; writes Markdown.
"""

from __future__ import annotations

import datetime
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from startup import machine

import multitl
from multitl.adapters import load_backend
from multitl.models.heads import build_extractor, build_head
from multitl.recipes import Recipe
from multitl.training.phases import compile_model

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
LABELS = np.eye(10, dtype="float32")[np.arange(32) % 10]


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    backend = load_backend("jax")
    print(f"# Depthwise convolution on JAX\n\n{machine()}; {runs} runs each, interleaved; {datetime.date.today()}.\n")
    print("| | XLA's own, s | shifted products, s | ratio | largest difference |\n|---|---:|---:|---:|---:|")
    for name, build in (("features of 32 images", build_features), ("training step, 32 images", build_step)):
        steps, firsts = [], []
        for paths in (nullcontext(), backend.fast_paths()):
            with paths:
                step = build()
                firsts.append(step())  # traced and compiled here, inside the context
            steps.append(step)
        slow, fast = map(statistics.median, interleave(*steps, runs))
        difference = np.abs(np.asarray(firsts[0]) - np.asarray(firsts[1])).max()
        print(f"| {name} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} | {difference:.1e} |", flush=True)


def build_features() -> Callable[[], np.ndarray]:
    """A step that computes pooled features."""
    extractor = build_extractor(multitl.load_pretrained("pypi/efficientnet_lite0"), "avg")
    return lambda: extractor.predict_on_batch(PIXELS)


def build_step() -> Callable[[], np.ndarray]:
    """A step that trains the whole network and gives its loss; the learning rate is too small to change anything."""
    pretrained = multitl.load_pretrained("pypi/efficientnet_lite0")
    extractor = build_extractor(pretrained, "avg")
    head = build_head(np.ones((1, 1280), "float32"), 10, Recipe())
    model = keras.Model(extractor.input, head(extractor.output))
    compile_model(model, Recipe(), 1e-12)
    return lambda: model.train_on_batch(PIXELS, LABELS, return_dict=True)["loss"]


def interleave(one: Callable, other: Callable, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of each run: A B A B ..."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for step, kept in zip((one, other), seconds, strict=True):
            started = time.perf_counter()
            step()
            kept.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
