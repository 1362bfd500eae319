"""What Keras does not promise, and the core uses all the same: here and nowhere else, each with its reason.

Nothing is touched when this is imported. What a fast path replaces is looked up when the path is first opened; whatever
else a release of Keras might take away raises BackendError where it is used, and says which release has it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from multitl.errors import BackendError
from multitl.system.swapping import FastPath, Inside

KNOWN_KERAS = "3.15"  # the release whose insides these are

_OPERATIONS = ("keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.math", "keras.src.ops.image")
_HOW = "self shape dtype"
_WHY = "there is no public hook between a layer's configuration and its first weights"
FIRST_WEIGHTS = FastPath(
    "first weights by NumPy",
    Inside("keras.initializers:Zeros.__call__", _HOW, _WHY),
    Inside("keras.initializers:Ones.__call__", _HOW, _WHY),
    Inside("keras.initializers:VarianceScaling.__call__", _HOW, _WHY),
)
BATCH_NORM_CALL = Inside(  # replaced by several backends
    "keras.layers:BatchNormalization.call",
    "self inputs training mask",
    "in training the batch's statistics are computed before any function of Keras' backend is asked",
)
NEW_VARIABLE = Inside(
    "keras:Variable.__init__", "self initializer shape ...", "nothing public bounds what a description may allocate"
)


def missing_insides() -> list[str]:
    """The fast paths of the core that this Keras closes, with what each misses."""
    return [*FIRST_WEIGHTS.faults]


def unknown_keras(what: str, fault: str = "") -> BackendError:
    """The error for something that this release of Keras does not have where it was. fault: how that shows."""
    return BackendError(
        f"Keras {keras.__version__} has no {what} that multitl knows.",
        expected=f"Keras {KNOWN_KERAS}, which multitl was tested with",
        received=f"Keras {keras.__version__}" + (f": {fault}" if fault else ""),
        fix=f"pip install 'keras=={KNOWN_KERAS}.*', or a newer multitl",
    )


def nodes_of(operation: keras.Operation) -> Sequence[Any]:
    """The calls of an operation, each with its `input_tensors` and `outputs`.

    Why: `operation.output` has only the first call of a layer that is used twice.
    """
    return _inside(operation, "_inbound_nodes")


@contextlib.contextmanager
def called_as(layer: keras.layers.Layer, function: Callable[..., Any]) -> Iterator[None]:
    """While open, the layer computes something else. function: takes what the layer's own `call` takes.

    Why: a graph that is made anew would have other layers, with their variables in another order.
    """
    layer.call = function
    try:
        yield
    finally:
        del layer.call  # the class' own is found again


def calls_in(model: keras.Model) -> list[Any]:
    """The calls that a functional or sequential model is made of, each after those it takes from; [] of others.

    Each has `operation`, `arguments` (with `args` and `kwargs`) and `outputs`. Why: of an operation that other models
    call as well, only the model knows which calls are its own.
    """
    graph = _inside(model, "_functional") if isinstance(model, keras.Sequential) else model
    if not isinstance(graph, keras.Function):
        return []
    by_depth = _inside(graph, "_nodes_by_depth")
    return [call for depth in sorted(by_depth, reverse=True) for call in by_depth[depth] if not call.is_input]


def producer_of(tensor: keras.KerasTensor) -> keras.Operation:
    """The operation that a symbolic tensor came out of. Why: a tensor does not say so publicly."""
    return _inside(tensor, "_keras_history").operation


def parts_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The model and every layer in it, however deep. Why: `model.layers` does not show what wrappers hold."""
    return _inside(model, "_flatten_layers")()


def seeds_of(model: keras.Model) -> list[keras.Variable]:
    """The states (2,) of its random generators: a seed below 2^30, and a count. Why: nothing public lists them."""
    return [variable for variable in model.non_trainable_variables if variable.name == "seed_generator_state"]


def adam_moments(optimizer: keras.optimizers.Adam, variables: Sequence[Any]) -> list[tuple[Any, Any]]:
    """First and second moment of each variable. Why: `optimizer.variables` is a list without a promised order.

    Raises AttributeError, or what else comes of it, where Keras keeps them otherwise.
    """
    rows = [optimizer._get_variable_index(variable) for variable in variables]
    return [(optimizer._momentums[row], optimizer._velocities[row]) for row in rows]


def try_adam_moments() -> None:
    """Raises where `adam_moments` does not find them."""
    optimizer = keras.optimizers.Adam(name="tried")
    variable = keras.Variable(np.zeros(2, "float32"), name="tried")
    optimizer.build([variable])
    adam_moments(optimizer, [variable.value if keras.config.backend() == "tensorflow" else variable])


def nasnet() -> Callable[..., keras.Model]:
    """The function behind keras.applications' two NASNets. Why: the public ones refuse to run on PyTorch."""
    try:
        from keras.src.applications.nasnet import NASNet
    except ImportError as error:
        raise unknown_keras("keras.src.applications.nasnet.NASNet") from error
    return NASNet


def operation_named(kind: str, module: str) -> type[keras.Operation] | None:
    """The class of an operation of keras.ops; None if there is none of that name. module: "" for any.

    Why: keras.ops shows functions alone, while files name the classes behind them, by the modules they lie in.
    """
    for place in (one for one in _OPERATIONS if module in ("", one)):
        try:
            found = vars(importlib.import_module(place)).get(kind)
        except ImportError as error:
            raise unknown_keras(f"{place}.{kind}") from error
        if inspect.isclass(found) and issubclass(found, keras.Operation):
            return found
    return None


def _inside(owner: object, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise unknown_keras(f"{type(owner).__name__}.{name}") from error
