"""Models leave by way of PyTorch: as a state_dict, a program, OpenVINO. See `contracts.Writer`."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from multitl.contracts import Export, Job
from multitl.errors import PortError
from multitl_torch.rivals import tensorflow_unseen
from multitl_torch.templates import loader
from multitl_torch.translator import open_class


def write_state_dict(export: Export, folder: Path) -> None:
    """model.pth and model.safetensors, both for the original's own class, and load.py, which loads them into it."""
    source, _, full_name = export.name.partition("/")
    job = Job(source, full_name, "none", export.preprocess.height, "keep")
    module, name, options = open_class(job, len(export.class_names))
    state = _complete(export.tensors, module)
    torch.save(state, folder / "model.pth")
    safetensors.torch.save_file(state, folder / "model.safetensors")
    (folder / "load.py").write_text(loader(export, source, name, options), encoding="utf-8")


def write_program(export: Export, folder: Path) -> None:
    """model.pt2, as torch.export.load reads it; any number of images."""
    torch.export.save(_program(export), folder / "model.pt2")


def write_openvino(export: Export, folder: Path) -> None:
    """model.xml and model.bin, in float32."""
    import openvino

    program = _program(export)
    with _quietly(), tensorflow_unseen():
        model = openvino.convert_model(program)
    model.inputs[0].get_tensor().set_names({export.model.input.name})
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


class _Inference(torch.nn.Module):
    """A Keras model for inference, with each of its variables once: Keras registers them at every level."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._call = model.stateless_call
        self._names: tuple[list[str], list[str]] = ([], [])
        for names, variables in zip(
            self._names, (model.trainable_variables, model.non_trainable_variables), strict=True
        ):
            for variable in variables:
                names.append(variable.path.replace("/", "__").replace(".", "_"))
                self.register_buffer(names[-1], variable.value.detach())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        trained, others = ([getattr(self, name) for name in names] for names in self._names)
        return self._call(trained, others, images, training=False)[0]


def _program(export: Export) -> torch.export.ExportedProgram:
    taken = export.model.input
    # two images: torch takes an axis of size one for a constant
    images = torch.zeros(2, *taken.shape[1:], dtype=getattr(torch, taken.dtype))
    batch = {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), _quietly():
        return torch.export.export(_Inference(export.model).eval(), (images,), dynamic_shapes=(batch,))


def _complete(tensors: Mapping[str, np.ndarray], module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's own state_dict, which knows its version, with these tensors.

    What no graph reads stays as it is, if it is a constant: batch counters, tables of indices.
    """
    state = module.state_dict()
    constants = {name for name, _ in module.named_buffers()}
    misfits = [name for name in tensors if name not in state]
    misfits += [name for name in state if name not in tensors and name not in constants]
    misfits += [name for name in tensors if name in state and tensors[name].shape != tuple(state[name].shape)]
    if misfits:
        raise PortError(
            f"{type(module).__name__} has {len(misfits)} tensors that the model does not fill, or the reverse.",
            expected="the same names and shapes",
            received=", ".join(misfits[:6]),
            fix="choose a format that takes any model, such as --to torch-export or --to onnx",
        )
    for name, array in tensors.items():
        state[name] = torch.from_numpy(array.copy()).to(state[name].dtype)
    return state


@contextlib.contextmanager
def _quietly() -> Iterator[Any]:
    """The exporters tell of their steps on stdout, and warn of each other's old functions."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as said:
        warnings.simplefilter("ignore")
        yield said
