"""Adam by PyTorch's fused kernel, on CPU.

Keras goes through all weights a dozen times a step, with two more copies of them in memory; the kernel goes once. The
formula is the same, up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import torch
from torch.optim.adam import adam

from multitl_torch import insides


@contextlib.contextmanager
def fused_adam() -> Iterator[None]:
    """While open, Keras' Adam and AdamW take PyTorch's fused step."""
    with insides.ADAM.replaced(update):
        yield


def update(
    self: Any, gradients: Sequence[torch.Tensor], variables: Sequence[keras.Variable], learning_rate: Any
) -> None:
    """`Adam._parallel_update_step`."""
    weights = [variable.value for variable in variables]
    if self.amsgrad or not all(_suits(*pair) for pair in zip(weights, gradients, strict=True)):
        insides.ADAM_STEP.original(self, gradients, variables, learning_rate)
        return
    before = float(self.iterations.value)
    correction = 1 - self.beta_2 ** (before + 1)
    moments = insides.adam_moments(self, variables)
    first, second = ([pair[place].value for pair in moments] for place in (0, 1))
    for moment, weight in zip(first + second, weights * 2, strict=True):
        if _order(moment) != _order(weight):  # once: Keras makes them in the order of their shapes
            moment.data = torch.empty_like(weight).copy_(moment)
    adam(
        weights,
        list(gradients),
        first,
        second,
        [],
        list(torch.full((len(weights),), before).unbind()),  # one each: the kernel counts on in it
        fused=True,
        lr=float(learning_rate),
        beta1=self.beta_1,
        beta2=self.beta_2,
        weight_decay=0.0,  # Keras' AdamW has applied its own before
        eps=self.epsilon / correction**0.5,  # PyTorch adds it to the root of the corrected velocity
        amsgrad=False,
        maximize=False,
    )


def _suits(weight: torch.Tensor, gradient: torch.Tensor) -> bool:
    """What the kernel can read as plain memory."""
    is_plain = weight.dtype == gradient.dtype == torch.float32 and weight.device.type == "cpu"
    return is_plain and _order(weight) == _order(gradient)


def _order(tensor: torch.Tensor) -> list[int]:
    """Strides of the axes that have any length."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
