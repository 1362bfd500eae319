"""load.py: plain PyTorch that loads a state_dict into its own class, for people who have no multitl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOADER = '''"""{title}

Written by multitl; needs torch and {package}, neither multitl nor Keras.
"""

from pathlib import Path

import torch
{imports}

CLASSES = {classes}
HEIGHT, WIDTH = {height}, {width}
SCALE, OFFSET = {scale}, {offset}


def load_network() -> torch.nn.Module:
    """Normalised images (batch, 3, HEIGHT, WIDTH) -> logits (batch, {count}); see `normalise`."""
    network = {constructor}
    state = torch.load(Path(__file__).with_name("model.pth"), weights_only=True)
    network.load_state_dict(state, strict=True)
    return network.eval()


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """RGB pixels (batch, HEIGHT, WIDTH, 3), 0 to 255 -> what the network takes."""
    images = pixels.float(){flip} * torch.tensor(SCALE) + torch.tensor(OFFSET)
    return images.permute(0, 3, 1, 2)


def classify(network: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """RGB pixels (batch, HEIGHT, WIDTH, 3) -> probabilities (batch, {count}) of CLASSES."""
    with torch.no_grad():
        return network(normalise(pixels)).softmax(dim=1)
'''
IMPORTS = {"torchvision": "from torchvision.models import get_model", "timm": "from timm import create_model"}


def loader(card: Mapping[str, Any], constructor: str) -> str:
    """The file's text. card: of the model.  constructor: a call that makes the network with random weights."""
    backbone, preprocess = card["backbone"], card["backbone"]["preprocess"]
    source = backbone["name"].partition("/")[0]
    names = card["data"]["class_names"]
    return LOADER.format(
        title=f"{backbone['name']} for {len(names)} classes.",
        package=source,
        imports=IMPORTS[source],
        classes=names,
        height=preprocess["height"],
        width=preprocess["width"],
        scale=preprocess["scale"],
        offset=preprocess["offset"],
        count=len(names),
        constructor=constructor,
        flip=".flip(-1)" if preprocess["channel_order"] == "bgr" else "",
    )
