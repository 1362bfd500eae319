"""Products of matrices: dense layers, attention, einsum. Einsum takes axes wherever they lie, so little has to move."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from keras import layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.layouts import inverse
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation, Stored, Value, added, part

ops = OpTable("linear")

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@ops("linear")
def linear(build: Builder, x: Value, weight: Value, bias: Value | None) -> Activation:
    """x: (..., inputs), weight: (outputs, inputs)."""
    x = build.value(x)
    if isinstance(weight, Activation):
        return _with_bias(build, _product(x, weight, "ij,kj->ik"), bias)
    if isinstance(bias, Activation):
        return _with_bias(build, linear(build, x, weight, None), bias)
    place = x.place(-1)
    if place != x.rank - 1 and sum(size is None for size in x.tensor.shape[1:]):
        x = x.arranged([*(axis - (axis > place) for axis in x.axes[:-1]), x.rank - 1])
        place = x.rank - 1
    kernel = part("kernel", weight, (1, 0))
    if place == x.rank - 1:
        parts = kernel + (part("bias", bias) if bias else [])
        make = _dense(weight.shape[0], bias is not None)
    else:  # 1x1 convolutions written as linear layers on channels-first maps
        parts = kernel + (part("bias", bias) if bias else [])
        make = _einsum_dense(x.tensor.shape, place, weight.shape[0], bias is not None)
    return x.with_tensor(build.layer(make, x.tensor, parts))


def _dense(units: int, use_bias: bool):
    return lambda name: layers.Dense(units, use_bias=use_bias, name=name)


def _einsum_dense(shape: Sequence[int | None], place: int, units: int, use_bias: bool):
    """A dense layer along any axis but the last."""
    axes = LETTERS[: len(shape)]
    out = axes.replace(axes[place], "z")
    sizes = [units if axis == place else size for axis, size in enumerate(shape)]
    return lambda name: layers.EinsumDense(
        f"{axes},{axes[place]}z->{out}", sizes[1:], bias_axes="z" if use_bias else None, name=name
    )


def _with_bias(build: Builder, x: Activation, bias: Value | None) -> Activation:
    return x if bias is None else x.with_tensor(added(x.tensor, build.operand(bias, x)))


@ops("addmm")
def addmm(build: Builder, bias: Value, x: Value, weight: Value, beta: float, alpha: float) -> Activation:
    """beta * bias + alpha * x @ weight."""
    y = matmul(build, x, weight)
    scaled = build.value(bias)
    return y.with_tensor(added(K.multiply(y.tensor, alpha), K.multiply(build.operand(scaled, y), beta)))


@ops("baddbmm")
def baddbmm(build: Builder, bias: Value, a: Value, b: Value, beta: float, alpha: float) -> Activation:
    """beta * bias + alpha * a @ b."""
    return addmm(build, bias, a, b, beta, alpha)


@ops("matmul", "bmm", "mm")
def matmul(build: Builder, a: Value, b: Value) -> Activation:
    """a: (..., i, j), b: (..., j, k) -> (..., i, k)."""
    a, b = build.value(a), build.value(b)
    if min(a.rank, b.rank) < 2:
        raise Unsupported("a product with a vector")
    return _product(a, b, "ij,jk->ik")


def _product(a: Activation, b: Activation, equation: str) -> Activation:
    """An einsum over the last two axes of each, as `equation` names them; the axes before them are broadcast."""
    rank = max(a.rank, b.rank)
    a, b = a.with_rank(rank), b.with_rank(rank)
    batch = LETTERS[-(rank - 2) :] if rank > 2 else ""
    first, second, out = (batch + term for term in equation.replace("->", ",").split(","))
    units = [axis for axis in range(rank - 2) if a.shape[axis] != b.shape[axis]]
    a_names, b_names = _without_units(a, first, units), _without_units(b, second, units)
    order = _output_order(b, first, second, out)
    a_tensor, b_tensor = _squeezed(a, units), _squeezed(b, units)
    tensor = K.einsum(f"{a_names},{b_names}->{order}", a_tensor, b_tensor)
    return Activation(tensor, tuple(order.index(name) for name in out), max(a.batch, b.batch))


def _without_units(x: Activation, names: str, units: Sequence[int]) -> str:
    """The axes' letters as they lie, less axes of size 1 that the partner has longer: einsum does not broadcast."""
    gone = {axis for axis in units if x.shape[axis] == 1}
    return "".join(names[axis] for axis in inverse(x.axes) if axis not in gone)


