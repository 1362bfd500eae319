"""The native loops compute what torchvision's networks compute, each in its framework, and train as PyTorch does."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("torchvision") is None:  # importing it is not for everybody: see import_torchvision
    pytest.skip("needs torchvision", allow_module_level=True)

from multitl_native.weights import DEVIATION, MEAN, NETWORKS, channels_last, network_name, new_head  # noqa: E402
from multitl_torch.randomising import randomise  # noqa: E402
from multitl_torch.torchvision import import_torchvision  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from multitl.adapters import load_backend  # noqa: E402
from multitl.bench.jobs import Cell, Job  # noqa: E402
from multitl.bench.pictures import synthetic_labels, synthetic_pixels  # noqa: E402

pytestmark = pytest.mark.every_backend
BACKEND = os.environ["KERAS_BACKEND"]
SIZE, BATCH, CLASSES, STEPS = 64, 4, 5, 4
CLASSIFIERS = ("fc", "classifier", "heads")


@pytest.fixture(autouse=True)
def precision_as_it_was() -> Iterator[None]:
    """A native loop forbids TF32 for good, in what is usually a process of its own."""
    if BACKEND == "jax":  # whose `full_precision` is of a thread, while the loop changes the process
        config = importlib.import_module("jax").config
        precision = config.jax_default_matmul_precision
        yield
        config.update("jax_default_matmul_precision", precision)
    else:
        with load_backend().full_precision():
            yield


def original(name: str) -> torch.nn.Module:
    """torchvision's own, with sensitive random weights, stochastic depth off, its classifier taken away."""
    torch.manual_seed(0)
    options = {"image_size": SIZE} if name.startswith("vit_") else {}
    network = import_torchvision().models.get_model(name, weights=None, **options)
    for part in network.modules():
        if type(part).__name__ == "StochasticDepth":
            part.p = 0.0
    randomise(network, normalised(synthetic_pixels(8, SIZE, seed=9)))
    for classifier in CLASSIFIERS:
        if hasattr(network, classifier):
            setattr(network, classifier, torch.nn.Identity())
    return network


def normalised(pixels: np.ndarray) -> torch.Tensor:
    values = (pixels / 255 - np.array(MEAN)) / np.array(DEVIATION)
    return torch.from_numpy(values.astype("float32")).permute(0, 3, 1, 2)


def write(network: torch.nn.Module, path: Path) -> Path:
    tensors = {n: t.numpy() for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    return path


def loop_module() -> ModuleType:
    name = {"jax": "jax_loop", "tensorflow": "tensorflow_loop", "torch": "pytorch"}[BACKEND]
    return importlib.import_module(f"multitl_native.{name}")


def job_for(name: str, weights: Path, task: str, stage: str = "check") -> Job:
    contender = {"jax": "native-jax", "tensorflow": "native-tf", "torch": "native-torch"}[BACKEND]
    cell = Cell(f"torchvision/{name}", task, BATCH, "float32", contender)
    return Job(cell, stage, str(weights), SIZE, 1, classes=CLASSES)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_torchvision(name: str, tmp_path: Path):
    network = original(name)
    pixels = synthetic_pixels(BATCH, SIZE, seed=1)
    with torch.no_grad():
        expected = network(normalised(pixels)).numpy()
    loop = loop_module().open_loop(job_for(name, write(network, tmp_path / "w.safetensors"), "head"))
    found = loop.extract([pixels])
    assert found.shape == (BATCH, NETWORKS[name])
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected - expected[::-1]).max()


@pytest.mark.parametrize("name", ["resnet18", pytest.param("efficientnet_b0", marks=pytest.mark.slow)])
def test_the_whole_network_trains_as_in_pytorch(name: str, tmp_path: Path):
    network = original(name)
    job = job_for(name, write(network, tmp_path / "w.safetensors"), "finetune")
    kernel, bias = new_head(NETWORKS[name], CLASSES, seed=0)
    head = torch.nn.Linear(*kernel.shape)
    head.load_state_dict({"weight": torch.from_numpy(kernel.T), "bias": torch.from_numpy(bias)})
    model = torch.nn.Sequential(network, head).train()
    optimizer = torch.optim.SGD(model.parameters(), job.learning_rate, momentum=0.9)
    pixels, labels = synthetic_pixels(BATCH, SIZE, seed=1), synthetic_labels(BATCH, CLASSES, seed=1)
    expected = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(normalised(pixels)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    loop = loop_module().open_loop(job)
    assert loop.trainable() == sum(parameter.numel() for parameter in model.parameters())
    found = loop.finetune([(pixels, labels)] * STEPS)
    assert expected[0] - expected[-1] > 0.01  # it learns, so that a missing gradient would show
    assert found == pytest.approx(expected, abs=0.02 * (expected[0] - expected[-1]))
    with torch.no_grad():  # the statistics were kept as PyTorch keeps them
        after = model.eval()(normalised(pixels)).numpy()
    assert np.abs(loop.predict([pixels]) - after).max() < 0.02 * np.abs(after - after[::-1]).max()


def test_the_head_trains_on_features_alone(tmp_path: Path):
    loop = loop_module().open_loop(job_for("resnet18", write(original("resnet18"), tmp_path / "w.safetensors"), "head"))
    pixels, labels = synthetic_pixels(BATCH, SIZE, seed=1), synthetic_labels(BATCH, CLASSES, seed=1)
    before = loop.extract([pixels])
    losses = loop.train_head([(pixels, labels)] * STEPS)
    assert losses[-1] < losses[0]
    assert loop.trainable() == 512 * CLASSES + CLASSES
    assert np.array_equal(loop.extract([pixels]), before)


def test_other_networks_are_refused_by_name():
    assert network_name("torchvision/resnet50:IMAGENET1K_V1") == "resnet50"
    for name in ("keras/ResNet50", "torchvision/vgg11", "resnet50"):
        with pytest.raises(LookupError, match="resnet50"):
            network_name(name)


def test_kernels_and_matrices_change_their_layout():
    tensors = {
        "conv": np.arange(24.0).reshape(2, 3, 2, 2),
        "dense": np.arange(6.0).reshape(2, 3),
        "bias": np.arange(2.0),
    }
    found = channels_last(tensors)
    assert found["conv"].shape == (2, 2, 3, 2)
    assert found["conv"][1, 0, 2, 1] == tensors["conv"][1, 2, 1, 0]
    assert np.array_equal(found["dense"], tensors["dense"].T)
    assert np.array_equal(found["bias"], tensors["bias"])
