"""TF Hub's modules: where one lies, what images it takes, and how tensorflow_hub fetches those of a handle.

The hub's conventions for images: https://www.tensorflow.org/hub/common_signatures/images.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from multitl.contracts import Preprocess
from multitl.errors import BackendError, WeightsError, full_disk, tells_full_disk
from multitl_tensorflow.archives import module_folder, unpacked
from multitl_tensorflow.flattening import Graph, Node
from multitl_tensorflow.graphdef import SIZE_IF_FREE
from multitl_tensorflow.keras_exports import NOT_KERAS, KerasExport

HUB = "https://tfhub.dev/"
KAGGLE = "https://www.kaggle.com/models/"
SUFFIXES = (".tar.gz", ".tgz", ".tar")
CENTRE = 0.875  # side of the part of a photo that is seen: that of TF-Slim's evaluation, whose networks these are
LARGE = 20.0  # more than any mean or deviation of pixels in [0, 1], less than any of pixels in [0, 255]
SIZES = frozenset({96, 128, 160, 192, 224, 240, 256, 260, 288, 299, 300, 320, 331, 380, 384, 456, 480, 512, 528, 600})


@contextlib.contextmanager
def located(name: str) -> Iterator[Path]:
    """The folder of a module: a local folder, an unpacked local archive, or what a handle stands for.

    Raises WeightsError if there is none, BackendError if tensorflow_hub is needed and does not work.
    """
    path = Path(name)
    if path.is_dir():
        yield module_folder(path)
    elif path.is_file():
        with unpacked(path) as folder:
            yield folder
    else:
        yield module_folder(Path(fetch(name)))


def fetch(handle: str) -> str:
    """Where tensorflow_hub put the module of a handle: in its own cache ($TFHUB_CACHE_DIR), fetched if need be."""
    parts = handle.split("/")
    try:
        if not handle.startswith(("https://", "http://", "gs://")) and _is_kaggle(parts) and len(parts) < 5:
            return str(_import("kagglehub").model_download(handle))
        return str(_import("tensorflow_hub").resolve(address(handle)))
    except BackendError:
        raise
    except Exception as error:  # the hub, TensorFlow's file system and urllib raise all kinds
        if tells_full_disk(error):
            raise full_disk(error) from error
        raise WeightsError(
            f"The module {handle} cannot be fetched.",
            expected="a handle of tfhub.dev or Kaggle Models and access to it, or a folder or .tar.gz on this machine",
            received=f"{type(error).__name__}: {error}".strip().partition("\n")[0],
            fix="download the module by hand and give its path: --backbone tfhub/PATH",
        ) from error


def address(handle: str) -> str:
    """The full address of a handle: "google/imagenet/mobilenet_v2_100_224/feature_vector/5", "OWNER/MODEL/tensorFlow2/
    VARIATION/VERSION" of Kaggle Models, or one that is full already.
    """
    if handle.startswith(("https://", "http://", "gs://")):
        return handle
    parts = handle.split("/")
    if _is_kaggle(parts) and len(parts) == 5:
        owner, model, framework, variation, version = parts
        return f"{KAGGLE}{owner}/{model}/frameworks/{framework}/variations/{variation}/versions/{version}"
    return HUB + handle


def _is_kaggle(parts: list[str]) -> bool:
    return len(parts) in (4, 5) and parts[2].lower() in ("tensorflow1", "tensorflow2")


def _import(package: str) -> ModuleType:
    """tensorflow_hub 0.16 imports pkg_resources, which setuptools 81 dropped, and tf_keras."""
    try:
        return importlib.import_module(package)
    except Exception as error:  # an ImportError, or whatever a broken installation raises
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        missing = {"pkg_resources": "'setuptools<81'", "tf_keras": "tf_keras", "kagglehub": "kagglehub"}
        mends = [f"pip install {wanted}" for module, wanted in missing.items() if module in reason]
        raise BackendError(
            f"Modules are fetched by {package}, which cannot be imported here.",
            expected=f"that python -c 'import {package}' works; a module's folder or .tar.gz does without",
            received=reason,
            fix=mends[0] if mends else "pip install 'multitl[tfhub]'",
        ) from error


def default_size(name: str) -> int:
    """Of images, where a module takes any: names say it, as "mobilenet_v2_100_224" does."""
    sizes = [int(number) for number in re.findall(r"(?<!\d)\d{2,3}(?!\d)", name) if int(number) in SIZES]
    return sizes[-1] if sizes else SIZE_IF_FREE


def preprocess(graph: Graph, height: int, width: int, export: KerasExport = NOT_KERAS) -> Preprocess:
    """The hub's [0, 1], or [0, 255] where the module's first operation brings pixels of that range down itself.

    Keras' own loaders squash the whole image, and so it is done for what Keras exported; else the centre is seen.
    """
    geometry = Preprocess(height, width, resize="crop", shorter_side=round(min(height, width) / CENTRE))
    if export.is_keras:
        geometry = Preprocess(height, width, resize="squash", antialias=False)
    if takes_bytes(graph) or 0 < export.scale < 1 / LARGE:
        return geometry
    return geometry.standardise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def takes_bytes(graph: Graph) -> bool:
    """Whether the first thing that happens to the images is a division by something like 255, or that 127 goes."""
    place = graph.pixels
    while True:
        users = [node for node in graph.nodes.values() if any(ref.node == place for ref in node.inputs)]
        if len(users) != 1 or users[0].op not in ("Identity", "Cast"):
            return any(_is_for_bytes(graph, node) for node in users)
        place = users[0].name


def _is_for_bytes(graph: Graph, node: Node) -> bool:
    """What one operation on the images and a constant says."""
    constants = [graph.stored[ref.node] for ref in node.inputs if ref.node in graph.stored]
    if len(constants) != 1 or constants[0].array.dtype.kind != "f" or not constants[0].array.size:
        return False
    size = float(abs(constants[0].array).max())
    return size < 1 / LARGE if node.op == "Mul" else size > LARGE and node.op in ("RealDiv", "Div", "Sub")
