"""Models leave by way of JAX: as StableHLO, and as parameters with the function that takes them.

See `contracts.Writer`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.export
import keras
import numpy as np

from multitl.contracts import Export
from multitl.porting.generated_code import fill

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LOADER = '''"""A classifier for Flax and Optax. Written by multitl; needs jax and orbax-checkpoint alone.

The parameters are a nested dict LAYER -> VARIABLE -> array, as Flax and Optax take it. `apply(params, images)` gives
probabilities and can be differentiated by `params`, so that training can go on:

    import jax, optax
    loss = lambda params, images, labels: -jax.numpy.log(apply(params, images))[range(len(labels)), labels].mean()
    gradients = jax.grad(loss)(params, images, labels)

Batch normalisation uses its stored statistics throughout.
"""

from pathlib import Path

import jax.export
import orbax.checkpoint

BACKBONE, PARAMETERS = _backbone_, _parameters_
CLASSES = _classes_
TAKES, HEIGHT, WIDTH = _takes_, _height_, _width_
HERE = Path(__file__).resolve().parent


def load_params() -> dict:
    """LAYER -> VARIABLE -> array, PARAMETERS numbers."""
    return orbax.checkpoint.StandardCheckpointer().restore(HERE / "params")


def load_apply():
    """(params, images (batch, HEIGHT, WIDTH, 3) of type TAKES) -> probabilities (batch, len(CLASSES))."""
    return jax.export.deserialize((HERE / "apply.jax").read_bytes()).call
'''


def write_stablehlo(export: Export, folder: Path) -> None:
    """model.jax, which jax.export.deserialize reads, and model.mlirbc, StableHLO for other compilers.

    The weights are constants in it; any number of images.
    """
    values = _values(export.model)
    exported = jax.export.export(jax.jit(lambda images: _run(export.model, values, images)), platforms=PLATFORMS)(
        _images(export.model)
    )
    (folder / "model.jax").write_bytes(exported.serialize())
    (folder / "model.mlirbc").write_bytes(exported.mlir_module_serialized)


def write_params(export: Export, folder: Path) -> None:
    """params, an Orbax checkpoint; apply.jax, the function that takes them, with its gradient; load.py for both."""
    import orbax.checkpoint

    model = export.model
    params = _as_tree(model)
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), params)

    def apply(params: dict[str, Any], images: jax.Array) -> jax.Array:
        return _run(model, _from_tree(model, params), images)

    exported = jax.export.export(jax.jit(apply), platforms=PLATFORMS)(shapes, _images(model))
    (folder / "apply.jax").write_bytes(exported.serialize(vjp_order=1))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / "params").resolve(), params)
    parameters = sum(int(np.prod(array.shape)) for array in jax.tree.leaves(params))
    (folder / "load.py").write_text(loader(export, parameters), encoding="utf-8")


def _images(model: keras.Model) -> jax.ShapeDtypeStruct:
    taken = model.input
    return jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), *taken.shape[1:]), taken.dtype)


def _values(model: keras.Model) -> list[jax.Array]:
    return [variable.value for variable in model.variables]


def _run(model: keras.Model, values: list[Any], images: jax.Array) -> jax.Array:
    """The model with other values of its variables, which are in the order of `model.variables`."""
    by_variable = {id(variable): value for variable, value in zip(model.variables, values, strict=True)}
    trained = [by_variable[id(variable)] for variable in model.trainable_variables]
    others = [by_variable[id(variable)] for variable in model.non_trainable_variables]
    return model.stateless_call(trained, others, images, training=False)[0]


def _as_tree(model: keras.Model) -> dict[str, Any]:
    """Weights by layer and variable: {"stem-conv": {"kernel": ...}}, nested as the layers' paths are."""
    tree: dict[str, Any] = {}
    for variable in model.weights:
        *layers, name = variable.path.split("/")
        place = tree
        for layer in layers:
            place = place.setdefault(layer, {})
        place[name] = variable.value
    return tree


def _from_tree(model: keras.Model, tree: dict[str, Any]) -> list[Any]:
    """The values of `model.variables`; those that are no weights, the states of random draws, stay as they are."""
    weights = {id(variable) for variable in model.weights}
    return [_at(tree, one.path.split("/")) if id(one) in weights else one.value for one in model.variables]


def _at(tree: dict[str, Any], path: list[str]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def loader(export: Export, parameters: int) -> str:
    """The text of load.py. parameters: how many numbers train. Whatever came from a card is a literal in it."""
    height, width = export.model.input.shape[1:3]
    values = {
        "_backbone_": export.name,
        "_parameters_": parameters,
        "_classes_": list(export.class_names),
        "_takes_": export.model.input.dtype,
        "_height_": height,
        "_width_": width,
    }
    return fill(LOADER, values)
