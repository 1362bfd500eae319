"""torchvision in builds that fit torch and in builds that do not, and its catalogue against the library itself."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from multitl_torch import torchvision as adapter
from multitl_torch.torchvision import categories, checkpoints, import_timm, import_torchvision

from multitl.contracts import Job, Preprocess
from multitl.errors import BackboneError, BackendError

# Before torchvision is imported: its compiled part does not load, as if it were built for another torch.
MISFIT = """
import torch
def refuse(path): raise OSError("libcudart.so.13: cannot open shared object file")
torch.ops.load_library = refuse
"""
TRIED_BEFORE = """
try:
    import torchvision
except RuntimeError as error:
    print(error)
"""
# What a healthy torchvision finds: its two operators are there already.
HEALTHY = """
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
def refuse(*names): raise AssertionError("declared an operator that is there")
torch.library.define = refuse
"""
WORKS = """
from multitl_torch.torchvision import import_torchvision
torchvision = import_torchvision()
assert import_torchvision() is torchvision
from PIL import Image
weights = torchvision.models.ResNet18_Weights.DEFAULT
pixels = weights.transforms()(Image.new("RGB", (300, 200), "teal"))[None]
model = torchvision.models.resnet18().eval()
block = torchvision.ops.StochasticDepth(0.5, "row")(pixels)
print(tuple(model(pixels).shape), tuple(torch.export.export(model, (pixels,)).module()(pixels).shape))
"""


def run_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_build_that_does_not_fit_works_after_an_import_that_failed():
    first, *_, last = run_python(MISFIT + TRIED_BEFORE + WORKS)
    assert first == "operator torchvision::nms does not exist"
    assert last == "(1, 1000) (1, 1000)"


def test_timm_is_imported_the_same_way():
    code = "from multitl_torch.torchvision import import_timm\nprint(import_timm().create_model('resnet18').fc)"
    assert run_python(MISFIT + code)[-1].startswith("Linear(in_features=512, out_features=1000")


def test_where_torchvision_is_healthy_nothing_is_declared():
    assert run_python(HEALTHY + TRIED_BEFORE + WORKS) == ["(1, 1000) (1, 1000)"]


@pytest.fixture
def fake_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The file that runs when torchvision is imported; the real one comes back afterwards."""
    import_torchvision()
    real = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
    for name in real:
        del sys.modules[name]
    (tmp_path / "torchvision").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "torchvision" / "__init__.py"
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules.update(real)


@pytest.mark.parametrize(
    ("versions", "command"),
    [
        (("2.13.0+cpu", "0.25.0"), "'torchvision==0.28.*' --index-url https://download.pytorch.org/whl/cpu"),
        (("2.6.1", "0.28.0+cu130"), "'torchvision==0.21.*'"),
        (("3.0.0a1", "0.28.0"), "'torchvision'"),
    ],
)
def test_versions_that_do_not_fit_are_named_with_the_one_that_would(fake_torchvision, monkeypatch, versions, command):
    fake_torchvision.write_text("from torch import something_that_went_away\n")
    installed = dict(zip(("torch", "torchvision"), versions, strict=True))
    monkeypatch.setattr(adapter.metadata, "version", installed.__getitem__)
    with pytest.raises(BackendError) as caught:
        import_torchvision()
    assert all(version in caught.value.problem for version in versions)
    assert "something_that_went_away" in caught.value.received
    assert caught.value.fix == f"pip install --force-reinstall --no-deps {command}"


def test_an_operator_that_stays_away_is_an_error_and_no_endless_loop(fake_torchvision, monkeypatch):
    fake_torchvision.write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    declared: list[str] = []

    def define(name: str, schema: str) -> None:
        if name in declared:
            raise RuntimeError("Tried to register an operator with the same name multiple times")  # as torch says
        declared.append(name)

    monkeypatch.setattr(torch.library, "define", define)
    with pytest.raises(BackendError, match="same name multiple times"):
        import_torchvision()
    assert declared == ["torchvision::nms"]


