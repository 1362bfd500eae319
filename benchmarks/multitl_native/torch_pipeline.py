"""PyTorch's input pipeline: a Dataset of image files with torchvision's transforms behind a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from multitl_torch.torchvision import import_torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from multitl.bench.jobs import Example, Job
from multitl_native.pytorch import describe

__all__ = ["describe", "open_loader", "read"]


class Pictures(Dataset):
    """Pixels uint8 (size, size, 3) and label of each file: resize the shorter side, cut out the centre."""

    def __init__(self, examples: Sequence[Example], size: int) -> None:
        transforms = import_torchvision().transforms
        self.examples = examples
        self.transform = transforms.Compose([transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)])

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        example = self.examples[index]
        with Image.open(example.path) as image:
            return np.asarray(self.transform(image.convert("RGB"))), example.labels[0]


def open_loader(job: Job, examples: Sequence[Example], *, shuffle: bool) -> DataLoader:
    """As many worker processes as there are threads to use."""
    generator = torch.Generator().manual_seed(job.seed)
    return DataLoader(
        Pictures(examples, job.image_size), job.cell.batch_size, shuffle, num_workers=job.threads,
        persistent_workers=True, generator=generator,
    )  # fmt: skip


def read(job: Job, examples: Sequence[Example]) -> Iterable[int]:
    for pixels, _ in open_loader(job, examples, shuffle=False):
        yield len(pixels)
