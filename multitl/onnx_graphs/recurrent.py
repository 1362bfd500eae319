"""Recurrent layers. ONNX wants the steps first, and the gates in an order of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from multitl.onnx_graphs.convolutions import array
from multitl.onnx_graphs.shapes import sliced
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Value
from multitl.translation.op_tables import OpTable, Unsupported

writes = OpTable("onnx, recurrent")

STEPS_FIRST = (1, 0, 2)
LSTM_GATES = (0, 3, 1, 2)  # ONNX: input, output, forget, cell; Keras: input, forget, cell, output


@writes("layers.LSTM")
def lstm(sheet: Sheet, layer: Any, x: Value, initial_state: Any = None, mask: Any = None) -> list[Value] | Value:
    """x: (batch, steps, channels)."""
    _insist_on_plain(layer, (initial_state, mask), keras.activations.tanh)
    kernels = [_ordered(array(one), LSTM_GATES) for one in (layer.cell.kernel, layer.cell.recurrent_kernel)]
    biases = [_ordered(array(layer.cell.bias), LSTM_GATES)] if layer.use_bias else []
    biases += [np.zeros_like(biases[0])] if biases else []
    return _written(sheet, layer, x, "LSTM", [*kernels, *biases], 3)


@writes("layers.GRU")
def gru(sheet: Sheet, layer: Any, x: Value, initial_state: Any = None, mask: Any = None) -> list[Value] | Value:
    """As `lstm`; the gates are in the same order, and so are the two biases."""
    _insist_on_plain(layer, (initial_state, mask), keras.activations.tanh)
    if not layer.reset_after:
        raise Unsupported("reset_after=False")
    kernels = [array(layer.cell.kernel), array(layer.cell.recurrent_kernel)]
    biases = [*array(layer.cell.bias)] if layer.use_bias else []
    return _written(sheet, layer, x, "GRU", [*kernels, *biases], 2, linear_before_reset=1)


@writes("layers.SimpleRNN")
def simple_rnn(sheet: Sheet, layer: Any, x: Value, initial_state: Any = None, mask: Any = None) -> list[Value] | Value:
    """As `lstm`, without gates."""
    kinds = {keras.activations.tanh: "Tanh", keras.activations.relu: "Relu"}
    _insist_on_plain(layer, (initial_state, mask), *kinds)
    biases = [array(layer.cell.bias), np.zeros(layer.units, "float32")] if layer.use_bias else []
    kernels = [array(layer.cell.kernel), array(layer.cell.recurrent_kernel)]
    return _written(sheet, layer, x, "RNN", [*kernels, *biases], 2, activations=[kinds[layer.activation]])


def _insist_on_plain(layer: Any, given: Sequence[Any], *known: Any) -> None:
    """Raises Unsupported for first states, masks and other activations."""
    gates = getattr(layer, "recurrent_activation", keras.activations.sigmoid)
    if any(one is not None for one in given):
        raise Unsupported("a first state or a mask")
    if layer.activation not in known or gates is not keras.activations.sigmoid:
        raise Unsupported("activations of its own")


def _ordered(array: np.ndarray, gates: Sequence[int]) -> np.ndarray:
    """With the gates, which lie side by side along the last axis, in another order."""
    parts = np.split(array, len(gates), -1)
    return np.concatenate([parts[gate] for gate in gates], -1)


def _written(
    sheet: Sheet, layer: Any, x: Value, kind: str, weights: Sequence[np.ndarray], count: int, **more: Any
) -> list[Value] | Value:
    """weights: both kernels, (inputs, gates * units), and both biases, if any.  count: of ONNX' outputs."""
    x = sheet.floats(x)
    if layer.go_backwards:
        x = sliced(sheet, x, [slice(None), slice(None, None, -1), slice(None)])
    batch, steps, _ = x.shape
    held = [sheet.constant(kernel.T[None], name="kernel") for kernel in weights[:2]]
    held += [sheet.constant(np.concatenate(weights[2:])[None], name="bias")] if weights[2:] else []
    every, *last = sheet.node_of_several(
        kind, count, sheet.form(x, STEPS_FIRST), *held, hidden_size=layer.units, **more
    )
    outputs = sheet.node("Squeeze", every, sheet.numbers([1]))
    sequence = sheet.value(outputs, STEPS_FIRST, (steps, batch, layer.units), x)
    states = [
        sheet.value(sheet.node("Squeeze", one, sheet.numbers([0])), (0, 1), (batch, layer.units), x) for one in last
    ]
    first = sequence if layer.return_sequences else states[0]
    return [first, *states] if layer.return_state else first
