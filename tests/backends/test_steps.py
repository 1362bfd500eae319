"""The compiled step: the same training as Keras' own, with nothing on the host in between."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from multitl.adapters import load_backend
from multitl.contracts import Step
from multitl.models.freezing import frozen_variables
from multitl.models.objective import count_parts
from multitl.recipes import Recipe
from multitl.training.checkpoints import read_variables, write_variables
from multitl.training.phases import compile_model, compile_step

pytestmark = pytest.mark.every_backend

RECIPE = Recipe(label_smoothing=0.1, optimizer="adamw", weight_decay=0.01)
STEPS = 4
RANDOM = np.random.default_rng(0)
BATCHES = [
    (
        (RANDOM.normal(size=(8, 6, 6, 2)).astype("float32"),),
        np.eye(3, dtype="float32")[RANDOM.integers(0, 3, 8)],
        RANDOM.uniform(0.5, 2, 8).astype("float32"),
    )
    for _ in range(STEPS)
]
RATES = [0.01, 0.02, 0.005, 0.0]


def network(dropout: float = 0.2) -> keras.Model:
    """One of each kind of variable: a frozen layer, statistics that move, a seed, a penalty."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="frozen")(inputs)
    x = layers.BatchNormalization(name="moving")(x)
    x = layers.Dropout(dropout, seed=1)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.01))(x))
    model.get_layer("frozen").trainable = False
    return model


def pure_network() -> keras.Model:
    """Nothing but weights changes."""
    model = network(dropout=0.0)
    model.get_layer("moving").trainable = False
    return model


def train(step: Step) -> np.ndarray:
    with step:
        told = [step(*batch, learning_rate=rate) for batch, rate in zip(BATCHES, RATES, strict=True)]
    return np.array([keras.ops.convert_to_numpy(figures) for figures in told])


