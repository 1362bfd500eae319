"""The contract of a backend module, kept by whichever backend this process runs; the GPU's part with faked devices."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from multitl.adapters import BACKENDS, load_backend
from multitl.contracts import Backend

pytestmark = pytest.mark.every_backend
BACKEND = keras.config.backend()
only = {name: pytest.mark.skipif(name != BACKEND, reason=f"is about {name}") for name in BACKENDS}

TRAIN_TWICE = """
import sys
from multitl.adapters import load_backend
backend = load_backend()
import keras, numpy as np
def train():
    keras.utils.set_random_seed(7)
    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    model.fit(x, x[:, 0, 0, :2], batch_size=8, epochs=2, verbose=0)
    return np.concatenate([weight.ravel() for weight in model.get_weights()])
keras.utils.set_random_seed(7)
backend.make_deterministic(0)
print(sys.argv, np.array_equal(train(), train()))
"""


@pytest.fixture(scope="module")
def backend() -> Backend:
    return load_backend()


def test_module_satisfies_the_protocol(backend: Backend):
    for name, method in inspect.getmembers(Backend, inspect.isfunction):
        if not name.startswith("_"):
            wanted = [p for p in inspect.signature(method).parameters if p != "self"]
            assert list(inspect.signature(getattr(backend, name)).parameters) == wanted
    assert backend.name == BACKEND


TF32 = {  # what the framework says of its products of float32
    "jax": lambda backend: backend.jax.config.jax_default_matmul_precision != "highest",
    "tensorflow": lambda backend: backend.tf.config.experimental.tensor_float_32_execution_enabled(),
    "torch": lambda backend: backend.torch.backends.cudnn.allow_tf32,
}


def test_full_precision_while_open(backend: Backend):
    asked = TF32[BACKEND]
    assert asked(backend), "all three trade it for speed where the device can"
    with pytest.raises(KeyError), backend.full_precision():
        assert not asked(backend)
        raise KeyError
    assert asked(backend)


def test_quick_float32_while_open(backend: Backend):
    asked = TF32[BACKEND]
    with backend.full_precision(), backend.quick_float32():
        assert asked(backend)
    assert asked(backend)


@only["torch"]
def test_without_determinism_kernels_are_chosen_by_their_speed(backend: Backend):
    settings = lambda: (backend.torch.are_deterministic_algorithms_enabled(), backend.torch.backends.cudnn.benchmark)  # noqa: E731
    backend.make_deterministic(0, is_strict=False)
    assert settings() == (False, True)
    backend.make_deterministic(0)
    assert settings() == (True, False)


def test_versions_are_those_installed(backend: Backend):
    distribution = metadata.packages_distributions()[BACKEND][0]
    assert backend.versions()[BACKEND].partition("+")[0] == metadata.version(distribution).partition("+")[0]
    assert all(isinstance(version, str) for version in backend.versions().values())


def test_devices_are_named(backend: Backend):
    devices = backend.devices()
    assert devices and all(isinstance(device, str) and device for device in devices)


def test_mixed_precision_is_a_policy_that_keras_knows(backend: Backend):
    policy = keras.DTypePolicy(backend.mixed_precision())
    assert policy.variable_dtype == "float32"
    assert policy.compute_dtype in ("bfloat16", "float16")


def test_synchronize_waits_and_leaves_results_alone(backend: Backend):
    product = keras.ops.matmul(keras.ops.ones((256, 256)), keras.ops.ones((256, 256)))
    backend.synchronize()
    assert np.all(keras.ops.convert_to_numpy(product) == 256)


def test_deterministic_training_repeats_to_the_bit():
    done = subprocess.run([sys.executable, "-c", TRAIN_TWICE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "True"


@only["jax"]
@pytest.mark.parametrize(
    ("platform", "capability", "policy"),
    [
        ("gpu", "9.0", "mixed_bfloat16"),
        ("gpu", "8.0", "mixed_bfloat16"),
        ("gpu", "7.5", "mixed_float16"),
        ("gpu", "gfx90a", "mixed_bfloat16"),
        ("tpu", None, "mixed_bfloat16"),
    ],
)
def test_jax_devices_and_precision(backend, monkeypatch, platform, capability, policy):
    device = SimpleNamespace(device_kind="Accelerator", **({"compute_capability": capability} if capability else {}))
    monkeypatch.setattr(backend.jax, "default_backend", lambda: platform)
    monkeypatch.setattr(backend.jax, "devices", lambda: [device])
    monkeypatch.setattr(backend.jax, "local_devices", lambda: [device])
    assert (backend.devices(), backend.mixed_precision()) == (["Accelerator"], policy)


@only["jax"]
def test_jax_asks_xla_for_determinism_only_where_a_gpu_plugin_is(backend, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setattr(backend.metadata, "entry_points", lambda group: [])
    backend.make_deterministic(0)
    assert backend.os.environ["XLA_FLAGS"] == "--xla_dump_to=x"
    monkeypatch.setattr(backend.metadata, "entry_points", lambda group: ["cuda"])
    backend.make_deterministic(0)
    backend.make_deterministic(0)
    assert backend.os.environ["XLA_FLAGS"] == "--xla_dump_to=x --xla_gpu_deterministic_ops=true"


@only["tensorflow"]
@pytest.mark.parametrize(("capability", "policy"), [((8, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16")])
def test_tensorflow_devices_and_precision(backend, monkeypatch, capability, policy):
    details = {"device_name": "Tesla", "compute_capability": capability}
    monkeypatch.setattr(backend.tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(backend.tf.config.experimental, "get_device_details", lambda device: details)
    assert (backend.devices(), backend.mixed_precision()) == (["Tesla"], policy)


@only["torch"]
@pytest.mark.parametrize(("native", "policy"), [(True, "mixed_bfloat16"), (False, "mixed_float16")])
def test_torch_devices_and_precision_with_cuda(backend, monkeypatch, native, policy):
    cuda = backend.torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    assert (backend.devices(), backend.mixed_precision()) == (["GPU 0", "GPU 1"], policy)


@only["torch"]
def test_torch_on_apple_silicon(backend, monkeypatch):
    waited = []
    monkeypatch.setattr(backend.torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(backend.torch.mps, "synchronize", lambda: waited.append("mps"))
    backend.synchronize()
    assert (backend.devices(), backend.mixed_precision(), waited) == (["Apple GPU (MPS)"], "mixed_float16", ["mps"])
