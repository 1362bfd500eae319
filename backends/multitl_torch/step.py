"""A training step that waits for nothing: kernels queue up on the device. Satisfies `multitl.contracts.Step`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import keras
import numpy as np
import torch

from multitl.contracts import Forward
from multitl.models.objective import figures, objective

AHEAD = 2  # steps that a GPU may be behind, lest the batches of a whole leg wait in its memory


def inference(model: keras.Model) -> Forward:
    """The model for inference: see `multitl.contracts.Backend.make_forward`."""

    @torch.no_grad()
    def run(inputs: np.ndarray) -> torch.Tensor:
        return model(keras.ops.convert_to_tensor(inputs), training=False)

    return run


class Step:
    """Of a compiled model, whose optimizer is built."""

    def __init__(self, model: keras.Model, prepare: Callable[..., Any]) -> None:
        self._model, self._prepare = model, prepare
        self._under_way: deque[torch.cuda.Event] = deque()

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Keras' variables are PyTorch's; gradients would keep their memory."""
        self._forget_gradients()

    def __call__(
        self, inputs: tuple[np.ndarray, ...], labels: np.ndarray, weights: np.ndarray, learning_rate: float
    ) -> torch.Tensor:
        model, variables = self._model, self._model.trainable_variables
        y, w, *given = (keras.ops.convert_to_tensor(array) for array in (labels, weights, *inputs))
        logits = model(self._prepare(*given), training=True)
        self._forget_gradients()
        loss = objective(model, logits, y, w, model.losses)
        model.optimizer.scale_loss(loss).backward()
        with torch.no_grad():
            model.optimizer.learning_rate = learning_rate
            model.optimizer.apply([variable.value.grad for variable in variables], variables)
            told = figures(loss, logits, y)
        self._keep_up()
        return told

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
