"""Source `file`: models that tf_keras and Keras 3 saved give what they gave there, on every backend, or are refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from conftest import elsewhere_slow
from keras_descriptions import changed
from scipy.special import softmax

import multitl
from multitl.cli.main import main
from multitl.contracts import Head, Pretrained
from multitl.errors import BackboneError, TranslationError, WeightsError
from multitl.models.freezing import FreezePolicy, apply_policy, leaf_layers
from multitl.models.initialisers import numpy_initialisers
from multitl.recipes import Recipe
from multitl.system.hashes import file_sha256
from multitl.training.features import feature_key

layers = keras.layers
FILES = Path(__file__).parents[1] / "keras_files"
NAMES = ["functional.h5", "functional.keras", "nested.h5", "nested.keras", "sequential.h5", "sequential.keras"]
EXPECTED = dict(np.load(FILES / "expected.npz"))
SIZE = 16


def load(path: Path | str, head: Head = "cut", weights: str = "default", image_size: int = 0) -> Pretrained:
    return multitl.load_pretrained(f"file:{path}", weights, image_size, head)


def run(model: keras.Model, images: np.ndarray = EXPECTED["images"]) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(images)))


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Also against the spread between images, which small differences between outputs do not flatter."""
    largest = np.abs(found - expected).max()
    assert largest <= 1e-5 * np.abs(expected).max()
    assert largest <= 1e-3 * np.ptp(expected, axis=0).max()


def with_config(source: str, target: Path, change: Callable[[dict], None]) -> Path:
    """A copy of a file of ours whose description was changed."""
    if target.suffix == ".h5":
        shutil.copy(FILES / source, target)
        with h5py.File(target, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return target
    return changed(FILES / source, target, change)


def layer_of(config: dict, kind: str) -> dict:
    return next(one for one in config["config"]["layers"] if one["class_name"] == kind)


@pytest.mark.every_backend
@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_tf_keras_gives_what_it_gave_there(name: str):
    logits, expected = run(load(FILES / name, "keep").backbone), EXPECTED[name]
    if name.startswith("nested"):  # one sigmoid: two classes, the second of which it speaks for
        assert_equal(softmax(logits, axis=-1)[:, 1:], expected)
    else:
        assert_equal(softmax(logits, axis=-1) if name.startswith("functional") else logits, expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_is_cut_and_every_other_weight_is_in_a_stage_once(name: str):
    whole, cut = load(FILES / name, "keep"), load(FILES / name)
    assert cut.backbone.output_shape == {"functional": (None, 8, 8, 6), "nested": (None, 8, 8, 8)}.get(
        Path(name).stem, (None, 1, 1, 6)
    )
    weighted = [layer.name for layer in cut.backbone.layers if layer.weights]
    assert sorted(name for stage in cut.stages for name in stage.layers) == sorted(weighted)
    assert len(weighted) == sum(bool(layer.weights) for layer in whole.backbone.layers) - 1
    assert not any(isinstance(layer, keras.Model) for layer in cut.backbone.layers)
    trained = apply_policy(FreezePolicy("last"), cut.backbone, cut.stages)
    assert 0 < len(trained) < len(weighted)
    frozen = [layer for layer in leaf_layers(cut.backbone) if layer.weights and not layer.trainable]
    assert len(frozen) == len(weighted) - len(trained)


def test_what_is_known_of_a_file(tmp_path):
    path = shutil.copy(FILES / "functional.h5", tmp_path / "my: flowers.h5")
    found = load(path)
    assert found.name == "file:my: flowers.h5"
    assert found.origin.source == "file" and found.origin.file_sha256 == found.content == file_sha256(path)
    assert (found.preprocess.height, found.preprocess.width) == (SIZE, SIZE)
    assert found.preprocess.scale == (1, 1, 1) and found.preprocess.offset == (0, 0, 0)
    assert found.preprocess.resize == "squash" and not found.preprocess.antialias  # as Keras' own data loaders


def test_stored_features_go_by_content_not_by_path(tmp_path):
    copy = Path(shutil.copy(FILES / "functional.h5", tmp_path / "copy.h5"))
    keys = [feature_key(load(path), Recipe(), "jax", "jax", "0", None) for path in (FILES / "functional.h5", copy)]
    assert keys[0] == keys[1]
    with_config("functional.h5", copy, lambda config: layer_of(config, "LeakyReLU")["config"].update(alpha=0.3))
    assert feature_key(load(copy), Recipe(), "jax", "jax", "0", None) != keys[0]  # with the same weights


def test_home_is_understood(tmp_path, monkeypatch):
    shutil.copy(FILES / "nested.keras", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/nested.keras").name == "file:nested.keras"


def test_values_are_asked_for_where_the_model_has_none(tmp_path, capsys):
    for name in ("functional.keras", "nested.keras", "sequential.keras"):
        load(FILES / name)
    assert "--preprocess" not in capsys.readouterr().err
    keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)]).save(
        tmp_path / "plain.keras"
    )
    load(tmp_path / "plain.keras")
    assert "--preprocess torch, caffe, tf, unit or bytes" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["nested.h5", "nested.keras"])
