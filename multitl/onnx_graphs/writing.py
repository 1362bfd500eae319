"""`onnx_model`: the walk over a functional model's graph. Each operation is written by its function in a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from onnx import helper

from multitl import version
from multitl.errors import BELOW, TranslationError, shorten
from multitl.models.insides import calls_in
from multitl.onnx_graphs import (
    activations,
    attention,
    convolutions,
    elementwise,
    normalisations,
    pooling,
    products,
    recurrent,
    reductions,
    shapes,
)
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Operand, Value, plain_dtype
from multitl.translation.layouts import in_order
from multitl.translation.op_tables import OpTable, Unsupported

OPSET = (
    18  # the first with all that is used: antialiased sizes, axes of reductions as inputs; runtimes since early 2023
)
IR_VERSION = 8  # that came with it
LARGEST = 1_900_000_000  # bytes of weights in the file itself: protobuf ends at 2 GiB

TABLE = OpTable(
    "onnx", elementwise.writes, activations.writes, convolutions.writes, pooling.writes, normalisations.writes,
    reductions.writes, products.writes, attention.writes, recurrent.writes, shapes.writes,
)  # fmt: skip


def onnx_model(
    model: keras.Model, output_names: Sequence[str] = (), metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """A functional model for inference as ONNX, opset 18, for any number of images, in float32.

    output_names: by default those of Keras' tensors.  metadata: texts that the file carries.
    Raises TranslationError that names every operation which cannot be written.
    """
    walk = _Walk()
    inputs = [walk.input(tensor) for tensor in model.inputs]
    outputs = walk.outputs(model, inputs)
    if walk.missing:
        raise _refusal(model.name, walk.missing)
    names = output_names or [tensor.name for tensor in model.outputs]
    return walk.finished(model, inputs, dict(zip(names, outputs, strict=True)), metadata or {})


def save_onnx(written: onnx.ModelProto, path: Path) -> None:
    """One file; weights of more than a file can hold lie beside it, with ".data" after its name."""
    size = sum(len(tensor.raw_data) for tensor in written.graph.initializer)
    onnx.save_model(
        written, path, save_as_external_data=size > LARGEST, all_tensors_to_one_file=True, location=f"{path.name}.data"
    )


class _Walk:
    """A sheet, and what could not be written on it: operation -> names."""

    def __init__(self) -> None:
        self.sheet = Sheet()
        self.missing: dict[str, list[str]] = defaultdict(list)

    def input(self, tensor: keras.KerasTensor) -> Value:
        """One of the graph's inputs."""
        name = self.sheet.name(tensor.name)
        return Value(tuple(tensor.shape), plain_dtype(tensor.dtype), {in_order(len(tensor.shape)): name})

    def outputs(self, model: keras.Model, inputs: Sequence[Operand]) -> list[Operand]:
        """What a functional model makes of some inputs."""
        known = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
        for call in calls_in(model):
            arguments, options = _filled((call.arguments.args, call.arguments.kwargs), known)
            # in inference Keras puts its own word in place of what a call says of training
            given = {name: one for name, one in options.items() if name != "training" and one is not None}
            results = self._results(call, arguments, given)
            known |= {id(tensor): value for tensor, value in zip(call.outputs, results, strict=True)}
        return [known[id(tensor)] for tensor in model.outputs]

    def _results(self, call: Any, arguments: Sequence[Any], options: dict[str, Any]) -> list[Operand]:
        """What one call gives. What depends on no input is computed here and now."""
        operation, given = call.operation, keras.tree.flatten([arguments, options])
        if isinstance(operation, keras.Model) and calls_in(operation):
            return self.outputs(operation, [one for one in given if isinstance(one, Value | np.ndarray)])
        if not any(isinstance(one, Value) for one in given):
            return [_plain(one) for one in keras.tree.flatten(operation(*arguments, **options))]
        self.sheet.scope = operation.name
        found = self._written(operation, arguments, options)
        return keras.tree.flatten(found) if found is not None else [_placeholder(spec) for spec in call.outputs]

    def _written(self, operation: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        """By the table; None for what it lacks, which is noted, so that the walk can go on."""
        key = key_of(operation)
        if key not in TABLE:
            self.missing[key].append(operation.name)
            return None
        try:
            return TABLE[key](self.sheet, operation, *arguments, **options)
        except Unsupported as reason:
            self.missing[f"{key} with {reason}"].append(operation.name)
            return None
        except Exception:
            if not self.missing:
                raise
            return None  # behind a gap, where shapes are only those that Keras knew beforehand

    def finished(
        self, model: keras.Model, inputs: Sequence[Value], outputs: Mapping[str, Operand], metadata: Mapping[str, str]
    ) -> onnx.ModelProto:
        """All that was written, as a model."""
        results = []
        for name, operand in outputs.items():
            value = self.sheet.held(operand)
            self.sheet.nodes.append(helper.make_node("Identity", [self.sheet.ordered(value)], [name], name=name))
            results.append(_described(name, value))
        taken = [_described(value.forms[value.axes], value) for value in inputs]
        graph = helper.make_graph(self.sheet.nodes, model.name, taken, results, self.sheet.constants)
        written = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="multitl",
            producer_version=version.__version__,
        )  # fmt: skip
        helper.set_model_props(written, dict(metadata))
        return written


def key_of(operation: keras.Operation) -> str:
    """An operation's name in the table: "layers.Conv2D", "ops.Add"; of one that is not Keras' the whole path."""
    kind = type(operation)
    if not kind.__module__.startswith("keras."):
        return f"{kind.__module__}.{kind.__name__}"
    return ("layers." if isinstance(operation, keras.Layer) else "ops.") + kind.__name__


def _filled(arguments: Any, known: Mapping[int, Operand]) -> Any:
    """Arguments of a call with what is known in place of Keras' symbolic tensors."""
    return keras.tree.map_structure(
        lambda one: known[id(one)] if isinstance(one, keras.KerasTensor) else _plain(one), arguments
    )


def _plain(argument: Any) -> Any:
    """An array for a tensor of Keras' backend."""
    return keras.ops.convert_to_numpy(argument) if keras.ops.is_tensor(argument) else argument


def _placeholder(spec: keras.KerasTensor) -> Value:
    """Of the right shape, for an operation that could not be written."""
    return Value(tuple(spec.shape), plain_dtype(spec.dtype), {in_order(len(spec.shape)): ""})


def _described(name: str, value: Value) -> onnx.ValueInfoProto:
    sizes = [
        "batch" if axis == 0 else f"{name}_{axis}" if size is None else size for axis, size in enumerate(value.shape)
    ]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), sizes)


def _refusal(name: str, missing: Mapping[str, Sequence[str]]) -> TranslationError:
    """Every operation that there is no way to write, with the names of its nodes."""
    listed = [f"{key} ({len(nodes)}): {shorten(nodes, 3)}" for key, nodes in missing.items()]
    return TranslationError(
        f"The model {name} cannot be written as ONNX: {len(missing)} of its operations are unknown there.",
        expected="operations that multitl writes, of Keras' layers and keras.ops",
        received=BELOW.join(listed),
        fix="choose a format that takes any model, such as multitl port --to torch-export, or report this list",
        missing=tuple(missing),
    )
