"""Products of matrices: dense layers, attention, einsum."""

from __future__ import annotations

from collections.abc import Callable

from keras import layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.layouts import in_order, inverse
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation, Stored, Value, added, part
from multitl_tensorflow.operations import Operation

ops = OpTable("linear")

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@ops("MatMul")
def matmul(build: Builder, node: Operation, x: Value, kernel: Value, bias: Stored | None = None) -> Activation:
    """x: (n, inputs), kernel: (inputs, outputs), either of them transposed."""
    x = _matrix(build.value(x), node.flag("transpose_a"))
    if isinstance(kernel, Activation):
        y = Activation(K.matmul(x.tensor, _matrix(kernel, node.flag("transpose_b")).tensor), (0, 1), x.batch)
        return y if bias is None else y.with_tensor(added(y.tensor, build.operand(bias, y)))
    axes = (1, 0) if node.flag("transpose_b") else (0, 1)
    units = kernel.shape[axes[1]]
    parts = part("kernel", kernel, axes) + (part("bias", bias) if bias else [])
    make = _dense(units, bias is not None)
    return Activation(build.layer(make, x.tensor, parts), (0, 1), x.batch)


def _dense(units: int, use_bias: bool) -> Callable[[str], layers.Layer]:
    return lambda name: layers.Dense(units, use_bias=use_bias, name=name)


@ops("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def batch_matmul(build: Builder, node: Operation, a: Value, b: Value) -> Activation:
    """a: (..., i, j), b: (..., j, k) -> (..., i, k)."""
    a, b = (_matrix(build.value(x), node.flag(flag)) for x, flag in ((a, "adj_x"), (b, "adj_y")))
    return Activation(K.matmul(a.tensor, b.tensor), in_order(max(a.rank, b.rank)), max(a.batch, b.batch))


def _matrix(x: Activation, transposed: bool) -> Activation:
    """The axes in order, the last two swapped if they are transposed."""
    if not transposed:
        return x.in_order()
    swapped = Activation(x.tensor, (*x.axes[:-2], x.axes[-1], x.axes[-2]), x.batch)
    return swapped.in_order()


@ops("Einsum")
def einsum(build: Builder, node: Operation, *values: Value) -> Activation:
    """A product with a weight, and perhaps a bias after it, is a layer; Keras knows no upper case."""
    equation = node.text("equation").replace(" ", "")
    if "..." in equation or "->" not in equation:
        raise Unsupported("einsum with '...'")
    spare = iter(letter for letter in LETTERS if letter not in equation)
    for letter in sorted({letter for letter in equation if letter.isupper()}):
        equation = equation.replace(letter, next(spare))
    x, kernel, *bias = (*values, None) if len(values) == 1 else values
    if isinstance(x, Activation) and isinstance(kernel, Stored) and kernel.name:
        return _einsum_dense(build, equation, x, kernel, *bias)
    held = [build.value(value) for value in values]
    left, right = equation.split("->")
    terms = [
        "".join(term[axis] for axis in inverse(value.axes)) for term, value in zip(left.split(","), held, strict=True)
    ]
    tensor = K.einsum(f"{','.join(terms)}->{right}", *(value.tensor for value in held))
    return Activation(tensor, in_order(len(right)), max(value.batch for value in held))


def _einsum_dense(
    build: Builder, equation: str, x: Activation, kernel: Stored, bias: Value | None = None
) -> Activation:
    if isinstance(bias, Activation):
        raise Unsupported("einsum with a computed bias")
    x = x.in_order()
    left, right = equation.split("->")
    first, second = left.split(",")
    sizes = dict(zip(first, x.tensor.shape, strict=True)) | dict(zip(second, kernel.shape, strict=True))
    bias_axes = None if bias is None else right[len(right) - bias.rank :]
    y = build.layer(
        lambda name: layers.EinsumDense(equation, [sizes[one] for one in right[1:]], bias_axes=bias_axes, name=name),
        x.tensor,
        part("kernel", kernel) + (part("bias", bias) if bias else []),
    )
    return Activation(y, in_order(len(right)), x.batch)
