"""`load_pretrained`: a name becomes a backbone with its weights."""

from __future__ import annotations

import keras

from multitl.adapters import check_weights, load_source
from multitl.contracts import Head, Pretrained
from multitl.errors import BackendError


def load_pretrained(name: str, weights: str = "default", image_size: int = 0, head: Head = "cut") -> Pretrained:
    """See `multitl.load_pretrained`."""
    if keras.config.image_data_format() != "channels_last":
        raise BackendError(
            "Keras is configured for channels-first images; multitl is channels-last throughout.",
            expected='"image_data_format": "channels_last"',
            received='"image_data_format": "channels_first" in ~/.keras/keras.json',
            fix="edit ~/.keras/keras.json, or call keras.config.set_image_data_format('channels_last')",
        )
    source, rest = load_source(name)
    if weights == "imagenet":  # what Keras calls them, and so the habit of whoever comes from there
        weights = "default"
    check_weights(weights)
    return source.load(rest, weights, image_size, head)
