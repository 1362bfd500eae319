"""What the functions of a SavedModel take and give, and which of them is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from multitl.errors import TranslationError
from multitl.translation.values import Stored
from multitl_tensorflow.keras_exports import NOT_KERAS, KerasExport

OUTPUTS = ("default", "logits", "feature_vector", "features", "output_0", "outputs", "output")
SIGNATURES = ("image_feature_vector", "image_classification", "default", "serving_default", "serve")


@dataclass(frozen=True)
class Spec:
    """What a function takes or gives. shape: None if unknown; a size of None may be anything."""

    name: str
    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    @property
    def may_be_images(self) -> bool:
        """Whether a batch of images (batch, height, width, channels) fits."""
        fits = self.shape is None or (len(self.shape) == 4 and self.shape[3] in (None, 1, 3))
        return fits and self.dtype.is_floating

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype.name} ({sizes})"


@dataclass(frozen=True, eq=False)
class Entry:
    """One function from images to an output.

    function: its name in the library, "" for the main graph.  arguments: of a function, what each of its inputs is: a
    `Spec` of what the caller gives, a tensor, a `Stored` variable, or a str that says what else.  feeds and fetch: of
    the main graph, names of tensors.
    """

    function: str = ""
    arguments: tuple[Spec | np.ndarray | Stored | str, ...] = ()
    images: Spec | None = None
    output: int = 0
    fetch: str = ""
    feed: str = ""


@dataclass(frozen=True, eq=False)
class Module:
    """A SavedModel's graph. `training`: the same function as it trains, if the file has it, and its graph.

    variables: by name, with their values.  In a main graph they are found by the names of their nodes.  export: what
    Keras, if it made it, says of the model.
    """

    what: str
    graph: Any  # GraphDef
    entry: Entry
    variables: Mapping[str, Stored]
    signature: str = ""
    training: tuple[Any, Entry] | None = None
    places: Mapping[str, str] = field(default_factory=dict)  # node of a main graph -> name of its variable
    export: KerasExport = NOT_KERAS


def choose_output(what: str, specs: Sequence[Spec]) -> int:
    """Which of several outputs is meant. Raises TranslationError if no name says so."""
    if len(specs) == 1:
        return 0
    names = [spec.name for spec in specs]
    for wanted in OUTPUTS:
        if wanted in names:
            return names.index(wanted)
    raise TranslationError(
        f"{what} has several outputs, and none is called as an image module's is.",
        expected=f"one output, or one of these names: {', '.join(OUTPUTS)}",
        received=", ".join(map(str, specs)) or "no output",
        fix="export the module with one output: features or logits",
    )


def refuse_inputs(what: str, specs: Sequence[Spec]) -> TranslationError:
    """The error for a module that is not about images; says what it is about."""
    kind = "other data"
    if any(spec.dtype == tf.string for spec in specs):
        kind = "text"
    elif any(spec.dtype.is_integer and spec.shape is not None and len(spec.shape) == 2 for spec in specs):
        kind = "tokens of text"
    elif any(spec.shape is not None and len(spec.shape) in (1, 2) for spec in specs):
        kind = "sound or vectors"
    elif any(spec.shape is not None and len(spec.shape) == 5 for spec in specs):
        kind = "video"
    elif any(spec.shape is not None and len(spec.shape) == 4 for spec in specs):
        kind = "images of another kind, such as 8-bit images for detectors"
    return TranslationError(
        f"{what} is a module for {kind}; multitl takes modules for images.",
        expected="one input of float images (batch, height, width, 3), and a feature vector or logits as output",
        received=", ".join(dict.fromkeys(map(str, specs))) or "no signature at all",
        fix="choose an image module: feature vectors and classifications, see multitl backbones tfhub/",
    )


def preference(name: str) -> int:
    """Place of a signature's name among those that stand for images; the rest comes last."""
    return SIGNATURES.index(name) if name in SIGNATURES else len(SIGNATURES)


def tensor_spec(name: str, info: Any) -> Spec:
    """Of a TensorInfo, as a signature of TensorFlow 1 has it."""
    shape = None if info.tensor_shape.unknown_rank else _shape(info.tensor_shape)
    return Spec(name, tf.as_dtype(info.dtype or tf.string), shape)


def _shape(proto: Any) -> tuple[int | None, ...]:
    return tuple(dim.size if dim.size >= 0 else None for dim in proto.dim)


def leaves(value: Any, name: str) -> Iterator[Any]:
    """The leaves of a StructuredValue, in the order in which TensorFlow flattens it: `Spec` for tensors."""
    kind = value.WhichOneof("kind")
    if kind in ("tuple_value", "list_value"):
        for one in getattr(value, kind).values:
            yield from leaves(one, name)
    elif kind == "dict_value":
        for key in sorted(value.dict_value.fields):
            yield from leaves(value.dict_value.fields[key], key)
    elif kind == "named_tuple_value":
        for pair in value.named_tuple_value.values:
            yield from leaves(pair.value, pair.key)
    elif kind in ("tensor_spec_value", "bounded_tensor_spec_value"):
        spec = getattr(value, kind)
        shape = None if spec.shape.unknown_rank else _shape(spec.shape)
        yield Spec(name or spec.name, tf.as_dtype(spec.dtype), shape)
    elif kind == "bool_value":
        yield value.bool_value
    else:
        yield kind
