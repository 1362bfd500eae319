"""Source `keras`: the catalogue agrees with the installed Keras, and every network builds, fits and explains itself."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest

from multitl.contracts import Head
from multitl.data.pixels import read_files
from multitl.errors import BackboneError, WeightsError
from multitl.models.freezing import leaf_layers
from multitl.models.initialisers import numpy_initialisers
from multitl.models.preprocessing import IMAGENET_DEVIATION, IMAGENET_MEAN, normalise
from multitl.models.stages import stages_by_stride
from multitl.sources.keras_applications import backbones, find_architecture, load
from multitl.sources.keras_catalogue import ARCHITECTURES, Architecture
from multitl.sources.keras_networks import build
from multitl.system.hashes import file_sha256

PLAIN = [one for one in ARCHITECTURES if not one.variant]
VARIANTS = [one for one in ARCHITECTURES if one.variant]
ONE_PER_FAMILY = {
    "Xception", "VGG16", "ResNet50", "ResNet50V2", "InceptionV3", "InceptionResNetV2", "MobileNet", "MobileNetV2",
    "MobileNetV3Small", "DenseNet121", "NASNetMobile", "EfficientNetB0", "EfficientNetV2B0", "EfficientNetV2S",
    "ConvNeXtTiny",
}  # fmt: skip

KEPT = {"MobileNetV2", "MobileNetV3Small", "EfficientNetB0"}


def label(architecture: Architecture) -> str:
    return architecture.full_name


def as_slow_unless(condition: bool, architecture: Architecture):
    return pytest.param(architecture, id=label(architecture), marks=() if condition else pytest.mark.slow)


FEW_OF_ALL = [as_slow_unless(one.full_name.partition("/")[2] in ONE_PER_FAMILY, one) for one in ARCHITECTURES]


def images(size: int) -> np.ndarray:
    """Two different deterministic images of integers in [0, 255]."""
    ramp = np.arange(2 * size * size * 3).reshape(2, size, size, 3)
    return (ramp * np.array([7, 13]).reshape(2, 1, 1, 1) % 256).astype("float32")


def features(pretrained) -> np.ndarray:
    pixels = normalise(images(pretrained.preprocess.height), pretrained.preprocess)
    return pretrained.backbone.predict(pixels, verbose=0)


# --- the catalogue


def test_the_catalogue_has_exactly_the_networks_of_keras():
    exported = [name for name in dir(keras.applications) if inspect.isfunction(getattr(keras.applications, name))]
    assert sorted(exported) == sorted(one.name for one in PLAIN)
    assert len(PLAIN) == 40


def test_listing_backbones_loads_no_framework():
    code = (
        "import sys; from multitl.sources.keras_applications import backbones; print(len(backbones()));"
        "print([name for name in ('keras', 'jax', 'torch', 'tensorflow', 'h5py', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["40", "[]"]


def test_backbones_say_what_can_be_said():
    infos = {info.name: info for info in backbones()}
    assert infos["keras/MobileNet"].variants == ("alpha=0.75", "alpha=0.5", "alpha=0.25")
    assert infos["keras/MobileNetV3Large"].variants == ("alpha=0.75", "minimalistic=true")
    assert infos["keras/VGG16"].licence == "CC BY 4.0"
    assert infos["keras/NASNetLarge"].image_size == 331
    assert infos["keras/ResNet50"].weights == "downloaded by Keras (94 MB)"


@pytest.mark.parametrize("architecture", PLAIN, ids=label)
def test_values_are_those_of_preprocess_input(architecture):
    module = getattr(keras.applications, architecture.name).__module__.rpartition(".")[2]
    own = importlib.import_module(f"keras.applications.{module}").preprocess_input
    pixels = np.stack(np.meshgrid(range(0, 256, 5), range(0, 256, 15), range(3)), -1).astype("float32")
    pixels[..., 2] = 255 - pixels[..., 2] * 127.5
    expected = np.asarray(own(pixels.copy(), data_format="channels_last"))
    received = normalise(pixels, architecture.preprocess(architecture.image_size))
    assert np.abs(received - expected).max() <= 1e-6 * (expected.max() - expected.min())


@pytest.mark.parametrize(
    ("name", "size", "resize", "shorter_side", "interpolation"),
    [
        ("ResNet50", 224, "crop", 256, "bilinear"),
        ("ResNet50", 112, "crop", 128, "bilinear"),
        ("DenseNet121", 224, "crop", 256, "bicubic"),
        ("InceptionV3", 299, "crop", 342, "bilinear"),
        ("NASNetLarge", 331, "crop", 378, "bilinear"),
        ("EfficientNetB0", 224, "crop", 256, "bicubic"),
        ("EfficientNetB7", 600, "crop", 632, "bicubic"),
        ("EfficientNetV2B3", 300, "crop", 332, "bicubic"),
        ("EfficientNetV2S", 384, "squash", 416, "bilinear"),
        ("EfficientNetV2S", 256, "crop", 288, "bilinear"),
        ("ConvNeXtBase", 224, "crop", 256, "bicubic"),
        ("ConvNeXtBase", 384, "squash", 439, "bicubic"),
    ],
)
def test_geometry_is_the_authors(name, size, resize, shorter_side, interpolation):
    spec = find_architecture(name).preprocess(size)
    assert (spec.height, spec.width, spec.antialias) == (size, size, True)
    assert (spec.resize, spec.interpolation) == (resize, interpolation)
    assert spec.shorter_side == shorter_side or resize == "squash"


class _AskedForError(Exception):
    """Carries what Keras was about to download."""


def _what_keras_downloads(monkeypatch, architecture: Architecture, size: int, head: Head) -> tuple[str, str | None]:
    def get_file(fname, origin, cache_subdir, file_hash=None):
        raise _AskedForError(origin, file_hash)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    construct = getattr(keras.applications, architecture.name)
    with numpy_initialisers(None), pytest.raises(_AskedForError) as caught:
        shape = (size, size, 3) if head == "cut" else None
        construct(input_shape=shape, include_top=head == "keep", weights="imagenet", **architecture.options)
    return caught.value.args


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
@pytest.mark.parametrize("architecture", FEW_OF_ALL)
def test_urls_and_hashes_are_those_of_keras(monkeypatch, architecture):
    sizes = [96, 128, 224] if architecture.url_sizes else [96]
    for size in sizes:
        asked = _what_keras_downloads(monkeypatch, architecture, size, "cut")
        assert asked == (architecture.weights_url(size), architecture.digest)
    asked = _what_keras_downloads(monkeypatch, architecture, architecture.image_size, "keep")
    assert asked == (architecture.weights_url(architecture.image_size, "keep"), architecture.weights_digest("keep"))


@pytest.mark.parametrize("name", ["VGG16", "Xception", "InceptionV3", "InceptionResNetV2"])
def test_smallest_sizes_are_those_of_keras(name):
    least = find_architecture(name).family.minimum
    construct = getattr(keras.applications, name)
    with numpy_initialisers(None), pytest.raises(ValueError, match=f"at least {least}x{least}"):
        construct(input_shape=(least - 1, least - 1, 3), include_top=False, weights=None)
    with pytest.raises(BackboneError, match=f"at least {least}"):
        load(name, "none", least - 1)


# --- the networks


@pytest.mark.parametrize("architecture", FEW_OF_ALL)
def test_every_network_builds_and_its_stages_cover_it(architecture):
    backbone = build(architecture, max(64, architecture.family.minimum), seed=None)
    assert len(backbone.output.shape) == 4, "a feature map"
    weighted = [layer.name for layer in leaf_layers(backbone) if layer.weights]
    stages = stages_by_stride(backbone)
    assert sorted(name for stage in stages for name in stage.layers) == sorted(weighted)
    assert len(set(weighted)) == len(weighted)
    assert [stage.name for stage in stages] == sorted(stage.name for stage in stages)
    assert 4 <= len(stages) <= 6
    assert not [name for name in [backbone.name, *weighted] if set("./") & set(name)], "names PyTorch or Keras refuse"
    assert architecture.megabytes == pytest.approx(backbone.count_params() * 4 / 1e6, rel=0.05)


@pytest.mark.parametrize("architecture", [as_slow_unless(one.name in KEPT, one) for one in PLAIN])
def test_every_network_keeps_its_classifier(architecture):
    """Its last layer gives logits: one number a class, and no softmax."""
    network = build(architecture, max(64, architecture.family.minimum), seed=None, classes=1000)
    assert network.output_shape == (None, 1000)
    last = network.layers[-1]
    assert getattr(last, "activation", keras.activations.linear) is keras.activations.linear
    weighted = [layer.name for layer in leaf_layers(network) if layer.weights]
    assert sorted(name for stage in stages_by_stride(network) for name in stage.layers) == sorted(weighted)


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("name", "size", "deviation", "largest"),
    [
        ("VGG16", 32, 0.0611006, 0.316030),
        ("MobileNetV3Small", 32, 4.59645e-11, 1.372655e-10),
        ("NASNetMobile", 64, 2.42395, 17.18267),
    ],
)
def test_random_networks_are_the_same_on_every_backend(name, size, deviation, largest):
    """The figures were recorded under JAX. NASNetMobile: what keras.applications itself refuses to build on PyTorch."""
    if name == "NASNetMobile" and keras.config.backend() == "jax":
        pytest.skip("recorded under JAX, where it takes 15 s to compile")
    network = load(name, "none", size)
    ramp = (np.arange(size * size * 3).reshape(1, size, size, 3) * 7 % 256).astype("float32")
    received = network.backbone.predict(normalise(ramp, network.preprocess), verbose=0)
    assert received.std() == pytest.approx(deviation, rel=1e-4)
    assert np.abs(received).max() == pytest.approx(largest, rel=1e-4)


@pytest.mark.every_backend
@pytest.mark.parametrize("name", ["MobileNetV3Small", "InceptionResNetV2", "ConvNeXtTiny"])
def test_networks_with_layers_of_their_own_load_in_plain_keras(name):
    """Custom layers of keras.applications (CustomScaleLayer, LayerScale) come back without custom objects."""
    backbone = build(find_architecture(name), 75, seed=None)
    with numpy_initialisers(None):
        again = keras.models.model_from_json(backbone.to_json())
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in backbone.layers]
    assert all(type(layer).__module__.startswith("keras.") for layer in leaf_layers(backbone))


# --- names


@pytest.mark.parametrize(
    ("name", "full_name"),
    [
        ("ResNet50", "keras/ResNet50"),
        ("MobileNet", "keras/MobileNet"),
        ("MobileNet:alpha=1.0", "keras/MobileNet"),
        ("MobileNet: Alpha = 0.250", "keras/MobileNet:alpha=0.25"),
        ("MobileNetV2:alpha=1.4", "keras/MobileNetV2:alpha=1.4"),
        ("MobileNetV3Small:alpha=1", "keras/MobileNetV3Small"),
        ("MobileNetV3Large:minimalistic=True", "keras/MobileNetV3Large:minimalistic=true"),
    ],
)
def test_names_are_made_canonical(name, full_name):
    assert find_architecture(name).full_name == full_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MobileNet:alpha=0.3", "alpha=0.25"),
        ("MobileNet:width=0.25", "alpha=0.25"),
        ("MobileNet:alpha", "alpha=0.25"),
        ("MobileNet:", "alpha=0.25"),
        ("MobileNet:alpha=nan", "alpha=0.25"),
        ("MobileNetV3Small:alpha=0.75,minimalistic=true", "minimalistic=true"),
        ("ResNet50:alpha=1", "no variants"),
    ],
)
def test_an_unknown_variant_names_the_valid_ones(name, expected):
    with pytest.raises(BackboneError, match="Unknown variant") as caught:
        load(name, "none", 0)
    assert expected in str(caught.value)


def test_an_unknown_name_names_near_ones():
    with pytest.raises(BackboneError, match="Unknown backbone 'keras/resnet5O'") as caught:
        load("resnet5O", "none", 0)
    assert "keras/ResNet50" in caught.value.nearest


# --- weights


@pytest.mark.every_backend
@pytest.mark.parametrize("file_name", ["mobilenet_2_5_224_tf_no_top.h5", "mobilenet_1.0_0.25_224_top.h5"])
def test_a_local_file_settles_the_variant(shared_weights, file_name):
    path = shared_weights / file_name
    network = load("MobileNet", str(path), 96)
    assert network.name == "keras/MobileNet:alpha=0.25"
    assert network.origin.file_sha256 == file_sha256(path)
    assert network.origin.weights == str(path)
    assert network.backbone.input_shape == (None, 96, 96, 3)
    received = features(network)
    assert received.shape == (2, 3, 3, 256)
    keras_own_loading = str(shared_weights / "mobilenet_2_5_224_tf_no_top.h5")
    with numpy_initialisers(None):
        reference = keras.applications.MobileNet((96, 96, 3), 0.25, include_top=False, weights=keras_own_loading)
    np.testing.assert_array_equal(received, reference.predict(normalise(images(96), network.preprocess), verbose=0))


@pytest.mark.every_backend
def test_a_classifier_is_kept_and_answers_as_keras_own(shared_weights, shared_data):
    """On photos, which are given to each through its own preprocessing; and the dresses look like clothes."""
    path = shared_weights / "mobilenet_1.0_0.25_224_top.h5"
    kept = load("MobileNet", str(path), 0, "keep")
    assert (kept.name, kept.backbone.output_shape) == ("keras/MobileNet:alpha=0.25", (None, 1000))
    photos = sorted((shared_data / "clothing_tiny" / "test" / "dress").iterdir())
    pixels = np.stack(list(read_files(list(map(str, photos)), kept.preprocess)))
    logits = kept.backbone.predict(normalise(pixels, kept.preprocess), verbose=0)
    with numpy_initialisers(None):
        own = keras.applications.MobileNet(alpha=0.25, weights=str(path))
    wanted = own.predict(keras.applications.mobilenet.preprocess_input(pixels.astype("float32")), verbose=0)
    assert (logits.argmax(-1) == wanted.argmax(-1)).all()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(keras.ops.softmax(logits)), wanted, atol=1e-5)
    named = Counter(kept.class_names[one] for one in logits.argmax(-1))
    assert named.most_common(1)[0][0] == "overskirt"
    assert kept.origin.file_sha256 == file_sha256(path)


def test_a_file_without_classifier_or_with_other_classes(shared_weights, tmp_path):
    with pytest.raises(WeightsError, match="conv_preds: nothing in the file") as caught:
        load("MobileNet", str(shared_weights / "mobilenet_2_5_224_tf_no_top.h5"), 96, "keep")
    assert "--head cut" in caught.value.fix
    with numpy_initialisers(None):
        own = keras.applications.MobileNetV2((64, 64, 3), 0.35, weights=None, classes=7)
    for name in ("own.keras", "own.weights.h5", "own.h5"):
        own.save(tmp_path / name) if "weights" not in name else own.save_weights(tmp_path / name)
        kept = load("MobileNetV2", str(tmp_path / name), 64, "keep")
        assert (kept.name, kept.backbone.output_shape) == ("keras/MobileNetV2:alpha=0.35", (None, 7))
        assert kept.class_names == ()
        for left, right in zip(own.weights, kept.backbone.weights, strict=True):
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (left, right)))


def test_default_weights_with_classifier_are_the_file_without_no_top(monkeypatch, tmp_path, shared_weights):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    cached = tmp_path / "models" / "mobilenet_2_5_224_tf.h5"
    cached.parent.mkdir()
    cached.write_bytes((shared_weights / "mobilenet_1.0_0.25_224_top.h5").read_bytes())
    kept = load("MobileNet:alpha=0.25", "default", 0, "keep")
    assert kept.origin.file_sha256 == file_sha256(cached)
    assert kept.origin.url.endswith("/mobilenet/mobilenet_2_5_224_tf.h5")
    assert kept.class_names[:2] == ("tench", "goldfish")


def test_vggs_classifier_counts_positions(tmp_path):
    with pytest.raises(BackboneError, match="cannot take images of 160 x 160") as caught:
        load("VGG16", str(tmp_path), 160, "keep")
    assert "224" in caught.value.expected and "--head cut" in caught.value.fix
    assert load("VGG16", "none", 32, "keep").backbone.output_shape == (None, 1000)


def test_an_explicit_variant_is_not_overruled(shared_weights):
    with pytest.raises(WeightsError, match="does not fit"):
        load("MobileNet:alpha=0.5", str(shared_weights / "mobilenet_2_5_224_tf_no_top.h5"), 0)


@pytest.mark.parametrize("architecture", [one for one in VARIANTS if "V3Small" in one.name], ids=label)
def test_variants_are_told_apart_by_their_weights(tmp_path, architecture):
    build(architecture, 32, seed=None).save_weights(tmp_path / "x.weights.h5")
    assert load(architecture.name, str(tmp_path), 32).name == architecture.full_name


def test_a_file_for_no_variant_names_the_differences(tmp_path):
    build(find_architecture("MobileNetV3Small"), 32, seed=None).save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(WeightsError, match="layers differ"):
        load("MobileNet", str(tmp_path / "x.weights.h5"), 32)


def test_a_missing_file_is_our_error(tmp_path):
    with pytest.raises(WeightsError, match="There is no weights file"):
        load("MobileNet", str(tmp_path / "nothing.h5"), 32)


def test_without_network_the_error_says_what_to_fetch_and_where_to_put_it(monkeypatch, tmp_path):
    def get_file(*_, **__):
        raise Exception("URL fetch failure on https://...: None -- [Errno -2] Name or service not known")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(WeightsError, match="Cannot download the weights of keras/ResNet50") as caught:
        load("ResNet50", "default", 0)
    message = str(caught.value)
    assert "https://storage.googleapis.com/tensorflow/keras-applications/resnet/resnet50_weights" in message
    assert "Name or service not known" in message
    assert str(tmp_path / "models" / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5") in message
    assert "--weights PATH" in message


def test_default_weights_come_from_the_cache_of_keras(monkeypatch, tmp_path, shared_weights):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    cached = tmp_path / "models" / "mobilenet_2_5_128_tf_no_top.h5"
    cached.parent.mkdir()
    cached.write_bytes((shared_weights / "mobilenet_2_5_224_tf_no_top.h5").read_bytes())
    origin = load("MobileNet:alpha=0.25", "default", 128).origin
    assert origin.file_sha256 == file_sha256(cached)
    assert (origin.source, origin.weights, origin.licence) == ("keras", "default", "Apache-2.0")
    assert origin.url.endswith("/mobilenet/mobilenet_2_5_128_tf_no_top.h5")


def test_random_weights_are_said_to_be_random():
    origin = load("MobileNet:alpha=0.25", "none", 32).origin
    assert (origin.weights, origin.file_sha256) == ("none", None)
    assert "random" in origin.licence


def official_efficientnet(path: Path) -> None:
    """A stand-in for the official file: random kernels, and the deviation in place of the variance."""
    backbone = build(find_architecture("EfficientNetB0"), 64, seed=1)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights([np.array(IMAGENET_MEAN), np.array(IMAGENET_DEVIATION), np.array(0)])
    backbone.save(path)


@pytest.mark.every_backend
def test_efficientnet_scales_its_input_as_keras_does_for_imagenet(monkeypatch, tmp_path):
    path = tmp_path / "efficientnetb0_notop.h5"
    official_efficientnet(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))
    with numpy_initialisers(None):
        reference = keras.applications.EfficientNetB0(include_top=False, input_shape=(64, 64, 3))
    expected = reference.predict(images(64), verbose=0)
    received = features(load("EfficientNetB0", str(path), 64))
    np.testing.assert_allclose(received, expected, atol=1e-4 * np.abs(expected[0] - expected[1]).max())


def test_an_efficientnet_with_a_true_variance_is_left_alone(tmp_path):
    backbone = build(find_architecture("EfficientNetB0"), 64, seed=1)
    backbone.save_weights(tmp_path / "x.weights.h5")
    loaded = load("EfficientNetB0", str(tmp_path), 64).backbone
    for left, right in zip(backbone.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (left, right)))
