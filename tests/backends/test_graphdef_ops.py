"""Every op of the translator against TensorFlow, by its numbers.

Each case is a function of a map (n, 6, 8, 6) that comes out of a convolution. The table must hit every op: a new one
needs a line here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from multitl_tensorflow import graphdef  # noqa: E402
from multitl_tensorflow.operations import attribute  # noqa: E402
from multitl_tensorflow.signatures import Entry, Module, Spec  # noqa: E402

from multitl.models.saved_configs import check_config  # noqa: E402
from multitl.translation import parity  # noqa: E402
from multitl.translation.values import Stored  # noqa: E402

tf1, raw = tf.compat.v1, tf.raw_ops
SHAPE = (6, 8, 3)
CHANNELS = 6


def weight(*shape: int, seed: int = 0, positive: bool = False) -> Any:
    """A variable of the graph at hand."""
    array = np.random.default_rng(seed).normal(0, 0.5, shape).astype("float32")
    with tf1.variable_scope("held", use_resource=True):
        name = f"weight{len(tf1.global_variables())}"
        return tf1.get_variable(name, initializer=np.abs(array) + 0.5 if positive else array)


def tokens(x: Any) -> Any:
    """(n, h * w, c)."""
    return tf.reshape(x, [-1, 48, CHANNELS])


def vector(x: Any) -> Any:
    """(n, c)."""
    return tf.reduce_mean(x, [1, 2])


def norm(op: Callable, **options) -> Callable:
    """A batch normalisation with variables."""

    def run(x):
        statistics = {"mean": weight(6, seed=3), "variance": weight(6, seed=4, positive=True)}
        return op(x=x, scale=weight(6), offset=weight(6, seed=2), is_training=False, **statistics, **options)[0]

    return run


def attention(op: Callable) -> Callable:
    """q k^T v of one head each for two halves of the channels."""

    def run(x):
        q = tf.transpose(tf.reshape(x, [-1, 48, 2, 3]), [0, 2, 1, 3])
        return op(x=tf.nn.softmax(op(x=q, y=q, adj_y=True)), y=q)

    return run


def of_batch(x: Any) -> Any:
    """Its size, as graphs ask for it."""
    return tf.shape(x)[0]


def unary(name: str, positive: bool = False) -> Callable:
    """A raw op of one argument, whatever that is called."""
    op = getattr(raw, name)
    first = next(iter(inspect.signature(op).parameters))
    return lambda x: op(**{first: tf.abs(x) + 0.5 if positive else x})


def binary(name: str) -> Callable:
    """A raw op of a map and a weight."""
    op = getattr(raw, name)
    return lambda x: op(x=tf.abs(x) + 0.5, y=weight(6, positive=True))


UNARY = (
    "Relu", "Relu6", "Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "Softsign", "Exp", "Expm1", "Square", "Neg", "Abs",
    "Erf", "Erfc", "Sin", "Cos", "Floor", "Sign", "ZerosLike", "OnesLike", "Reciprocal", "Inv",
)  # fmt: skip
POSITIVE = ("Log", "Log1p", "Sqrt", "Rsqrt")
BINARY = ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "SquaredDifference", "Pow")

CASES: dict[str, Callable[[Any], Any]] = {
    **{name: unary(name) for name in UNARY},
    **{name: unary(name, positive=True) for name in POSITIVE},
    **{name: binary(name) for name in BINARY},
    "Add of maps": lambda x: raw.Add(x=x, y=tf.reduce_mean(x, [1, 2], keepdims=True)),
    "Sub from a constant": lambda x: raw.Sub(x=1.0, y=x),
    "Mul of weights": lambda x: x * (weight(6) * weight(6, seed=1)),
    "AddN": lambda x: raw.AddN(inputs=[x, x * 2, x]),
    "AvgPool": lambda x: raw.AvgPool(value=x, ksize=[1, 3, 2, 1], strides=[1, 2, 1, 1], padding="SAME"),
    "AvgPool of everything": lambda x: raw.AvgPool(value=x, ksize=[1, 6, 8, 1], strides=[1, 1, 1, 1], padding="VALID"),
    "MaxPool": lambda x: raw.MaxPool(input=x, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="SAME"),
    "MaxPool valid": lambda x: raw.MaxPool(input=x, ksize=[1, 2, 3, 1], strides=[1, 1, 2, 1], padding="VALID"),
    "BatchMatMul": attention(raw.BatchMatMul),
    "BatchMatMulV2": attention(raw.BatchMatMulV2),
    "BatchMatMulV3": attention(lambda x, y, adj_y=False: raw.BatchMatMulV3(x=x, y=y, Tout=tf.float32, adj_y=adj_y)),
    "BiasAdd": lambda x: raw.BiasAdd(value=x, bias=weight(6)),
    "BiasAdd of computed": lambda x: raw.BiasAdd(value=x, bias=weight(6) * 2),
    "BroadcastTo": lambda x: raw.BroadcastTo(input=vector(x)[:, None, None], shape=tf.stack([of_batch(x), 2, 3, 6])),
    "BroadcastTo of a token": lambda x: tf.concat(
        [raw.BroadcastTo(input=weight(1, 1, 6), shape=tf.stack([of_batch(x), 1, 6])), tokens(x)], 1
    ),
    "Tile": lambda x: raw.Tile(input=x, multiples=[1, 2, 1, 3]),
    "Tile of a token": lambda x: tf.concat([tf.tile(weight(1, 1, 6), [of_batch(x), 1, 1]), tokens(x)], 1),
    "Cast": lambda x: raw.Cast(x=raw.Cast(x=x * 9, DstT=tf.int32), DstT=tf.float32),
    "CheckNumerics": lambda x: raw.CheckNumerics(tensor=x, message=""),
    "ClipByValue": lambda x: raw.ClipByValue(t=x, clip_value_min=-0.3, clip_value_max=0.4),
    "Concat": lambda x: raw.Concat(concat_dim=3, values=[x, x * 2]),
    "ConcatV2": lambda x: raw.ConcatV2(values=[x, x * 2], axis=1),
    "Conv2D": lambda x: raw.Conv2D(
        input=x, filter=weight(3, 2, 6, 4), strides=[1, 2, 2, 1], padding="SAME", dilations=[1] * 4
    ),
    "Conv2D dilated with a bias": lambda x: tf.nn.conv2d(x, weight(3, 3, 6, 4), 1, "VALID", dilations=2) + weight(4),
    "Conv2D in groups": lambda x: tf.nn.conv2d(x, weight(3, 3, 2, 9), 1, "SAME"),
    "Conv2D padded by hand": lambda x: tf.nn.conv2d(x, weight(3, 3, 6, 4), 2, [[0, 0], [1, 0], [2, 1], [0, 0]]),
    "Conv2D of a computed kernel": lambda x: tf.nn.conv2d(x, tf.square(weight(3, 3, 6, 4)), 2, "SAME") + weight(4),
    "Conv2D twice with one kernel": lambda x: (lambda k: tf.nn.conv2d(tf.nn.conv2d(x, k, 1, "SAME"), k, 1, "SAME"))(
        weight(3, 3, 6, 6)
    ),
    "DepthwiseConv2dNative": lambda x: tf.nn.depthwise_conv2d(x, weight(3, 3, 6, 2), [1, 2, 2, 1], "SAME") + weight(12),
    "DepthwiseConv2dNative valid": lambda x: tf.nn.depthwise_conv2d(x, weight(3, 5, 6, 1), [1, 1, 1, 1], "VALID"),
    "DepthToSpace": lambda x: raw.DepthToSpace(input=tf.concat([x, x * 2], 3), block_size=2),
    "SpaceToDepth": lambda x: raw.SpaceToDepth(input=x, block_size=2),
    "Einsum": lambda x: raw.Einsum(inputs=[tokens(x), tokens(x)], equation="nqc,nkc->nqk"),
    "Einsum with a weight": lambda x: tf.einsum("BTC,CHD->BTHD", tokens(x), weight(6, 2, 3)) + weight(2, 3),
    "EnsureShape": lambda x: raw.EnsureShape(input=x, shape=[None, 6, 8, 6]),
    "ExpandDims": lambda x: raw.ExpandDims(input=vector(x), axis=1) * x[:, :, 0],
    "FusedBatchNorm": norm(raw.FusedBatchNorm, epsilon=1e-3),
    "FusedBatchNormV2": norm(raw.FusedBatchNormV2, epsilon=1e-3),
    "FusedBatchNormV3": norm(raw.FusedBatchNormV3, epsilon=1e-5),
    "FusedBatchNorm written out": lambda x: tf.nn.batch_normalization(
        x, weight(6), weight(6, seed=1, positive=True), weight(6, seed=2), weight(6, seed=3), 1e-3
    ),
    "FusedBatchNorm in training, as a layer normalisation": lambda x: _layer_norm(tokens(x)),
    "GatherV2": lambda x: raw.GatherV2(params=x, indices=[4, 0, 0], axis=2),
    "GatherV2 of one": lambda x: raw.GatherV2(params=x, indices=2, axis=1),
    "Identity": lambda x: raw.Identity(input=x),
    "IdentityN": lambda x: raw.IdentityN(input=[x, x * 2])[1],
    "LeakyRelu": lambda x: raw.LeakyRelu(features=x, alpha=0.3),
    "LogSoftmax": lambda x: raw.LogSoftmax(logits=vector(x)),
    "Softmax": lambda x: raw.Softmax(logits=tokens(x)) * 2,
    "MatMul": lambda x: raw.MatMul(a=vector(x), b=weight(6, 4)) + weight(4),
    "MatMul transposed": lambda x: raw.MatMul(a=vector(x), b=weight(4, 6), transpose_b=True) + weight(4),
    "MatMul of a computed kernel": lambda x: raw.MatMul(a=vector(x), b=weight(6, 4) / 2) + weight(4),
    "MatMul of tokens": lambda x: tf.reshape(tf.matmul(tf.reshape(x, [-1, 6]), weight(6, 4)), [-1, 48, 4]) + weight(4),
    "Max": lambda x: raw.Max(input=x, axis=[1, 3], keep_dims=True),
    "Min": lambda x: raw.Min(input=x, axis=2),
    "Mean": lambda x: raw.Mean(input=x, axis=[1, 2]),
    "Mean along channels": lambda x: x - raw.Mean(input=x, axis=-1, keep_dims=True),
    "Sum": lambda x: raw.Sum(input=x, axis=[1, 2]),
    "MirrorPad": lambda x: raw.MirrorPad(input=x, paddings=[[0, 0], [1, 2], [2, 1], [0, 0]], mode="REFLECT"),
    "Pad": lambda x: raw.Pad(input=x, paddings=[[0, 0], [1, 2], [0, 3], [0, 0]]),
    "PadV2": lambda x: raw.PadV2(input=x, paddings=[[0, 0], [1, 0], [0, 1], [2, 0]], constant_values=0.7),
    "Pack": lambda x: raw.Pack(values=[x, x * 2], axis=2),
    "PreventGradient": lambda x: raw.PreventGradient(input=x),
    "StopGradient": lambda x: tf.stop_gradient(x) * x,
    "Snapshot": lambda x: raw.Snapshot(input=x),
    "Rank": lambda x: x * tf.cast(raw.Rank(input=x), tf.float32),
    "Size": lambda x: x / tf.cast(raw.Size(input=tf.square(weight(6))), tf.float32),
    "Shape": lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], tf.shape(x)[1] * tf.shape(x)[2], 6])),
    "ShapeN": lambda x: tf.reshape(x, raw.ShapeN(input=[x, x])[0] // [1, 2, 1, 1] * [1, 1, 2, 1]),
    "Reshape": lambda x: raw.Reshape(tensor=x, shape=[-1, 8, 6, 6]),
    "Reshape to a product": lambda x: tf.reshape(x, [-1, tf.reduce_prod(tf.shape(x)[1:])]),
    "ResizeBilinear": lambda x: raw.ResizeBilinear(images=x, size=[9, 13], half_pixel_centers=True),
    "ResizeNearestNeighbor": lambda x: raw.ResizeNearestNeighbor(images=x, size=[12, 16], half_pixel_centers=True),
    "Select": lambda x: raw.Select(condition=tf.fill(tf.shape(x), True), x=x, y=x * 2),
    "SelectV2": lambda x: raw.SelectV2(condition=[True, False, True, True, False, False], t=x, e=0.0),
    "Slice": lambda x: raw.Slice(input=x, begin=[0, 1, 2, 0], size=[-1, 3, -1, 4]),
    "Split": lambda x: raw.Split(axis=3, value=x, num_split=3)[1],
    "SplitV": lambda x: raw.SplitV(value=x, size_splits=[1, -1, 2], axis=3, num_split=3)[1],
    "Squeeze": lambda x: raw.Squeeze(input=tf.reduce_mean(x, [1, 2], keepdims=True), axis=[1, 2]),
    "StridedSlice": lambda x: x[:, 1:-1:2, ..., 3:] + x[:, None, 0, 0, :1][:, :, None],
    "StridedSlice backwards": lambda x: x[:, ::-1],
    "Transpose": lambda x: raw.Transpose(x=x, perm=[0, 3, 1, 2]),
    "Unpack": lambda x: raw.Unpack(value=x, num=6, axis=1)[4],
}


def _layer_norm(x: Any) -> Any:
    """As tf_keras writes a layer normalisation whose epsilon is large enough for the fused op."""
    shape = tf.shape(x)
    flat = tf.reshape(x, [1, shape[0] * shape[1], shape[2], 1])
    count = shape[0] * shape[1]
    options = {"scale": tf.ones([count]), "offset": tf.zeros([count]), "mean": [], "variance": []}
    y = raw.FusedBatchNormV3(x=flat, epsilon=1e-3, data_format="NCHW", is_training=True, **options)[0]
    return tf.reshape(y, shape) * weight(6) + weight(6, seed=1)


@functools.cache
def images() -> np.ndarray:
    return parity.probe_images(SHAPE, 3)


def module_of(function: Callable[[Any], Any]) -> tuple[Module, np.ndarray]:
    """A graph of TensorFlow 1 around `function`, and what TensorFlow makes of the images."""
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        pixels = tf1.placeholder(tf.float32, (None, *SHAPE), name="images")
        outputs = tf.identity(function(tf.nn.conv2d(pixels, weight(3, 3, 3, CHANNELS), 1, "SAME")), name="outputs")
        session.run(tf1.global_variables_initializer())
        variables = {one.op.name: Stored(session.run(one), one.op.name, True) for one in tf1.global_variables()}
        wanted = session.run(outputs, {pixels: images()})
        definition = graph.as_graph_def()
    handles = {node.name: attribute(node, "shared_name").s.decode() for node in definition.node if "Handle" in node.op}
    spec = Spec("images", tf.float32, (None, *SHAPE))
    entry = Entry(images=spec, fetch="outputs:0", feed="images:0")
    places = {node: name for node, name in handles.items() if name in variables}
    return Module("case", definition, entry, variables, "default", None, places), wanted


@functools.cache
def translated(name: str) -> tuple[parity.Parity, frozenset[str]]:
    """How exact a case is, and which ops' functions it called."""
    called: set[str] = set()

    def noted(op: str) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            called.add(op)
            return graphdef.OPS[op](*arguments)

        return run

    module, wanted = module_of(CASES[name])
    ops = graphdef.OPS.replaced({op: noted(op) for op in graphdef.OPS})
    translation = graphdef.translate(graphdef.prepare(module), ops)
    assert {one.name for one in translation.weights} == set(module.variables)
    check_config(translation.model.to_json())  # else it could not be loaded again
    return parity.compare(wanted, parity.run(translation.model, images())), frozenset(called)


@pytest.mark.every_backend
@pytest.mark.parametrize("name", CASES)
def test_op_is_tensorflows(name: str):
    found, _ = translated(name)
    assert found.max_rel < 1e-5


def test_every_op_has_a_case():
    called = set().union(*(translated(name)[1] for name in CASES))
    assert set(graphdef.OPS) - called == set()
