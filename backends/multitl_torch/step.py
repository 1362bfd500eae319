"""A training step that waits for nothing: kernels queue up on the device. Satisfies `multitl.contracts.Step`.

Where nothing but weights changes, loss and figures are computed by a program that is traced once for a shape of
batches; dropout and statistics that move are left to Keras.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import keras
import numpy as np
import torch

from multitl.contracts import Forward, Gradient, Peers
from multitl.models.freezing import frozen_variables
from multitl.models.objective import count_parts, figures, objective
from multitl_torch.sharing import share_mean
from multitl_torch.tracing import trace

MANY = 16  # batches of one shape until a program is traced for it, which takes a second or more
AHEAD = 2  # steps that a GPU may be behind, lest the batches of a whole leg wait in its memory


def inference(model: keras.Model, *, is_for_long: bool = False) -> Forward:
    """The model for inference: see `multitl.contracts.Backend.make_forward`. Where many batches have one shape they go
    through a program: to the bit what the layers give."""
    look, many = partial(model, training=False), 1 if is_for_long else MANY
    passed, programs = Counter[Any](), dict[Any, Callable[..., torch.Tensor]]()

    @torch.no_grad()
    def run(inputs: np.ndarray) -> torch.Tensor:
        given = keras.ops.convert_to_tensor(inputs)
        kind = given.shape, given.dtype
        passed[kind] += 1
        if passed[kind] == many:
            programs[kind] = trace(look, [given])
        return programs.get(kind, look)(given)

    return run


def input_gradient(model: keras.Model) -> Gradient:
    """See `multitl.contracts.Backend.make_gradient`."""

    def run(inputs: np.ndarray, weights: np.ndarray) -> torch.Tensor:
        given = keras.ops.convert_to_tensor(inputs).requires_grad_()
        weighed = keras.ops.convert_to_tensor(weights) * model(given, training=False)
        (gradient,) = torch.autograd.grad(weighed.sum(), given)
        return gradient

    return run


class Step:
    """Of a compiled model, whose optimizer is built."""

    def __init__(
        self, model: keras.Model, prepare: Callable[..., Any], accumulate: int, peers: Peers | None = None
    ) -> None:
        frozen = {id(variable) for variable in frozen_variables(model)}
        self._is_pure = all(id(variable) in frozen for variable in model.non_trainable_variables)
        self._model, self._prepare, self._accumulate = model, prepare, accumulate
        self._programs: dict[tuple[torch.Size, ...], Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {}
        self._under_way: deque[torch.cuda.Event] = deque()
        self._peers = peers.size if peers else 1

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Keras' variables are PyTorch's; gradients would keep their memory."""
        self._forget_gradients()

    def __call__(
        self, inputs: tuple[np.ndarray, ...], labels: np.ndarray, weights: np.ndarray, learning_rate: float
    ) -> torch.Tensor:
        optimizer, variables = self._model.optimizer, self._model.trainable_variables
        given = [keras.ops.convert_to_tensor(array) for array in (labels, weights, *inputs)]
        self._forget_gradients()
        parts = list(zip(*(one.chunk(count_parts(len(labels), self._accumulate)) for one in given), strict=True))
        program, told = self._program(parts[0]), list[torch.Tensor]()
        for part in parts:
            loss, seen = program(*part)
            optimizer.scale_loss(loss / len(parts)).backward()
            told.append(seen)
        figures = torch.stack(told).mean(dim=0) if len(told) > 1 else told[0]
        with torch.no_grad():
            gradients = [variable.value.grad for variable in variables]
            if self._peers > 1:
                share_mean([*gradients, figures], self._peers)
            optimizer.learning_rate = learning_rate
            optimizer.apply(gradients, variables)
        self._keep_up()
        return figures

    def _program(self, given: Sequence[torch.Tensor]) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        """What computes loss and figures of a batch like this one."""
        if not self._is_pure:
            return self._look
        shapes = tuple(one.shape for one in given)
        if shapes not in self._programs:
            self._programs[shapes] = trace(self._look, given)
        return self._programs[shapes]

    def _look(
        self, labels: torch.Tensor, weights: torch.Tensor, *inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self._model(self._prepare(*inputs), training=True)
        loss = objective(self._model, logits, labels, weights, self._model.losses)
        return loss, figures(self._model, loss.detach(), logits.detach(), labels)

    def _forget_gradients(self) -> None:
        for variable in self._model.trainable_variables:
            variable.value.grad = None

    def _keep_up(self) -> None:
        if not torch.cuda.is_available():
            return
        event = torch.cuda.Event()
        event.record()
        self._under_way.append(event)
        if len(self._under_way) > AHEAD:
            self._under_way.popleft().synchronize()
