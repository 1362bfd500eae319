"""What Keras does not promise: found today, and refused with the release that has it where it is gone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from multitl.errors import BackendError
from multitl.models import initialisers, insides
from multitl.models.initialisers import bounded_weights, numpy_initialisers
from multitl.system.swapping import FastPath, Inside

LOST = Inside("keras.initializers:Zeros.gone", "self", "a test")


def test_nodes_producers_and_parts():
    shared = keras.layers.Dense(3)
    images = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])
    outputs = inner(shared(shared(images)))
    model = keras.Model(images, outputs)
    first, _ = insides.nodes_of(shared)
    assert first.input_tensors == [images]
    assert insides.producer_of(outputs) is inner
    assert {*insides.parts_of(model)} >= {model, shared, inner, *inner.layers}


def test_the_calls_of_a_model_are_its_own_in_order():
    shared, images = keras.layers.Dense(3), keras.Input((3,))
    model = keras.Model(images, keras.ops.tanh(shared(shared(images))))
    shared(keras.Input((3,)))
    first, second, last = insides.calls_in(model)
    assert first.operation is second.operation is shared and first.arguments.args == (images,)
    assert second.arguments.args == tuple(first.outputs) and last.outputs == model.outputs
    assert len(insides.calls_in(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]))) == 1
    assert insides.calls_in(keras.layers.Dense(3)) == []


@pytest.mark.every_backend
def test_the_moments_of_adam_are_those_of_each_variable():
    weights = [keras.Variable(np.zeros(size, "float32")) for size in (2, 3)]
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)
    given = [weight.value if keras.config.backend() == "tensorflow" else weight for weight in weights]
    assert [(first.shape, second.shape) for first, second in insides.adam_moments(optimizer, given)] == [
        ((2,), (2,)),
        ((3,), (3,)),
    ]


def test_operations_are_found_by_module_or_without_one():
    assert insides.operation_named("Relu6", "keras.src.ops.nn") is insides.operation_named("Relu6", "")
    assert insides.operation_named("Relu6", "keras.src.ops.numpy") is None
    assert insides.operation_named("relu6", "") is None  # a function
    assert insides.operation_named("Popen", "subprocess") is None


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("", lambda: insides.nodes_of(SimpleNamespace())),
        ("", lambda: insides.producer_of(SimpleNamespace())),
        ("", lambda: insides.parts_of(SimpleNamespace())),
        ("", lambda: insides.calls_in(keras.Function.__new__(keras.Function))),
        ("keras.src.applications.nasnet", insides.nasnet),
        ("keras.src.ops.nn", lambda: insides.operation_named("Relu6", "keras.src.ops.nn")),
    ],
    ids=["nodes", "producer", "parts", "calls", "nasnet", "operation"],
)
def test_what_is_gone_is_refused_by_name_and_release(
    monkeypatch: pytest.MonkeyPatch, module: str, use: Callable[[], object]
):
    if module:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=r"pip install 'keras==3\.15\.\*'"):
        use()


@pytest.mark.every_backend
def test_a_bound_that_keras_gets_past_is_no_bound(monkeypatch: pytest.MonkeyPatch):
    """Weights of another class than the public one: nothing is opened."""
    initialisers._insist_on_bound.cache_clear()
    monkeypatch.setattr(keras, "Variable", type("Variable", (keras.Variable,), {}))
    with pytest.raises(BackendError, match="a weight got past the bound"), bounded_weights(10):
        pytest.fail("opened without a bound")


def test_a_variable_that_is_made_otherwise_is_no_bound(monkeypatch: pytest.MonkeyPatch):
    initialisers._insist_on_bound.cache_clear()
    monkeypatch.setattr(initialisers, "NEW_VARIABLE", LOST)
    with pytest.raises(BackendError, match=r"Zeros\.gone is gone"), bounded_weights(10):
        pytest.fail("opened without a bound")


def test_first_weights_that_keras_draws_itself(monkeypatch: pytest.MonkeyPatch):
    """What is about to be overwritten may be anything; what shall be equal on every backend may not."""
    monkeypatch.setattr(initialisers, "FIRST_WEIGHTS", FastPath("first weights", *[LOST] * 3))
    with numpy_initialisers(None):
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
    assert np.abs(layer.get_weights()[0]).max() > 0
    with pytest.raises(BackendError, match="first weights: keras"), numpy_initialisers(0):
        pytest.fail("drew other numbers")
