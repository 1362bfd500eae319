"""What `weights` may be, wherever it is taken."""

from __future__ import annotations

import pytest
from image_folders import make_images

import multitl
from multitl.cli.main import main
from multitl.errors import BackboneError, WeightsError
from multitl.sources import pretrained


class Asked:
    """A source that only says which weights it was asked for."""

    def load(self, name, weights, image_size, head="cut"):
        raise BackboneError(f"asked for {weights}", fix="nothing")


@pytest.fixture
def asked(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "load_source", lambda name: (Asked(), name))
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "photos", {"a": 8, "b": 8})


@pytest.mark.parametrize(
    "take",
    [
        lambda weights: multitl.load_pretrained("keras/MobileNet", weights),
        lambda weights: multitl.finetune("photos", backbone="keras/MobileNet", weights=weights, output="run"),
        lambda weights: multitl.choose("photos", ["keras/MobileNet"], recipe={"weights": weights}, output="choice"),
        lambda weights: multitl.choose("photos", [f"keras/MobileNet@{weights}"], output="choice"),
        lambda weights: multitl.translate("keras/MobileNet", "network", weights=weights),
        lambda weights: multitl.port("keras/MobileNet", "onnx", "port", weights=weights),
    ],
    ids=["load_pretrained", "finetune", "choose", "choose@", "translate", "port"],
)
def test_imagenet_is_what_keras_calls_the_default(asked, take):
    for weights, wanted in {"imagenet": "default", "none": "none"}.items():
        with pytest.raises(BackboneError, match=f"asked for {wanted}|cannot be used|can be used") as error:
            take(weights)
        assert f"asked for {wanted}" in str(error.value)


@pytest.mark.parametrize(
    "command",
    ["finetune photos --out run", "translate keras/MobileNet --out network", "port keras/MobileNet --to onnx"],
)
def test_imagenet_on_the_command_line(asked, capsys, command):
    assert main([*command.split(), "--weights", "imagenet"]) == 2
    assert "asked for default" in capsys.readouterr().err


def test_a_file_of_another_name_is_looked_for(asked):
    with pytest.raises(WeightsError, match="no weights file Imagenet"):
        multitl.load_pretrained("keras/MobileNet", "Imagenet")
