"""`model.keras` of a run, a translated network or an artefact, loaded by Keras although it may be anyone's.

Keras never sees the file itself. Its description is checked (saved_configs.py), its arrays are found by another process
(hdf5_files.py) and written, with the description, into a folder of our own; that is what Keras loads. While it builds
the network, no variable comes into being for which the file has no numbers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import keras

from multitl.errors import MultitlError, WeightsError, full_disk, tells_full_disk
from multitl.files.hdf5_files import WeightFile, open_weight_file
from multitl.files.keras_files import read_text
from multitl.models.initialisers import bounded_weights, numpy_initialisers
from multitl.models.insides import nodes_of, parts_of
from multitl.models.saved_configs import check_config
from multitl.system.scratch import temporary_folder

_SPARE_NUMBERS = 2**16  # for variables that a file need not hold, such as random states
_MOST_NUMBERS = 2**28  # in what one operation gives for one image: 1 GiB


def load_saved_model(path: Path, *, in_float32: bool = False) -> keras.Model:
    """The network in a `.keras` file, without optimizer.

    in_float32: it computes so, though it was trained in 16 bits; its weights are of float32 either way.
    Raises WeightsError for a file that is missing, damaged, unsafe, or describes more than it holds.
    """
    try:
        config = check_config(read_text(path))
        with open_weight_file(path) as weights, temporary_folder() as folder:
            numbers = sum(math.prod(weight.shape) for layer in weights.layers for weight in layer.weights)
            _write_plainly(_without_mixing(config) if in_float32 else config, weights, folder)
            with numpy_initialisers(seed=None), bounded_weights(numbers + _SPARE_NUMBERS):
                model = keras.models.load_model(folder, compile=False, safe_mode=True)
        check_sizes(model)
    except MultitlError:
        raise
    except Exception as error:  # a wrong description raises whatever its first wrong part leads to
        if tells_full_disk(error):
            raise full_disk(error) from error
        raise _refuse(path, f"{type(error).__name__}: {error}".partition("\n")[0][:500]) from error
    return model


def _without_mixing(config: Any) -> Any:
    """A description whose layers all compute in float32."""
    if isinstance(config, list):
        return [_without_mixing(one) for one in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and str(config["config"].get("name")).startswith("mixed_"):
        return {**config, "config": {**config["config"], "name": "float32"}}
    return {key: _without_mixing(value) for key, value in config.items()}


def _write_plainly(config: dict[str, Any], weights: WeightFile, folder: Path) -> None:
    """The folder that Keras' `save(zipped=False)` would write."""
    if weights.is_legacy:
        raise ValueError("weights as Keras 2 wrote them")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "metadata.json").write_text(json.dumps({"keras_version": keras.__version__}), encoding="utf-8")
    with h5py.File(folder / "model.weights.h5", "w") as file:
        for layer in weights.layers:
            group = file.create_group(f"{layer.path}/vars")
            for weight in layer.weights:
                group[weight.name] = weight.place.read()


def check_sizes(model: keras.Model) -> None:
    """Raise ValueError if a part without weights, such as RepeatVector or UpSampling2D, would fill the memory."""
    for part in parts_of(model):
        if not isinstance(part, keras.Model):
            continue
        for operation in part.layers if isinstance(part, keras.Sequential) else part.operations:
            for tensor in (tensor for node in nodes_of(operation) for tensor in node.outputs):
                if math.prod(size or 1 for size in tensor.shape) > _MOST_NUMBERS:
                    raise ValueError(f"{operation.name} would give {tensor.shape} for an image")


def _refuse(path: Path, received: str) -> WeightsError:
    return WeightsError(
        f"The model {path} cannot be used.",
        expected="a .keras file that multitl wrote: stock layers of Keras, and a number in it for each weight",
        received=received,
        fix="make it again, or fetch it again from where it was made",
    )