@pytest.mark.parametrize(
    ("load", "missing", "command"),
    [
        (import_torchvision, "torchvision", "pip install 'multitl[torchvision]'"),
        (import_torchvision, "torch", "pip install 'multitl[torchvision]'"),
        (import_timm, "timm", "pip install 'multitl[timm]'"),
    ],
)
def test_a_missing_package_is_named_with_the_command(load, missing, command, monkeypatch):
    monkeypatch.setattr(adapter.importlib.util, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(BackendError, match=f"the package {missing}, which is not installed") as caught:
        load()
    assert caught.value.fix == command


def test_resnet50_has_two_checkpoints():
    known = checkpoints("resnet50")
    assert list(known) == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    second = known["IMAGENET1K_V2"]
    assert second.url == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    assert (second.sha256, second.parameters, second.classes) == ("11ad3fa6", 25_557_032, 1000)
    assert (second.megabytes, second.top1, second.smallest) == (102.5, 0.80858, (1, 1))
    assert second.is_default and not known["IMAGENET1K_V1"].is_default
    assert second.licence == "BSD-3-Clause" and second.recipe.startswith(
        "https://github.com/pytorch/vision/issues/3995"
    )
    assert (second.preprocess.shorter_side, second.preprocess.height) == (232, 224)


def test_every_checkpoint_of_every_network_is_plain_data():
    models = import_torchvision().models
    names = models.list_models(module=models)
    assert len(names) == 80
    for name in names:
        known = checkpoints(name)
        assert [one.name for one in known.values()] == list(known)
        assert [one.is_default for one in known.values()].count(True) == 1
        for one in known.values():
            assert one.url.startswith("https://") and len(one.sha256) >= 8 and one.sha256 in one.url
            ratio = one.megabytes / (one.parameters * 4e-6)
            if name in ("googlenet", "inception_v3"):  # their files hold auxiliary heads too
                assert 1 < ratio < 2
            else:  # two files of wide networks are of float16
                assert min(abs(ratio - 1), abs(ratio - 0.5)) < 0.06
            back = json.loads(json.dumps(dataclasses.asdict(one), allow_nan=False))
            assert Preprocess.from_mapping(back["preprocess"]) == one.preprocess


def test_parameters_are_those_of_the_network():
    models = import_torchvision().models
    for name in ("squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x0_5"):
        with torch.device("meta"):
            network = models.get_model(name, weights=None)
        counted = sum(parameter.numel() for parameter in network.parameters())
        assert {one.parameters for one in checkpoints(name).values()} == {counted}


def test_weights_without_a_classifier_say_so():
    features = checkpoints("vgg16")["IMAGENET1K_FEATURES"]
    assert (features.classes, features.top1) == (0, None)
    assert features.preprocess.scale == pytest.approx((1, 1, 1))
    assert categories("vgg16", "IMAGENET1K_FEATURES") == ()


def test_swag_weights_are_not_for_commerce():
    licences = {name: one.licence for name, one in checkpoints("vit_b_16").items()}
    assert licences == {
        "IMAGENET1K_V1": "BSD-3-Clause",
        "IMAGENET1K_SWAG_E2E_V1": "CC BY-NC 4.0",
        "IMAGENET1K_SWAG_LINEAR_V1": "CC BY-NC 4.0",
    }


def test_categories_are_in_the_order_of_the_outputs():
    names = categories("squeezenet1_1")
    assert len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")


def test_wrong_names_get_the_nearest():
    with pytest.raises(BackboneError) as caught:
        checkpoints("resnet5O")
    assert "torchvision/resnet50" in caught.value.nearest
    with pytest.raises(BackboneError) as caught:
        categories("resnet50", "IMAGENET1K_V3")
    assert "IMAGENET1K_V2" in caught.value.nearest


def test_a_size_that_a_network_does_not_take_is_said():
    with pytest.raises(BackboneError, match="vit_b_16") as caught:
        adapter.open_network(Job("torchvision", "vit_b_16", "none", 100, "keep"), classes=0)
    assert "patch size" in caught.value.received