def test_steps_are_those_of_keras() -> None:
    model, alone = network(), network()
    frozen = read_variables(frozen_variables(model))
    told = train(compile_step(model, RECIPE))
    compile_model(alone, RECIPE)
    for batch, rate, (loss, _) in zip(BATCHES, RATES, told, strict=True):
        alone.optimizer.learning_rate = rate
        expected = alone.train_on_batch(*batch[0], batch[1], sample_weight=batch[2])
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for ours, theirs in zip(read_variables(model.variables), read_variables(alone.variables), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(model.optimizer.variables, alone.optimizer.variables, strict=True):
        np.testing.assert_allclose(*read_variables([ours, theirs]), rtol=1e-3, atol=1e-6, err_msg=ours.path)
    for now, before in zip(read_variables(frozen_variables(model)), frozen, strict=True):
        np.testing.assert_array_equal(now, before)


def test_accuracy_is_of_the_batch_as_it_was_before_the_step() -> None:
    model = pure_network()
    expected = np.argmax(np.asarray(model.predict_on_batch(*BATCHES[0][0])), axis=1) == np.argmax(BATCHES[0][1], axis=1)
    assert train(compile_step(model, RECIPE))[0, 1] == pytest.approx(expected.mean())


def test_legs_and_rates_share_one_program() -> None:
    """On PyTorch where weights alone change; once more for the order of weights in memory."""
    is_torch = keras.backend.backend() == "torch"
    model, traced = pure_network() if is_torch else network(), []
    call = model.get_layer("moving").call
    model.get_layer("moving").call = lambda *inputs, **options: traced.append(1) or call(*inputs, **options)
    step = compile_step(model, RECIPE)
    train(step)
    train(step)
    assert len(traced) == (2 if is_torch else 1)


def test_a_program_gives_what_its_layers_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that were read and written from outside between two legs included."""
    if keras.backend.backend() != "torch":
        pytest.skip("others have nothing but programs")
    from multitl_torch import step as torch_step

    told = []
    for is_traced in (True, False):
        model = pure_network()
        if not is_traced:
            monkeypatch.setattr(torch_step, "trace", lambda function, given: function)
        step = compile_step(model, RECIPE)
        told.append(train(step))
        write_variables(model.trainable_variables, [value * 1.5 for value in read_variables(model.trainable_variables)])
        told.append(train(step))
        told.append(np.concatenate([value.ravel() for value in read_variables(model.variables)]))
    for ours, theirs in zip(told[:3], told[3:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_program_leaves_out_what_does_nothing() -> None:
    """Of the type that tensors have already, and orders of axes that are undone, past what takes any order."""
    if keras.backend.backend() != "torch":
        pytest.skip("others simplify their programs themselves")
    import torch
    from multitl_torch.tracing import trace

    first, last, weight = (0, 3, 1, 2), (0, 2, 3, 1), torch.nn.Parameter(torch.rand(4, 3, 1, 1))

    def look(images: torch.Tensor) -> torch.Tensor:
        x = torch.conv2d(images.to(torch.float32).permute(first), weight).permute(last)
        y = torch.nn.functional.relu6(x * 2 - 1.0).to(torch.float32)
        z = (y + torch.sigmoid(x)).permute(first).permute((0, 1, 3, 2))  # not undone
        return (z + torch.arange(4.0).reshape(4, 1, 1)).to(torch.float64)  # of another shape

    def asking(**for_more: Any) -> Callable[..., torch.Tensor]:
        return lambda x: torch.relu(x.permute(first).to(torch.float32, **for_more))

    for function in (asking(copy=True), asking(memory_format=torch.channels_last)):
        program = trace(function, [torch.rand(2, 5, 6, 3)])
        assert sum("aten.to" in str(node.target) for node in program.graph.nodes) == 1
    images = torch.rand(2, 5, 6, 3)
    program = trace(look, [images])
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("aten.permute.default") == 2 and sum("aten.to" in one for one in targets) == 1
    told = []
    for function in (program, look):
        weight.grad = None
        result = function(images.clone())
        result.sum().backward()
        told.append((result.detach(), weight.grad))
    assert program(images).dtype == torch.float64
    for ours, theirs in zip(*told, strict=True):
        assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


def test_many_batches_of_a_shape_go_through_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit what layers give; of weights that are written later, too."""
    if keras.backend.backend() != "torch":
        pytest.skip("others have nothing but programs")
    from multitl_torch import step as torch_step

    traced = []
    monkeypatch.setattr(torch_step, "MANY", 3)
    trace_by = importlib.import_module("multitl_torch.tracing").trace
    monkeypatch.setattr(torch_step, "trace", lambda *given: traced.append(trace_by(*given)) or traced[-1])
    model = network(dropout=0.2)
    forward, inputs = load_backend().make_forward(model), BATCHES[0][0][0]
    told = [keras.ops.convert_to_numpy(forward(inputs)) for _ in range(4)]
    assert len(traced) == 1 and hasattr(traced[0], "graph") and all(np.array_equal(one, told[0]) for one in told)
    write_variables(model.trainable_variables, [value * 1.5 for value in read_variables(model.trainable_variables)])
    changed = keras.ops.convert_to_numpy(forward(inputs))
    assert not np.array_equal(changed, told[0])
    np.testing.assert_array_equal(changed, keras.ops.convert_to_numpy(model(inputs, training=False)))
    assert forward(inputs[:3]).shape[0] == 3 and len(traced) == 1
    load_backend().make_forward(model, is_for_long=True)(inputs)
    assert len(traced) == 2


def test_what_cannot_be_traced_runs_as_it_is() -> None:
    if keras.backend.backend() != "torch":
        pytest.skip("others have nothing but programs")
    from multitl_torch.tracing import trace

    def by_value(x: Any) -> Any:
        return x * float(x.max())

    x = keras.ops.convert_to_tensor(np.arange(3, dtype="float32"))
    assert keras.ops.convert_to_numpy(trace(by_value, [x])(x + 1)).tolist() == [3, 6, 9]


@pytest.mark.parametrize("kind", ["step", "forward"])
def test_nothing_comes_to_the_host_before_it_is_asked_for(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for dropout on PyTorch: Keras reads the state of its seed there."""
    model = network(dropout=0.0 if keras.backend.backend() == "torch" else 0.2)
    step, forward = compile_step(model, RECIPE), load_backend().make_forward(model)
    train(step)  # compiling may look at constants
    forward(*BATCHES[0][0])
    with monkeypatch.context() as patched:
        _forbid_transfers(patched)
        for read in (np.asarray, float):
            with pytest.raises(AssertionError, match="came to the host"):
                read(keras.ops.max(keras.ops.ones(3) + 1))
        if kind == "forward":
            told = forward(*BATCHES[0][0])
        else:
            with step:
                told = [step(*batch, learning_rate=0.1) for batch in BATCHES][-1]
    assert np.isfinite(keras.ops.convert_to_numpy(told)).all()


@pytest.mark.parametrize(("accumulate", "parts"), [(2, 2), (3, 4), (99, 8)])
def test_a_batch_in_parts_is_the_same_step(accumulate: int, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Penalties count once, weights of images differ; each part is looked at alone."""
    ends, sizes = [], []
    for recipe in (RECIPE, replace(RECIPE, accumulate=accumulate)):
        model = pure_network()
        layer = model.get_layer("moving")
        call = layer.call
        layer.call = lambda x, call=call, **options: sizes.append(x.shape[0]) or call(x, **options)
        told = train(compile_step(model, recipe))
        ends.append([told, *read_variables(model.trainable_variables)])
    for whole, cut in zip(*ends, strict=True):
        np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-6)
    assert sizes[0] == 8 and sizes[-1] == 8 // parts


@pytest.mark.parametrize(
    ("images", "least", "parts"),
    [(32, 1, 1), (32, 2, 2), (32, 3, 4), (32, 99, 32), (31, 2, 1), (127, 4, 1), (33, 2, 3)],
)
def test_a_batch_is_cut_into_equal_parts(images: int, least: int, parts: int) -> None:
    assert count_parts(images, least) == parts


def test_rows_of_an_embedding_are_added_up() -> None:
    """Its gradients are sparse on TensorFlow."""
    tokens = np.arange(8, dtype="int32").reshape(8, 1) % 4
    ends = []
    for accumulate in (1, 4):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((1,), dtype="int32")
        x = keras.layers.Flatten()(keras.layers.Embedding(4, 5)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3)(x))
        with compile_step(model, replace(RECIPE, accumulate=accumulate)) as step:
            step((tokens,), *BATCHES[0][1:], learning_rate=0.01)
        ends.append(read_variables(model.trainable_variables))
    for whole, cut in zip(*ends, strict=True):
        np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-6)


