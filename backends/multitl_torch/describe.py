"""Write the data files of the sources torchvision and timm anew: `python -m multitl_torch.describe torchvision|timm
[NAME ...]`.

To be run after an upgrade of torchvision, timm or Keras. Every network is translated with random weights and compared
with its original before its description is written; names given after the source limit it to those.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import torch

from multitl.contracts import Job, Translation
from multitl.errors import BackboneError, TranslationError
from multitl.sources import imagenet
from multitl.sources import timm as timm_source
from multitl.sources import torchvision as torchvision_source
from multitl.translation.descriptions import Description, describe, read_description, write_description
from multitl_torch import verifying
from multitl_torch.randomising import randomise
from multitl_torch.torchvision import categories, checkpoints, import_timm, import_torchvision
from multitl_torch.translator import open_original, versions

OTHER_SIZES = (64, 96, 160)  # at which a graph that does not depend on the size is tried besides its own


def describe_torchvision(names: list[str]) -> None:
    """A description of each network, then the index of all."""
    models = import_torchvision().models
    known = models.list_models(module=models)
    torchvision_source.FOLDER.mkdir(exist_ok=True)
    for name in names or known:
        description = description_of(name)
        write_description(torchvision_source.FOLDER / f"{name}.json.xz", description)
        print(name, description.image_size, description.smallest, f"{description.parity.max_rel:.1e}", flush=True)
    _write_json(torchvision_source.INDEX, {name: _listed(name) for name in known})
    _write_json(imagenet.FILE, categories("resnet50"))


def description_of(name: str) -> Description:
    """One network of torchvision, translated at its own size with random weights."""
    size = next(one for one in checkpoints(name).values() if one.is_default).preprocess.height
    original, translation = _translated(name, size)
    parity = original.verify(translation)
    config = _plain(translation.model)
    made_by = {"keras": keras.__version__} | versions()
    return describe(translation, f"torchvision/{name}", size, _smallest(name, config), made_by, parity)


def _smallest(name: str, config: str) -> int:
    """The smallest of OTHER_SIZES at which the graph is the same; 0 if it is another at any size that it works at."""
    smallest = 0
    for size in OTHER_SIZES:
        try:
            translation = _translated(name, size)[1]
        except (BackboneError, TranslationError, ValueError):  # a size that the network does not work at
            continue
        if _plain(translation.model) != config:
            return 0
        smallest = smallest or size
    return smallest


def _translated(name: str, size: int) -> Any:
    keras.utils.clear_session()  # operations are numbered from 0 again, so that the same graph has the same names
    original = open_original(Job("torchvision", name, "none", size, "keep"), classes=0)
    torch.manual_seed(0)
    with contextlib.suppress(RuntimeError):  # of an image that is too small: the translation says so
        randomise(original.module, verifying.as_torch(verifying.probes((3, size, size))))
    return original, original.translate()


def is_current(description: Description, translation: Translation) -> bool:
    """Whether a description says what a fresh translation says, at any size that it serves.

    Keras must have numbered the translation's operations from 0: call `keras.utils.clear_session` before it.
    """
    same_graph = _plain_config(description.config) == _plain(translation.model)
    return same_graph and (description.weights, description.stages) == (translation.weights, translation.stages)


def _plain(model: keras.Model) -> str:
    """A model's configuration without the image's size."""
    return _plain_config(keras.saving.serialize_keras_object(model))


def _plain_config(values: Mapping[str, Any]) -> str:
    config = json.loads(json.dumps(values))
    config["config"]["layers"][0]["config"]["batch_shape"] = None
    for layer in config["config"]["layers"]:
        layer.pop("build_config", None)
    return json.dumps(_without_shapes(config))


def _without_shapes(value: Any) -> Any:
    """Tensors in the configuration come with their shapes; only their origin matters."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            return value["config"]["keras_history"]
        return {key: _without_shapes(one) for key, one in value.items()}
    return [_without_shapes(one) for one in value] if isinstance(value, list) else value


def _listed(name: str) -> dict[str, Any]:
    official = checkpoints(name).values()
    own_size = next(one for one in official if one.is_default).preprocess.height
    path = torchvision_source.FOLDER / f"{name}.json.xz"
    size, smallest = own_size, 0
    if path.is_file():
        description = read_description(path)
        size, smallest = description.image_size, description.smallest
    return {"image_size": size, "smallest": smallest, "checkpoints": [asdict(one) for one in official]}


def describe_timm() -> None:
    """Name -> image size, licence and tags of every network with pretrained weights."""
    timm = import_timm()
    listed = {}
    for name in timm.list_models():
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
        config = timm.get_pretrained_cfg(name)
        if tags and config is not None and config.input_size[0] == 3:
            tags.sort(key=lambda tag: tag != config.tag)  # the default first
            listed[name] = (config.input_size[1], config.license or "not stated by timm", tags)
    _write_json(timm_source.NETWORKS, listed)


def _write_json(path: Path, values: Any) -> None:
    """One network a line, so that a change can be read."""
    path.write_text(
        json.dumps(values, ensure_ascii=False).replace('}, "', '},\n"').replace(']], "', ']],\n"') + "\n", "utf-8"
    )


def main(arguments: list[str]) -> None:
    """torchvision [NAME ...] or timm."""
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(10_000)
    source, names = arguments[0], arguments[1:]
    if source == "timm":
        describe_timm()
    else:
        describe_torchvision(names)


if __name__ == "__main__":
    main(sys.argv[1:])