def _squeezed(x: Activation, units: Sequence[int]):
    places = tuple(x.place(axis) for axis in units if x.shape[axis] == 1)
    return K.squeeze(x.tensor, places) if places else x.tensor


def _output_order(b: Activation, first: str, second: str, out: str) -> str:
    """Where the result's axes shall lie: as b's, if its columns lie last, which spares attention a transpose."""
    as_b = "".join(second[axis] for axis in inverse(b.axes)).replace(second[-2], first[-2])
    return as_b if sorted(as_b) == sorted(out) and as_b.endswith(out[-1]) else out


@ops("einsum")
def einsum(build: Builder, equation: str, operands: Sequence[Value], _path=None) -> Activation:
    """Axes of size 1 are left out where another operand has them longer: Keras does not broadcast on every backend."""
    values = [build.value(operand) for operand in operands]
    terms, right = _explicit(equation, [value.rank for value in values])
    longest: dict[str, int] = {}
    for term, value in zip(terms, values, strict=True):
        longest |= {name: max(size, longest.get(name, 1)) for name, size in zip(term, value.shape, strict=True)}
    names, tensors = [], []
    for term, value in zip(terms, values, strict=True):
        units = [axis for axis, name in enumerate(term) if value.shape[axis] < longest[name]]
        names.append(_without_units(value, term, units))
        tensors.append(_squeezed(value, units))
    tensor = K.einsum(f"{','.join(names)}->{right}", *tensors)
    return Activation(tensor, tuple(range(len(right))), max(value.batch for value in values))


def _explicit(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Left and right side in lower case, with letters in place of "..." and a right side where it is implied."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    spare = [letter for letter in LETTERS if letter not in equation]
    terms = left.split(",")
    extra = [rank - len(term) + 3 if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)]
    dots = "".join(spare.pop() for _ in range(max(extra)))
    if not arrow:
        right = "..." + "".join(sorted(name for name in {*left} - {*",."} if left.count(name) == 1))
    terms = [term.replace("...", dots[len(dots) - count :]) for term, count in zip(terms, extra, strict=True)]
    lower = {ord(name): spare.pop() for name in sorted({*equation}) if name.isupper()}
    return [term.translate(lower) for term in terms], right.replace("...", dots).translate(lower)


@ops("scaled_dot_product_attention")
def attention(
    build: Builder, query: Value, key: Value, value: Value, mask: Value | None, _dropout: float, is_causal: bool,
    scale: float | None, _grouped: bool,
) -> Activation:  # fmt: skip
    """query, key, value: (batch, heads, tokens, channels). softmax(q k^T * scale + mask) v, in plain steps."""
    query, key = build.value(query), build.value(key)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = _product(query.with_tensor(K.multiply(query.tensor, scale)), key, "ij,kj->ik")
    if is_causal:
        mask = Stored(np.tril(np.ones((query.shape[-2], key.shape[-2]), bool)))
    if isinstance(mask, Stored) and mask.array.dtype == bool:
        mask = Stored(np.where(mask.array, 0, -1e30).astype("float32"))
    if mask is not None:
        scores = scores.with_tensor(added(scores.tensor, build.operand(mask, scores)))
    weights = scores.with_tensor(K.softmax(scores.tensor, scores.place(-1)))
    return _product(weights, build.value(value), "ij,jk->ik")
