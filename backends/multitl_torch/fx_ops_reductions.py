"""Ops along axes: reductions, running sums, and what sorts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation

ops = OpTable("reductions")


def _reduced(x: Activation, axes: int | Sequence[int] | None, keep: bool, function: Callable) -> Activation:
    """`function(tensor, places, keepdims)` along some axes; none means all."""
    chosen = list(range(x.rank)) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
    places = tuple(x.place(axis) for axis in chosen)
    tensor = function(x.tensor, places, keep)
    return x.with_tensor(tensor) if keep else x.without(tensor, places)


def _keras(function: Callable) -> Callable:
    """One of keras.ops as `_reduced` calls it."""
    return lambda tensor, places, keep: function(tensor, places, keepdims=keep)


@ops("mean.dim")
def mean(build: Builder, x: Activation, axes, keep: bool, _dtype) -> Activation:
    """Along some axes."""
    return _reduced(x, axes, keep, _keras(K.mean))


@ops("sum.dim_IntList")
def total(build: Builder, x: Activation, axes, keep: bool, _dtype) -> Activation:
    """Along some axes."""
    return _reduced(x, axes, keep, _keras(K.sum))


@ops("prod.dim_int")
def product(build: Builder, x: Activation, axis: int, keep: bool, _dtype) -> Activation:
    """Along one axis."""
    return _reduced(x, axis, keep, _keras(K.prod))


@ops("logsumexp")
def logsumexp(build: Builder, x: Activation, axes, keep: bool) -> Activation:
    """The logarithm of the sum of exponentials along some axes."""
    return _reduced(x, axes, keep, _keras(K.logsumexp))


@ops("amax")
def largest(build: Builder, x: Activation, axes, keep: bool) -> Activation:
    """Along some axes."""
    return _reduced(x, axes, keep, _keras(K.max))


@ops("amin")
def smallest(build: Builder, x: Activation, axes, keep: bool) -> Activation:
    """Along some axes."""
    return _reduced(x, axes, keep, _keras(K.min))


@ops("argmax")
def place_of_largest(build: Builder, x: Activation, axis: int | None, keep: bool) -> Activation:
    """Where the largest one lies along an axis."""
    return _place(x, axis, keep, K.argmax)


@ops("argmin")
def place_of_smallest(build: Builder, x: Activation, axis: int | None, keep: bool) -> Activation:
    """Where the smallest one lies along an axis."""
    return _place(x, axis, keep, K.argmin)


def _place(x: Activation, axis: int | None, keep: bool, function: Callable) -> Activation:
    if axis is None:
        raise Unsupported("a place among all elements")
    return _reduced(x, axis, keep, lambda tensor, places, keep: function(tensor, places[0], keepdims=keep))


@ops("max.dim")
def largest_along(build: Builder, x: Activation, axis: int, keep: bool) -> list[Activation]:
    """The largest ones along one axis, and where they lie."""
    return [largest(build, x, axis, keep), place_of_largest(build, x, axis, keep)]


@ops("min.dim")
def smallest_along(build: Builder, x: Activation, axis: int, keep: bool) -> list[Activation]:
    """The smallest ones along one axis, and where they lie."""
    return [smallest(build, x, axis, keep), place_of_smallest(build, x, axis, keep)]


@ops("var.correction")
def variance(build: Builder, x: Activation, axes, correction: float | None, keep: bool) -> Activation:
    """Sum of squared deviations over (count - correction); 1 by default."""
    chosen = list(range(x.rank)) if axes is None else [axes] if isinstance(axes, int) else axes
    count = math.prod(x.shape[axis] for axis in chosen)
    less = 1 if correction is None else correction
    factor = count / (count - less)
    return _reduced(x, axes, keep, lambda t, places, keep: K.multiply(K.var(t, places, keepdims=keep), factor))


@ops("var.dim")
def variance_unbiased(build: Builder, x: Activation, axes, unbiased: bool, keep: bool) -> Activation:
    """As `variance`."""
    return variance(build, x, axes, int(unbiased), keep)


@ops("std.dim")
def deviation_unbiased(build: Builder, x: Activation, axes, unbiased: bool, keep: bool) -> Activation:
    """As `deviation`."""
    return deviation(build, x, axes, int(unbiased), keep)


@ops("var_mean.dim")
def variance_unbiased_and_mean(build: Builder, x: Activation, axes, unbiased: bool, keep: bool) -> list[Activation]:
    """As `variance_and_mean`."""
    return variance_and_mean(build, x, axes, int(unbiased), keep)


@ops("var_mean.correction")
def variance_and_mean(build: Builder, x: Activation, axes, correction: float | None, keep: bool) -> list[Activation]:
    """Both along some axes."""
    return [variance(build, x, axes, correction, keep), _reduced(x, axes, keep, _keras(K.mean))]


@ops("std.correction")
def deviation(build: Builder, x: Activation, axes, correction: float | None, keep: bool) -> Activation:
    """The root of the variance."""
    y = variance(build, x, axes, correction, keep)
    return y.with_tensor(K.sqrt(y.tensor))


@ops("linalg_vector_norm")
def vector_norm(build: Builder, x: Activation, order: float, axes, keep: bool, _dtype) -> Activation:
    """The length along some axes: Euclidean, of absolute values, or the largest of these."""
    functions = {1: _sum_of_absolutes, 2: _euclidean, math.inf: _largest_absolute}
    if order not in functions:
        raise Unsupported(f"a vector norm of order {order}")
    return _reduced(x, axes, keep, functions[order])


def _sum_of_absolutes(tensor, places: Sequence[int], keep: bool):
    return K.sum(K.abs(tensor), places, keepdims=keep)


def _euclidean(tensor, places: Sequence[int], keep: bool):
    return K.sqrt(K.sum(K.square(tensor), places, keepdims=keep))


def _largest_absolute(tensor, places: Sequence[int], keep: bool):
    return K.max(K.abs(tensor), places, keepdims=keep)


@ops("norm.ScalarOpt_dim")
def norm(build: Builder, x: Activation, order: float | None, axes, keep: bool) -> Activation:
    """As `vector_norm`."""
    return vector_norm(build, x, 2 if order is None else order, axes, keep, None)


# --- along an axis that stays ---


@ops("cumsum")
def running_sum(build: Builder, x: Activation, axis: int, _dtype) -> Activation:
    """Of all elements up to each."""
    return x.with_tensor(K.cumsum(x.tensor, x.place(axis)))


@ops("cumprod")
def running_product(build: Builder, x: Activation, axis: int, _dtype) -> Activation:
    """Of all elements up to each."""
    return x.with_tensor(K.cumprod(x.tensor, x.place(axis)))


@ops("topk")
def topk(build: Builder, x: Activation, count: int, axis: int, is_largest: bool, _sorted: bool) -> list[Activation]:
    """The `count` largest or smallest ones along an axis, and where they lie."""
    others = [other for other in range(x.rank) if other != axis % x.rank]
    order = [*sorted(others, key=lambda other: x.axes[other]), axis % x.rank]
    x = x.arranged([order.index(one) for one in range(x.rank)])
    values, places = K.top_k(x.tensor if is_largest else K.negative(x.tensor), count)
    return [x.with_tensor(values if is_largest else K.negative(values)), x.with_tensor(places)]


@ops("sort")
def sort(build: Builder, x: Activation, axis: int, descending: bool) -> list[Activation]:
    """All elements of an axis in order, and where they lay."""
    return topk(build, x, x.shape[axis], axis, descending, True)