def test_statistics_move_with_every_part() -> None:
    by_hand = network(dropout=0.0)
    moving = by_hand.get_layer("moving")
    frozen = keras.Model(by_hand.input, by_hand.get_layer("frozen").output)
    pixels = BATCHES[0][0][0]
    for start in range(0, 8, 2):
        moving(frozen(pixels[start : start + 2]), training=True)
    first = network(dropout=0.0)
    with compile_step(first, replace(RECIPE, accumulate=4)) as step:
        step(*BATCHES[0], learning_rate=0.0)
    for ours, theirs in zip(
        read_variables(first.get_layer("moving").non_trainable_variables),
        read_variables(moving.non_trainable_variables),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_what_interrupts_a_leg_leaves_the_state_of_the_last_step() -> None:
    model, other = network(), network()
    step = compile_step(model, RECIPE)
    with pytest.raises(RuntimeError, match="out of images"), step:
        step(*BATCHES[0], learning_rate=0.01)
        raise RuntimeError("out of images")
    again = compile_step(other, RECIPE)
    with again:
        again(*BATCHES[0], learning_rate=0.01)
    for ours, theirs in zip(read_variables(model.variables), read_variables(other.variables), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_loss_is_scaled_where_gradients_are_of_16_bits() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    step = compile_step(model, RECIPE)
    before = float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale.value))
    infinite = np.full_like(*BATCHES[0][0], 1e30)
    weights = read_variables(model.trainable_variables)
    with step:
        told = step((infinite,), *BATCHES[0][1:], learning_rate=0.01)
    assert not np.isfinite(keras.ops.convert_to_numpy(told)[0])
    for now, then in zip(read_variables(model.trainable_variables), weights, strict=True):
        np.testing.assert_array_equal(now, then)  # a step whose gradients are no numbers is left out
    assert float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale.value)) < before


def _forbid_transfers(patched: pytest.MonkeyPatch) -> None:
    """Of tensors in Python's hands: all their ways to a number or a NumPy array."""
    ones = keras.ops.ones(3)
    kinds = {type(ones), type(keras.ops.max(ones + 1))}

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a tensor came to the host")

    for kind in kinds:
        for name in ("__array__", "__float__", "__int__", "__bool__", "item", "tolist", "numpy", "cpu"):
            if getattr(kind, name, None):
                patched.setattr(kind, name, refuse)
    for function in (np.asarray, np.array):  # they read memory without asking the tensor

        def read(values: Any, *arguments: Any, made_by: Any = function, **options: Any) -> Any:
            return refuse() if isinstance(values, tuple(kinds)) else made_by(values, *arguments, **options)

        patched.setattr(np, function.__name__, read)
