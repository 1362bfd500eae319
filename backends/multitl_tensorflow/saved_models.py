"""SavedModels, read and not run: which function of one classifies images, and what its variables hold.

A SavedModel is a program. What is parsed here are its protocol buffers and its checkpoint; nothing in it is executed.
Format: https://www.tensorflow.org/guide/saved_model and tensorflow/core/protobuf/saved_object_graph.proto.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from multitl.errors import MultitlError, TranslationError, WeightsError
from multitl.system.regular_files import read_regular
from multitl.translation.values import Stored
from multitl_tensorflow.bundles import Bundle, DamagedBundle
from multitl_tensorflow.operations import attribute

HOSTILE = ("PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2")
CALLABLES = ("__call__", "serve")  # of tf.Module and Keras 2, and of Keras 3
SIGNATURES = ("image_feature_vector", "image_classification", "default", "serving_default", "serve")
OUTPUTS = ("default", "logits", "feature_vector", "features", "output_0", "outputs", "output")
MOST_BYTES = 2**31  # of saved_model.pb: protocol buffers hold no more
DAMAGED = (  # what a mess leads to
    tf.errors.OpError, RuntimeError, ValueError, DecodeError, LookupError, TypeError, AttributeError, ArithmeticError,
    StopIteration,
)  # fmt: skip


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

    variables: by name, with their values.  In a main graph they are found by the names of their nodes.
    """

    what: str
    graph: Any  # GraphDef
    entry: Entry
    variables: Mapping[str, Stored]
    signature: str = ""
    training: tuple[Any, Entry] | None = None
    places: Mapping[str, str] = field(default_factory=dict)  # node of a main graph -> name of its variable


def read_module(folder: Path, what: str = "") -> Module:
    """The function of a SavedModel that turns images into features or logits in evaluation.

    what: the module's name in messages.  Raises WeightsError for what is no SavedModel, damaged or unsafe, and
    TranslationError for a module without images.
    """
    what = what or folder.name
    proto = _parse(folder, what)
    for meta in proto.meta_graphs:
        _refuse_hostile(meta, what)
    with damage_refused(what):
        return _read(proto, folder, what)


def _read(proto: Any, folder: Path, what: str) -> Module:
    checkpoint = Checkpoint(folder / "variables", what)
    inference = [meta for meta in proto.meta_graphs if "train" not in meta.meta_info_def.tags] or [*proto.meta_graphs]
    if inference[0].object_graph_def.nodes:
        return _Objects(inference[0], checkpoint, what).module()
    training = [meta for meta in proto.meta_graphs if "train" in meta.meta_info_def.tags]
    return _from_graph(inference[0], training[:1], checkpoint, what)


def _parse(folder: Path, what: str) -> Any:
    path = folder / "saved_model.pb"
    if not path.is_file():
        raise WeightsError(
            f"{what} is not a SavedModel.",
            expected="a folder with saved_model.pb and variables/",
            received=", ".join(sorted(one.name for one in folder.iterdir())[:8]) or "an empty folder",
            fix="give the folder that holds saved_model.pb",
        )
    proto = SavedModel()
    try:
        proto.ParseFromString(read_regular(path, MOST_BYTES))
    except (DecodeError, OSError) as error:
        raise refuse(what, f"saved_model.pb that is no protocol buffer ({error})") from error
    if not proto.meta_graphs:
        raise refuse(what, "saved_model.pb without a graph")
    return proto


@contextlib.contextmanager
def damage_refused(what: str) -> Iterator[None]:
    """While open, whatever a file leads to that does not hang together becomes a WeightsError."""
    try:
        yield
    except MultitlError:
        raise
    except DAMAGED as error:
        raise refuse(what, f"a graph that cannot be followed ({type(error).__name__}: {_first_line(error)})") from error


def refuse(what: str, received: str) -> WeightsError:
    """The error for a file that is damaged or unsafe."""
    return WeightsError(
        f"{what} is damaged or unsafe; nothing of it was run.",
        expected="a SavedModel as TensorFlow writes it",
        received=received,
        fix="download the module again, from where its authors publish it",
    )


