"""Transfer learning in PyTorch as an expert writes it: torchvision's own network, channels last, the frozen part
without gradient, losses read once at the end; `torch.compile` on request (native-torch-compile).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
import torch
from multitl_torch.torchvision import import_torchvision
from torch import nn

from multitl.bench.jobs import Example, Job
from multitl_native.weights import (
    BETAS,
    DEVIATION,
    EPSILON,
    MEAN,
    MOMENTUM,
    NETWORKS,
    network_name,
    new_head,
    read_weights,
)  # fmt: skip
from multitl_native.whole_job import fit_head

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
CLASSIFIERS = {"resnet18": "fc", "resnet50": "fc", "vit_b_32": "heads"}  # the others: "classifier"
Pixels: TypeAlias = "np.ndarray | torch.Tensor"  # (batch, height, width, 3) uint8


def describe() -> tuple[dict[str, str], list[str]]:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    versions = {"torch": str(torch.__version__), "torchvision": import_torchvision().__version__}
    return versions, names or ["Apple GPU (MPS)" if DEVICE.type == "mps" else "CPU"]


def open_loop(job: Job) -> TorchLoop:
    forbid_tf32()
    return TorchLoop(job)


def forbid_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def open_backbone(job: Job) -> nn.Module:
    """torchvision's network with its weights, without classifier and stochastic depth: pixels -> (batch, channels)."""
    name = network_name(job.cell.backbone)
    models = import_torchvision().models
    options = {"image_size": job.image_size} if name.startswith("vit_") else {}
    network = models.get_model(name, weights=None, **options)
    for part in network.modules():
        if type(part).__name__ == "StochasticDepth":
            part.p = 0.0
    setattr(network, CLASSIFIERS.get(name, "classifier"), nn.Identity())
    network.load_state_dict(
        {key: torch.from_numpy(value) for key, value in read_weights(job.weights).items()}, strict=False
    )
    return network.to(DEVICE, memory_format=torch.channels_last)


def open_head(job: Job) -> nn.Linear:
    kernel, bias = new_head(NETWORKS[network_name(job.cell.backbone)], job.classes, job.seed)
    head = nn.Linear(*kernel.shape)
    head.load_state_dict({"weight": torch.from_numpy(kernel.T), "bias": torch.from_numpy(bias)})
    return head.to(DEVICE)


def open_optimizer(job: Job, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    if job.optimizer == "sgd":
        return torch.optim.SGD(parameters, job.learning_rate, momentum=MOMENTUM)
    return torch.optim.Adam(parameters, job.learning_rate, BETAS, EPSILON)


class TorchLoop:
    """Satisfies `multitl.bench.jobs.Loop`."""

    def __init__(self, job: Job) -> None:
        self.job, self.backbone, self.head = job, open_backbone(job), open_head(job)
        self.network: nn.Module = nn.Sequential(self.backbone, self.head)
        trained = self.head if job.cell.task == "head" else self.network
        self.backbone.requires_grad_(job.cell.task != "head")
        self.optimizer = open_optimizer(job, trained.parameters())
        self.forward, self.features = self.network, self.backbone
        if job.cell.contender.endswith("-compile"):
            self.forward, self.features = torch.compile(self.network), torch.compile(self.backbone)
        self.mean = torch.tensor(MEAN, device=DEVICE)[:, None, None] * 255
        self.deviation = torch.tensor(DEVIATION, device=DEVICE)[:, None, None] * 255

    def trainable(self) -> int:
        return sum(p.numel() for group in self.optimizer.param_groups for p in group["params"])

    @torch.no_grad()
    def predict(self, batches: Iterable[Pixels]) -> np.ndarray:
        self.network.eval()
        return self._run(self.forward, batches)

    @torch.no_grad()
    def extract(self, batches: Iterable[Pixels]) -> np.ndarray:
        self.network.eval()
        return self._run(self.features, batches)

    def _run(self, module: nn.Module, batches: Iterable[Pixels]) -> np.ndarray:
        outputs = []
        for pixels in batches:
            with self._precision():
                outputs.append(module(self._images(pixels)).float())
        return torch.cat(outputs).cpu().numpy()

    def finetune(self, batches: Iterable[tuple[Pixels, np.ndarray]]) -> list[float]:
        self.network.train()
        losses = [self._step(self.forward, self._images(pixels), labels) for pixels, labels in batches]
        return torch.stack(losses).tolist()

    def train_head(self, batches: Sequence[tuple[Pixels, np.ndarray]]) -> list[float]:
        rows = np.split(self.extract(pixels for pixels, _ in batches), len(batches))
        return self.head_epoch((row, labels) for row, (_, labels) in zip(rows, batches, strict=True))

    def head_epoch(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        losses = [self._step(self.head, torch.from_numpy(rows).to(DEVICE), labels) for rows, labels in batches]
        return torch.stack(losses).tolist()

    def head_weights(self) -> tuple[np.ndarray, np.ndarray]:
        return self.head.weight.detach().cpu().numpy().T, self.head.bias.detach().cpu().numpy()

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> Iterator[tuple[float, float]]:
        return fit_head(self, self.job, train, validation)

    def wait(self) -> None:
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        elif DEVICE.type == "mps":
            torch.mps.synchronize()

    def peak_device_bytes(self) -> int:
        return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else 0

    def _step(self, module: nn.Module, inputs: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            logits = module(inputs).float()
        loss = nn.functional.cross_entropy(logits, torch.as_tensor(labels).to(DEVICE))
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _images(self, pixels: Pixels) -> torch.Tensor:
        """(batch, 3, height, width) by its shape, channels last in memory."""
        images = torch.as_tensor(pixels).to(DEVICE, non_blocking=True).permute(0, 3, 1, 2).float()
        return (images - self.mean) / self.deviation

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.job.cell.dtype == "bfloat16")
