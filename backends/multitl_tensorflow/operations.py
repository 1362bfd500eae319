"""What an op's function is given besides its inputs: attributes, and how the node behaves in training."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue


@dataclass(frozen=True)
class Dropped:
    """A dropout that acts in training. spread: whether each axis has values of its own (else one for the whole axis);
    empty for all.
    """

    rate: float
    spread: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Training:
    """What a graph for evaluation does not show. momentum: by name of the moving mean.  dropouts: by name of scope."""

    momentum: Mapping[str, float] = field(default_factory=dict)
    dropouts: Mapping[str, Dropped] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Operation:
    """A node to be translated. `name` is the original's, calls included."""

    op: str
    name: str
    proto: Any  # NodeDef
    training: Training = Training()

    def number(self, key: str) -> float:
        """A float attribute, as the shortest number that float32 rounds to it."""
        return shortest(attribute(self.proto, key).f)

    def integer(self, key: str) -> int:
        """An integer attribute."""
        return int(attribute(self.proto, key).i)

    def flag(self, key: str) -> bool:
        """A boolean attribute."""
        return bool(attribute(self.proto, key).b)

    def text(self, key: str) -> str:
        """A string attribute."""
        return attribute(self.proto, key).s.decode(errors="replace")

    def integers(self, key: str) -> list[int]:
        """A list of integers."""
        return [int(one) for one in attribute(self.proto, key).list.i]

    def dtype(self, key: str) -> int:
        """A data type, as TensorFlow numbers them."""
        return int(attribute(self.proto, key).type)


@functools.cache
def op_definition(op: str) -> Any:
    """What TensorFlow knows of an op (OpDef); None for a name that it does not have, such as a function's."""
    try:
        return tf.Graph().op_def_for_type(op)
    except RuntimeError:
        return None


def attribute(proto: Any, key: str) -> Any:
    """An attribute (AttrValue) of a NodeDef: files leave out those that have their op's default."""
    if key in proto.attr:
        return proto.attr[key]
    known = op_definition(proto.op)
    for one in known.attr if known else ():
        if one.name == key:
            return one.default_value
    return AttrValue()


def shortest(number: float) -> float:
    """0.1 for the float32 that is nearest to 0.1."""
    return float(str(np.float32(number)))


def scope_name(scope: str) -> str:
    """A scope without the calls that lead to it, so that two graphs of one network agree on it."""
    return "/".join(part for part in scope.split("/") if not _CALL.fullmatch(part))


_CALL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")
