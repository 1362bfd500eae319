"""Position embeddings of weights that were made at another image size, brought to a network's own by what its package
does itself: timm's filters of checkpoints, torchvision's `interpolate_embeddings`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import OrderedDict

import numpy as np
import torch

from multitl_torch.torchvision import import_torchvision

POSITIONS = re.compile(r"(^|[._])(pos_embed(ding)?|relative_position_bias_table|rel_pos_[hw])$")
PATCHES = "patch_embed.proj.weight"  # which timm's filters look at to learn the old grid


def resampled(module: torch.nn.Module, name: str, array: np.ndarray) -> np.ndarray | None:
    """A tensor of a file as this network has it; None if it is none of positions, or of another width.

    name: of the network's state_dict.
    """
    state = module.state_dict()
    if name not in state or not POSITIONS.search(name) or not array.size:
        return None
    tensor = torch.from_numpy(np.ascontiguousarray(array)).float()
    try:
        found = _by_package(module, name, tensor, state)
    except Exception:  # of a grid that is no square, say, each fails in its own way: then it does not fit
        return None
    return found.detach().numpy() if found is not None and found.shape == state[name].shape else None


def _by_package(
    module: torch.nn.Module, name: str, tensor: torch.Tensor, state: dict[str, torch.Tensor]
) -> torch.Tensor | None:
    kind = type(module)
    if kind.__module__.partition(".")[0] == "timm":
        own = sys.modules[kind.__module__].checkpoint_filter_fn
        others = {PATCHES: state[PATCHES]} if PATCHES in state else {}
        return own({**others, name: tensor}, module)[name]
    vision = importlib.import_module(f"{import_torchvision().__name__}.models.vision_transformer")
    if isinstance(module, vision.VisionTransformer):
        return vision.interpolate_embeddings(module.image_size, module.patch_size, OrderedDict({name: tensor}))[name]
    return None