def test_random_weights_are_the_same_each_time_and_not_the_files(name: str):
    first, second, own = (run(load(FILES / name, weights=kind).backbone) for kind in ("none", "none", "default"))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - own).max() > 0.01
    assert load(FILES / name, weights="none").origin.file_sha256 is None


def test_weights_of_the_same_model_come_from_another_file():
    loaded = load(FILES / "functional.h5", "keep", weights=str(FILES / "functional.keras"))
    assert_equal(softmax(run(loaded.backbone), axis=-1), EXPECTED["functional.h5"])
    assert loaded.origin.file_sha256 == file_sha256(FILES / "functional.keras")
    with pytest.raises(WeightsError, match="do not fit"):
        load(FILES / "functional.h5", weights=str(FILES / "nested.h5"))


def renamed_inside(config: dict) -> None:
    """Layers of the nested model get names that no weight has."""
    text = json.dumps(layer_of(config, "Functional"))
    for old, new in (("conv", "c"), ("bn", "b")):
        text = (
            text.replace(f'"{old}0"', f'"{new}x"').replace(f'"{old}1"', f'"{new}y"').replace(f'"{old}2"', f'"{new}z"')
        )
    config["config"]["layers"] = [
        json.loads(text) if one["class_name"] == "Functional" else one for one in config["config"]["layers"]
    ]


@pytest.mark.parametrize("was_frozen", [True, False])
def test_nested_weights_without_their_layers_names_go_by_order(tmp_path, was_frozen: bool):
    path = with_config("nested.h5", tmp_path / "nested.h5", renamed_inside)
    if not was_frozen:  # then Keras lists statistics after everything that trains
        with h5py.File(path, "r+") as file:
            group = file["model_weights/backbone"]
            names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs["weight_names"]]
            group.attrs["weight_names"] = sorted(names, key=lambda name: "moving" in name)
    assert_equal(softmax(run(load(path, "keep").backbone), axis=-1)[:, 1:], EXPECTED["nested.h5"])


def own_network() -> keras.Model:
    """What Keras 3 writes otherwise: operations, slices, attention, its own hard sigmoid, equal names at two depths."""
    with numpy_initialisers(3):
        inner = keras.Sequential(
            [
                keras.Input((8, 8, 4)),
                layers.DepthwiseConv2D(3, padding="same", name="conv"),
                layers.BatchNormalization(),
            ],
            name="inner",
        )
        outer = keras.Sequential([keras.Input((8, 8, 4)), inner, layers.Conv2D(4, 1, name="conv")], name="outer")
        image = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="pixels")
        x = layers.Rescaling(1 / 127.5, [-1, -1, -1])(image[..., ::-1] if keras.config.backend() != "torch" else image)
        x = layers.Conv2D(4, 3, strides=2, padding="same", activation="hard_sigmoid")(x)
        x = keras.ops.clip(outer(x) * 0.5 + x, -3, 6)
        x = layers.Reshape((64, 4))(x)
        x = layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x) + x
        x = layers.Dense(5, activation=layers.LeakyReLU(0.3))(keras.ops.mean(x, axis=1))
        return keras.Model(image, layers.Dense(4, activation="softmax")(x), name="own")


