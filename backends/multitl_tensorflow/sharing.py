"""Gradients of several processes, as one tensor that they all add to before the optimizer sees it.

TensorFlow's strategy is made for the cluster that it joins and for nothing else: under Keras 3 its scopes fail
(keras#20585, tensorflow#72388).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from multitl_tensorflow.insides import allow_silence

GROUP, INSTANCE = 2017, 2019  # numbers of ours, which all processes have to name alike


def initialise(addresses: Sequence[str], rank: int) -> None:
    """Before anything is computed. addresses: "host:port" of each, where it is going to listen."""
    cluster = tf.train.ClusterSpec({"worker": list(addresses)})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type="worker", task_id=rank, rpc_layer="grpc"
    )
    allow_silence(len(addresses))
    tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def shared_mean(tensors: Sequence[tf.Tensor | None], size: int) -> list[tf.Tensor | None]:
    """The mean of each over `size` processes, within a compiled function. None, of a weight without gradient, stays."""
    dense = [one for one in tensors if one is not None]
    flat = tf.concat([tf.reshape(one, [-1]) for one in dense], 0)
    total = tf.raw_ops.CollectiveReduceV2(
        input=flat, group_size=size, group_key=GROUP, instance_key=INSTANCE, ordering_token=[], merge_op="Add",
        final_op="Div", communication_hint="auto",
    )  # fmt: skip
    parts = iter(tf.split(total, [int(np.prod(one.shape)) for one in dense]))
    return [None if one is None else tf.reshape(next(parts), one.shape) for one in tensors]
