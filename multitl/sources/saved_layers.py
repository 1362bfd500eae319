"""One saved layer -> the Keras 3 layers that compute the same: what changed between Keras 2 and Keras 3, as tables.

Nothing in a file says what is called: classes come from a list of names below, and every argument is a number, a text
or a list of them. A `Lambda` layer is Python code, and a class of the user's own is not in the file at all: both are
refused. Weight decay, constraints, initialisers and number formats are not taken over: those belong to training, which
a recipe describes. Random augmentation does nothing to an image that is judged, so its layers are left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from keras import layers

from multitl.models.insides import operation_named
from multitl.sources.saved_graphs import Malformed, SavedLayer, plain_value
from multitl.sources.tensorflow_ops import OPS, TFOP_KINDS, tf_function

Chain = list[Callable[..., Any]]  # the first is called as the saved layer is, each other one on what came before

_STOCK = {
    "Activation", "Add", "Average", "AveragePooling2D", "BatchNormalization", "CenterCrop", "Concatenate", "Conv1D",
    "Conv2D", "Conv2DTranspose", "Cropping2D", "Dense", "DepthwiseConv2D", "Dot", "Dropout", "ELU", "Flatten",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "GroupNormalization", "Identity", "LayerNormalization", "LeakyReLU", "Maximum", "MaxPooling2D", "Minimum",
    "MultiHeadAttention", "Multiply", "Normalization", "Permute", "PReLU", "ReLU", "RepeatVector", "Rescaling",
    "Reshape", "Resizing", "SeparableConv2D", "Softmax", "SpatialDropout1D", "SpatialDropout2D", "Subtract",
    "UnitNormalization", "UpSampling2D", "ZeroPadding2D",
}  # fmt: skip
_ALIASES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "Convolution2D": "Conv2D",
    "FixedDropout": "Dropout",  # of the package efficientnet: a dropout that keeps its shape
    "SyncBatchNormalization": "BatchNormalization",
    "ThresholdedReLU": "ReLU",
}
_IDLE = {  # nothing happens in them unless a model trains
    "ActivityRegularization", "AlphaDropout", "AugMix", "CutMix", "GaussianDropout", "GaussianNoise", "MixUp",
    "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast",
    "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHeight",
    "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation",
    "RandomSharpness", "RandomShear", "RandomTranslation", "RandomWidth", "RandomZoom",
}  # fmt: skip
_FLOAT32 = ("Normalization", "Rescaling")  # under a 16-bit policy a pixel of 255 with an offset would lose bits
_RENAMED = {("LeakyReLU", "alpha"): "negative_slope", ("ThresholdedReLU", "theta"): "threshold"}
_TRAINING = ("_initializer", "_regularizer", "_constraint")  # endings of arguments
_MODULES = ("", "keras", "tf_keras", "tensorflow")
_LEFT_OUT = {
    "activation", "batch_input_shape", "batch_shape", "dtype", "fused", "implementation", "key_shape", "name",
    "quantization_config", "query_shape", "renorm_clipping", "renorm_momentum", "rng_type", "seed", "synchronized",
    "trainable", "value_shape",
}  # fmt: skip
_ACTIVATIONS = {
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "soft_shrink", "softmax", "softplus", "softsign", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink",
}  # fmt: skip


def problem(saved: SavedLayer) -> str:
    """Why a layer cannot be taken, in a few words; "" if it can."""
    kind = _kind(saved)
    options = [call.options for call in saved.calls]
    if any(one.get("training") is True for one in options) or any(one.get("mask") is not None for one in options):
        return f"{kind} called with training=True or a mask"
    if saved.graph or kind in ("InputLayer", *_IDLE) or _is_of_convnext(saved):
        return ""
    if kind == "Lambda":
        return kind
    if kind in TFOP_KINDS:
        return "" if tf_function(saved) in OPS else f"tf.{tf_function(saved)}"
    if _operation(saved):
        return _argument_problem(saved)
    if saved.module.startswith("keras.src.ops"):
        return f"the operation {kind}"
    if saved.module.partition(".")[0] not in _MODULES or kind not in vars(layers):
        return f"{kind}, a class of its author's own"
    if kind not in _STOCK:
        return kind
    return _argument_problem(saved)


def build_layer(saved: SavedLayer, name: str, is_keras3: bool) -> Chain:
    """Layers for one that has no `problem`. name: what the first one is to be called."""
    kind = _kind(saved)
    if kind in _IDLE or saved.kind == "StochasticDepth":
        return [layers.Identity(name=name)]
    if _is_of_convnext(saved):  # a factor for each channel; plain Keras has no layer of that name
        channels = saved.config["projection_dim"]
        return [layers.EinsumDense("abcd,d->abcd", output_shape=(None, None, channels), name=name)]
    if kind in TFOP_KINDS:
        return [OPS[tf_function(saved)]]
    if operation := _operation(saved):
        return [operation(**_settings(saved))]
    activation = _activation(saved.config.get("activation"))
    if kind == "Activation":
        return _activation_chain(activation, name, is_keras3)
    arguments = _arguments(saved) | {"name": name}
    if activation == "linear":
        return [getattr(layers, kind)(**arguments)]
    if not _stands_apart(kind, activation, is_keras3):
        return [getattr(layers, kind)(**arguments, activation=activation)]
    return [getattr(layers, kind)(**arguments), *_activation_chain(activation, f"{name}_activation", is_keras3)]


def call_options(saved: SavedLayer, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a call takes besides its inputs, without what says that nothing trains."""
    left_out = ("training", "mask", "name") if _kind(saved) in TFOP_KINDS else ("training", "mask")
    return {key: value for key, value in options.items() if key not in left_out}