@pytest.mark.every_backend
@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_a_model_of_keras_3_comes_back(tmp_path, ending: str):
    model, random = own_network(), np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(
            random.uniform(0.2, 0.9, weight.shape).astype("float32")
            * random.choice([-1, 1]) ** ("variance" not in weight.path)
        )
    model.save(tmp_path / f"own.{ending}")
    loaded = load(tmp_path / f"own.{ending}", "keep")
    assert_equal(softmax(run(loaded.backbone), axis=-1), run(model, EXPECTED["images"].astype("uint8")))


@elsewhere_slow
def test_a_run_starts_from_a_file_and_another_from_its_result(tmp_path, photo_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--head-epochs",
        "1",
        "--learning-rate",
        "5e-4",
        "--steps",
        "5",
        "--unfreeze",
        "last",
        "--batch-size",
        "8",
    ]
    assert main(["finetune", str(photo_folder), "--backbone", f"file:{FILES / 'nested.h5'}", *options]) == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name == f"{photo_folder.name}-file-nested-{keras.config.backend()}"
    card = json.loads((folder / "card.json").read_text())
    assert card["backbone"]["name"] == "file:nested.h5"
    assert card["backbone"]["file_sha256"] == file_sha256(FILES / "nested.h5")
    again = load(folder / "model.keras", "keep")
    whole = keras.models.load_model(folder / "model.keras", compile=False)
    images = EXPECTED["images"]
    np.testing.assert_allclose(softmax(run(again.backbone), -1), run(whole, images.astype("uint8")), atol=1e-5)
    assert ">nested.h5<" in (folder / "report.html").read_text().replace("<bdi>", ">").replace("</bdi>", "<")


@pytest.mark.every_backend
def test_translate_makes_a_plain_keras_model_and_predict_uses_it(tmp_path, photo_folder, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["translate", f"file:{FILES / 'functional.keras'}"]) == 0
    model = keras.models.load_model("runs/file-functional/model.keras", compile=False)
    assert_equal(run(model, EXPECTED["images"].astype("uint8")), EXPECTED["functional.keras"])
    capsys.readouterr()
    assert main(["predict", "runs/file-functional", str(next(photo_folder.glob("*/*.png"))), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["probabilities"]) == 5


def test_listed_by_one_line(capsys):
    assert main(["backbones", "file:"]) == 0
    assert "your own .keras or .h5" in capsys.readouterr().out


def test_another_size_where_the_layers_allow_it():
    found = load(FILES / "nested.h5", image_size=20)
    assert found.backbone.input_shape == (None, 20, 20, 3)
    with pytest.raises(BackboneError, match=r"cannot take images of 20 x 20(.|\n)*16 x 16"):
        load(FILES / "sequential.h5", image_size=20)


def test_any_size_means_224(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()])
    model.save(tmp_path / "any.keras")
    assert load(tmp_path / "any.keras").backbone.input_shape == (None, 224, 224, 3)
    assert load(tmp_path / "any.keras", image_size=32).backbone.output_shape == (None, 30, 30, 2)


# What is refused


def saved(path: Path, model: keras.Model) -> Path:
    model.save(path)
    return path


def missing(folder: Path) -> Path:
    return folder / "nothing.h5"


def a_folder(folder: Path) -> Path:
    return folder


def a_run(folder: Path) -> Path:
    shutil.copy(FILES / "nested.keras", folder / "model.keras")
    return folder


def a_saved_model(folder: Path) -> Path:
    (folder / "saved_model.pb").touch()
    return folder


def a_text(folder: Path) -> Path:
    (folder / "x.h5").write_text("This is no model.")
    return folder / "x.h5"


def nothing_in_it(folder: Path) -> Path:
    (folder / "x.keras").touch()
    return folder / "x.keras"


def a_pointer(folder: Path) -> Path:
    (folder / "x.h5").write_text("version https://git-lfs.github.com/spec/v1\n")
    return folder / "x.h5"


def a_cut_off_hdf5(folder: Path) -> Path:
    (folder / "x.h5").write_bytes((FILES / "nested.h5").read_bytes()[:20_000])
    return folder / "x.h5"


