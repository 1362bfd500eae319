"""What a SavedModel says of the Keras model that it was made of: that it is one, and how it scales pixels.

Keras 2 writes a description of each object as JSON, into keras_metadata.pb, or into saved_model.pb before TensorFlow
2.5. Keras 3's `model.export` leaves no more than a list of its own. Nothing here is needed to run a module, and so what
cannot be read counts as not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from multitl.system.regular_files import read_regular

MOST_BYTES = 2**26  # of keras_metadata.pb
NODES, IDENTIFIER, METADATA = 1, 4, 5  # fields of tensorflow/python/keras/protobuf/saved_metadata.proto
KERAS_2, KERAS_3 = "_tf_keras_", "_misc_assets"  # how its objects' kinds begin, and what its exports' roots hold


@dataclass(frozen=True)
class KerasExport:
    """is_keras: whether Keras wrote it.  scale: that of a Rescaling before all kernels; 0.0 if there is none."""

    is_keras: bool = False
    scale: float = 0.0


NOT_KERAS = KerasExport()


def read_export(meta: Any, folder: Path) -> KerasExport:
    """What the graph (MetaGraphDef) and the files of a SavedModel say."""
    objects = meta.object_graph_def.nodes
    is_keras_3 = bool(objects) and any(child.local_name == KERAS_3 for child in objects[0].children)
    given = [(one.user_object.identifier, one.user_object.metadata) for one in objects[:1]]
    described = [text for kind, text in [*given, *_metadata(folder / "keras_metadata.pb")] if kind.startswith(KERAS_2)]
    is_keras_2 = any(kind.startswith(KERAS_2) for kind, _ in given)
    scales = [scale for text in described for scale in _scales(text)]
    return KerasExport(is_keras_2 or is_keras_3 or bool(described), next(iter(scales), 0.0))


def _metadata(path: Path) -> Iterator[tuple[str, str]]:
    """Kind and description of the objects in keras_metadata.pb, the model's own first."""
    with suppress(OSError, DecodeError, UnicodeDecodeError):
        for node in UnknownFieldSet(Empty.FromString(read_regular(path, MOST_BYTES))):
            if node.field_number == NODES and isinstance(node.data, bytes):
                fields = {one.field_number: one.data for one in UnknownFieldSet(Empty.FromString(node.data))}
                texts = [fields.get(number, b"") for number in (IDENTIFIER, METADATA)]
                if all(isinstance(text, bytes) for text in texts):
                    yield texts[0].decode(), texts[1].decode()


def _scales(description: str) -> Iterator[float]:
    """Of the Rescaling layers that a model's description lists before its first layer with a kernel."""
    with suppress(ValueError, RecursionError, AttributeError, TypeError, KeyError):
        for layer in _layers(json.loads(description).get("config", {})):
            if "Conv" in layer["class_name"] or "Dense" in layer["class_name"]:
                return
            if layer["class_name"] == "Rescaling":
                yield float(layer["config"]["scale"])


def _layers(config: Any) -> Iterator[Any]:
    """All layers of a model, those of nested models in their places."""
    for layer in config.get("layers", ()):
        if "layers" in layer["config"]:
            yield from _layers(layer["config"])
        else:
            yield layer
