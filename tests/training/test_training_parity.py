"""A translated ResNet takes PyTorch's own steps of training: loss, gradients, statistics, weights, from one state.

The judge is PyTorch in float64. Keras in float32 may be as far from it as PyTorch is in float32, times ROUNDING: what
float32 means for this network is measured on the machine at hand. No step follows from Keras' own last one, since
training is chaotic: five steps in a row make 1e-3 of a difference of 1e-7, and other kernels make another one.

Kinks make gradients a lottery: where rounding puts one activation on the other side of a ReLU's, the gradients of whole
layers change by up to 3 %. So a network is looked at twice: without kinks, where float32's error in the gradients is
1e-5; and as it is, where they may differ as well by what all those activations matter that float32 can put there.

Steps are of a ResNet of one block a stage, and of small images: XLA compiles half as long for it, and float64 takes a
tenth. ResNet-18 at its full size is behind the marker `slow`.

Keras in float64 is no better witness: Keras 3.15 computes in float32 inside a float64 model on JAX and on PyTorch.
`keras.backend.result_type("float64", "float32")` is float32 there (BIT64_TO_BIT32_DTYPE in keras/src/backend/common/
dtypes.py, since keras-team/keras#21604); BatchNormalization casts its input to that, and so does `ops.mean`, which is
GlobalAveragePooling2D. #21693 mended it for TensorFlow; #23704 says how it goes on for PyTorch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import pytest

from multitl.adapters import load_backend
from multitl.contracts import TranslatedWeight
from multitl.models.statistics import UnbiasedVariance
from multitl.recipes import Recipe
from multitl.training.phases import compile_model
from multitl.translation.filling import extract, fill
from multitl.translation.layouts import to_keras, to_original

torch = pytest.importorskip("torch")

from multitl_torch.fx import translate  # noqa: E402
from multitl_torch.randomising import randomise  # noqa: E402
from multitl_torch.torchvision import import_torchvision  # noqa: E402

pytestmark = pytest.mark.every_backend

STEPS, BATCH, CLASSES = 2, 8, 10  # the second step is the first that has gathered something
SIZE = 40  # the smallest that leaves the last stage 2 x 2, as 64 does
RATE, MOMENTUM = 1 / 128, 0.9  # the momentum is what `Recipe` has for sgd
ROUNDING = 4  # two ways of summing in float32 may differ by this factor in how far they are off, as in verifying.py
ORDERS = 3  # in which PyTorch's float32 takes the images of a batch: the same result by other sums, so other rounding

Tensors = dict[str, np.ndarray]  # by their names in PyTorch's state_dict, in its layout
Outcome = dict[str, Tensors]  # of one step: its "loss", "gradients", "statistics" and "weights", see `outcome`
Errors = dict[str, float]  # of each of these kinds the tensor that is farthest off
Batch = tuple[np.ndarray, np.ndarray]  # images (8, size, size, 3), labels (8,)


@dataclass(frozen=True)
class State:
    """What a step starts from: a state_dict, and for each parameter what SGD has gathered of its gradients."""

    tensors: Tensors
    gathered: Tensors

    def rounded(self) -> State:
        """In float32, so that everyone can start from exactly this."""
        return State(*({n: v.astype("float32") for n, v in part.items()} for part in (self.tensors, self.gathered)))


def resnet(*blocks: int) -> torch.nn.Module:
    """blocks: how many in each of the four stages; 2, 2, 2, 2 is ResNet-18."""
    torch.manual_seed(0)
    parts = import_torchvision().models.resnet
    network = parts.ResNet(parts.BasicBlock, blocks, num_classes=CLASSES)
    randomise(network, torch.rand(BATCH, 3, 64, 64))  # statistics far from those of the batches
    return network


def small_resnet() -> torch.nn.Module:
    return resnet(1, 1, 1, 1)


def smooth_resnet() -> torch.nn.Module:
    """Without kinks: SiLU for ReLU, an average for the maximum."""
    network = small_resnet()
    replace_relus(network, torch.nn.SiLU)
    network.maxpool = torch.nn.AvgPool2d(3, 2, 1)
    return network


def replace_relus(network: torch.nn.Module, make: Callable[[], torch.nn.Module]) -> list[torch.nn.Module]:
    """What they were replaced by."""
    owners = [part for part in network.modules() if isinstance(getattr(part, "relu", None), torch.nn.ReLU)]
    for owner in owners:
        owner.relu = make()
    return [owner.relu for owner in owners]


def batches(size: int, count: int) -> list[Batch]:
    random = np.random.default_rng(0)
    images = random.normal(size=(count, BATCH, size, size, 3)).astype("float32")
    return list(zip(images, random.integers(0, CLASSES, (count, BATCH)), strict=True))


# --- one step ---


class Original:
    """PyTorch's steps in one precision. `entered`: what went into the ReLUs in the last one."""

    def __init__(self, network: torch.nn.Module, dtype: torch.dtype) -> None:
        self.dtype, self.network = dtype, copy.deepcopy(network).to(dtype).train()
        self.parameters = dict(self.network.named_parameters())
        self.relus = replace_relus(self.network, lambda: torch.nn.Threshold(0.0, 0.0))
        self.entered: list[torch.Tensor] = []
        for relu in self.relus:
            relu.register_forward_pre_hook(lambda relu, inputs: self.entered.append(inputs[0].detach()))

    def start(self) -> State:
        zeros = {name: np.zeros(parameter.shape) for name, parameter in self.parameters.items()}
        return State(arrays(self.network.state_dict()), zeros)

    def step(self, state: State, batch: Batch, kink: float = 0.0) -> tuple[Outcome, State]:
        """What a step gives, and where it leads. kink: where that of the ReLUs lies."""
        optimizer = self._enter(state, kink)
        images, labels = torch.from_numpy(batch[0]).to(self.dtype), torch.from_numpy(batch[1])
        loss = torch.nn.functional.cross_entropy(self.network(images.permute(0, 3, 1, 2)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gathered = {name: optimizer.state[p]["momentum_buffer"] for name, p in self.parameters.items()}
        after = State(arrays(self.network.state_dict()), arrays(gathered))
        return outcome(loss.item(), state, after), after

    def _enter(self, state: State, kink: float) -> torch.optim.Optimizer:
        self.entered.clear()
        for relu in self.relus:
            relu.threshold = kink
        self.network.load_state_dict({name: torch.from_numpy(value) for name, value in state.tensors.items()})
        optimizer = torch.optim.SGD(self.parameters.values(), RATE, momentum=MOMENTUM)
        for name, parameter in self.parameters.items():
            optimizer.state[parameter]["momentum_buffer"] = torch.tensor(state.gathered[name], dtype=self.dtype)
        return optimizer


class Translated:
    """Keras' steps, compiled as the training loop compiles them, with PyTorch's way of keeping variances."""

    def __init__(self, network: torch.nn.Module, size: int) -> None:
        translation = translate(network, torch.zeros(1, 3, size, size))
        self.model, self.weights = translation.model, translation.weights
        compile_model(self.model, Recipe(optimizer="sgd", schedule="constant"), RATE)
        self.variance = UnbiasedVariance(self.model, BATCH)

    def step(self, state: State, batch: Batch) -> Outcome:
        self._enter(state)
        with load_backend().full_precision():
            loss = self.model.train_on_batch(batch[0], np.eye(CLASSES, dtype="float32")[batch[1]], return_dict=True)
        self.variance.correct(1)
        gathered = {w.name: to_original(keras.ops.convert_to_numpy(v.value), w) / -RATE for w, v in self._velocities()}
        return outcome(float(loss["loss"]), state, State(extract(self.model, self.weights), gathered))

    def _enter(self, state: State) -> None:
        fill(self.model, self.weights, state.tensors)
        for weight, velocity in self._velocities():
            velocity.assign(to_keras(-RATE * state.gathered[weight.name], weight, velocity.shape))
        self.variance.start()

    def _velocities(self) -> list[tuple[TranslatedWeight, keras.Variable]]:
        """What Keras' SGD gathers for each weight that trains: minus the rate times what PyTorch's does."""
        momenta = self.model.optimizer.momentums
        by_path = {v.path: momentum for v, momentum in zip(self.model.trainable_variables, momenta, strict=True)}
        found = [(weight, by_path.get(f"{weight.layer}/{weight.variable}")) for weight in self.weights]
        return [(weight, velocity) for weight, velocity in found if velocity is not None]


def arrays(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def outcome(loss: float, before: State, after: State) -> Outcome:
    """Of the weights: what they were, by what they are and what was gathered; so SGD took just that off them."""
    old, new = ({name: value.astype("float64") for name, value in s.gathered.items()} for s in (before, after))
    return {
        "loss": {"loss": np.array(loss)},
        "gradients": {name: value - MOMENTUM * old[name] for name, value in new.items()},
        "statistics": {name: value for name, value in after.tensors.items() if "running_" in name},
        "weights": {name: after.tensors[name] + RATE * value for name, value in new.items()},
    }


# --- how far steps are apart ---


def errors(found: Outcome, exact: Outcome) -> Errors:
    """Norm of the difference over norm of the tensor."""
    assert {kind: found[kind].keys() for kind in found} == {kind: exact[kind].keys() for kind in exact}
    return {
        kind: max(np.linalg.norm(found[kind][name] - value) / np.linalg.norm(value) for name, value in tensors.items())
        for kind, tensors in exact.items()
    }


def allowed_errors(single: Original, judge: Original, state: State, batch: Batch, exact: Outcome) -> Errors:
    """ROUNDING times PyTorch's own in float32, the largest of ORDERS orders of the images; and what kinks add.

    exact: the outcome of the step that `judge` took last, of this batch from this state.
    """
    entered, random = judge.entered.copy(), np.random.default_rng(0)
    own = [errors(single.step(state, batch)[0], exact)]
    off_by = [float((a - b).abs().max()) for a, b in zip(single.entered, entered, strict=True)]
    for order in (random.permutation(BATCH) for _ in range(ORDERS - 1)):
        own.append(errors(single.step(state, (batch[0][order], batch[1][order]))[0], exact))
    limits = {kind: ROUNDING * error for kind, error in largest(own).items()}
    if off_by:  # rounding may put what lies no farther from a kink on either side
        one, other = (judge.step(state, batch, kink * ROUNDING * max(off_by))[0] for kink in (-1, 1))
        limits = {kind: limits[kind] + error for kind, error in errors(one, other).items()}
    return limits


def largest(several: list[Errors]) -> Errors:
    return {kind: max(one[kind] for one in several) for kind in several[0]}


def compare_steps(
    network: torch.nn.Module, size: int, steps: int, plant: Callable[[Translated], None] = lambda translated: None
) -> Errors:
    """Keras' errors over what is allowed, in steps along PyTorch's own way. plant: puts a fault into Keras' side."""
    judge, single = Original(network, torch.float64), Original(network, torch.float32)
    translated = Translated(network, size)
    plant(translated)
    state, allowed, found = judge.start().rounded(), [], []
    for batch in batches(size, steps):
        exact, after = judge.step(state, batch)
        found.append(errors(translated.step(state, batch), exact))
        allowed.append(allowed_errors(single, judge, state, batch, exact))
        state = after.rounded()
    limits = largest(allowed)
    return {kind: error / limits[kind] for kind, error in largest(found).items()}


def assert_alike(ratios: Errors) -> None:
    assert all(ratio <= 1 for ratio in ratios.values()), ratios


# With small images a channel of the last stage has 8 x 2 x 2 values: biased and unbiased variances differ by 3 %.


def test_steps_without_kinks() -> None:
    assert_alike(compare_steps(smooth_resnet(), SIZE, STEPS))


@pytest.mark.slow
def test_steps() -> None:
    assert_alike(compare_steps(small_resnet(), SIZE, STEPS))


@pytest.mark.slow
def test_steps_at_full_size() -> None:
    assert_alike(compare_steps(resnet(2, 2, 2, 2), 224, 2))


# --- faults are seen ---


def give_momentum(translated: Translated) -> None:
    translated.model.get_layer("layer4-0-bn2").momentum = 0.99


def give_epsilon(translated: Translated) -> None:
    translated.model.get_layer("layer4-0-bn2").epsilon = 1e-3


def keep_biased_variance(translated: Translated) -> None:
    translated.variance.correct = lambda steps: None


def scale_loss(translated: Translated) -> None:
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
    translated.model.compile(translated.model.optimizer, loss)


def clip_gradients(translated: Translated) -> None:
    translated.model.optimizer.clipnorm = 0.1


def decay_weights(translated: Translated) -> None:
    translated.model.optimizer.weight_decay = 1e-2


def look_ahead(translated: Translated) -> None:
    translated.model.optimizer.nesterov = True


FAULTS = {
    give_momentum: "statistics",
    give_epsilon: "loss",
    keep_biased_variance: "statistics",
    scale_loss: "gradients",
    clip_gradients: "gradients",
    decay_weights: "weights",
    look_ahead: "weights",
}


@pytest.mark.slow
@pytest.mark.parametrize("network", [small_resnet, smooth_resnet])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: Callable[[Translated], None], network: Callable[[], torch.nn.Module]) -> None:
    """By more than float32 explains."""
    ratios = compare_steps(network(), SIZE, 1, fault)
    assert ratios[FAULTS[fault]] > 1, ratios