def a_cut_off_archive(folder: Path) -> Path:
    (folder / "x.keras").write_bytes((FILES / "nested.keras").read_bytes()[:20_000])
    return folder / "x.keras"


def an_archive_of_others(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        archive.writestr("a.txt", "b")
    return folder / "x.keras"


def a_bomb(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", " " * 20_000_000)
        archive.writestr("model.weights.h5", "")
    return folder / "x.keras"


def a_bomb_of_weights(folder: Path) -> Path:
    with zipfile.ZipFile(FILES / "nested.keras") as old, zipfile.ZipFile(folder / "x.keras", "w", 8) as archive:
        archive.writestr("config.json", old.read("config.json"))
        archive.writestr("metadata.json", old.read("metadata.json"))
        archive.writestr("model.weights.h5", b"\0" * 20_000_000)
    return folder / "x.keras"


def escaping_names(folder: Path) -> Path:
    shutil.copy(FILES / "nested.keras", folder / "x.keras")
    with zipfile.ZipFile(folder / "x.keras", "a") as archive:
        archive.writestr("../../evil.py", "raise SystemExit")
    return folder / "x.keras"


def only_weights(folder: Path) -> Path:
    own_network().save_weights(folder / "x.weights.h5")
    return folder / "x.weights.h5"


def only_weights_of_old(folder: Path) -> Path:
    with h5py.File(FILES / "nested.h5") as source, h5py.File(folder / "x.h5", "w") as target:
        for key in source["model_weights"]:
            source.copy(f"model_weights/{key}", target)
        target.attrs.update(source["model_weights"].attrs)
    return folder / "x.h5"


def other_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file["a"] = [1, 2]
    return folder / "x.h5"


def no_json(folder: Path) -> Path:
    shutil.copy(FILES / "nested.h5", folder / "x.h5")
    with h5py.File(folder / "x.h5", "r+") as file:
        file.attrs["model_config"] = "{"
    return folder / "x.h5"


def deep_json(folder: Path) -> Path:
    shutil.copy(FILES / "nested.h5", folder / "x.h5")
    with h5py.File(folder / "x.h5", "r+") as file:
        file.attrs["model_config"] = "[" * 50_000
    return folder / "x.h5"


def no_network(folder: Path) -> Path:
    return with_config("nested.keras", folder / "x.keras", lambda config: config.clear())


def a_circle(folder: Path) -> Path:
    def change(config: dict) -> None:
        layer_of(config, "Dropout")["inbound_nodes"] = [[["dense", 0, 0, {}]]]

    return with_config("nested.keras", folder / "x.keras", change)


def a_call_on_nothing(folder: Path) -> Path:
    def change(config: dict) -> None:
        layer_of(config, "Dropout")["inbound_nodes"] = [[["nobody", 0, 0, {}]]]

    return with_config("nested.h5", folder / "x.h5", change)


def too_few_units(folder: Path) -> Path:
    return with_config("nested.h5", folder / "x.h5", lambda config: layer_of(config, "Dense")["config"].update(units=2))


def a_petabyte(folder: Path) -> Path:
    return with_config(
        "nested.h5", folder / "x.h5", lambda config: layer_of(config, "Dense")["config"].update(units=10**14)
    )


def units_of_text(folder: Path) -> Path:
    return with_config(
        "nested.h5", folder / "x.h5", lambda config: layer_of(config, "Dense")["config"].update(units="two")
    )


def half_a_character(folder: Path) -> Path:
    return with_config("nested.keras", folder / "x.keras", lambda config: config["config"].update(name="\ud800"))


REFUSED: list[tuple[Callable[[Path], Path], str]] = [
    (missing, "check the path after file:"),
    (a_folder, "name the file in it"),
    (a_run, "model.keras"),
    (a_saved_model, "tfhub/"),
    (a_text, "a file of another kind"),
    (nothing_in_it, "an empty file"),
    (a_pointer, "git lfs pull"),
    (a_cut_off_hdf5, "damaged"),
    (a_cut_off_archive, "damaged"),
    (an_archive_of_others, "not a .keras file"),
    (a_bomb, "decompression bomb"),
    (a_bomb_of_weights, "decompression bomb"),
    (escaping_names, "outside it"),
    (only_weights, "--backbone keras/NAME --weights"),
    (only_weights_of_old, "--backbone keras/NAME --weights"),
    (other_hdf5, "without a Keras model"),
    (no_json, "damaged"),
    (deep_json, "damaged"),
    (no_network, "describes no network"),
    (half_a_character, "surrogates not allowed"),
    (a_circle, "wait for each other"),
    (a_call_on_nothing, "'nobody'"),
    (too_few_units, "dense/kernel: 8x1 in the file, 8x2 in the model"),
    (units_of_text, "makes no network"),
    (a_petabyte, "claims more weights"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=lambda it: getattr(it, "__name__", ""))
def test_files_that_are_no_models_are_refused(tmp_path, capsys, make: Callable[[Path], Path], message: str):
    path = make(tmp_path)
    with pytest.raises(WeightsError) as caught:
        load(path)
    assert message in str(caught.value)
    before = sorted(tmp_path.rglob("*"))
    assert main(["translate", f"file:{path}", "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_paths_that_no_file_can_have():
    for path in ("", "a\0b", "~nobody-of-that-name/x.h5", "x" * 5000):
        with pytest.raises(WeightsError, match="check the path after file:"):
            load(path)


def test_code_and_classes_of_ones_own_are_named_all_at_once_and_never_run(tmp_path):
    def change(config: dict) -> None:
        stack: list[dict[str, Any]] = config["config"]["layers"]
        stack[1] |= {"class_name": "Lambda", "config": {"name": "flip_it", "function": ["!!!", None, None]}}
        stack[2] |= {"module": "my_code", "registered_name": "Mine>Magic", "class_name": "Conv2D"}
        stack[3] |= {"class_name": "LSTM", "config": {"units": 3}}
        stack[4]["config"]["activation"] = {"class_name": "function", "config": "my_activation"}

    for name in ("sequential.h5", "sequential.keras"):
        with pytest.raises(TranslationError) as caught:
            load(with_config(name, tmp_path / name, change))
        assert caught.value.missing == (
            "Lambda", "Conv2D, a class of its author's own", "LSTM", "Conv2D with the activation 'my_activation'",
        )  # fmt: skip
        assert "flip_it" in str(caught.value) and "stock layers" in caught.value.fix


def test_functions_of_tensorflow_that_are_not_known_are_named(tmp_path):
    def change(config: dict) -> None:
        layer_of(config, "TFOpLambda")["config"]["function"] = "image.non_max_suppression"

    with pytest.raises(TranslationError) as caught:
        load(with_config("nested.keras", tmp_path / "x.keras", change))
    assert caught.value.missing == ("tf.image.non_max_suppression",)


@pytest.mark.parametrize("call", [{"training": True}, {"mask": ["tf.math.subtract", 0, 0]}])
def test_a_model_that_trains_while_it_judges_is_refused(tmp_path, call: dict):
    def change(config: dict) -> None:
        layer_of(config, "Functional")["inbound_nodes"][0][0][3] = call

    with pytest.raises(TranslationError, match="called with training=True or a mask"):
        load(with_config("nested.h5", tmp_path / "x.h5", change))


def two_inputs() -> keras.Model:
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([one, two], one + two)


def two_outputs() -> keras.Model:
    one = keras.Input((8, 8, 3))
    return keras.Model(one, [layers.Conv2D(2, 3)(one), layers.Conv2D(3, 3)(one)])


def on_vectors() -> keras.Model:
    return keras.Sequential([keras.Input((8,)), layers.Dense(2)])


def on_grey() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3)])


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize(
    ("make", "received"),
    [(two_inputs, "2 inputs"), (two_outputs, "2 outputs"), (on_vectors, "[None, 8]"), (on_grey, "[None, 8, 8, 1]")],
)
def test_models_that_do_not_read_one_image_are_refused(tmp_path, make, received: str, ending: str):
    path = saved(tmp_path / f"x.{ending}", make())
    with pytest.raises(BackboneError, match="no network for images alone") as caught:
        load(path)
    assert received in caught.value.received


def test_channels_first_is_refused(tmp_path):
    def change(config: dict) -> None:
        layer_of(config, "Conv2D")["config"]["data_format"] = "channels_first"

    with pytest.raises(TranslationError, match="channels first"):
        load(with_config("sequential.h5", tmp_path / "x.h5", change))


def ends_with(activation: str | None, units: int) -> keras.Model:
    stack = [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    return keras.Sequential([*stack, layers.Dense(units, activation=activation)])


@pytest.mark.parametrize(
    ("activation", "units", "cut"),
    [("sigmoid", 3, (None, 6, 6, 4)), (None, 1, (None, 6, 6, 4)), ("relu", 3, (None, 1, 1, 3))],
)
def test_only_a_classifier_can_be_kept(tmp_path, activation: str | None, units: int, cut: tuple):
    path = saved(tmp_path / "x.keras", ends_with(activation, units))
    with pytest.raises(BackboneError, match="no classifier to keep"):
        load(path, "keep")
    assert load(path).backbone.output_shape == cut


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of everything in a description."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(one, (*path, key))


def put(config: dict, above: list, last: Any, value: Any) -> None:
    reduce(getitem, above, config)[last] = value


def test_a_changed_description_never_shows_a_foreign_error(tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "x.keras"
    with zipfile.ZipFile(FILES / "nested.keras") as archive:
        known = list(places(json.loads(archive.read("config.json"))))
    wrong: list[Any] = [None, -1, 0, "x", [], {}, 1.5, True, [None], {"class_name": "Lambda", "config": {}}]
    for _ in range(20):
        *above, last = known[random.integers(len(known))]
        value = wrong[random.integers(len(wrong))]
        with_config("nested.keras", path, partial(put, above=above, last=last, value=value))
        with contextlib.suppress(multitl.MultitlError):
            load(path)


def test_damage_anywhere_never_shows_a_foreign_error(tmp_path):
    random = np.random.default_rng(0)
    for name in ("nested.h5", "nested.keras"):
        whole = (FILES / name).read_bytes()
        for attempt in range(10):
            damaged = bytearray(whole[: random.integers(len(whole))] if attempt % 2 else whole)
            for place in random.integers(len(damaged), size=8) if damaged else ():
                damaged[place] = random.integers(256)
            (tmp_path / name).write_bytes(damaged)
            try:
                load(tmp_path / name)
            except multitl.MultitlError as error:
                assert name in str(error)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tf_keras") is None, reason="needs tf_keras")
@pytest.mark.parametrize(
    "name",
    [
        "MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0", "ResNet50",
        "ResNet50V2", "DenseNet121", "Xception", "InceptionV3", "NASNetMobile", "ConvNeXtTiny", "RegNetX002",
    ],
)  # fmt: skip
def test_the_networks_of_tf_keras_applications(tmp_path, name: str):
    done = subprocess.run([sys.executable, FILES / "write.py", name, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = np.load(tmp_path / "expected.npz")
    for ending in ("h5", "keras"):
        backbone = load(tmp_path / f"{name}.{ending}", "keep").backbone
        assert_equal(run(backbone, written["images"]), written[f"{name}.{ending}"])


def unet() -> keras.Model:
    """One output a pixel, by way of a bottleneck named "middle"."""
    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(image)
    down = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, 2, padding="same", activation="relu", name="middle")(down)
    x = layers.Concatenate()([layers.Conv2DTranspose(8, 2, 2)(x), down])
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x))


def test_a_network_that_segments_is_no_backbone_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture):
    model = unet()
    model.save(tmp_path / "unet.keras")
    assert load(tmp_path / "unet.keras").backbone.output_shape == (None, 16, 16, 1)
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "unet.keras gives a map of 16 x 16 places with 1 channels each" in said and "nothing of it is cut off" in said
    )
    assert "model.get_layer('middle').output).save('encoder.keras')" in said

    keras.Model(model.input, model.get_layer("middle").output).save(tmp_path / "encoder.keras")
    assert load(tmp_path / "encoder.keras").backbone.output_shape == (None, 8, 8, 16)
    assert "segment" not in capsys.readouterr().err
