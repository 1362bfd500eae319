"""What a `.keras` file may describe if Keras itself is to build it: a network of stock layers, nothing else.

Keras' safe mode refuses Python code in a file, and little more: a description may still name any class in Keras,
among them layers that run other frameworks' programs (TorchModuleWrapper, TFSMLayer, JaxLayer) or read files
(TextVectorization), any type of NumPy, and calls that fill the memory with constants. So here everything that has a
class must be on a list, with the module in which Keras 3 looks for it; a new class of Keras is refused until it is put
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from multitl.files.keras_files import check_array, parse_config

_LAYERS = {
    "Activation", "Add", "AlphaDropout", "Average", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "BatchNormalization", "CenterCrop", "Concatenate", "Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose",
    "Conv3D", "Cropping2D", "Dense", "DepthwiseConv2D", "Dot", "Dropout", "ELU", "EinsumDense", "Embedding",
    "Flatten", "GRU", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "GroupNormalization", "Identity", "InputLayer", "LSTM", "LayerNormalization", "LeakyReLU",
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Maximum", "Minimum", "MultiHeadAttention", "Multiply",
    "Normalization", "PReLU", "Permute", "ReLU", "RepeatVector", "Rescaling", "Reshape", "Resizing",
    "SeparableConv2D", "SimpleRNN", "Softmax", "SpatialDropout1D", "SpatialDropout2D", "Subtract",
    "UnitNormalization", "UpSampling2D", "ZeroPadding2D",
}  # fmt: skip
_MODULES: dict[str, set[str] | None] = {  # of classes: their names there, None for all
    "keras": {"DTypePolicy", "Functional", "Model", "Sequential"},
    "keras.dtype_policies": {"DTypePolicy"},
    "keras.layers": _LAYERS,
    "keras.src.models.functional": {"Functional"},
    "keras.src.applications.convnext": {"LayerScale", "StochasticDepth"},
    "keras.constraints": None,  # formulas over a weight, all of them
    "keras.initializers": None,
    "keras.regularizers": None,
    "keras.src.ops.image": None,  # operations on tensors, and a call on no tensor is refused
    "keras.src.ops.math": None,
    "keras.src.ops.nn": None,
    "keras.src.ops.numpy": None,
    "keras.src.ops.core": {"Cast", "Slice", "StopGradient"},
    "keras.src.random.seed_generator": {"SeedGenerator"},
    "keras.random": {"SeedGenerator"},
}
_VALUES = ("__keras_tensor__", "__slice__", "__ellipsis__")
_ARRAYS = ("__numpy__", "__tensor__")
_MOST_DEPTH = 200  # of values in values; models in models take 5 each
_FUNCTIONS = ("keras.activations", "builtins")  # modules of functions; "builtins" are those of Keras by their names


def check_config(text: str) -> dict[str, Any]:
    """A description as JSON -> the description, without optimizers.

    Raises ValueError with what Keras is not to build, RecursionError for what is nested deeply.
    """
    config = parse_config(text)
    if not isinstance(config, dict) or config.get("class_name") not in ("Functional", "Model", "Sequential"):
        raise ValueError("a description of no network")
    for value in _dicts(config):
        value.pop("compile_config", None)  # an optimizer's, which no finished network needs
        if "class_name" in value:
            _check_class(value)
        for node in _list(value, "inbound_nodes"):
            _check_call(node)
        for layer in _list(value, "layers"):
            if not isinstance(layer, dict) or "class_name" not in layer:
                raise ValueError("a layer without a class")
    return config


def _check_class(value: dict[str, Any]) -> None:
    name, module, config = (value.get(key) for key in ("class_name", "module", "config"))
    own = value.get("registered_name")
    if own not in (None, config if name == "function" else name):
        raise ValueError(f"a class of its author's own: {own!r}"[:120])
    if name in _ARRAYS:
        check_array(config)
    elif name == "function":
        if module not in _FUNCTIONS or not isinstance(config, str):
            raise ValueError(f"the function {config!r} of {module!r}"[:120])
    elif name not in _VALUES and not _is_known(module, name):
        raise ValueError(f"the class {name!r} of {module!r}"[:120])


def _is_known(module: Any, name: Any) -> bool:
    if not (isinstance(module, str) and isinstance(name, str) and module in _MODULES):
        return False
    names = _MODULES[module]
    return names is None or name in names


def _check_call(node: Any) -> None:
    """A call on constants alone would be computed at once, however large its result: ops.Zeros, ops.Tile, ..."""
    if not isinstance(node, dict) or not any(one.get("class_name") == "__keras_tensor__" for one in _dicts(node)):
        raise ValueError("a call on no tensor")


def _list(value: dict[str, Any], key: str) -> list:
    found = value.get(key)
    return found if isinstance(found, list) else []


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a value of JSON, itself included. Raises ValueError for what is nested without end."""
    waiting = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > _MOST_DEPTH:
            raise ValueError("a description nested without end")
        if isinstance(one, dict):
            yield one
        if isinstance(one, dict | list):
            waiting += [(inner, depth + 1) for inner in (one.values() if isinstance(one, dict) else one)]
