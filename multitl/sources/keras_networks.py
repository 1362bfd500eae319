"""Build the networks of keras.applications without their heads or with them, and fill them with weights."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Head
from multitl.errors import WeightsError, full_disk, tells_full_disk
from multitl.models.initialisers import numpy_initialisers
from multitl.models.insides import nasnet
from multitl.models.preprocessing import IMAGENET_DEVIATION
from multitl.models.weight_files import first_that_fits, load_weights, other_classes
from multitl.sources.keras_catalogue import ARCHITECTURES, Architecture

CLASSES = 1000  # of ImageNet, which all official weights are for


def build(architecture: Architecture, size: int, seed: int | None, classes: int = 0) -> keras.Model:
    """(batch, size, size, 3) preprocessed pixels -> feature map, or logits (batch, classes), with random weights.

    seed: of the weights, which are then equal on every backend; None leaves zeros, to be overwritten.  classes: of the
    classifier, 0 for none.
    """
    construct = _constructor(architecture.name)
    top: dict[str, Any] = {"include_top": classes > 0}
    if classes:
        top |= {"classes": classes, "classifier_activation": None}
    with numpy_initialisers(seed):
        return construct(input_shape=(size, size, 3), weights=None, **top, **architecture.options)


def build_filled(architecture: Architecture, size: int, path: Path, head: Head = "cut") -> tuple[keras.Model, Path]:
    """The network with a file's weights, and the file (of a folder, the one that fits). Raises WeightsError.

    A classifier that is kept has the classes that the file has.
    """
    backbone = build(architecture, size, seed=None, classes=CLASSES if head == "keep" else 0)
    if head == "keep" and (classes := other_classes(backbone, path)):
        backbone = build(architecture, size, seed=None, classes=classes)
    used = load_weights(backbone, path)
    if architecture.name.startswith("EfficientNetB"):
        _mend_input_scaling(backbone)
    return backbone, used


def infer_variant(architecture: Architecture, path: Path) -> Architecture:
    """The documented variant that a file fits, the plain network tried first; the plain one too if none does."""
    variants = [one for one in ARCHITECTURES if one.name == architecture.name]
    if len(variants) == 1 or not path.exists():
        return architecture
    smallest = architecture.family.minimum  # weights have the same shapes whatever the size of image
    place = first_that_fits((build(one, smallest, seed=None) for one in variants), path)
    return architecture if place is None else variants[place]


def download(architecture: Architecture, size: int, head: Head = "cut") -> Path:
    """The official file, from Keras' own cache or its server. Raises WeightsError if it cannot be had."""
    url, digest = architecture.weights_url(size, head), architecture.weights_digest(head)
    path = architecture.kept_at(size, head)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its progress bar is no result
            fetched = keras.utils.get_file(
                path.name, url, cache_dir=str(path.parent.parent), cache_subdir=path.parent.name, file_hash=digest
            )
    except Exception as error:  # get_file raises plain Exception when the network fails
        if tells_full_disk(error):
            raise full_disk(error) from error
        raise WeightsError(
            f"Cannot download the weights of {architecture.full_name}.",
            expected=url,
            received=str(error),
            fix=f"fetch that file elsewhere, put it at {path} and try again, or put it anywhere "
            f"and add: --weights PATH/{path.name}",
        ) from error
    return Path(fetched)


def _constructor(name: str) -> Callable[..., keras.Model]:
    if name == "NASNetMobile" and keras.config.backend() == "torch":
        return _nasnet_mobile
    return getattr(keras.applications, name)


def _nasnet_mobile(input_shape: tuple[int, int, int], weights: None, **top: Any) -> keras.Model:
    """NASNetMobile as keras.applications makes it, past its refusal to run on PyTorch.

    The refusal stems from keras#18451 of 2023; the defect is gone, as tests/sources/test_keras_applications.py shows by
    comparing features with the other backends.
    """
    return nasnet()(
        input_shape,
        penultimate_filters=1056,
        num_blocks=4,
        stem_block_filters=32,
        skip_reduction=False,
        filter_multiplier=2,
        weights=weights,
        default_size=224,
        name="nasnet_mobile",
        **top,
    )


def _mend_input_scaling(backbone: keras.Model) -> None:
    """Let an EfficientNet divide its input by the standard deviation, as it was trained.

    The official files hold the deviation where Keras expects the variance (tensorflow#49930). Keras makes up for it
    with a layer that it adds for weights="imagenet" only; here the variance itself is put right, which comes to the
    same and serves official weights from a local file too. Any other variance is left alone.
    """
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization):
            mean, variance, count = layer.get_weights()
            if np.allclose(variance.ravel(), IMAGENET_DEVIATION, rtol=1e-2):
                layer.set_weights([mean, variance * np.reshape(IMAGENET_DEVIATION, variance.shape), count])
                layer.finalize_state()
