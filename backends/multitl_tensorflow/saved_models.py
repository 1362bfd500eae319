"""SavedModels, read and not run: which function of one classifies images, and what its variables hold.

A SavedModel is a program. What is parsed here are its protocol buffers and its checkpoint; nothing in it is executed.
Format: https://www.tensorflow.org/guide/saved_model and tensorflow/core/protobuf/saved_object_graph.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from multitl.errors import WeightsError
from multitl.system.regular_files import read_regular
from multitl.translation.values import Stored
from multitl_tensorflow.damage import damage_refused, refuse
from multitl_tensorflow.keras_exports import read_export
from multitl_tensorflow.object_graphs import Objects
from multitl_tensorflow.operations import attribute
from multitl_tensorflow.restoring import VARIABLES, restored_keys
from multitl_tensorflow.signatures import Entry, Module, Spec, choose_output, preference, refuse_inputs, tensor_spec
from multitl_tensorflow.stored_values import Checkpoint

HOSTILE = ("PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2")
MOST_BYTES = 2**31  # of saved_model.pb: protocol buffers hold no more


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
        module = Objects(inference[0], checkpoint, what).module()
        return replace(module, export=read_export(inference[0], folder))
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


def _from_graph(meta: Any, training: Sequence[Any], checkpoint: Checkpoint, what: str) -> Module:
    """A SavedModel of TensorFlow 1: one graph, whose signatures name tensors."""
    name, signature, feed = _choose_signature(meta, what)
    outputs = {key: info for key, info in sorted(signature.outputs.items()) if info.name}
    place = choose_output(what, [tensor_spec(key, info) for key, info in outputs.items()])
    fetch = [info.name for info in outputs.values()][place]
    images = tensor_spec(feed, signature.inputs[feed])
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
    for name in sorted(meta.signature_def, key=preference):
        signature = meta.signature_def[name]
        specs = {key: tensor_spec(key, info) for key, info in signature.inputs.items()}
        images = [key for key, spec in specs.items() if spec.may_be_images]
        if len(images) == 1 and all(spec.shape == () for key, spec in specs.items() if key != images[0]):
            return name, signature, images[0]
        tried += specs.values()
    raise refuse_inputs(what, tried)


def _graph_variables(meta: Any, checkpoint: Checkpoint) -> tuple[dict[str, Stored], dict[str, str]]:
    """The variables by name, and which node is which. Without a list of what trains, all of floats do."""
    listed = [VariableDef.FromString(one) for one in meta.collection_def["trainable_variables"].bytes_list.value]
    trains = {definition.variable_name.partition(":")[0] for definition in listed}
    restored = restored_keys(meta.graph_def)
    variables: dict[str, Stored] = {}
    places = {}
    for node in meta.graph_def.node:
        if node.op not in VARIABLES:
            continue
        names = (node.name, attribute(node, "shared_name").s.decode(errors="replace"))
        key = next((one for one in (restored.get(node.name, ""), *names) if one in checkpoint), "")
        if key:
            name = places[node.name] = key if key in names else node.name
            value = checkpoint.read(key)
            variables[name] = Stored(value, name, value.dtype.kind == "f" and (name in trains or not trains))
    return variables, places
