"""Groups of nodes that are one Keras layer, put together before a graph is translated.

A batch normalisation that is written out becomes TensorFlow's own op for it; a bias that is added after a convolution
or a product becomes its third input; constants in the place of weights become weights. Nodes keep their names, and each
still computes what the original's node of that name does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from multitl.translation.values import Stored
from multitl_tensorflow.flattening import STORED, Graph, Node, Ref
from multitl_tensorflow.operations import attribute, scope_name

KERNELS = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "Einsum")
NORMALISATIONS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
SUMS = ("AddV2", "Add", "BiasAdd")
BIASED = "/biased"  # what is appended to the name of a node that the original does not have


def fuse(graph: Graph) -> Graph:
    """The same function with fewer and larger nodes."""
    return _with_biases(_with_weights(_with_batch_norms(graph)))


# --- constants in the place of weights ---


def _with_weights(graph: Graph) -> Graph:
    """In a frozen graph nothing is a variable; kernels, biases and normalisations train all the same."""
    found = dict(_weights(graph))
    nothing_trains = not any(one.trains for one in graph.stored.values())
    stored = {
        leaf: _named(one, leaf, found[leaf] and (nothing_trains or not one.name)) if leaf in found else one
        for leaf, one in graph.stored.items()
    }
    return replace(graph, stored=stored)


def _named(stored: Stored, leaf: str, trains: bool) -> Stored:
    """A constant gets its node's name."""
    return replace(stored, name=stored.name or scope_name(leaf), trains=stored.trains or trains)


def _weights(graph: Graph) -> Iterator[tuple[str, bool]]:
    """Leaves in the place of weights, and whether they would train."""
    for node in graph.nodes.values():
        leaves = [ref.node if ref.node in graph.stored else "" for ref in node.inputs]
        if node.op in KERNELS and len(leaves) > 1 and leaves[1] and _is_weight(graph.stored[leaves[1]]):
            yield leaves[1], True
        elif node.op in NORMALISATIONS and all(leaves[1:5]) and not attribute(node.proto, "is_training").b:
            for leaf, trains in zip(leaves[1:5], (True, True, False, False), strict=True):
                if graph.stored[leaf].name or not _is_uniform(graph.stored[leaf], (1.0, 0.0)[leaf == leaves[2]]):
                    yield leaf, trains
        elif node.op in SUMS and len(leaves) == 2 and leaves[1] and _is_bias(graph.stored[leaves[1]]):
            before = graph.nodes[node.inputs[0].node]
            if before.op in KERNELS:
                yield leaves[1], True


def _is_weight(stored: Stored) -> bool:
    return stored.array.dtype == np.float32 and stored.rank > 1


def _is_bias(stored: Stored) -> bool:
    return stored.array.dtype == np.float32 and stored.rank == 1


def _is_uniform(stored: Stored, number: float) -> bool:
    return bool(np.all(stored.array == number))


# --- biases ---


def _with_biases(graph: Graph) -> Graph:
    """kernel op -> (reshape) -> sum with a weight: the sum becomes the kernel op with three inputs."""
    uses = Counter(ref.node for node in graph.nodes.values() for ref in node.inputs)
    uses[graph.output.node] += 1
    nodes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        fused = _biased(graph, node, uses)
        nodes |= {one.name: one for one in fused} or {name: node}
    return pruned(replace(graph, nodes=nodes))


def _biased(graph: Graph, node: Node, uses: Counter[str]) -> list[Node]:
    """What to put in a sum's place; nothing if it is no bias."""
    if node.op not in SUMS or len(node.inputs) != 2:
        return []
    leaf = Ref(_vector(graph, node.inputs[1]) or node.inputs[1].node)
    bias, before = graph.stored.get(leaf.node), graph.nodes[node.inputs[0].node]
    if bias is None or not bias.name or uses[before.name] > 1:
        return []
    if _takes_bias(graph, before, bias):
        return [replace(before, name=node.name, inputs=(*before.inputs, leaf))]
    if before.op != "Reshape" or bias.rank != 1:
        return []
    product = graph.nodes[before.inputs[0].node]
    if uses[product.name] > 1 or product.op != "MatMul" or not _takes_bias(graph, product, bias):
        return []
    inner = replace(product, name=product.name + BIASED, inputs=(*product.inputs, leaf))
    return [inner, replace(before, name=node.name, inputs=(Ref(inner.name), before.inputs[1]))]


def _takes_bias(graph: Graph, node: Node, bias: Stored) -> bool:
    """Whether a node's layer can add the bias itself."""
    if node.op not in KERNELS or len(node.inputs) != 2:
        return False
    first = node.op != "MatMul" and attribute(node.proto, "data_format").s == b"NCHW"
    kernel = graph.stored.get(node.inputs[1].node)
    if kernel is None or not kernel.name:
        return node.op == "Conv2D" and bias.rank == 1 and not first
    if node.op == "Einsum":
        return _fits_einsum(attribute(node.proto, "equation").s.decode(errors="replace"), kernel, bias)
    units = int(np.prod(kernel.shape[2:])) if node.op == "DepthwiseConv2dNative" else kernel.shape[-1]
    if node.op == "MatMul" and attribute(node.proto, "transpose_b").b:
        units = kernel.shape[0]
    return not first and bias.shape == (units,)


