"""load.py: plain PyTorch that loads a state_dict into its own class, for people who have no multitl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multitl.contracts import Export
from multitl.porting.generated_code import fill

HEADS = {  # by source: what the file needs, and what makes a network with random weights
    "torchvision": '''"""A network of torchvision with its weights. Made by multitl; needs torch and torchvision."""

from pathlib import Path

import torch
from torchvision.models import get_model as make_network
''',
    "timm": '''"""A network of timm with its weights. Made by multitl; needs torch and timm."""

from pathlib import Path

import torch
from timm import create_model as make_network
''',
}
BODY = '''
NETWORK, OPTIONS = _network_, _options_
CLASSES = _classes_
HEIGHT, WIDTH = _height_, _width_
CHANNELS = _channels_  # of RGB, in the order that the network wants them
SCALE, OFFSET = _scale_, _offset_


def load_network() -> torch.nn.Module:
    """Normalised images (batch, 3, HEIGHT, WIDTH) -> logits (batch, len(CLASSES)); see `normalise`."""
    network = make_network(NETWORK, **OPTIONS)
    state = torch.load(Path(__file__).with_name("model.pth"), weights_only=True)
    network.load_state_dict(state, strict=True)
    return network.eval()


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """RGB pixels (batch, HEIGHT, WIDTH, 3), 0 to 255 -> what the network takes."""
    images = pixels.float()[..., CHANNELS] * torch.tensor(SCALE) + torch.tensor(OFFSET)
    return images.permute(0, 3, 1, 2)


def classify(network: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """RGB pixels (batch, HEIGHT, WIDTH, 3) -> probabilities (batch, len(CLASSES)) of CLASSES."""
    with torch.no_grad():
        return network(normalise(pixels)).softmax(dim=1)
'''


def loader(export: Export, source: str, name: str, options: Mapping[str, Any]) -> str:
    """The file's text. source, name: of the network.  options: that its package makes it with.

    Whatever came from a card is a literal in it: see `generated_code`.
    """
    how = export.preprocess
    values = {
        "_network_": name,
        "_options_": dict(options),
        "_classes_": list(export.class_names),
        "_height_": how.height,
        "_width_": how.width,
        "_channels_": [0, 1, 2] if how.channel_order == "rgb" else [2, 1, 0],
        "_scale_": how.scale,
        "_offset_": how.offset,
    }
    return fill(HEADS[source] + BODY, values)
