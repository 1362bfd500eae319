"""A backbone for other channels than red, green and blue: what its first layer gives, and which ones have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from multitl.contracts import Decoding, Origin, Preprocess, Pretrained, Stage
from multitl.errors import BackboneError
from multitl.models.first_layer import kernel_for, warn_of_mean, with_channels
from multitl.models.heads import build_extractor
from multitl.models.preprocessing import with_values
from multitl.sources.pretrained import load_pretrained

RANDOM = np.random.default_rng(0)
pytestmark = pytest.mark.every_backend


def small(before: Callable | None = None, **convolution) -> Pretrained:
    """A convolution of 3 x 3 on images of 8 x 8, what goes `before` it, and a batch normalisation."""
    image = keras.Input((8, 8, 3))
    x = before(image) if before else image
    x = layers.Conv2D(6, 3, padding="same", name="stem", **convolution)(x)
    model = keras.Model(image, layers.BatchNormalization(name="norm")(x), name="small")
    for layer in model.layers:
        layer.set_weights([RANDOM.random(one.shape).astype("float32") for one in layer.get_weights()])
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    named = [layer.name for layer in model.layers if layer.weights]
    stages = tuple(Stage(name, (name,)) for name in named)
    return Pretrained("file:small", model, Preprocess(8, 8), stages, Origin("file", "none", None, "", ""))


def features(pretrained: Pretrained, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(build_extractor(pretrained, "avg")(pixels)))


def of(pretrained: Pretrained, count: int) -> Pretrained:
    return with_channels(pretrained, Decoding(channels=tuple(range(1, count + 1))))


GREY = RANDOM.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
BEFORE: dict[str, Callable | None] = {
    "nothing": None,
    "padding": layers.ZeroPadding2D(1),
    "rescaling": layers.Rescaling([0.1, 0.1, 0.1], [1, 1, 1]),
    "one factor": layers.Rescaling(0.1, -1),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("values", ["tf", "unit", "bytes"])
def test_one_channel_is_a_grey_picture_in_rgb(before: str, values: str):
    """Values of these are scaled alike in red, green and blue."""
    plain = small(BEFORE[before])
    plain = replace(plain, preprocess=with_values(plain.preprocess, values))
    one = of(plain, 1)
    expected = features(plain, np.repeat(GREY, 3, axis=-1))
    np.testing.assert_allclose(features(one, GREY), expected, rtol=1e-4)
    assert one.backbone.get_layer("stem").kernel.shape == (3, 3, 1, 6) and one.adapted == "stem"
    assert one.stages == plain.stages and plain.backbone.get_layer("stem").kernel.shape == (3, 3, 3, 6)


@pytest.mark.parametrize("values", ["torch", "caffe"])
@pytest.mark.parametrize("has_statistics", [False, True])
def test_six_channels_are_two_pictures_at_half_strength(values: str, has_statistics: bool):
    """Red, green, blue, red, green, blue: what lies before the kernel is turned with it, also where it wants BGR."""
    plain = small(layers.Normalization(name="statistics") if has_statistics else None, use_bias=False)
    plain = replace(plain, preprocess=with_values(plain.preprocess, values))
    pixels = RANDOM.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    both = np.concatenate([pixels, pixels], axis=-1)
    np.testing.assert_allclose(features(of(plain, 6), both), features(plain, pixels), rtol=1e-3, atol=1e-4)


def test_a_kernel_is_repeated_as_timm_does():
    kernel = RANDOM.random((2, 2, 3, 4)).astype("float32")
    assert np.array_equal(kernel_for(kernel, 3), kernel)
    np.testing.assert_allclose(kernel_for(kernel, 1), kernel.sum(axis=2, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(kernel_for(kernel, 5), kernel[:, :, [0, 1, 2, 0, 1]] * 0.6, rtol=1e-6)


def test_it_is_said_that_the_kernel_is_a_mean():
    five = of(small(), 5)
    (line,) = warn_of_mean(five, {"norm"})
    assert "stem" in line and "5 channels" in line and "--unfreeze all trains it" in line
    assert warn_of_mean(five, {"stem"})[0].endswith("which is trained.")
    assert warn_of_mean(of(small(), 3), ()) == []
    assert "one channel here its kernel is the sum" in warn_of_mean(of(small(), 1), ())[0]


def test_a_backbone_of_other_channels_stays_one_of_those():
    five = of(small(), 5)
    assert of(five, 5).backbone is five.backbone
    for count in (3, 4):
        with pytest.raises(BackboneError, match=r"(?s)images of 5 channels.*--channels 1,2,3,4,5"):
            of(five, count)
    with pytest.raises(BackboneError, match="5 channels, whose values"):
        with_values(five.preprocess, "torch")


@pytest.mark.parametrize(
    ("before", "options", "named"),
    [
        (lambda x: layers.DepthwiseConv2D(3, padding="same", name="depth")(x), {}, "DepthwiseConv2D depth"),
        (lambda x: layers.Add(name="both")([x, layers.Conv2D(3, 1, name="side")(x)]), {}, "Conv2D side, Add both"),
        (lambda x: x[..., ::-1], {}, "GetItem"),
        (None, {"groups": 3}, "Conv2D stem"),
    ],
)
def test_where_anything_else_reads_the_image_it_is_named(before: Callable | None, options: dict, named: str):
    with pytest.raises(BackboneError, match=rf"(?s)file:small cannot be made.*{named}"):
        of(small(before, **options), 4)


@pytest.mark.parametrize("name", ["pypi/efficientnet_lite0", "keras/EfficientNetB0", "keras/ResNet50"])
@pytest.mark.slow
def test_networks_of_the_sources(name: str):
    plain = load_pretrained(name, "none", 32)
    one, seven = of(plain, 1), of(plain, 7)
    pixels = RANDOM.integers(0, 256, (1, 32, 32, 1), dtype=np.uint8)
    if len(set(plain.preprocess.scale)) == len(set(plain.preprocess.offset)) == 1 and "B0" not in name:
        expected = features(plain, np.repeat(pixels, 3, axis=-1))
        np.testing.assert_allclose(features(one, pixels), expected, rtol=1e-3, atol=1e-4)
    assert features(seven, np.repeat(pixels, 7, axis=-1)).shape == features(one, pixels).shape
