"""timm's networks as backbones: those without a classifier, and what their authors' and users' files hold."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from multitl.contracts import Job
from multitl.errors import BackboneError
from multitl.sources.pretrained import load_pretrained
from multitl.system.workers import read_error
from multitl.translation import parity, store, worker
from multitl.translation.filling import is_all_weights

torch = pytest.importorskip("torch")
if importlib.util.find_spec("timm") is None:
    pytest.skip("needs timm", allow_module_level=True)


@pytest.fixture(autouse=True)
def without_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's work here, without the ten seconds of its imports."""

    def here(job: Job, work: Path) -> None:
        worker.main([json.dumps(asdict(job)), str(work)])
        if (work / "error.json").is_file():
            raise read_error(work / "error.json")

    monkeypatch.setattr(store, "_run_worker", here)


def made(name: str, **options):
    """timm's own, with random weights that leave no part of it without an effect."""
    from multitl_torch.randomising import randomise
    from multitl_torch.torchvision import import_timm
    from multitl_torch.verifying import as_torch, probes

    module = import_timm().create_model(name, **options)
    size = options.get("img_size", 64)
    torch.manual_seed(0)
    randomise(module, as_torch(probes((3, size, size))))
    return module.eval()


def features(module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


@pytest.mark.slow
def test_dino_at_another_size_is_the_network_at_its_own_size_given_such_images(tmp_path: Path):
    """Which pools 16 patches of 16 pixels and counts positions from one image's edge to the other."""
    name = "vit_small_patch16_dinov3"
    module = made(name, img_size=64)
    torch.save(module.state_dict() | {"head.weight": torch.ones(9, 384)}, tmp_path / "own.pth")
    loaded = load_pretrained(f"timm/{name}", str(tmp_path / "own.pth"), image_size=64)
    assert loaded.backbone.output_shape == (None, 1, 1, 384)
    assert loaded.classifier == () and {"patch_embed.proj.weight", "norm.weight"} <= {w.name for w in loaded.weights}
    at_256 = made(name)
    at_256.load_state_dict(module.state_dict())
    images = parity.probe_images((64, 64, 3), count=2)
    wanted = features(at_256, images)
    found = parity.run(loaded.backbone, images).reshape(wanted.shape)
    assert parity.compare(wanted, found).max_rel < 1e-5


@pytest.mark.parametrize(
    ("name", "trained", "asked"),
    [("vit_tiny_patch16_224", 96, 64), pytest.param("test_vit3", 64, 160, marks=pytest.mark.slow)],
)
def test_weights_made_at_another_image_size_give_what_timm_makes_of_them(
    name: str, trained: int, asked: int, tmp_path: Path
):
    """One with a class token, and one that counts patches alone; behind the prefix of DataParallel."""
    module = made(name, img_size=trained)
    torch.save({f"module.{key}": tensor for key, tensor in module.state_dict().items()}, tmp_path / "own.pth")
    loaded = load_pretrained(f"timm/{name}", str(tmp_path / "own.pth"), image_size=asked, head="keep")
    by_timm = made(name, img_size=asked)
    filtered = sys.modules[type(module).__module__].checkpoint_filter_fn(module.state_dict(), by_timm)
    by_timm.load_state_dict(filtered)
    images = parity.probe_images((asked, asked, 3), count=2)
    assert parity.compare(features(by_timm, images), parity.run(loaded.backbone, images)).max_rel < 1e-5


def test_what_is_computed_from_weights_follows_those_of_a_file(tmp_path: Path):
    """Positions that the network itself resizes to the image's become numbers of the graph."""
    module = made("test_vit", img_size=160, num_classes=3)
    torch.save(module.state_dict(), tmp_path / "own.pth")
    loaded = load_pretrained("timm/test_vit", weights=str(tmp_path / "own.pth"), image_size=160, head="keep")
    images = np.random.default_rng(0).normal(0, 1, (2, 160, 160, 3)).astype("float32")
    found = parity.compare(features(module, images), parity.run(loaded.backbone, images))
    assert not is_all_weights(loaded.backbone, loaded.weights) and found.max_rel < 1e-4


def test_only_positions_are_interpolated_and_only_of_the_same_width():
    from multitl_torch.positions import resampled

    module = made("test_vit", img_size=64)
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    tokens, width = state["pos_embed"].shape[1:]
    assert resampled(module, "pos_embed", np.ones((1, 37, width), "float32")).shape == (1, tokens, width)
    for name, shape in (
        ("pos_embed", (1, 37, width + 1)), ("pos_embed", (1, 40, width)), ("pos_embed", ()),
        ("no_such", (1, 37, width)), ("patch_embed.proj.weight", (width, 3, 32, 32)),
    ):  # fmt: skip
        assert resampled(module, name, np.ones(shape, "float32")) is None


@pytest.mark.slow
def test_of_a_masked_autoencoder_nothing_is_cut_off_and_its_map_is_named():
    loaded = load_pretrained("timm/convnextv2_atto.fcmae", "none", image_size=64)
    assert loaded.backbone.output_shape == (None, 1, 1, 320)
    assert loaded.backbone.get_layer("head-norm"), "its last normalisation is a part of it"
    last = next(one for one in loaded.backbone.operations if one.name == loaded.feature_map)
    assert last.output.shape[1:] == (2, 2, 320)
    assert loaded.class_names == ()


def test_a_classifier_that_is_not_there_cannot_be_kept_and_nothing_is_translated(monkeypatch: pytest.MonkeyPatch):
    from multitl_torch.translator import TorchOriginal

    monkeypatch.setattr(TorchOriginal, "translate", lambda self: pytest.fail("translated"))
    with pytest.raises(BackboneError, match="no classifier to keep") as caught:
        load_pretrained("timm/eva02_tiny_patch14_224", "none", head="keep")
    assert "--head cut" in caught.value.fix


@pytest.mark.slow
def test_a_class_token_and_all_tokens_with_a_classifier_each():
    loaded = load_pretrained("timm/volo_d1_224", "none", image_size=64)
    assert loaded.backbone.output_shape == (None, 1, 1, 2 * 384)
    assert {weight.name for weight in loaded.classifier} == {
        f"{head}.{part}" for head in ("head", "aux_head") for part in ("weight", "bias")
    }
