"""Artefacts opened by PyTorch alone. See `contracts.Runtime`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from multitl.contracts import Answer
from multitl_torch.torchvision import import_torchvision


def open_state_dict(folder: Path) -> Answer:
    """By load.py, which lies beside the weights. Images of floats are taken as normalised."""
    import_torchvision()  # also where its build is for another torch, which load.py's own import would die of
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "load.py")
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    network = load.load_network()

    def answer(images: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(images)
        if images.dtype == np.uint8:
            return load.classify(network, tensor).numpy()
        with torch.no_grad():
            return network(tensor.permute(0, 3, 1, 2)).softmax(dim=1).numpy()

    return answer
