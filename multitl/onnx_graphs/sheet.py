"""The sheet that a graph is written on: its nodes and constants, and values brought into the form that is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from multitl.onnx_graphs.values import Operand, Shape, Value, plain_dtype
from multitl.translation.layouts import Axes, in_order, inverse, moves, plan_reshape
from multitl.translation.op_tables import Unsupported
from multitl.translation.values import BATCH


class Sheet:
    """Collects a graph's nodes and constants. `scope`, the Keras operation at hand, names what is added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.scope = ""
        self._names: dict[str, int] = {}
        self._known: dict[tuple, str] = {}

    # --- names of tensors in, names out ---

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return that's name."""
        return self.node_of_several(kind, 1, *inputs, **attributes)[0]

    def node_of_several(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs, and return their names."""
        name = self.name(f"{self.scope}/{kind}")
        outputs = [name] if count == 1 else [f"{name}:{place}" for place in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, **attributes))
        return outputs

    def name(self, wanted: str) -> str:
        """`wanted`, with a number if it is taken."""
        number = self._names.get(wanted, 0)
        self._names[wanted] = number + 1
        return f"{wanted}_{number}" if number else wanted

    def constant(self, array: Any, dtype: str = "float32", name: str = "constant") -> str:
        """The name of an array that the graph holds, once however often it is asked for."""
        array = np.array(array, plain_dtype(dtype), order="C")
        key = (array.dtype.str, array.shape, hashlib.blake2b(array).digest())
        if key not in self._known:
            self._known[key] = self.name(f"{self.scope}/{name}")
            self.constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def numbers(self, sizes: Iterable[int]) -> str:
        """The name of a vector of integers: sizes, axes, places."""
        return self.constant(list(sizes), "int64", "numbers")

    def resized(self, tensor: str, sizes: Sequence[int]) -> str:
        """Reshape. sizes: as they shall lie, multiples of BATCH for what depends on the batch."""
        return self.node("Reshape", tensor, self.numbers(-1 if size % BATCH == 0 else size for size in sizes))

    # --- values ---

    def form(self, x: Value, axes: Axes) -> str:
        """The name of a tensor that holds `x` with its axes where `axes` says; moved only if there is none yet."""
        if axes not in x.forms:
            x.forms[axes] = self._moved(x, axes)
        return x.forms[axes]

    def _moved(self, x: Value, axes: Axes) -> str:
        long = [axis for axis in range(x.rank) if x.shape[axis] != 1]
        for have, tensor in x.forms.items() if x.shape.count(None) < 2 else ():
            if sorted(long, key=lambda axis: have[axis]) == sorted(long, key=lambda axis: axes[axis]):
                return self.resized(tensor, [x.sizes[axis] for axis in inverse(axes)])
        return self.node("Transpose", x.forms[x.axes], perm=moves(x.axes, axes))

    def ordered(self, x: Value) -> str:
        """Every axis where Keras has it."""
        return self.form(x, in_order(x.rank))

    def value(self, tensor: str, axes: Axes, placed: Sequence[int | None], like: Value) -> Value:
        """A new value. placed: its shape as it lies.  like: where type and batch come from."""
        return Value(tuple(placed[place] for place in axes), like.dtype, {axes: tensor}, like.batch)

    def alike(self, x: Value, kind: str, *more: str, **attributes: Any) -> Value:
        """What a node makes of every element of `x` by itself. more: constants that it takes as well."""
        return replace(x, forms={x.axes: self.node(kind, x.forms[x.axes], *more, **attributes)})

    def cast(self, x: Value, dtype: str) -> Value:
        """Of another type; floats are float32."""
        dtype = plain_dtype(dtype)
        if x.dtype == dtype:
            return x
        code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return replace(self.alike(x, "Cast", to=code), dtype=dtype)

    def floats(self, x: Operand) -> Value:
        """As float32, which most of ONNX' operations want."""
        return self.cast(self.held(x), "float32")

    def held(self, x: Operand, dtype: str | None = None) -> Value:
        """A value as it is, an array or number as one that the graph holds."""
        if isinstance(x, Value):
            return x
        array = np.asarray(x, dtype)
        kind = plain_dtype(str(array.dtype))
        return Value(array.shape, kind, {in_order(array.ndim): self.constant(array, kind)})

    def with_rank(self, x: Value, rank: int) -> Value:
        """New axes of size 1 in front, as broadcasting adds them."""
        new = rank - x.rank
        if not new:
            return x
        tensor = self.node("Unsqueeze", x.forms[x.axes], self.numbers(range(new)))
        return self.value(tensor, (*range(new), *(place + new for place in x.axes)), (*[1] * new, *x.placed(x.axes)), x)

    def without(self, x: Value, gone: Sequence[int]) -> Value:
        """Without Keras' axes `gone`, which are of size 1."""
        if not gone:
            return x
        tensor = self.node("Squeeze", x.forms[x.axes], self.numbers(sorted(x.axes[axis] for axis in gone)))
        kept = [place for axis, place in enumerate(x.axes) if axis not in gone]
        shape = tuple(size for axis, size in enumerate(x.shape) if axis not in gone)
        return replace(x, shape=shape, forms={inverse(inverse(kept)): tensor})

    def with_axis(self, x: Value, axis: int) -> Value:
        """With a new axis of size 1 as Keras' axis `axis`; it lies after the first one."""
        place = min(1, x.rank)
        tensor = self.node("Unsqueeze", x.forms[x.axes], self.numbers([place]))
        kept = [old + (old >= place) for old in x.axes]
        axes = (*kept[:axis], place, *kept[axis:])
        return replace(x, shape=(*x.shape[:axis], 1, *x.shape[axis:]), forms={axes: tensor})

    def reshaped(self, x: Value, wanted: Sequence[int]) -> Value:
        """wanted: in Keras' order, multiples of BATCH for what depends on the batch. Raises Unsupported."""
        if x.shape.count(None) > 1:
            raise Unsupported("a reshape of images of any size")
        if tuple(wanted) == x.sizes:
            return x
        before, after = min(
            (plan_reshape(x.sizes, axes, wanted) for axes in x.forms), key=lambda plan: plan[0] not in x.forms
        )
        placed = [wanted[axis] for axis in inverse(after)]
        tensor = self.resized(self.form(x, before), placed)
        batches = [size // BATCH for size in wanted if size % BATCH == 0]
        shape: Shape = tuple(None if size % BATCH == 0 else size for size in wanted)
        return Value(shape, x.dtype, {after: tensor}, batches[0] if batches else 1)

    def cheapest_form(self, values: Sequence[Value]) -> Axes:
        """The form for which the least has to move of some values of one rank; Keras' own, if that is as good."""
        candidates = {axes: None for value in values for axes in value.forms}

        def moved(axes: Axes) -> tuple[int, bool]:
            total = sum(value.elements for value in values if axes not in value.forms)
            return total, axes != in_order(len(axes))

        return min(candidates, key=moved)
