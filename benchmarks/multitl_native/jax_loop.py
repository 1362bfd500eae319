"""Transfer learning in plain JAX: one jitted function a step, parameters in a dict, Adam written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from multitl.bench.jobs import Example, Job
from multitl_native.architectures import ARCHITECTURES
from multitl_native.weights import (
    BETAS,
    DEVIATION,
    EPSILON,
    MEAN,
    MOMENTUM,
    NETWORKS,
    STATISTICS,
    channels_last,
    network_name,
    new_head,
    read_weights,
)  # fmt: skip
from multitl_native.whole_job import fit_head

Tree = dict[str, jax.Array]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def describe() -> tuple[dict[str, str], list[str]]:
    devices = ["CPU"] if jax.default_backend() == "cpu" else [device.device_kind for device in jax.devices()]
    return {"jax": jax.__version__}, devices


def open_loop(job: Job) -> JaxLoop:
    jax.config.update("jax_default_matmul_precision", "highest")  # no TF32
    return JaxLoop(job)


class ForwardPass:
    """Satisfies `architectures.Pass`. In training `statistics` collects what batch norm leaves behind."""

    def __init__(self, weights: Tree, dtype: str, *, train: bool) -> None:
        self.weights, self.dtype, self.train, self.statistics = weights, dtype, train, Tree()

    def has(self, name: str) -> bool:
        return name in self.weights

    def conv(self, x, name, stride=1, groups=1):
        kernel = self.weights[f"{name}.weight"].astype(self.dtype)
        padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
        y = lax.conv_general_dilated(
            x.astype(self.dtype), kernel, (stride, stride), padding,
            dimension_numbers=LAYOUT, feature_group_count=groups,
        )  # fmt: skip
        return y + self.weights[f"{name}.bias"].astype(self.dtype) if self.has(f"{name}.bias") else y

    def depthwise(self, x, name, stride=1):
        return self.conv(x, name, stride, groups=x.shape[-1])

    def norm(self, x, name):
        mean, variance = (self.weights[f"{name}.{part}"] for part in STATISTICS)
        values = x.astype("float32")
        if self.train:
            count = x.size // x.shape[-1]
            before = mean, variance
            mean = values.mean((0, 1, 2))
            variance = jnp.square(values).mean((0, 1, 2)) - jnp.square(mean)
            now = mean, variance * count / max(1, count - 1)
            for part, old, new in zip(STATISTICS, before, now, strict=True):
                self.statistics[f"{name}.{part}"] = lax.stop_gradient(0.9 * old + 0.1 * new)
        scale = self.weights[f"{name}.weight"] * lax.rsqrt(variance + 1e-5)
        return (values * scale + (self.weights[f"{name}.bias"] - mean * scale)).astype(x.dtype)

    def layer_norm(self, x, name):
        values = x.astype("float32")
        values = values - values.mean(-1, keepdims=True)
        values = values * lax.rsqrt(jnp.square(values).mean(-1, keepdims=True) + 1e-6)
        return (values * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]).astype(x.dtype)

    def dense(self, x, name):
        return self._linear(x, f"{name}.weight", f"{name}.bias")

    def _linear(self, x, weight, bias):
        return x.astype(self.dtype) @ self.weights[weight].astype(self.dtype) + self.weights[bias].astype(self.dtype)

    relu = staticmethod(jax.nn.relu)
    relu6 = staticmethod(jax.nn.relu6)
    silu = staticmethod(jax.nn.silu)
    sigmoid = staticmethod(jax.nn.sigmoid)
    gelu = staticmethod(partial(jax.nn.gelu, approximate=False))

    def max_pool(self, x):
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)

    def mean(self, x, *, keep=False):
        return x.mean((1, 2), keepdims=keep)

    def patches(self, x, name):
        kernel = self.weights[f"{name}.weight"].astype(self.dtype)
        x = lax.conv_general_dilated(x.astype(self.dtype), kernel, kernel.shape[:2], "VALID", dimension_numbers=LAYOUT)
        x = (x + self.weights[f"{name}.bias"].astype(self.dtype)).reshape(len(x), -1, x.shape[-1])
        token = jnp.broadcast_to(self.weights["class_token"], (len(x), 1, x.shape[-1])).astype(self.dtype)
        return jnp.concatenate([token, x], 1) + self.weights["encoder.pos_embedding"].astype(self.dtype)

    def attention(self, x, name, heads):
        batch, tokens, channels = x.shape
        qkv = self._linear(x, f"{name}.in_proj_weight", f"{name}.in_proj_bias")
        q, k, v = (part.reshape(batch, tokens, heads, -1) for part in jnp.split(qkv, 3, axis=-1))
        y = jax.nn.dot_product_attention(q, k, v).reshape(batch, tokens, channels)
        return self.dense(y, f"{name}.out_proj")


class JaxLoop:
    """Satisfies `multitl.bench.jobs.Loop`."""

    def __init__(self, job: Job) -> None:
        name = network_name(job.cell.backbone)
        self.job, self.architecture = job, ARCHITECTURES[name]
        tensors = channels_last(read_weights(job.weights))
        kernel, bias = new_head(NETWORKS[name], job.classes, job.seed)
        self.head: Tree = jax.device_put({"weight": kernel, "bias": bias})
        self.parameters: Tree = jax.device_put({n: t for n, t in tensors.items() if not n.endswith(STATISTICS)})
        self.statistics: Tree = jax.device_put({n: t for n, t in tensors.items() if n.endswith(STATISTICS)})
        self._features = jax.jit(self._eval_features)
        self._logits = jax.jit(lambda head, *state: logits_of(head, self._eval_features(*state)))
        self._step = jax.jit(self._train_step, donate_argnums=(0, 1, 2))
        self._head_step = jax.jit(partial(head_step, job), donate_argnums=(0, 1))
        self.slots = start(self.head)

    def trainable(self) -> int:
        trained = [self.head] if self.job.cell.task == "head" else [self.head, self.parameters]
        return sum(leaf.size for leaf in jax.tree.leaves(trained))

    def predict(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        outputs = [self._logits(self.head, self.parameters, self.statistics, pixels) for pixels in batches]
        return np.concatenate(jax.device_get(outputs))

    def extract(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        outputs = [self._features(self.parameters, self.statistics, pixels) for pixels in batches]
        return np.concatenate(jax.device_get(outputs))

    def finetune(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        trained = self.parameters, self.head
        slots, losses = start(trained), []
        for pixels, labels in batches:
            trained, self.statistics, slots, loss = self._step(trained, self.statistics, slots, pixels, labels)
            losses.append(loss)
        self.parameters, self.head = trained
        return [float(loss) for loss in losses]

    def train_head(self, batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        features = self.extract(pixels for pixels, _ in batches)
        rows = np.split(features, len(batches))
        return self.head_epoch((row, labels) for row, (_, labels) in zip(rows, batches, strict=True))

    def head_epoch(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        losses = []
        for features, labels in batches:
            self.head, self.slots, loss = self._head_step(self.head, self.slots, features, labels)
            losses.append(loss)
        return [float(loss) for loss in losses]

    def head_weights(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.head["weight"]), np.asarray(self.head["bias"])

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> Iterator[tuple[float, float]]:
        return fit_head(self, self.job, train, validation)

    def wait(self) -> None:
        jax.block_until_ready(jax.live_arrays())

    def peak_device_bytes(self) -> int:
        statistics = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
        return int((statistics or {}).get("peak_bytes_in_use", 0))

    def _eval_features(self, parameters: Tree, statistics: Tree, pixels: jax.Array) -> jax.Array:
        forward = ForwardPass(parameters | statistics, self.job.cell.dtype, train=False)
        return self.architecture(forward, normalise(pixels)).astype("float32")

    def _train_step(self, trained: tuple[Tree, Tree], statistics: Tree, slots: Any, pixels, labels):
        def loss_of(trained):
            parameters, head = trained
            forward = ForwardPass(parameters | statistics, self.job.cell.dtype, train=True)
            features = self.architecture(forward, normalise(pixels)).astype("float32")
            return cross_entropy(logits_of(head, features), labels), forward.statistics

        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained)
        trained, slots = update(self.job, trained, gradients, slots)
        return trained, statistics, slots, loss


def normalise(pixels: jax.Array) -> jax.Array:
    return (pixels.astype("float32") / 255 - jnp.array(MEAN, "float32")) / jnp.array(DEVIATION, "float32")


def logits_of(head: Tree, features: jax.Array) -> jax.Array:
    return features @ head["weight"] + head["bias"]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)
    return -chosen.mean()


def head_step(job: Job, head: Tree, slots: Any, features: jax.Array, labels: jax.Array):
    loss, gradients = jax.value_and_grad(lambda head: cross_entropy(logits_of(head, features), labels))(head)
    head, slots = update(job, head, gradients, slots)
    return head, slots, loss


def start(trained: Any) -> Any:
    """First and second moments, and the number of steps."""
    return jax.tree.map(jnp.zeros_like, trained), jax.tree.map(jnp.zeros_like, trained), jnp.zeros((), "int32")


def update(job: Job, trained: Any, gradients: Any, slots: Any) -> tuple[Any, Any]:
    """SGD with momentum, or Adam (arXiv:1412.6980) with both bias corrections in the step size."""
    first, second, count = slots
    rate, count = job.learning_rate, count + 1
    if job.optimizer == "sgd":
        first = jax.tree.map(lambda m, g: MOMENTUM * m + g, first, gradients)
        return jax.tree.map(lambda w, m: w - rate * m, trained, first), (first, second, count)
    b1, b2 = BETAS
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, gradients)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, gradients)
    rate = rate * jnp.sqrt(1 - b2**count) / (1 - b1**count)
    trained = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), trained, first, second)
    return trained, (first, second, count)
