"""Under which keys of its checkpoint a graph of TensorFlow 1 keeps its variables: as its own restoring operations say.

Keras' exports of TensorFlow 1's format (Teachable Machine's are such) hold an object-based checkpoint, whose keys are
not the names of variables. What is followed: RestoreV2 -> Identity -> AssignVariableOp -> VarHandleOp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multitl_tensorflow.operations import attribute

VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_ASSIGNMENTS = ("AssignVariableOp", "Assign")
_PASSING = ("Identity", "Cast")


def restored_keys(graph: Any) -> dict[str, str]:
    """Node of a variable in a GraphDef -> key in the checkpoint, for each that is restored whole."""
    nodes = {node.name: node for node in graph.node}
    keys: dict[str, str] = {}
    for node in graph.node:
        if node.op in _ASSIGNMENTS and len(node.input) >= 2:
            variable, value = (_origin(nodes, name) for name in node.input[:2])
            if variable and value and variable[0].op in VARIABLES and value[0].op == "RestoreV2":
                key = _key(nodes, *value)
                keys |= {variable[0].name: key} if key else {}
    return keys


def _origin(nodes: Mapping[str, Any], name: str) -> tuple[Any, int] | None:
    """The node that a tensor comes from, through what passes it on, and which of its outputs it is."""
    for _ in range(len(nodes)):  # a damaged graph may go round in circles
        place, _, output = name.partition(":")
        node = nodes.get(place)
        if node is None or node.op not in _PASSING or not node.input:
            return None if node is None else (node, int(output) if output.isdecimal() else 0)
        name = node.input[0]
    return None


def _key(nodes: Mapping[str, Any], restore: Any, output: int) -> str:
    """The name that a RestoreV2 reads for one of its outputs; "" for a part of a value, or where no constant says."""
    names, slices = (_texts(nodes, name) for name in [*restore.input, "", "", ""][1:3])
    return "" if any(slices[output : output + 1]) else next(iter(names[output : output + 1]), "")


def _texts(nodes: Mapping[str, Any], name: str) -> list[str]:
    origin = _origin(nodes, name)
    if origin is None or origin[0].op != "Const":
        return []
    return [one.decode(errors="replace") for one in attribute(origin[0], "value").tensor.string_val]
