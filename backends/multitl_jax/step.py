"""A training step as one jitted function over explicit state, which is donated. Satisfies `multitl.contracts.Step`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from multitl.contracts import Forward, Gradient, Peers
from multitl.models.freezing import frozen_variables
from multitl.models.objective import count_parts, figures, objective
from multitl.system import interrupts
from multitl_jax.sharing import AXIS, Sharing

AHEAD = 2  # steps that the device may be behind, lest the batches of a whole leg wait in its memory

Values = list[jax.Array]
State = tuple[Values, Values, Values]  # weights; statistics and seeds; the optimizer's


def inference(model: keras.Model) -> Forward:
    """The model for inference: see `multitl.contracts.Backend.make_forward`."""
    groups = model.trainable_variables, model.non_trainable_variables

    @jax.jit
    def run(weights: tuple[Values, Values], inputs: jax.Array) -> jax.Array:
        return model.stateless_call(*weights, inputs, training=False)[0]

    return lambda inputs: run(tuple([variable.value for variable in group] for group in groups), inputs)


def input_gradient(model: keras.Model) -> Gradient:
    """See `multitl.contracts.Backend.make_gradient`."""
    groups = model.trainable_variables, model.non_trainable_variables

    @jax.jit
    def run(values: tuple[Values, Values], inputs: jax.Array, weights: jax.Array) -> jax.Array:
        def weighed(inputs: jax.Array) -> jax.Array:
            return jnp.vdot(weights, model.stateless_call(*values, inputs, training=False)[0])

        return jax.grad(weighed)(inputs)

    return lambda inputs, weights: run(
        tuple([variable.value for variable in group] for group in groups), inputs, weights
    )


class Step:
    """Of a compiled model, whose optimizer is built."""

    def __init__(
        self, model: keras.Model, prepare: Callable[..., Any], accumulate: int, peers: Peers | None = None
    ) -> None:
        frozen = {id(variable) for variable in frozen_variables(model)}
        others = model.non_trainable_variables
        self._model, self._prepare, self._accumulate = model, prepare, accumulate
        self._places = [id(variable) in frozen for variable in others]
        self._frozen = [variable for variable in others if id(variable) in frozen]
        moving = [variable for variable in others if id(variable) not in frozen]
        self._groups = (model.trainable_variables, moving, model.optimizer.variables)
        self._sharing = Sharing(peers) if peers and peers.size > 1 else None
        run = self._sharing.parallel(self._advance) if self._sharing else self._advance
        self._run = jax.jit(run, donate_argnums=0)

    def __enter__(self) -> Step:
        groups = [[variable.value for variable in group] for group in (*self._groups, self._frozen)]
        values = self._sharing.replicate(groups) if self._sharing else groups
        self._state: Any = tuple(values[:-1])
        self._constants: Values = values[-1]
        self._under_way: deque[jax.Array] = deque()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with interrupts.held_back():  # variables that were not reached would hold what was given away
            state = self._sharing.own(self._state) if self._sharing else self._state
            for group, values in zip(self._groups, state, strict=True):
                for variable, value in zip(group, values, strict=True):
                    variable.assign(value)
        self._state, self._constants = (), []

    def __call__(
        self, inputs: tuple[np.ndarray, ...], labels: np.ndarray, weights: np.ndarray, learning_rate: float
    ) -> jax.Array:
        batch: tuple[Any, ...] = (inputs, labels, weights)
        rate = np.float32(learning_rate)
        if self._sharing:
            batch, rate = self._sharing.join(batch), self._sharing.replicate(rate)
        self._state, told = self._run(self._state, self._constants, *batch, rate)
        if self._sharing:
            told = self._sharing.own(told)
        self._under_way.append(told)
        if len(self._under_way) > AHEAD:
            self._under_way.popleft().block_until_ready()
        return told

    def _advance(
        self,
        state: State,
        constants: Values,
        inputs: tuple[jax.Array, ...],
        labels: jax.Array,
        weights: jax.Array,
        rate: jax.Array,
    ) -> tuple[State, jax.Array]:
        weighed, moving, optimizer = state
        optimizer = self._with_rate(optimizer, rate)
        parts = count_parts(len(labels), self._accumulate)
        batch = [one.reshape(parts, -1, *one.shape[1:]) for one in (labels, weights, *inputs)]

        def look(so_far: tuple[Values, Values, jax.Array], part: Values) -> tuple[tuple, None]:
            """Statistics afterwards; sums of gradients and figures."""
            moving, gradients, told = so_far
            look_at = jax.grad(self._loss, has_aux=True)
            further, (seen, others) = look_at(weighed, self._merge(moving, constants), optimizer, *part)
            moved = [value for value, is_frozen in zip(others, self._places, strict=True) if not is_frozen]
            return (moved, jax.tree.map(jnp.add, gradients, further), told + seen), None

        none_yet = (moving, jax.tree.map(jnp.zeros_like, weighed), jnp.zeros(2))
        if parts == 1:
            so_far, _ = look(none_yet, [one[0] for one in batch])
        else:
            so_far, _ = jax.lax.scan(look, none_yet, batch)
        moving, gradients, told = so_far
        gradients, told = jax.tree.map(lambda total: total / parts, (gradients, told))
        if self._sharing:
            gradients, told = jax.lax.pmean((gradients, told), AXIS)
        weighed, optimizer = self._model.optimizer.stateless_apply(optimizer, gradients, weighed)
        return (weighed, moving, optimizer), told

    def _loss(
        self,
        weighed: Values,
        others: Values,
        optimizer: Values,
        labels: jax.Array,
        weights: jax.Array,
        *inputs: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, Values]]:
        """Of some images, and what else is seen of them: figures; statistics and seeds afterwards."""
        logits, others, penalties = self._model.stateless_call(
            weighed, others, self._prepare(*inputs), training=True, return_losses=True
        )
        loss = objective(self._model, logits, labels, weights, penalties)
        return self._scale(loss, optimizer), (figures(self._model, loss, logits, labels), others)

    def _merge(self, moving: Values, constants: Values) -> Values:
        """In the order that the model has them."""
        moving_values, frozen_values = iter(moving), iter(constants)
        return [next(frozen_values if is_frozen else moving_values) for is_frozen in self._places]

    def _with_rate(self, optimizer: Values, rate: jax.Array) -> Values:
        place = [id(variable) for variable in self._groups[2]].index(id(self._model.optimizer.learning_rate))
        return [*optimizer[:place], rate, *optimizer[place + 1 :]]

    def _scale(self, loss: jax.Array, optimizer: Values) -> jax.Array:
        """By a factor among the optimizer's variables, where gradients are of 16 bits."""
        with keras.StatelessScope(state_mapping=list(zip(self._groups[2], optimizer, strict=True))):
            return self._model.optimizer.scale_loss(loss)
