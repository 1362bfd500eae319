"""Source `file`: a model of the user's own, saved by Keras 2, tf_keras or Keras 3: "file:PATH".

The file is data: its description names layers, of which only stock ones are built anew, and its arrays are copied. No
TensorFlow is needed, whatever wrote the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitl.adapters import FILE, check_path
from multitl.contracts import BackboneInfo, Head, Origin, Preprocess, Pretrained, Translation
from multitl.errors import BackboneError, MultitlError, WeightsError
from multitl.system.hashes import file_sha256
from multitl.system.paths import expanded

if TYPE_CHECKING:  # `backbones` must answer without loading a framework
    import keras

    from multitl.files.keras_files import SavedModel
    from multitl.sources.saved_graphs import SavedGraph

USUAL_SIZE = 224  # of models that take any
_KEPT = "a model that ends with one output a class, or with a single sigmoid"


def backbones() -> list[BackboneInfo]:
    """One line that stands for every file."""
    return [BackboneInfo("file:PATH", 0, "that of the file", "your own .keras or .h5 of Keras 2, tf_keras or Keras 3")]


def check(name: str, weights: str) -> None:
    """See `contracts.Source`."""
    check_path(name, "model file", "a .keras or .h5 file", FILE)


def at_hand(image_size: int) -> list[str]:
    """None: a user's own are named. See `contracts.Source`."""
    return []


def load(name: str, weights: str, image_size: int, head: Head = "cut") -> Pretrained:
    """Read a model from a file. See `contracts.Source`.

    name: path of a .keras or whole-model .h5 file.  weights: "default" (the file's), "none" (random) or another file
    with weights of the same model.  image_size: 0 for the model's own, 224 where it takes any.

    Images are squashed to that size and handed over as they are, 0 to 255, since no file says what a model was trained
    on; what is missing in the model itself, `--preprocess` adds. Raises WeightsError for a file that is missing,
    damaged, unsafe, or without a network; TranslationError with the list of layers that are not taken from files;
    BackboneError for a model that is no image network, for a size that it does not work at, and for head="keep" where
    there is no classifier.
    """
    from multitl.files.keras_files import read_model
    from multitl.sources.saved_graphs import read_graph
    from multitl.sources.saved_networks import refuse_unknown

    path = _expanded(name)
    saved = read_model(path)
    with _damage_refused(path):
        graph = read_graph(saved.config)
        refuse_unknown(graph, str(path))
        height, width = _image_size(graph, path, image_size)
        model = _filled(saved, graph, (height, width), weights)
        preprocess = Preprocess(height, width, resize="squash", antialias=False)
        return _pretrained(model, saved, preprocess, weights, head)


@contextlib.contextmanager
def _damage_refused(path: Path) -> Iterator[None]:
    """A description can be wrong in any place and in any way, and Keras raises whatever that leads to."""
    try:
        yield
    except MultitlError:
        raise
    except Exception as error:
        raise _not_built(path, error) from error


def _expanded(name: str) -> Path:
    from multitl.files.keras_files import refuse

    if not name:
        raise refuse(Path(name), "no path", "check the path after file:")
    return expanded(name)


def _filled(saved: SavedModel, graph: SavedGraph, size: tuple[int, int], weights: str) -> keras.Model:
    from multitl.models.initialisers import numpy_initialisers
    from multitl.sources.saved_graphs import Malformed
    from multitl.sources.saved_networks import build_network
    from multitl.sources.saved_weights import fill

    own = _own_size(graph)
    try:
        with numpy_initialisers(seed=0 if weights == "none" else None):
            network = build_network(graph, *size, saved.is_keras3, saved.path.stat().st_size)
        if weights != "none":
            fill(network, graph, saved.path if weights == "default" else expanded(weights))
    except (Malformed, WeightsError) as error:
        if None not in own and own != size:
            raise _bound_to_size(saved.path, own, size) from error
        raise error if isinstance(error, WeightsError) else _not_built(saved.path, error) from error
    return network.model


def _pretrained(model: keras.Model, saved: SavedModel, preprocess: Preprocess, weights: str, head: Head) -> Pretrained:
    from multitl.models.stages import stages_by_stride
    from multitl.sources.translated import Network, as_pretrained, note_values, of_features

    sha256 = file_sha256(saved.path)
    note_values(model, saved.path.name, "pixels as they are, 0 to 255")
    logits = _logits(model, saved.path, head)
    _note_decoder(model, saved.path)
    network = Network(
        name=f"file:{saved.path.name}",
        translation=Translation(logits or model, weights=(), stages=stages_by_stride(logits or model)),
        preprocess=preprocess,
        origin=Origin("file", weights, _weights_sha256(weights, sha256), "that of the file", ""),
        parity=None,
        class_names=(),
    )
    pretrained = as_pretrained(network, head) if logits else of_features(network)
    return replace(pretrained, content=sha256)


def _weights_sha256(weights: str, own: str) -> str | None:
    if weights in ("default", "none"):
        return own if weights == "default" else None
    return file_sha256(expanded(weights))


