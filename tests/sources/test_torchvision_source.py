"""torchvision's networks without PyTorch: descriptions, official names, local weights."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from multitl.errors import BackboneError, WeightsError
from multitl.files.state_dict_files import read_state_dict
from multitl.files.torch_files import read_torch_file
from multitl.sources import pretrained, torchvision
from multitl.translation import descriptions, parity
from multitl.translation.filling import extract

SQUEEZENET = "squeezenet1_1.pth"


@pytest.fixture(scope="module")
def squeezenet(shared_weights: Path):
    return pretrained.load_pretrained("torchvision/squeezenet1_1", str(shared_weights / SQUEEZENET), head="keep")


LARGE = {f"regnet_{kind}_{size}gf" for kind in "xy" for size in (8, 16, 32, 128)}  # as the smaller ones are built
DESCRIBED = sorted(path.name.removesuffix(".json.xz") for path in torchvision.FOLDER.glob("*.json.xz"))


@functools.cache
def described(name: str) -> descriptions.Description:
    return descriptions.read_description(torchvision.FOLDER / f"{name}.json.xz")


def test_every_network_of_torchvision_is_listed_and_described():
    models = pytest.importorskip("multitl_torch.torchvision").import_torchvision().models
    assert list(torchvision.networks()) == models.list_models(module=models)
    assert list(torchvision.networks()) == DESCRIBED and len(DESCRIBED) == 80


@pytest.mark.parametrize("name", DESCRIBED)
def test_description_is_complete(name: str):
    """Each weight of the configuration has one original, and the shapes agree through the layout."""
    description = described(name)
    listed = torchvision.networks()[name]
    assert (description.image_size, description.smallest) == (listed.image_size, listed.smallest)
    assert description.parity.max_rel < 1e-3  # above 1e-4 only where float64 settled it: see verifying.verify
    assert description.parity.top1 == 1
    assert len({(weight.layer, weight.variable) for weight in description.weights}) == len(description.weights)
    for weight in description.weights:
        assert np.prod(weight.split, dtype=int) == np.prod(weight.shape, dtype=int)
        assert sorted(weight.axes) == list(range(len(weight.split)))
    staged = [layer for stage in description.stages for layer in stage.layers]
    assert len(staged) == len(set(staged))


def test_described_weights_are_those_of_torchvision():
    """Every name and shape of a state_dict is accounted for: official files fit."""
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("multitl_torch.torchvision").import_torchvision().models
    for name in (name for name in DESCRIBED if name not in LARGE):
        description = described(name)
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        if name.startswith("vit_"):  # positions are weights, one a patch
            options["image_size"] = description.image_size
        with torch.device("cpu" if name.startswith("regnet") else "meta"):  # RegNet counts its blocks with tensors
            state = models.get_model(name, **options).state_dict()
        assert {weight.name: weight.shape for weight in description.weights} == {
            key: tuple(tensor.shape) for key, tensor in state.items() if key not in description.unused
        }, name


@pytest.mark.every_backend
def test_real_weights_give_torchvisions_logits(squeezenet, shared_weights: Path):
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("multitl_torch.torchvision").import_torchvision().models
    original = models.squeezenet1_1()
    original.load_state_dict(torch.load(shared_weights / SQUEEZENET, weights_only=True))
    images = parity.probe_images((224, 224, 3))
    with torch.no_grad():
        logits = original.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    found = parity.compare(logits, parity.run(squeezenet.backbone, images))
    assert found.max_rel < 1e-4
    assert found.top1 == 1


@pytest.mark.every_backend
def test_real_features_are_torchvisions(shared_weights: Path):
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("multitl_torch.torchvision").import_torchvision().models
    path = shared_weights / "mobilenet_v2_features.pth"
    original = models.mobilenet_v2()
    original.load_state_dict(torch.load(path, weights_only=True), strict=False)
    ours = pretrained.load_pretrained("torchvision/mobilenet_v2", str(path))
    images = parity.probe_images((224, 224, 3), count=2)
    with torch.no_grad():
        features = original.eval().features(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert parity.compare(features, parity.run(ours.backbone, images)).max_rel < 1e-4


def test_state_dict_comes_back_bit_by_bit(squeezenet, shared_weights: Path):
    tensors = read_state_dict(shared_weights / SQUEEZENET).tensors
    back = extract(squeezenet.backbone, squeezenet.weights)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_kept_classifier_names_its_classes(squeezenet):
    assert len(squeezenet.class_names) == 1000
    assert squeezenet.class_names[:2] == ("tench", "goldfish")


def test_another_image_size_gives_the_same_network(shared_weights: Path):
    path = str(shared_weights / SQUEEZENET)
    small = pretrained.load_pretrained("torchvision/squeezenet1_1", path, image_size=96)
    whole = pretrained.load_pretrained("torchvision/squeezenet1_1", path)
    assert small.backbone.input_shape == (None, 96, 96, 3)
    assert (small.preprocess.height, small.preprocess.shorter_side) == (96, 110)
    for one, other in zip(small.backbone.weights, whole.backbone.weights, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


def test_positions_of_a_vit_are_interpolated_as_torchvision_does_it():
    torch = pytest.importorskip("torch")
    from multitl_torch.positions import resampled
    from multitl_torch.torchvision import import_torchvision

    import_torchvision()
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    def small(size: int) -> VisionTransformer:
        return VisionTransformer(size, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16)

    name, (trained, asked) = "encoder.pos_embedding", (small(64).state_dict(), small(32))
    trained[name] = torch.linspace(-1, 1, trained[name].numel()).reshape(trained[name].shape) ** 3
    wanted = interpolate_embeddings(32, 8, trained.copy())[name].numpy()
    np.testing.assert_array_equal(resampled(asked, name, trained[name].numpy()), wanted)
    assert resampled(asked, "class_token", np.ones((1, 1, 20), "float32")) is None


@pytest.mark.slow
def test_a_vit_of_another_size_is_interpolated_to_its_own_or_taken_as_it_is(tmp_path: Path):
    torch = pytest.importorskip("torch")
    from multitl_torch.torchvision import import_torchvision

    import_torchvision()
    from torchvision.models import vit_b_32
    from torchvision.models.vision_transformer import interpolate_embeddings

    big = vit_b_32(image_size=256)
    torch.save(big.state_dict(), tmp_path / "big.pth")
    own = vit_b_32()
    own.load_state_dict(interpolate_embeddings(224, 32, big.state_dict()))
    for module, size in ((own, 0), (big, 256)):
        loaded = pretrained.load_pretrained("torchvision/vit_b_32", str(tmp_path / "big.pth"), size, head="keep")
        side = size or 224
        images = parity.probe_images((side, side, 3), count=2)
        with torch.no_grad():
            wanted = module.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        assert parity.compare(wanted, parity.run(loaded.backbone, images)).max_rel < 1e-4


def test_a_classifier_of_other_classes_is_understood(tmp_path: Path, shared_weights: Path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in read_torch_file(shared_weights / SQUEEZENET).items()}
    state |= {"classifier.1.weight": torch.ones(10, 512, 1, 1), "classifier.1.bias": torch.zeros(10)}
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "ten.pth")
    kept = pretrained.load_pretrained("torchvision/squeezenet1_1", str(tmp_path / "ten.pth"), head="keep")
    assert kept.backbone.output_shape == (None, 10)
    assert kept.class_names == ()
    cut = pretrained.load_pretrained("torchvision/squeezenet1_1", str(tmp_path / "ten.pth"))
    assert cut.backbone.output_shape == (None, 13, 13, 512)
    assert not any(weight.name.startswith("classifier") for weight in cut.weights)


def test_weights_without_a_classifier_cannot_keep_it(shared_weights: Path):
    path = str(shared_weights / "mobilenet_v2_features.pth")
    with pytest.raises(WeightsError, match=r"classifier\.1\.weight"):
        pretrained.load_pretrained("torchvision/mobilenet_v2", path, head="keep")


def test_weights_of_another_network_are_refused_by_name(shared_weights: Path):
    with pytest.raises(WeightsError, match="layer1"):
        pretrained.load_pretrained("torchvision/resnet18", str(shared_weights / SQUEEZENET))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet51", "torchvision/resnet50"),
        ("resnet50:IMAGENET1K_V3", "IMAGENET1K_V2"),
        ("vitb16", "torchvision/vit_b_16"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, nearest: str):
    with pytest.raises(BackboneError) as caught:
        torchvision.find(name)
    assert nearest in caught.value.nearest


def test_official_weights_by_name():
    assert torchvision.find("resnet50")[1].name == "IMAGENET1K_V2"
    assert torchvision.find("resnet50:imagenet1k_v1")[1].sha256 == "0676ba61"


def test_random_weights_are_the_same_every_time():
    first, second = (torchvision.load("squeezenet1_1", "none", 64).backbone.get_weights() for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert np.std(first[0]) > 0


def test_fine_tuning_needs_no_torch(tmp_path: Path, photo_folder: Path, shared_weights: Path):
    """What a virtual environment with only [jax] can do: torch and torchvision cannot be imported here."""
    code = f"""
import json, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "tensorflow"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import multitl
result = multitl.finetune({str(photo_folder)!r}, output={str(tmp_path / "run")!r},
    backbone="torchvision/squeezenet1_1",
    weights={str(shared_weights / SQUEEZENET)!r},
    recipe=multitl.Recipe(image_size=64, head_epochs=8, preprocess="caffe", unfreeze="none"))
print(json.dumps([result.metrics["test"]["accuracy"], "torch" in sys.modules]))
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    accuracy, loaded = json.loads(done.stdout.splitlines()[-1])
    assert accuracy > 0.8
    assert not loaded
