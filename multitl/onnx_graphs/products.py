"""Products of matrices: dense layers and einsum. A known operand is brought into shape while the graph is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from multitl.onnx_graphs.activations import activated
from multitl.onnx_graphs.convolutions import array
from multitl.onnx_graphs.elementwise import add
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Operand, Value, with_last
from multitl.translation.layouts import inverse
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import BATCH

writes = OpTable("onnx, products")

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@writes("layers.Dense")
def dense(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Along the last axis."""
    x, kernel = sheet.floats(x), array(layer.kernel)
    axes = with_last(x, [x.rank - 1])
    weights = sheet.constant(kernel, name="kernel")
    biases = [sheet.constant(array(layer.bias), name="bias")] if layer.use_bias else []
    if x.rank == 2:
        tensor = sheet.node("Gemm", sheet.form(x, axes), weights, *biases)
    else:
        tensor = sheet.node("MatMul", sheet.form(x, axes), weights)
        tensor = sheet.node("Add", tensor, *biases) if biases else tensor
    y = sheet.value(tensor, axes, (*x.placed(axes)[:-1], kernel.shape[-1]), x)
    return activated(sheet, y, layer.activation)


@writes("layers.EinsumDense")
def einsum_dense(sheet: Sheet, layer: Any, x: Value) -> Value:
    y = einsum(sheet, layer.equation, [sheet.floats(x), array(layer.kernel)])
    y = y if layer.bias is None else add(sheet, y, array(layer.bias))
    return activated(sheet, y, layer.activation)


@writes("ops.Einsum")
def einsum_operation(sheet: Sheet, operation: Any, *operands: Operand) -> Value:
    return einsum(sheet, operation.subscripts, operands)


@writes("ops.Matmul")
def matmul(sheet: Sheet, operation: Any, x1: Operand, x2: Operand) -> Value:
    """(..., i, j), (..., j, k) -> (..., i, k); the axes before are broadcast."""
    first, second = (sheet.floats(one) for one in (x1, x2))
    if min(first.rank, second.rank) < 2:
        raise Unsupported("a product with a vector")
    rank = max(first.rank, second.rank)
    names = LETTERS[: rank - 2]
    if first.rank == second.rank and first.shape[:-2] == second.shape[:-2]:
        return _product(sheet, first, second, Terms(f"{names}xy", f"{names}yz", f"{names}xz"))
    tensor = sheet.node("MatMul", sheet.ordered(first), sheet.ordered(second))
    longer = first if first.rank == rank else second
    outer = np.broadcast_shapes(first.sizes[:-2], second.sizes[:-2])
    shape = (*(None if size % BATCH == 0 else size for size in outer), first.shape[-2], second.shape[-1])
    batch = max(first.batch, second.batch)
    return replace(longer, shape=shape, forms={tuple(range(rank)): tensor}, batch=batch)


@dataclass(frozen=True)
class Terms:
    """The letters of two operands and their product, of which every letter is in two."""

    left: str
    right: str
    out: str

    @property
    def shared(self) -> list[str]:
        """In both operands and in what comes out."""
        return [name for name in self.left if name in self.right and name in self.out]

    @property
    def summed(self) -> list[str]:
        """Those that are summed over."""
        return [name for name in self.left if name in self.right and name not in self.out]

    @property
    def are_plain(self) -> bool:
        """Whether this is a product of matrices: no diagonals, no sums of one operand, nothing without a sum."""
        lone = {*self.left} ^ {*self.right}
        is_unique = all(len({*term}) == len(term) for term in (self.left, self.right, self.out))
        return is_unique and lone <= {*self.out} and bool(self.summed)


def einsum(sheet: Sheet, equation: str, operands: Sequence[Operand]) -> Value:
    """Operands are multiplied from left to right. Raises Unsupported."""
    left, _, out = equation.replace(" ", "").partition("->")
    terms, out = _explicit(left.split(","), out, operands) if "..." in equation else (left.split(","), out)
    result, names = operands[0], terms[0]
    for place in range(1, len(operands)):
        later = {*out, *"".join(terms[place + 1 :])}
        joint = [name for name in dict.fromkeys(names + terms[place]) if name in later]
        target = out if place == len(operands) - 1 else "".join(joint)
        result = _pair(sheet, result, operands[place], Terms(names, terms[place], target))
        names = target
    if len(operands) == 1:
        return _by_onnx(sheet, [result], f"{names}->{out}")
    return sheet.held(result)


def _explicit(terms: Sequence[str], out: str, operands: Sequence[Operand]) -> tuple[list[str], str]:
    """Capital letters in place of "...", which has to stand for as many axes wherever it is."""
    ranks = [np.ndim(one) if not isinstance(one, Value) else one.rank for one in operands]
    counts = {rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term}
    if len(counts) > 1:
        raise Unsupported("dots that stand for different numbers of axes")
    dots = LETTERS.upper()[: counts.pop()]
    return [term.replace("...", dots) for term in terms], out.replace("...", dots)


def _pair(sheet: Sheet, a: Operand, b: Operand, terms: Terms) -> Operand:
    if isinstance(a, Value) or isinstance(b, Value):
        if not isinstance(a, Value):
            a, b, terms = b, a, Terms(terms.right, terms.left, terms.out)
        a = sheet.floats(a)
        b = sheet.floats(b) if isinstance(b, Value) else b
        if terms.are_plain:
            return _product(sheet, a, b, terms)
        return _by_onnx(sheet, [a, b], f"{terms.left},{terms.right}->{terms.out}")
    return np.einsum(f"{terms.left},{terms.right}->{terms.out}", a, b)


