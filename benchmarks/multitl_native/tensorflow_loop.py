"""Transfer learning in plain TensorFlow: `tf.function` around each step, with XLA (native-tf-xla) or without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

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


def describe() -> tuple[dict[str, str], list[str]]:
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return {"tensorflow": tf.__version__}, [str(gpu.get("device_name", "GPU")) for gpu in gpus] or ["CPU"]


def open_loop(job: Job) -> TensorFlowLoop:
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return TensorFlowLoop(job)


class ForwardPass:
    """Satisfies `architectures.Pass`. In training batch norm updates its statistics."""

    def __init__(self, weights: dict[str, tf.Variable], dtype: str, *, train: bool) -> None:
        self.weights, self.dtype, self.train = weights, dtype, train

    def has(self, name: str) -> bool:
        return name in self.weights

    def _get(self, name: str) -> tf.Tensor:
        return tf.cast(self.weights[name], self.dtype)

    def conv(self, x, name, stride=1):
        kernel = self._get(f"{name}.weight")
        y = tf.nn.conv2d(tf.cast(x, self.dtype), kernel, stride, padding_for(kernel, stride))
        return tf.nn.bias_add(y, self._get(f"{name}.bias")) if self.has(f"{name}.bias") else y

    def depthwise(self, x, name, stride=1):
        kernel = tf.transpose(self._get(f"{name}.weight"), (0, 1, 3, 2))
        strides = (1, stride, stride, 1)
        return tf.nn.depthwise_conv2d(tf.cast(x, self.dtype), kernel, strides, padding_for(kernel, stride))

    def norm(self, x, name):
        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        mean, variance = (self.weights[f"{name}.{part}"] for part in STATISTICS)
        y, now_mean, now_variance, *_ = tf.compat.v1.nn.fused_batch_norm(
            x, scale, shift, mean, variance, epsilon=1e-5, is_training=self.train, exponential_avg_factor=0.1
        )
        if self.train:
            mean.assign(now_mean)
            variance.assign(now_variance)
        return y

    def layer_norm(self, x, name):
        values = tf.cast(x, "float32")
        mean, variance = tf.nn.moments(values, -1, keepdims=True)
        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return tf.cast(tf.nn.batch_normalization(values, mean, variance, shift, scale, 1e-6), x.dtype)

    def dense(self, x, name):
        return self._linear(x, f"{name}.weight", f"{name}.bias")

    def _linear(self, x, weight, bias):
        return tf.nn.bias_add(tf.matmul(tf.cast(x, self.dtype), self._get(weight)), self._get(bias))

    relu = staticmethod(tf.nn.relu)
    relu6 = staticmethod(tf.nn.relu6)
    silu = staticmethod(tf.nn.silu)
    sigmoid = staticmethod(tf.nn.sigmoid)
    gelu = staticmethod(tf.nn.gelu)

    def max_pool(self, x):
        """Of values above 0, what a ReLU gives; XLA pads no pooling by itself."""
        return tf.nn.max_pool2d(tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2, "VALID")

    def mean(self, x, *, keep=False):
        return tf.reduce_mean(x, (1, 2), keepdims=keep)

    def patches(self, x, name):
        kernel = self._get(f"{name}.weight")
        x = tf.nn.bias_add(
            tf.nn.conv2d(tf.cast(x, self.dtype), kernel, kernel.shape[0], "VALID"), self._get(f"{name}.bias")
        )
        x = tf.reshape(x, (x.shape[0], -1, x.shape[-1]))
        token = tf.broadcast_to(self._get("class_token"), (x.shape[0], 1, x.shape[-1]))
        return tf.concat([token, x], 1) + self._get("encoder.pos_embedding")

    def attention(self, x, name, heads):
        batch, tokens, channels = x.shape
        qkv = self._linear(x, f"{name}.in_proj_weight", f"{name}.in_proj_bias")
        q, k, v = tf.unstack(
            tf.transpose(tf.reshape(qkv, (batch, tokens, 3, heads, channels // heads)), (2, 0, 3, 1, 4))
        )
        weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * (channels // heads) ** -0.5)
        y = tf.reshape(tf.transpose(tf.matmul(weights, v), (0, 2, 1, 3)), (batch, tokens, channels))
        return self.dense(y, f"{name}.out_proj")


def padding_for(kernel: tf.Tensor, stride: int) -> str | list[list[int]]:
    """PyTorch pads both sides alike; that is TensorFlow's SAME where the stride is 1."""
    if stride == 1:
        return "SAME"
    height, width = (size // 2 for size in kernel.shape[:2])
    return [[0, 0], [height, height], [width, width], [0, 0]]


class TensorFlowLoop:
    """Satisfies `multitl.bench.jobs.Loop`."""

    def __init__(self, job: Job) -> None:
        name = network_name(job.cell.backbone)
        self.job, self.architecture = job, ARCHITECTURES[name]
        tensors = channels_last(read_weights(job.weights))
        self.weights = {n: tf.Variable(t, trainable=not n.endswith(STATISTICS)) for n, t in tensors.items()}
        self.head = [tf.Variable(part) for part in new_head(NETWORKS[name], job.classes, job.seed)]
        self.trained = [w for w in self.weights.values() if w.trainable] + self.head
        compiled = job.cell.contender.endswith("-xla")
        self._logits = tf.function(lambda pixels: self._classify(self._forward(pixels)), jit_compile=compiled)
        self._features = tf.function(self._forward, jit_compile=compiled)
        self._step = tf.function(self._train_step, jit_compile=compiled)
        self._head_step = tf.function(self._train_head_step, jit_compile=compiled)
        is_head = job.cell.task == "head"
        self.optimizer = Optimizer(job, self.head if is_head else self.trained)

    def trainable(self) -> int:
        return sum(int(np.prod(variable.shape)) for variable in self.optimizer.trained)

    def predict(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([self._logits(pixels).numpy() for pixels in map(tf.constant, batches)])

    def extract(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([self._features(pixels).numpy() for pixels in map(tf.constant, batches)])

    def finetune(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        losses = [self._step(tf.constant(pixels), tf.constant(labels)) for pixels, labels in batches]
        return [float(loss) for loss in losses]

    def train_head(self, batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        rows = np.split(self.extract(pixels for pixels, _ in batches), len(batches))
        return self.head_epoch((row, labels) for row, (_, labels) in zip(rows, batches, strict=True))

    def head_epoch(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        losses = [self._head_step(tf.constant(features), tf.constant(labels)) for features, labels in batches]
        return [float(loss) for loss in losses]

    def head_weights(self) -> tuple[np.ndarray, np.ndarray]:
        kernel, bias = self.head
        return kernel.numpy(), bias.numpy()

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> Iterator[tuple[float, float]]:
        return fit_head(self, self.job, train, validation)

    def wait(self) -> None:
        tf.test.experimental.sync_devices()

    def peak_device_bytes(self) -> int:
        has_gpu = tf.config.list_physical_devices("GPU")
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"]) if has_gpu else 0

    def _forward(self, pixels: tf.Tensor, *, train: bool = False) -> tf.Tensor:
        forward = ForwardPass(self.weights, self.job.cell.dtype, train=train)
        return tf.cast(self.architecture(forward, normalise(pixels)), "float32")

    def _classify(self, features: tf.Tensor) -> tf.Tensor:
        kernel, bias = self.head
        return tf.matmul(features, kernel) + bias

    def _train_step(self, pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = cross_entropy(self._classify(self._forward(pixels, train=True)), labels)
        self.optimizer.update(tape.gradient(loss, self.optimizer.trained))
        return loss

    def _train_head_step(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = cross_entropy(self._classify(features), labels)
        self.optimizer.update(tape.gradient(loss, self.optimizer.trained))
        return loss


class Optimizer:
    """SGD with momentum, or Adam, by TensorFlow's fused kernels."""

    def __init__(self, job: Job, trained: list[tf.Variable]) -> None:
        self.name, self.trained, self.rate = job.optimizer, trained, job.learning_rate
        self.first, self.second = ([tf.Variable(tf.zeros_like(v)) for v in trained] for _ in range(2))
        self.steps = tf.Variable(0.0)

    def update(self, gradients: list[tf.Tensor]) -> None:
        self.steps.assign_add(1.0)
        b1, b2 = BETAS
        powers = b1**self.steps, b2**self.steps
        for weight, m, v, gradient in zip(self.trained, self.first, self.second, gradients, strict=True):
            if self.name == "sgd":
                tf.raw_ops.ResourceApplyKerasMomentum(
                    var=weight.handle, accum=m.handle, lr=self.rate, grad=gradient, momentum=MOMENTUM
                )
            else:
                tf.raw_ops.ResourceApplyAdam(
                    var=weight.handle, m=m.handle, v=v.handle, beta1_power=powers[0], beta2_power=powers[1],
                    lr=self.rate, beta1=b1, beta2=b2, epsilon=EPSILON, grad=gradient,
                )  # fmt: skip


def normalise(pixels: tf.Tensor) -> tf.Tensor:
    return (tf.cast(pixels, "float32") / 255 - tf.constant(MEAN)) / tf.constant(DEVIATION)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
