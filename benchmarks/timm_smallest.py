"""The smallest network of each of timm's families, and the smallest image it takes: what `zoo.py timm` looks at.

`python benchmarks/timm_smallest.py > benchmarks/timm_smallest.json`, after an upgrade of timm. Networks are built on
PyTorch's meta device: no weight is drawn or computed with.
"""

from __future__ import annotations

import functools
import json
import warnings

import torch
from multitl_torch.torchvision import import_timm

SIZES = (96, 128, 160, 192, 224, 256)  # below 96 pixels the last maps of most networks have one position


def main() -> None:
    warnings.simplefilter("ignore")
    lines = []
    for family in import_timm().list_modules():
        name = smallest(family)
        if name:
            lines.append(json.dumps({"family": family, "name": name, "image_size": smallest_size(name)}))
    print("[\n" + ",\n".join(lines) + "\n]")


def smallest(family: str) -> str:
    """The name of the family's network with the fewest parameters; "" if none takes images of three channels."""
    timm = import_timm()
    configs = {name: timm.get_pretrained_cfg(name) for name in timm.list_models(module=family)}
    names = [name for name, config in configs.items() if config is not None and config.input_size[0] == 3]
    return min(names, key=lambda name: (parameters(name), name), default="")


@functools.cache
def parameters(name: str) -> int:
    """How many a network has."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in network(name).parameters())


def smallest_size(name: str) -> int:
    """The first of SIZES that the network takes, else its own."""
    own = import_timm().get_pretrained_cfg(name).input_size[-1]
    return next((size for size in SIZES if size < own and takes(name, size)), own)


def takes(name: str, size: int) -> bool:
    """Whether images of `size` x `size` pixels go through."""
    try:
        with torch.device("meta"), torch.no_grad():
            network(name, size)(torch.empty(2, 3, size, size))
    except Exception:  # a size that does not fit fails somewhere inside the network
        return False
    return True


def network(name: str, size: int = 0) -> torch.nn.Module:
    """With random weights, for images of `size` (0: its own), on the current device."""
    timm = import_timm()
    options = {"img_size": size} if size and timm.get_pretrained_cfg(name).fixed_input_size else {}
    return timm.create_model(name, pretrained=False, **options).eval()


if __name__ == "__main__":
    main()