def _kind(saved: SavedLayer) -> str:
    return _ALIASES.get(saved.kind, saved.kind)


def _is_of_convnext(saved: SavedLayer) -> bool:
    """Whether it is one of the two layers that keras.applications made for ConvNeXt alone."""
    own = {"LayerScale": "projection_dim", "StochasticDepth": "drop_path_rate"}
    return own.get(saved.kind, "") in saved.config


def _operation(saved: SavedLayer) -> Any:
    """The class of an operation of keras.ops, None if it is none. In a .h5 file it lacks what every layer has."""
    if "trainable" in saved.config:
        return None
    return operation_named(saved.kind, saved.module)


def _settings(saved: SavedLayer) -> dict[str, Any]:
    """What an operation is made with."""
    return {key: plain_value(value) for key, value in saved.config.items() if key not in ("name", "dtype")}


def _argument_problem(saved: SavedLayer) -> str:
    try:
        if _operation(saved):
            _settings(saved)
            return ""
        _arguments(saved)
        _activation(saved.config.get("activation"))
    except Malformed as error:
        return f"{_kind(saved)} with {error}"
    return ""


def _arguments(saved: SavedLayer) -> dict[str, Any]:
    """What the layer's class of Keras 3 is made with. Raises Malformed for what it does not take."""
    kind, found = _kind(saved), {}
    known = inspect.signature(getattr(layers, kind).__init__).parameters
    for key, value in saved.config.items():
        name = _RENAMED.get((saved.kind, key), key)
        if key in _LEFT_OUT or key.endswith(_TRAINING):
            continue
        plain = plain_value(value)
        if key == "data_format" and plain == "channels_first":
            raise Malformed("channels first")
        if name in known:
            found[name] = plain
        elif not (plain is None or plain is False or (key == "groups" and plain == 1)):
            raise Malformed(f"{key}={plain!r}"[:80])
    if kind == "BatchNormalization" and isinstance(found.get("axis"), list):
        found["axis"] = found["axis"][0]  # Keras 2 allows several and writes a list
    return found | ({"dtype": "float32"} if kind in _FLOAT32 else {})


def _activation(value: Any) -> str | SavedLayer:
    """The name of a function, or a layer that is one. Raises Malformed for others."""
    if isinstance(value, dict) and value.get("class_name") in tuple(_STOCK):  # of a tuple: a file's may be a list
        return SavedLayer("activation", value["class_name"], str(value.get("module") or ""), value["config"])
    if isinstance(value, dict):
        function = value["config"] if isinstance(value.get("config"), str) else value.get("registered_name")
        value = function or value.get("class_name") or "without a name"
    if value is not None and not (isinstance(value, str) and value in _ACTIVATIONS):
        raise Malformed(f"the activation {value!r}"[:80])
    return value or "linear"


def _stands_apart(kind: str, activation: str | SavedLayer, is_keras3: bool) -> bool:
    """Whether an activation becomes a layer of its own: a classifier's last, and what Keras 3 takes otherwise."""
    if isinstance(activation, SavedLayer) or activation == "softmax":
        return True
    return (kind == "Dense" and activation == "sigmoid") or (activation == "hard_sigmoid" and not is_keras3)


def _activation_chain(activation: str | SavedLayer, name: str, is_keras3: bool) -> Chain:
    if isinstance(activation, SavedLayer):
        return build_layer(activation, name, is_keras3)
    if activation == "softmax":
        return [layers.Softmax(name=name)]
    if activation == "linear":
        return [layers.Identity(name=name)]
    if activation == "hard_sigmoid" and not is_keras3:  # relu6(x + 3) / 6 in Keras 3
        return [layers.Rescaling(0.2, 0.5, name=name), layers.ReLU(max_value=1.0, name=f"{name}_clip")]
    return [layers.Activation(activation, name=name)]
