"""Comparisons and what is done with them. Truth values stay what they are; Keras counts them as 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation, Stored, Value, added
from multitl_torch.fx_ops_elementwise import combined

ops = OpTable("comparing")

COMPARISONS = {
    "gt": K.greater, "ge": K.greater_equal, "lt": K.less, "le": K.less_equal, "eq": K.equal, "ne": K.not_equal,
}  # fmt: skip
LOGIC = {"and": K.logical_and, "or": K.logical_or, "xor": K.logical_xor}


def _comparison(function: Callable) -> Callable[..., Activation]:
    return lambda build, a, b: combined(build, function, a, b)


def _logical(function: Callable) -> Callable[..., Activation]:
    def translate(build: Builder, a: Value, b: Value) -> Activation:
        for value in (a, b):
            _insist_on_truth(value)
        return combined(build, function, a, b)

    return translate


for _name, _function in COMPARISONS.items():
    ops(f"{_name}.Scalar", f"{_name}.Tensor")(_comparison(_function))
for _name, _function in LOGIC.items():
    ops(f"logical_{_name}", f"bitwise_{_name}.Tensor", f"__{_name}__.Tensor")(_logical(_function))


@ops("logical_not", "bitwise_not")
def negation(build: Builder, x: Activation) -> Activation:
    """True where it was false."""
    _insist_on_truth(x)
    return x.with_tensor(K.logical_not(x.tensor))


def _insist_on_truth(value: Value) -> None:
    """Raises Unsupported for numbers: their bits are not Keras' business."""
    if str(value.tensor.dtype if isinstance(value, Activation) else value.array.dtype) != "bool":
        raise Unsupported("logic of numbers")


@ops("masked_fill.Scalar")
def masked_fill(build: Builder, x: Activation, mask: Value, fill: float) -> Activation:
    """`fill` where the mask is true; -inf becomes a number that JSON knows."""
    number = max(float(fill), -3e38)
    if isinstance(mask, Activation):
        return where(build, mask, number, x)
    keep, add_ = Stored((~mask.array).astype("float32")), Stored(np.where(mask.array, number, 0).astype("float32"))
    return combined(build, added, combined(build, K.multiply, x, keep), add_)


@ops("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def where(build: Builder, mask: Value, a: Value | float, b: Value | float) -> Activation:
    """a where the mask is true, else b."""
    values = [value for value in (a, b) if isinstance(value, Value)]
    values += [mask] if isinstance(mask, Activation) else []
    rank = max(value.rank for value in values)
    x = max((build.value(value) for value in values), key=lambda x: (x.rank, math.prod(x.shape))).with_rank(rank)
    first, second = (build.operand(value, x) if isinstance(value, Value) else value for value in (a, b))
    return x.with_tensor(K.where(build.operand(mask, x), first, second))
