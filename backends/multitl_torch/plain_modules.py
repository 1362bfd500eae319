"""Modules as people have them, wrapped, compiled, in half or double precision, on a GPU -> plain ones to translate."""

from __future__ import annotations

import copy

import torch

WRAPPERS = {  # classes that hold a module and compute what it does -> their child that it is
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",  # of torch.compile
}


def plain(module: torch.nn.Module) -> torch.nn.Module:
    """The module inside its wrappers, in float32 on the CPU: itself if it is so already, else a copy."""
    module = unwrapped(module)
    tensors = [*module.parameters(), *module.buffers()]
    is_plain = all(tensor.device.type == "cpu" for tensor in tensors) and all(
        tensor.dtype == torch.float32 for tensor in tensors if tensor.is_floating_point()
    )
    if is_plain and not any(unwrapped(part) is not part for part in module.modules()):
        return module
    return _without_wrappers(copied(module)).float().cpu()


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """What is inside a wrapper, however many there are one in the other; anything else as it is."""
    while (child := WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, child)
    return module


def copied(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of its own, also of modules with the weight that an old weight_norm or spectral_norm has computed last:
    PyTorch copies no results.
    """
    held = [value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor)]
    return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf})


def _without_wrappers(module: torch.nn.Module) -> torch.nn.Module:
    """The module itself, with what is inside in place of each wrapper in it."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            part.register_module(name, unwrapped(child))
    return module
