"""A translated ResNet-18 trains as PyTorch's own does: losses and running statistics after the same five SGD steps."""

from __future__ import annotations

import copy

import keras
import numpy as np
import pytest

from multitl.phases import compile_model
from multitl.recipes import Recipe
from multitl.statistics import UnbiasedVariance

torch = pytest.importorskip("torch")

from multitl_torch.fx import translate  # noqa: E402
from multitl_torch.torchvision import import_torchvision  # noqa: E402

pytestmark = pytest.mark.every_backend

STEPS, BATCH, CLASSES, RATE = 5, 8, 10, 0.01
RECIPE = Recipe(optimizer="sgd", schedule="constant", batch_size=BATCH)  # momentum 0.9


def resnet18() -> torch.nn.Module:
    torch.manual_seed(0)
    return import_torchvision().models.resnet18(num_classes=CLASSES)


def batches(size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(images (8, size, size, 3), labels (8,)), five times."""
    random = np.random.default_rng(0)
    images = random.normal(size=(STEPS, BATCH, size, size, 3)).astype("float32")
    return list(zip(images, random.integers(0, CLASSES, (STEPS, BATCH)), strict=True))


def train_in_torch(original: torch.nn.Module, steps) -> tuple[list[float], torch.nn.Module]:
    """Losses before each step, and the module after them."""
    module = copy.deepcopy(original).train()
    optimizer, losses = torch.optim.SGD(module.parameters(), RATE, momentum=0.9), []
    for images, labels in steps:
        optimizer.zero_grad()
        logits = module(torch.from_numpy(images).permute(0, 3, 1, 2))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, module


def train_in_keras(model: keras.Model, steps) -> list[float]:
    compile_model(model, RECIPE, RATE, 0)
    variance = UnbiasedVariance(model, BATCH)
    one_hot = np.eye(CLASSES, dtype="float32")
    losses = [model.train_on_batch(images, one_hot[labels], return_dict=True)["loss"] for images, labels in steps]
    variance.correct(len(losses))
    return [float(loss) for loss in losses]


def assert_trains_alike(size: int) -> None:
    original = resnet18()
    translation = translate(original, torch.zeros(1, 3, size, size))
    wanted, trained = train_in_torch(original, batches(size))
    losses = train_in_keras(translation.model, batches(size))
    np.testing.assert_allclose(losses, wanted, rtol=1e-3)
    assert wanted[-1] != pytest.approx(wanted[0], rel=0.05)  # something was learnt, or the line above shows little

    state, differences = trained.state_dict(), {}
    for weight in translation.weights:
        if "running_" in weight.name:
            (variable,) = (v for v in translation.model.get_layer(weight.layer).weights if v.name == weight.variable)
            value, other = keras.ops.convert_to_numpy(variable.value), state[weight.name].numpy()
            differences[weight.name] = np.max(np.abs(value - other) / np.maximum(1, np.abs(other)))
    assert len(differences) == 40
    assert max(differences.values()) <= 1e-4, differences


def test_five_steps_on_small_images() -> None:
    """In the last stage a channel has 8 x 2 x 2 values: biased and unbiased variances differ by 3 %."""
    assert_trains_alike(64)


@pytest.mark.slow
def test_five_steps_at_full_size() -> None:
    assert_trains_alike(224)
