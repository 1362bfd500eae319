"""Running statistics as PyTorch's own: step by step, through the loop and a resumed run, and through `model.fit`."""

from __future__ import annotations

import copy

import keras
import numpy as np
import pytest

from multitl.models.statistics import UnbiasedVariance, UnbiasedVarianceCallback
from multitl.recipes import Recipe
from multitl.training.checkpoints import TrainingState, load_state, save_state
from multitl.training.phases import Phase, compile_model, run_phase

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.every_backend

COUNT, BATCH, CLASSES, RATE = 24, 6, 3, 0.05
IMAGES = np.random.default_rng(0).normal(1, 3, (COUNT, 4, 5, 3)).astype("float32")
LABELS = np.arange(COUNT) % CLASSES
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]
RECIPE = Recipe(optimizer="sgd", schedule="constant", batch_size=BATCH, patience=0)
EPOCHS = 3


class Original(torch.nn.Module):
    """A deep batch norm on maps of 1 x 2, where 12 values make a variance, and one on vectors, of momentum 0.3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
        self.conv2, self.bn2 = torch.nn.Conv2d(4, 4, 2), torch.nn.BatchNorm2d(4)
        self.dense, self.bn3 = torch.nn.Linear(4, CLASSES), torch.nn.BatchNorm1d(CLASSES, momentum=0.3)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.bn3(self.dense(x.mean((2, 3))))


@pytest.fixture(scope="module")
def original() -> Original:
    torch.manual_seed(0)
    module = Original()
    for part in (module.bn1, module.bn2, module.bn3):
        part.running_var.uniform_(0.5, 2.0)
        part.running_mean.normal_()
    return module


@pytest.fixture
def model(original: Original) -> keras.Model:
    from multitl_torch.fx import translate

    return translate(original, torch.from_numpy(IMAGES[:2]).permute(0, 3, 1, 2)).model


def train_in_torch(original: Original, batches) -> Original:
    """The same module after plain steps of PyTorch."""
    module = copy.deepcopy(original).train()
    optimizer = torch.optim.SGD(module.parameters(), RATE, momentum=0.9)
    for indices in batches:
        optimizer.zero_grad()
        pixels, labels = torch.from_numpy(IMAGES[indices]).permute(0, 3, 1, 2), torch.from_numpy(LABELS[indices])
        torch.nn.functional.cross_entropy(module(pixels), labels).backward()
        optimizer.step()
    return module


def assert_same_statistics(model: keras.Model, module: torch.nn.Module, tolerance: float = 1e-4) -> None:
    """Largest difference over max(1, |value|)."""
    for name in ("bn1", "bn2", "bn3"):
        layer, part = model.get_layer(name), getattr(module, name)
        pairs = [(layer.moving_mean, part.running_mean), (layer.moving_variance, part.running_var)]
        for variable, tensor in pairs:
            wanted = tensor.detach().numpy()
            difference = np.abs(keras.ops.convert_to_numpy(variable.value) - wanted) / np.maximum(1, np.abs(wanted))
            assert difference.max() <= tolerance, (name, variable.name, difference.max())


def batches_of(epochs: int) -> list[np.ndarray]:
    return list(np.arange(epochs * COUNT).reshape(-1, BATCH) % COUNT)


def test_statistics_are_pytorchs_after_any_number_of_corrections(original, model) -> None:
    compile_model(model, RECIPE, RATE)
    variance = UnbiasedVariance(model, BATCH)
    for steps, batches in ((3, batches_of(2)[:3]), (1, batches_of(2)[3:4]), (4, batches_of(2)[4:])):
        for indices in batches:
            model.train_on_batch(IMAGES[indices], ONE_HOT[indices])
        variance.correct(steps)
    assert_same_statistics(model, train_in_torch(original, batches_of(2)))


def test_without_the_correction_they_are_not(original, model) -> None:
    """By more than ten times what is allowed, or the test above shows nothing."""
    compile_model(model, RECIPE, RATE)
    for indices in batches_of(2):
        model.train_on_batch(IMAGES[indices], ONE_HOT[indices])
    with pytest.raises(AssertionError, match="moving_variance"):
        assert_same_statistics(model, train_in_torch(original, batches_of(2)), tolerance=1e-3)


def test_frozen_statistics_stay_to_the_bit(model) -> None:
    for layer in model.layers:
        layer.trainable = layer.name == "dense"
    before = [layer.get_weights() for layer in model.layers if layer.name.startswith("bn")]
    compile_model(model, RECIPE, RATE)
    variance = UnbiasedVariance(model, BATCH)
    model.train_on_batch(IMAGES[:BATCH], ONE_HOT[:BATCH])
    variance.correct(1)
    for old, layer in zip(before, (model.get_layer(name) for name in ("bn1", "bn2", "bn3")), strict=True):
        for a, b in zip(old, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_value_a_channel_is_left_alone() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="bn")(inputs))
    variance = UnbiasedVariance(model, batch_size=1)
    variance.correct(3)
    np.testing.assert_array_equal(model.get_layer("bn").moving_variance, np.ones(4))


# --- the loop ---


def make_phase(model: keras.Model, seen: list, unbiased: bool = True) -> Phase:
    """`seen` gets the indices of every batch, in turn."""

    def batches(draws):
        for draw in draws:
            seen.append(draw.indices)
            yield (IMAGES[draw.indices],), ONE_HOT[draw.indices], np.ones(len(draw.indices), "float32")

    steps = COUNT // BATCH
    validate = lambda: (1 / (len(seen) + 1), 0.5)  # noqa: E731
    return Phase("finetune", model, COUNT, EPOCHS * steps, steps, RATE, batches, validate, unbiased)


def test_the_loop_keeps_pytorchs_statistics(original, model) -> None:
    seen: list[np.ndarray] = []
    run_phase(make_phase(model, seen), RECIPE, TrainingState(), lambda state: None)
    assert len(seen) == EPOCHS * COUNT / BATCH
    assert_same_statistics(model, train_in_torch(original, seen))


def test_validation_sees_corrected_statistics(original, model) -> None:
    seen: list[np.ndarray] = []
    phase = make_phase(model, seen)

    def validate() -> tuple[float, float]:
        assert_same_statistics(model, train_in_torch(original, seen))
        return 1 / len(seen), 0.5

    run_phase(Phase(**(vars(phase) | {"validate": validate})), RECIPE, TrainingState(), lambda state: None)
    assert len(seen) == EPOCHS * COUNT / BATCH


def test_a_resumed_run_ends_with_the_same_bits(original, model, tmp_path) -> None:
    from multitl_torch.fx import translate

    saved: list[TrainingState] = []
    run_phase(make_phase(model, []), RECIPE, TrainingState(), lambda state: saved.append(copy.deepcopy(state)))
    save_state(tmp_path, saved[0])
    again = translate(original, torch.from_numpy(IMAGES[:2]).permute(0, 3, 1, 2)).model
    run_phase(make_phase(again, [0] * 4), RECIPE, load_state(tmp_path), lambda state: None)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- model.fit ---


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_callback_keeps_pytorchs_statistics_in_fit(original, model, at_once: int) -> None:
    if at_once > 1 and keras.config.backend() == "torch":
        pytest.skip("Keras takes one step at once on PyTorch")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9), loss, steps_per_execution=at_once)
    judged = []

    class Judge(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            judged.append(np.array(keras.ops.convert_to_numpy(model.get_layer("bn2").moving_variance.value)))

    model.fit(
        IMAGES, ONE_HOT, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, validation_data=(IMAGES, ONE_HOT),
        callbacks=[UnbiasedVarianceCallback(BATCH), Judge()],
    )  # fmt: skip
    assert_same_statistics(model, train_in_torch(original, batches_of(2)))
    wanted = train_in_torch(original, batches_of(1)).bn2.running_var.numpy()
    np.testing.assert_allclose(judged[0], wanted, atol=1e-4)  # validation after the first epoch
