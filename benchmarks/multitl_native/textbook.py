"""The loop that many people start from: a pretrained network with `requires_grad = False`, a new last layer, Adam on
it, and a DataLoader; the backbone is computed anew in every epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from multitl.bench.jobs import Example, Job
from multitl_native.pytorch import DEVICE, describe, open_backbone, open_head, open_optimizer
from multitl_native.torch_pipeline import open_loader
from multitl_native.weights import DEVIATION, MEAN

__all__ = ["describe", "open_loop"]


def open_loop(job: Job) -> TextbookLoop:
    if job.cell.task not in ("head", "predict", "load"):
        raise LookupError("the textbook loop trains a head only")
    return TextbookLoop(job)


class TextbookLoop:
    """Satisfies `multitl.bench.jobs.Loop`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        backbone = open_backbone(job).to(memory_format=torch.contiguous_format)
        for parameter in backbone.parameters():
            parameter.requires_grad = False
        self.fc = open_head(job)
        self.model = nn.Sequential(backbone, self.fc)
        self.optimizer = open_optimizer(job, self.fc.parameters())

    def trainable(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def predict(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        self.model.eval()
        with torch.no_grad():
            return torch.cat([self.model(prepare(pixels)) for pixels in batches]).cpu().numpy()

    def extract(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Its pass over the images is an epoch of training."""
        labels = np.zeros(self.job.cell.batch_size, "int64")
        self._epoch((pixels, labels) for pixels in batches)
        return np.zeros((0, self.fc.in_features), "float32")

    def finetune(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        raise LookupError("the textbook loop trains a head only")

    def train_head(self, batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        return self._epoch(batches)

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> Iterator[tuple[float, float]]:
        started = time.perf_counter()
        batches = open_loader(self.job, train, shuffle=True)
        judged = open_loader(self.job, validation, shuffle=False)
        for _ in range(self.job.epochs):
            self._epoch(batches)
            right = sum(int((self.predict([pixels]).argmax(1) == labels.numpy()).sum()) for pixels, labels in judged)
            yield time.perf_counter() - started, right / len(validation)
            if time.perf_counter() - started > self.job.seconds:
                return

    def wait(self) -> None:
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    def peak_device_bytes(self) -> int:
        return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else 0

    def _epoch(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        self.model.eval()  # frozen batch normalisation keeps its statistics: the recipe's more careful variant
        losses = []
        for pixels, labels in batches:
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(prepare(pixels)), torch.as_tensor(labels).to(DEVICE))
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses


def prepare(pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 (batch, height, width, 3) -> standardised float32 (batch, 3, height, width)."""
    images = torch.as_tensor(pixels).to(DEVICE).permute(0, 3, 1, 2).contiguous().float() / 255
    mean, deviation = (torch.tensor(values, device=DEVICE)[:, None, None] for values in (MEAN, DEVIATION))
    return (images - mean) / deviation