def _by_onnx(sheet: Sheet, operands: Sequence[Operand], equation: str) -> Value:
    held = [sheet.floats(one) for one in operands]
    left, _, out = equation.partition("->")
    longest: dict[str, int | None] = {}
    for term, value in zip(left.split(","), held, strict=True):
        longest |= {name: size for name, size in zip(term, value.shape, strict=True) if longest.get(name, 1) == 1}
    tensor = sheet.node("Einsum", *(sheet.ordered(value) for value in held), equation=equation)
    shape = tuple(longest[name] for name in out)
    return Value(shape, "float32", {tuple(range(len(out))): tensor}, max(value.batch for value in held))


def _product(sheet: Sheet, a: Value, b: Operand, terms: Terms) -> Value:
    """One MatMul: [shared, of a alone, summed] @ [shared, summed, of b alone]; a group is one axis where it has to."""
    if (y := _mixed_in_place(sheet, a, b, terms)) is not None:
        return y
    shared, summed = terms.shared, terms.summed
    of_a = [name for name in terms.left if name not in terms.right]
    of_b = [name for name in terms.right if name not in terms.left]
    for names in (shared, summed, of_a):
        names.sort(key=lambda name: a.axes[terms.left.index(name)])
    if _is_last(a, terms.left, summed):
        axes = with_last(a, [terms.left.index(name) for name in summed])
        order = [terms.left[axis] for axis in inverse(axes)]
        of_a = [name for name in order if name in of_a] if not shared else of_a
    if isinstance(b, Value):
        of_b.sort(key=lambda name: b.axes[terms.right.index(name)])
    sizes = _sizes(a, b, terms)
    merges = bool(shared) or not of_a
    first = _group(sheet, a, terms.left, [shared, of_a, summed], sizes, [False, merges, True])
    second = _group(sheet, b, terms.right, [shared, summed, of_b], sizes, [False, True, True])
    tensor = sheet.node("MatMul", first, second)
    order = [*shared, *of_a, *of_b]
    if len(of_b) != 1 or (merges and len(of_a) != 1):
        tensor = sheet.resized(tensor, [sizes[name] for name in order])
    return _named(tensor, order, sizes, terms.out)


def _is_last(a: Value, names: str, summed: Sequence[str]) -> bool:
    return with_last(a, [names.index(name) for name in summed]) in a.forms


def _group(
    sheet: Sheet, x: Operand, names: str, groups: Sequence[Sequence[str]], sizes: dict[str, int], merged: Sequence[bool]
) -> str:
    """The name of an operand with its axes in the order of the groups, of which some become one axis each."""
    order = [names.index(name) for group in groups for name in group]
    wanted: list[int] = []
    for group, is_one in zip(groups, merged, strict=True):
        wanted += [math.prod(sizes[name] for name in group)] if is_one else [sizes[name] for name in group]
    if isinstance(x, Value):
        tensor = sheet.form(x, inverse(order))
        return tensor if wanted == [sizes[names[axis]] for axis in order] else sheet.resized(tensor, wanted)
    return sheet.constant(np.asarray(x).transpose(order).reshape(wanted), name="kernel")


def _mixed_in_place(sheet: Sheet, a: Value, b: Operand, terms: Terms) -> Value | None:
    """A known matrix that mixes one axis, where that lies last or second to last already: nothing has to move."""
    if isinstance(b, Value) or np.ndim(b) != 2 or terms.shared or len(terms.summed) != 1:
        return None
    (old,) = terms.summed
    (new,) = (name for name in terms.right if name != old)
    sizes, matrix = _sizes(a, b, terms), np.asarray(b)
    matrix = matrix if terms.right[0] == old else matrix.T
    for axes, tensor in a.forms.items():
        place = axes[terms.left.index(old)]
        order = [new if name == old else name for name in (terms.left[axis] for axis in inverse(axes))]
        if place == a.rank - 1:
            return _named(sheet.node("MatMul", tensor, sheet.constant(matrix, name="kernel")), order, sizes, terms.out)
        if place == a.rank - 2:
            known = sheet.constant(matrix.T, name="kernel")
            return _named(sheet.node("MatMul", known, tensor), order, sizes, terms.out)
    return None


def _sizes(a: Value, b: Operand, terms: Terms) -> dict[str, int]:
    others = b.sizes if isinstance(b, Value) else np.shape(b)
    of_a, of_b = dict(zip(terms.left, a.sizes, strict=True)), dict(zip(terms.right, others, strict=True))
    if a.shape.count(None) > 1:
        raise Unsupported("a product over images of any size")
    if any(of_a[name] != of_b[name] for name in of_a.keys() & of_b.keys()):
        raise Unsupported("axes of size 1 against longer ones")
    return of_a | of_b


def _named(tensor: str, order: Sequence[str], sizes: dict[str, int], out: str) -> Value:
    batches = [sizes[name] // BATCH for name in out if sizes[name] % BATCH == 0]
    shape = tuple(None if sizes[name] % BATCH == 0 else sizes[name] for name in out)
    return Value(shape, "float32", {tuple(order.index(name) for name in out): tensor}, batches[0] if batches else 1)


def mixed(sheet: Sheet, x: Value, axes: Sequence[int], matrices: Sequence[np.ndarray]) -> Value:
    """Each of some axes mixed by a known matrix (out, in)."""
    names = LETTERS[: x.rank]
    for axis, matrix in zip(axes, matrices, strict=True):
        x = _product(sheet, x, matrix, Terms(names, f"z{names[axis]}", names.replace(names[axis], "z")))
    return x