def _refuse_hostile(meta: Any, what: str) -> None:
    """Python code and files have no place in a network, wherever in the file they are."""
    nodes = [*meta.graph_def.node, *(node for one in meta.graph_def.library.function for node in one.node_def)]
    found = [f"{node.op} ({node.name})" for node in nodes if node.op in HOSTILE]
    if found:
        raise refuse(what, f"operations that run code or touch files: {', '.join(found[:8])}")
    for asset in meta.asset_file_def:
        path = PurePosixPath(asset.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in asset.filename:
            raise refuse(what, f"an asset outside the module: {asset.filename}")


class Checkpoint:
    """The values of a SavedModel's variables, by their keys. Reading it executes no graph."""

    def __init__(self, folder: Path, what: str) -> None:
        """folder: the module's `variables`, which constants alone do without."""
        self.what = what
        self.shapes: Mapping[str, list[int]] = {}
        if not (folder / "variables.index").is_file():
            return
        try:
            self._bundle = Bundle(folder / "variables")
        except (DamagedBundle, OSError) as error:
            raise refuse(what, f"variables that cannot be read: {_first_line(error)}") from error
        self.shapes = self._bundle.shapes

    def __contains__(self, key: str) -> bool:
        return key in self.shapes

    def read(self, key: str) -> Any:
        """The tensor under a key, or the bytes of a text; half precision becomes float32. Raises WeightsError."""
        try:
            value = self._bundle.read(key)
        except (DamagedBundle, OSError) as error:
            raise refuse(self.what, f"the variable {key} cannot be read: {_first_line(error)}") from error
        return as_float32(value) if isinstance(value, np.ndarray) else value


def as_float32(array: np.ndarray) -> np.ndarray:
    """Half precision widened; anything else as it is."""
    return array.astype("float32") if array.dtype.name in ("float16", "bfloat16") else array


class _Objects:
    """A SavedModel of TensorFlow 2: a graph of objects, some of which are functions and variables."""

    def __init__(self, meta: Any, checkpoint: Checkpoint, what: str) -> None:
        self.meta, self.checkpoint, self.what = meta, checkpoint, what
        self.objects = meta.object_graph_def.nodes
        self.functions = meta.object_graph_def.concrete_functions
        self.inputs = {one.signature.name: len(one.signature.input_arg) for one in meta.graph_def.library.function}
        self.constants = {node.name: node for node in meta.graph_def.node if node.op == "Const"}
        self.keys = dict(self._checkpoint_keys())
        self.names: dict[int, str] = {}

    def module(self) -> Module:
        name, evaluating, training = self._choose()
        self.names = self._names([one for one in (evaluating, training) if one])
        self._insist_on_values(evaluating)
        variables = {self.names[number]: self._variable(number) for number in self.names}
        entry = self._entry(evaluating, variables)
        trained = (self.meta.graph_def, self._entry(training, variables)) if training else None
        return Module(self.what, self.meta.graph_def, entry, variables, name, trained)

    def _children(self, number: int) -> dict[str, int]:
        return {child.local_name: child.node_id for child in self.objects[number].children}

    def _choose(self) -> tuple[str, str, str]:
        """Name of the callable or signature, and of its functions for evaluation and training ("" if it has none)."""
        root = self._children(0)
        tried: list[Spec] = []
        for name in (name for name in CALLABLES if name in root):
            found = list(self.objects[root[name]].function.concrete_functions)
            evaluating = [one for one in found if self._takes_images(one) and not self._trains(one)]
            if evaluating:
                training = [one for one in found if self._takes_images(one) and self._trains(one)]
                return name, min(evaluating, key=self._distance), min(training, key=self._distance, default="")
            tried += [spec for one in found for spec in self._specs(one)]
        signatures = self._children(root["signatures"]) if "signatures" in root else {}
        for name in sorted(signatures, key=_preference):
            function = self.objects[signatures[name]].bare_concrete_function.concrete_function_name
            if self._takes_images(function):
                return name, function, ""
            tried += self._specs(function)
        raise refuse_inputs(self.what, tried)

    def _leaves(self, function: str) -> list[Any]:
        if function not in self.functions:
            raise refuse(self.what, f"a function that is not there: {function}")
        return list(_leaves(self.functions[function].canonicalized_input_signature, ""))

    def _specs(self, function: str) -> list[Spec]:
        return [leaf for leaf in self._leaves(function) if isinstance(leaf, Spec)]

    def _takes_images(self, function: str) -> bool:
        """One batch of images, and otherwise numbers only."""
        specs = self._specs(function)
        images = [spec for spec in specs if spec.may_be_images]
        return len(images) == 1 and all(spec.shape == () for spec in specs if spec is not images[0])

    def _trains(self, function: str) -> bool:
        return any(leaf is True for leaf in self._leaves(function))

    def _distance(self, function: str) -> int:
        """Fewer arguments besides the images are better, an explicit False is best."""
        return len(self._specs(function)) - any(leaf is False for leaf in self._leaves(function))

    def _entry(self, function: str, variables: Mapping[str, Stored]) -> Entry:
        specs = self._specs(function)
        bound = self.functions[function].bound_inputs
        if self.inputs.get(function) != len(specs) + len(bound):
            raise refuse(self.what, f"a function whose inputs do not add up: {function}")
        outputs = list(_leaves(self.functions[function].output_signature, ""))
        return Entry(
            function=function,
            arguments=(*specs, *(self._bound(number, variables) for number in bound)),
            images=next(spec for spec in specs if spec.may_be_images),
            output=choose_output(self.what, [leaf for leaf in outputs if isinstance(leaf, Spec)]),
        )

    def _bound(self, number: int, variables: Mapping[str, Stored]) -> np.ndarray | Stored | str:
        """What a function holds on to: a variable, a constant of the main graph, or something without a value."""
        if not 0 <= number < len(self.objects):
            raise refuse(self.what, f"an object that is not there: {number}")
        kind = self.objects[number].WhichOneof("kind")
        if kind == "variable":
            return variables[self.names[number]]
        if kind == "constant":
            node = self.constants.get(self.objects[number].constant.operation)
            if node is not None:
                return constant(node, self.what)
        return str(kind or "object")

    def _names(self, functions: Sequence[str]) -> dict[int, str]:
        """Variable object -> a name of its own: the variable's, or where that names several, its place among objects.

        Of the functions' variables and those that the module lists; exports may hold copies besides.
        """
        root = self._children(0)
        numbers = [number for one in functions for number in self.functions[one].bound_inputs]
        numbers += self._children(root["variables"]).values() if "variables" in root else []
        valid = [number for number in dict.fromkeys(numbers) if 0 <= number < len(self.objects)]
        found = {number: self.objects[number].variable for number in valid if self.objects[number].HasField("variable")}
        given = [variable.name for variable in found.values()]
        places = {number: self.keys.get(number, str(number)).partition("/.ATTRIBUTES")[0] for number in found}
        return {
            number: variable.name if variable.name and given.count(variable.name) == 1 else places[number]
            for number, variable in found.items()
        }

    def _insist_on_values(self, function: str) -> None:
        """Variables that only training or nothing reads may lack one."""
        bound = [number for number in self.functions[function].bound_inputs if number in self.names]
        missing = [self.names[number] for number in bound if self._key(number) not in self.checkpoint]
        if missing:
            raise refuse(self.what, f"{len(missing)} variables without values: {', '.join(missing[:4])}")

    def _key(self, number: int) -> str:
        """Of a variable's value in the checkpoint."""
        return self.keys.get(number, self.objects[number].variable.name)

    def _variable(self, number: int) -> Stored:
        key = self._key(number)
        if key not in self.checkpoint:
            return Stored(np.zeros((0,), "float32"), self.names[number])
        return Stored(self.checkpoint.read(key), self.names[number], self._is_trainable(number))

    def _is_trainable(self, number: int) -> bool:
        """As the module's own list says, or the variable itself."""
        root = self._children(0)
        if "trainable_variables" in root:
            return number in self._children(root["trainable_variables"]).values()
        return bool(self.objects[number].variable.trainable)

    def _checkpoint_keys(self) -> Iterator[tuple[int, str]]:
        """Variables' keys: the checkpoint has a graph of objects of its own, with the same names on the way."""
        if "_CHECKPOINTABLE_OBJECT_GRAPH" not in self.checkpoint:
            return
        saved = TrackableObjectGraph.FromString(self.checkpoint.read("_CHECKPOINTABLE_OBJECT_GRAPH"))
        waiting, seen = [(0, 0)], set()
        while waiting:
            number, place = waiting.pop(0)
            if number in seen or place >= len(saved.nodes) or number >= len(self.objects):
                continue
            seen.add(number)
            for one in saved.nodes[place].attributes:
                if one.name == "VARIABLE_VALUE":
                    yield number, one.checkpoint_key
            there = {child.local_name: child.node_id for child in saved.nodes[place].children}
            waiting += [(child, there[name]) for name, child in self._children(number).items() if name in there]


def _from_graph(meta: Any, training: Sequence[Any], checkpoint: Checkpoint, what: str) -> Module:
    """A SavedModel of TensorFlow 1: one graph, whose signatures name tensors."""
    name, signature, feed = _choose_signature(meta, what)
    outputs = {key: info for key, info in sorted(signature.outputs.items()) if info.name}
    place = choose_output(what, [_tensor_spec(key, info) for key, info in outputs.items()])
    fetch = [info.name for info in outputs.values()][place]
    images = _tensor_spec(feed, signature.inputs[feed])
    entry = Entry(images=images, fetch=fetch, feed=signature.inputs[feed].name)
    variables, places = _graph_variables(meta, checkpoint)
    trained = None
    if training and name in training[0].signature_def:
        other = training[0].signature_def[name]
        trained = (training[0].graph_def, Entry(images=images, fetch=fetch, feed=other.inputs[feed].name))
    return Module(what, meta.graph_def, entry, variables, name, trained, places)


def _choose_signature(meta: Any, what: str) -> tuple[str, Any, str]:
    """Name, signature, and the input of it that takes images."""
    tried: list[Spec] = []
    for name in sorted(meta.signature_def, key=_preference):
        signature = meta.signature_def[name]
        specs = {key: _tensor_spec(key, info) for key, info in signature.inputs.items()}
        images = [key for key, spec in specs.items() if spec.may_be_images]
        if len(images) == 1 and all(spec.shape == () for key, spec in specs.items() if key != images[0]):
            return name, signature, images[0]
        tried += specs.values()
    raise refuse_inputs(what, tried)


def _graph_variables(meta: Any, checkpoint: Checkpoint) -> tuple[dict[str, Stored], dict[str, str]]:
    """The variables by name, and which node is which. Without a list of what trains, all of floats do."""
    listed = [VariableDef.FromString(one) for one in meta.collection_def["trainable_variables"].bytes_list.value]
    trains = {definition.variable_name.partition(":")[0] for definition in listed}
    places = {}
    for node in meta.graph_def.node:
        if node.op in ("VarHandleOp", "VariableV2", "Variable"):
            named = attribute(node, "shared_name").s.decode(errors="replace")
            places[node.name] = next((key for key in (node.name, named) if key in checkpoint), "")
    values = {key: checkpoint.read(key) for key in places.values() if key}
    variables = {
        key: Stored(value, key, value.dtype.kind == "f" and (key in trains or not trains))
        for key, value in values.items()
    }
    return variables, {node: key for node, key in places.items() if key}


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


def constant(node: Any, what: str) -> np.ndarray:
    """The value of a Const node. Few bytes may claim to be many numbers: that is refused."""
    tensor = attribute(node, "value").tensor
    count = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    if count < 0 or count * max(1, tf.as_dtype(tensor.dtype).size) > max(MOST_FILLED, 8 * tensor.ByteSize()):
        raise refuse(what, f"a constant of {count} numbers in {tensor.ByteSize()} bytes ({node.name})")
    try:
        return as_float32(tf.make_ndarray(tensor))
    except (TypeError, ValueError) as error:
        raise refuse(what, f"a constant that cannot be read ({node.name}): {_first_line(error)}") from error


MOST_FILLED = 2**26  # bytes of a constant that repeats one number


def _preference(name: str) -> int:
    return SIGNATURES.index(name) if name in SIGNATURES else len(SIGNATURES)


def _tensor_spec(name: str, info: Any) -> Spec:
    shape = None if info.tensor_shape.unknown_rank else _shape(info.tensor_shape)
    return Spec(name, tf.as_dtype(info.dtype or tf.string), shape)


def _shape(proto: Any) -> tuple[int | None, ...]:
    return tuple(dim.size if dim.size >= 0 else None for dim in proto.dim)


def _leaves(value: Any, name: str) -> Iterator[Any]:
    """The leaves of a StructuredValue, in the order in which TensorFlow flattens it: `Spec` for tensors."""
    kind = value.WhichOneof("kind")
    if kind in ("tuple_value", "list_value"):
        for one in getattr(value, kind).values:
            yield from _leaves(one, name)
    elif kind == "dict_value":
        for key in sorted(value.dict_value.fields):
            yield from _leaves(value.dict_value.fields[key], key)
    elif kind == "named_tuple_value":
        for pair in value.named_tuple_value.values:
            yield from _leaves(pair.value, pair.key)
    elif kind in ("tensor_spec_value", "bounded_tensor_spec_value"):
        spec = getattr(value, kind)
        shape = None if spec.shape.unknown_rank else _shape(spec.shape)
        yield Spec(name or spec.name, tf.as_dtype(spec.dtype), shape)
    elif kind == "bool_value":
        yield value.bool_value
    else:
        yield kind


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
