"""Recurrent networks over sequences: one layer of Keras for each layer and direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from keras import KerasTensor, layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation, Part, Stored, Value, part

ops = OpTable("recurrent")

Kind = Callable[[str, int, bool, bool], layers.Layer]  # name, units, use_bias, go_backwards -> the layer


@ops("lstm.input")
def lstm(build: Builder, x: Activation, states: Sequence[Value], *settings) -> list[Activation]:
    """x: (n, steps, c) or (steps, n, c) -> outputs, and the last outputs and cells (layers * directions, n, units)."""
    return _recurrent(build, x, states, _lstm_parts, _of(layers.LSTM), *settings)


@ops("gru.input")
def gru(build: Builder, x: Activation, state: Value, *settings) -> list[Activation]:
    """As `lstm`, without cells."""
    return _recurrent(build, x, [state], _gru_parts, _of(layers.GRU), *settings)


@ops("rnn_tanh.input")
def rnn_tanh(build: Builder, x: Activation, state: Value, *settings) -> list[Activation]:
    """As `gru`."""
    return _recurrent(build, x, [state], _lstm_parts, _of(layers.SimpleRNN), *settings)


@ops("rnn_relu.input")
def rnn_relu(build: Builder, x: Activation, state: Value, *settings) -> list[Activation]:
    """As `gru`."""
    return _recurrent(build, x, [state], _lstm_parts, _of(layers.SimpleRNN, activation="relu"), *settings)


def _of(kind: type[layers.Layer], **options: str) -> Kind:
    """A kind of Keras' layer as `_recurrent` makes one."""
    return lambda name, units, use_bias, backwards: kind(
        units, use_bias=use_bias, return_sequences=True, return_state=True, go_backwards=backwards, name=name, **options
    )


def _recurrent(
    build: Builder, x: Activation, states: Sequence[Value], parts_of: Callable[[list[Stored]], list[Part]], kind: Kind,
    weights: list[Stored], has_biases: bool, count: int, rate: float, _train: bool, is_bidirectional: bool,
    batch_first: bool,
) -> list[Activation]:  # fmt: skip
    """weights: of each layer, and of each of its directions: of inputs and of states, and both biases."""
    size, ways = 4 if has_biases else 2, (False, True)[: 1 + is_bidirectional]
    _insist_on_plain(x, states, weights, size * len(ways) * count)
    x = x.arranged((0, 1, 2) if batch_first else (1, 0, 2))
    tensor, ends = x.tensor, []
    for number in range(count):
        if rate and number:
            tensor = layers.Dropout(rate, name=build.name())(tensor)
        sides = []
        for place, backwards in enumerate(ways, number * len(ways)):
            own = weights[size * place : size * (place + 1)]
            outputs, *last = _run(build, tensor, parts_of(own), kind, own[1].shape[1], backwards)
            sides.append(K.flip(outputs, 1) if backwards else outputs)
            ends.append(last)
        tensor = sides[0] if len(sides) == 1 else K.concatenate(sides, -1)
    last_ones = [Activation(K.stack(column, 0), (0, 1, 2), x.batch) for column in zip(*ends, strict=True)]
    return [x.with_tensor(tensor), *last_ones]


def _run(build: Builder, tensor: KerasTensor, parts: list[Part], kind: Kind, units: int, backwards: bool) -> list:
    """Outputs of all steps, in the order of computation, and the last states."""
    return build.layer(lambda name: kind(name, units, len(parts) == 3, backwards), tensor, parts)


def _insist_on_plain(x: Activation, states: Sequence[Value], weights: Sequence[Value], count: int) -> None:
    """Raises Unsupported for what Keras' layers do not know."""
    if x.rank != 3:
        raise Unsupported("a sequence without a batch")
    if any(isinstance(state, Activation) or state.array.any() for state in states):
        raise Unsupported("a first state other than zeros")
    if any(isinstance(weight, Activation) for weight in weights):
        raise Unsupported("computed weights")
    if len(weights) != count:
        raise Unsupported("projections")


def _lstm_parts(weights: list[Stored]) -> list[Part]:
    """PyTorch has two biases that are added, Keras one; the gates are in the same order."""
    kernels = part("kernel", weights[0], (1, 0)) + part("recurrent_kernel", weights[1], (1, 0))
    biases = [weight.array for weight in weights[2:]]
    return kernels + (part("bias", Stored(np.add(*biases), trains=weights[2].trains)) if biases else [])


def _gru_parts(weights: list[Stored]) -> list[Part]:
    """Gates: reset, update, new in PyTorch; update, reset, new in Keras, which keeps both biases in one variable."""
    inner, outer, *biases = (_update_first(weight.array) for weight in weights)
    trains = weights[0].trains
    parts = part("kernel", Stored(inner.T, trains=trains)) + part("recurrent_kernel", Stored(outer.T, trains=trains))
    return parts + (part("bias", Stored(np.stack(biases), trains=trains)) if biases else [])


def _update_first(array: np.ndarray) -> np.ndarray:
    reset, update, new = np.split(array, 3)
    return np.concatenate([update, reset, new])