def _fits_einsum(equation: str, kernel: Stored, bias: Stored) -> bool:
    """Whether a bias runs along the output's last axes, all of which the kernel has."""
    left, _, right = equation.replace(" ", "").partition("->")
    second = left.partition(",")[2]
    sizes = dict(zip(second, kernel.shape, strict=False))
    tail = right[len(right) - bias.rank :] if bias.rank else ""
    return bool(tail) and tuple(sizes.get(one) for one in tail) == bias.shape


# --- batch normalisation written out ---


@dataclass(frozen=True)
class Written:
    """x * (gamma * rsqrt(variance + epsilon)) + (beta - mean * ...): leaves by name, None for what is not there."""

    x: Ref
    gamma: str | None
    beta: str | None
    mean: str
    variance: str
    epsilon: float


def _with_batch_norms(graph: Graph) -> Graph:
    """As tf.nn.batch_normalization writes it, and Keras 3 with it."""
    found = {name: written for name, node in graph.nodes.items() if (written := _written(graph, node))}
    units = {
        f"{name}/{kind}": Stored(np.full(graph.stored[written.mean].shape, number, "float32"))
        for name, written in found.items()
        for kind, number, leaf in (("gamma", 1.0, written.gamma), ("beta", 0.0, written.beta))
        if leaf is None
    }
    nodes = {leaf: Node(leaf, STORED) for leaf in units} | dict(graph.nodes)
    nodes |= {name: _batch_norm(nodes[name], written) for name, written in found.items()}
    return pruned(replace(graph, nodes=nodes, stored={**graph.stored, **units}))


def _batch_norm(node: Node, written: Written) -> Node:
    proto = NodeDef(name=node.proto.name, op="FusedBatchNormV3")
    proto.attr["epsilon"].f = written.epsilon
    proto.attr["is_training"].b = False
    weights = (
        written.gamma or f"{node.name}/gamma",
        written.beta or f"{node.name}/beta",
        written.mean,
        written.variance,
    )
    return Node(node.name, proto.op, (written.x, *map(Ref, weights)), proto)


def _vector(graph: Graph, ref: Ref) -> str | None:
    """The leaf of a vector along the last axis, whatever axes of size 1 were put before it on the way."""
    node, size = graph.nodes[ref.node], 0
    while node.op in ("Reshape", "Squeeze"):
        if node.op == "Reshape":
            shape = graph.stored.get(node.inputs[1].node)
            if shape is None or shape.rank != 1 or np.any(shape.array[:-1] != 1):
                return None
            size = size or int(shape.array[-1])
        node = graph.nodes[node.inputs[0].node]
    stored = graph.stored.get(node.name)
    return node.name if stored is not None and stored.rank == 1 and size in (0, -1, stored.array.size) else None


def _written(graph: Graph, node: Node) -> Written | None:
    """The batch normalisation whose last sum is `node`, if it is one."""

    def split(ref: Ref, *ops: str) -> tuple[Ref, ...]:
        """The inputs of the op behind `ref`, or nothing if it is another op."""
        found = graph.nodes[ref.node]
        return found.inputs if found.op in ops else ()

    if node.op not in ("AddV2", "Add") or not (scaled := split(node.inputs[0], "Mul")):
        return None
    x, factor = scaled
    gamma, root = None, split(factor, "Rsqrt")
    if not root and (product := split(factor, "Mul")):
        root, gamma = split(product[0], "Rsqrt"), _vector(graph, product[1])
    if offset := split(node.inputs[1], "Sub"):
        beta, shift = _vector(graph, offset[0]), split(offset[1], "Mul")
    else:
        beta, shift = None, split(node.inputs[1], "Mul")
        shift = (*split(shift[0], "Neg"), *shift[1:]) if shift else ()
    if not root or len(shift) != 2 or shift[1] != factor:
        return None
    variance, *rest = (*split(root[0], "AddV2", "Add"), None)
    epsilon = graph.stored.get(rest[0].node) if rest and rest[0] else None
    mean, spread = _vector(graph, shift[0]), _vector(graph, variance) if variance else None
    if mean is None or spread is None or epsilon is None or epsilon.array.size != 1:
        return None
    has_gamma, has_beta = bool(split(factor, "Mul")), bool(offset)
    if (has_gamma and gamma is None) or (has_beta and beta is None):
        return None
    return Written(x, gamma, beta, mean, spread, epsilon.array.item())


def pruned(graph: Graph) -> Graph:
    """Without what the output does not depend on."""
    waiting, found = [graph.output.node], set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [ref.node for ref in graph.nodes[name].inputs]
    nodes = {name: node for name, node in graph.nodes.items() if name in found}
    return replace(graph, nodes=nodes, stored={name: one for name, one in graph.stored.items() if name in found})