def _logits(model: keras.Model, path: Path, head: Head) -> keras.Model | None:
    """The model up to its logits, None if it gives features. Raises BackboneError if these are to be kept."""
    import keras

    from multitl.translation.cutting import classifier_logits

    if len(model.output_shape) != 2:
        logits = None
    elif (logits := classifier_logits(model)) is None:
        logits = _before_sigmoid(model)
        if logits is not None and head == "keep":
            if logits.output_shape[-1] != 1:
                raise _nothing_to_keep(path, "several sigmoids: a model that gives an image any number of labels")
            one = logits.output
            both = keras.ops.concatenate([keras.ops.zeros_like(one), one], axis=-1)  # softmax of these: the sigmoid
            return keras.Model(model.input, both, name=model.name)
    elif logits.output_shape[-1] == 1 and head == "keep":
        raise _nothing_to_keep(path, "one number, without a sigmoid")
    if logits is None and head == "keep":
        raise _nothing_to_keep(path, f"features of {model.output_shape[1:]}")
    return logits


def _before_sigmoid(model: keras.Model) -> keras.Model | None:
    import keras

    from multitl.models.insides import producer_of
    from multitl.translation.cutting import classifier_logits

    last = producer_of(model.output)
    is_sigmoid = isinstance(last, keras.layers.Activation) and last.activation is keras.activations.sigmoid
    if not is_sigmoid and type(last).__name__ != "Sigmoid":
        return None
    return classifier_logits(keras.Model(model.input, last.input, name=model.name))


def _note_decoder(model: keras.Model, path: Path) -> None:
    """Say so where a model gives each place of an image its own prediction, as one that segments does."""
    from multitl.models.insides import producer_of
    from multitl.system.messages import say

    enlarged = _first_enlarged(model) if len(model.output_shape) == 4 else None
    if enlarged is not None:
        _, height, width, channels = model.output_shape
        say(
            f"{path.name} gives a map of {height} x {width} places with {channels} channels each, as networks that "
            "segment or draw do. It has no classifier, so nothing of it is cut off: as a backbone it gives a new head "
            f"the mean of {channels} channels. Its encoder alone says more of an image; save and load that: "
            f"keras.Model(model.input, model.get_layer({producer_of(enlarged).name!r}).output).save('encoder.keras')"
        )


def _first_enlarged(model: keras.Model) -> keras.KerasTensor | None:
    """The first map that the network makes larger again; None if it makes none so."""
    for operation in model.operations:
        before, after = operation.input, operation.output
        maps = [one for one in (before, after) if not isinstance(one, list) and len(one.shape) == 4]
        if len(maps) == 2 and 1 < before.shape[1] <= after.shape[1] // 2 and None not in after.shape[1:3]:
            return before
    return None


def _image_size(graph: SavedGraph, path: Path, image_size: int) -> tuple[int, int]:
    """Height and width to build for. Raises BackboneError for a model that does not take RGB images alone."""
    shapes = [layer.config.get("batch_shape", layer.config.get("batch_input_shape")) for layer in _inputs(graph)]
    if len(shapes) != 1 or len(graph.outputs) != 1:
        raise _no_image_model(path, f"{len(shapes)} inputs, {len(graph.outputs)} outputs")
    (shape,) = shapes
    if not isinstance(shape, list) or len(shape) != 4 or shape[3] != 3:
        raise _no_image_model(path, "an input without a shape" if shape is None else f"an input of shape {shape}")
    height, width = _own_size(graph)
    return (image_size or height or USUAL_SIZE, image_size or width or USUAL_SIZE)


def _own_size(graph: SavedGraph) -> tuple[Any, Any]:
    (layer,) = _inputs(graph)
    shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
    return shape[1], shape[2]


def _inputs(graph: SavedGraph) -> list:
    names = {reference.layer for reference in graph.inputs}
    return [layer for layer in graph.layers if layer.name in names]


def _no_image_model(path: Path, received: str) -> BackboneError:
    return BackboneError(
        f"{path} is no network for images alone.",
        expected="one input of shape (batch, height, width, 3) and one output",
        received=received,
        fix="choose a model from RGB images to one prediction; of several outputs, save a model with the one you want",
    )


def _bound_to_size(path: Path, own: tuple[int, int], size: tuple[int, int]) -> BackboneError:
    return BackboneError(
        f"{path} cannot take images of {size[0]} x {size[1]} pixels.",
        expected=f"{own[0]} x {own[1]}: its layers are bound to that",
        received=f"image_size = {size[0]}",
        fix="leave --image-size out",
    )


def _not_built(path: Path, error: Exception) -> WeightsError:
    from multitl.files.keras_files import refuse
    from multitl.sources.saved_graphs import Malformed

    found = f"{'' if isinstance(error, Malformed) else type(error).__name__ + ': '}{error}".partition("\n")[0][:500]
    return refuse(path, f"a description that makes no network: {found}", "save it again with a newer Keras or tf_keras")


def _nothing_to_keep(path: Path, received: str) -> BackboneError:
    return BackboneError(
        f"{path} has no classifier to keep.", expected=_KEPT, received=received, fix="--head cut, for a new classifier"
    )
