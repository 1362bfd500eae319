"""A frozen backbone, the short way: its features once, then epochs of the new head on those."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from PIL import Image

from multitl.bench.jobs import Example, Job

HEAD_BATCH = 32


class HeadLoop(Protocol):
    def extract(self, batches: Iterable[np.ndarray]) -> np.ndarray: ...
    def head_epoch(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]: ...
    def head_weights(self) -> tuple[np.ndarray, np.ndarray]: ...


def fit_head(
    loop: HeadLoop, job: Job, train: Sequence[Example], validation: Sequence[Example]
) -> Iterator[tuple[float, float]]:
    """Yields seconds and validation accuracy after each epoch."""
    started = time.perf_counter()
    features, judged = features_of(loop, job, train), features_of(loop, job, validation)
    size = max(float(np.sqrt(np.mean(np.square(features)))), 1e-12)  # one learning rate suits every network
    features, judged = features / size, judged / size
    labels, truth = (np.array([example.label for example in split]) for split in (train, validation))
    random = np.random.default_rng(job.seed)
    for _ in range(job.epochs):
        order = np.resize(random.permutation(len(labels)), (-(-len(labels) // HEAD_BATCH), HEAD_BATCH))
        loop.head_epoch((features[rows], labels[rows]) for rows in order)
        kernel, bias = loop.head_weights()
        accuracy = np.mean((judged @ kernel + bias).argmax(1) == truth)
        yield time.perf_counter() - started, float(accuracy)


def features_of(loop: HeadLoop, job: Job, examples: Sequence[Example]) -> np.ndarray:
    return loop.extract(read_batches(job, examples))[: len(examples)]


def read_batches(job: Job, examples: Sequence[Example]) -> Iterator[np.ndarray]:
    """uint8 (batch, size, size, 3), decoded in threads two batches ahead; the last one filled up to the full size."""
    size = job.cell.batch_size
    with ThreadPoolExecutor(job.threads) as pool:
        futures = [pool.submit(read, example.path, job.image_size) for example in examples[: 3 * size]]
        for start in range(0, len(examples), size):
            ahead = examples[len(futures) : start + 4 * size]
            futures += [pool.submit(read, example.path, job.image_size) for example in ahead]
            images = [future.result() for future in futures[start : start + size]]
            futures[start : start + size] = [None] * len(images)  # type: ignore[list-item]
            yield np.stack(images + [images[0]] * (size - len(images)))


def read(path: str, size: int) -> np.ndarray:
    """torchvision's Resize and CenterCrop: the shorter side to 256/224 of `size`, the centre cut out."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    scale = round(size * 256 / 224) / min(picture.size)
    short = round(size * 256 / 224)
    width, height = (short if side == min(picture.size) else int(side * scale) for side in picture.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
