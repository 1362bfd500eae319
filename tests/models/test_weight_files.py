"""Weight files of every format fill a backbone completely or are refused with a reason."""

from __future__ import annotations

import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from multitl.errors import WeightsError
from multitl.models.initialisers import numpy_initialisers
from multitl.models.weight_files import fits, load_weights
from multitl.system.hashes import file_sha256

layers = keras.layers
SIZE = 16


def small_network(seed: int | None, width: int = 4) -> keras.Model:
    """What makes weight files difficult: automatic names, a nested model, Normalization, separable and twin layers."""
    with numpy_initialisers(seed):
        image = keras.Input((SIZE, SIZE, 3))
        x = layers.Normalization()(image)
        stem = [layers.Conv2D(width, 4, strides=4, name="stem"), layers.LayerNormalization(name="stem_norm")]
        x = keras.Sequential(stem, name="stem_block")(x)
        left = layers.BatchNormalization()(layers.SeparableConv2D(width, 3, padding="same")(x))
        right = layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False, name="right")(x))
        x = layers.Dropout(0.1)(layers.ReLU()(left + right))
        model = keras.Model(image, layers.Conv2D(2 * width, 1)(x), name="small_network")
    return model


def filled(seed: int = 7) -> keras.Model:
    """A small network in which every number differs from every other."""
    model, count = small_network(None), 0
    for weight in model.weights:
        size = int(np.prod(weight.shape))
        weight.assign(np.reshape(np.arange(count, count + size), weight.shape) % 1009 / 500 + seed)
        count += size
    next(layer for layer in model.layers if isinstance(layer, layers.Normalization)).finalize_state()
    return model


def with_head(backbone: keras.Model) -> keras.Model:
    """The head is part of the same flat model, as in keras.applications with include_top."""
    x = layers.GlobalAveragePooling2D()(backbone.output)
    return keras.Model(backbone.input, layers.Dense(5, name="predictions")(x))


def wrapped(backbone: keras.Model) -> keras.Model:
    """The backbone is one layer among others, frozen, as in a classifier that somebody fine-tuned."""
    backbone.trainable = False
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(backbone(layers.Rescaling(1 / 255)(image)))
    return keras.Model(image, layers.Dense(5)(x))


def save_legacy_weights(model: keras.Model, path: Path) -> None:
    """As `save_weights("x.h5")` did in Keras 1 and 2: what `model.save` keeps below model_weights, at the top."""
    whole = path.with_suffix(".whole.h5")
    model.save(whole)
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        group = source["model_weights"]
        for key in group:
            group.copy(key, target)
        target.attrs.update(group.attrs)
    whole.unlink()


SAVERS: dict[str, Callable[[keras.Model, Path], None]] = {
    "full.h5": lambda model, path: model.save(path),
    "old.h5": save_legacy_weights,
    "new.weights.h5": lambda model, path: model.save_weights(path),
    "model.keras": lambda model, path: model.save(path),
}


def values(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.every_backend
@pytest.mark.parametrize("file_name", SAVERS)
@pytest.mark.parametrize("form", [lambda model: model, with_head, wrapped], ids=["bare", "with_head", "wrapped"])
def test_every_format_comes_back_bit_for_bit(tmp_path, file_name, form):
    original = filled()
    SAVERS[file_name](form(original), tmp_path / file_name)
    model = small_network(None)
    assert load_weights(model, tmp_path / file_name) == tmp_path / file_name
    for loaded, expected in zip(values(model), values(original), strict=True):
        np.testing.assert_array_equal(loaded, expected)
    image = np.random.default_rng(0).random((2, SIZE, SIZE, 3), dtype="float32")
    np.testing.assert_array_equal(model.predict(image, verbose=0), original.predict(image, verbose=0))


@pytest.mark.parametrize("file_name", SAVERS)
def test_a_file_for_a_wider_network_names_the_layers(tmp_path, file_name):
    SAVERS[file_name](small_network(0, width=6), tmp_path / file_name)
    model = small_network(None)
    assert not fits(model, tmp_path / file_name)
    with pytest.raises(WeightsError, match=r"7 of 8 layers differ|6 of 7 layers differ") as caught:
        load_weights(model, tmp_path / file_name)
    assert "4x4x3x6 + 6" in str(caught.value)
    assert "4x4x3x4 + 4" in str(caught.value)
    assert "--weights" in str(caught.value) or "multitl backbones" in str(caught.value)


def test_a_long_list_of_differences_is_cut(tmp_path):
    with numpy_initialisers(None):
        deep = keras.Sequential([keras.Input((4,)), *[layers.Dense(4) for _ in range(20)]])
        other = keras.Sequential([keras.Input((5,)), *[layers.Dense(5) for _ in range(20)]])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(WeightsError, match="20 of 20 layers differ") as caught:
        load_weights(deep, tmp_path / "other.weights.h5")
    assert caught.value.received.count("in the model") == 8
    assert "and 12 more" in caught.value.received


@pytest.mark.parametrize("file_name", SAVERS)
def test_a_file_without_some_of_the_layers_is_refused(tmp_path, file_name):
    whole = filled()
    part = keras.Model(whole.input, whole.get_layer("stem_block").output)
    SAVERS[file_name](part, tmp_path / file_name)
    with pytest.raises(WeightsError, match="nothing in the file"):
        load_weights(small_network(None), tmp_path / file_name)


@pytest.mark.every_backend
def test_real_files_with_and_without_head_give_the_same_features(shared_weights):
    models = []
    for name in ["mobilenet_2_5_224_tf_no_top.h5", "mobilenet_1.0_0.25_224_top.h5"]:
        with numpy_initialisers(None):
            model = keras.applications.MobileNet((32, 32, 3), 0.25, include_top=False, weights=None, name="mobilenet")
        load_weights(model, shared_weights / name)
        models.append(model)
    for left, right in zip(*map(values, models), strict=True):
        np.testing.assert_array_equal(left, right)
    assert values(models[0])[0].std() == pytest.approx(0.3493, abs=1e-4)  # of the trained first kernel


def test_file_names_do_not_matter(tmp_path):
    original = filled()
    original.save_weights(tmp_path / "a.weights.h5")
    original.save(tmp_path / "b.keras")
    (tmp_path / "a.weights.h5").rename(tmp_path / "a.keras")
    (tmp_path / "b.keras").rename(tmp_path / "b.h5")
    for name in ["a.keras", "b.h5"]:
        load_weights(model := small_network(None), tmp_path / name)
        np.testing.assert_array_equal(values(model)[-1], values(original)[-1])


def test_a_folder_needs_exactly_one_fitting_file(tmp_path):
    filled().save_weights(tmp_path / "right.weights.h5")
    small_network(0, width=6).save_weights(tmp_path / "wide.weights.h5")
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "readme.txt").write_text("not a weights file")
    model = small_network(None)
    assert load_weights(model, tmp_path) == tmp_path / "right.weights.h5"
    shutil.copy(tmp_path / "right.weights.h5", tmp_path / "copy.h5")
    with pytest.raises(WeightsError, match="2 files in") as caught:
        load_weights(model, tmp_path)
    assert all(name in str(caught.value) for name in ["right.weights.h5: fits", "copy.h5: fits", "wide", "broken"])
    (tmp_path / "copy.h5").unlink()
    (tmp_path / "right.weights.h5").unlink()
    with pytest.raises(WeightsError, match="No files in"):
        load_weights(model, tmp_path)
    assert not fits(model, tmp_path)


def test_an_unreadable_folder_or_file(tmp_path, monkeypatch):
    def forbid(*_, **__):
        raise PermissionError(13, "Permission denied")

    filled().save_weights(tmp_path / "x.weights.h5")
    monkeypatch.setattr(Path, "iterdir", forbid)
    with pytest.raises(WeightsError, match="Permission denied"):
        load_weights(small_network(None), tmp_path)
    monkeypatch.setattr("multitl.files.hdf5_files.open_regular", forbid)
    with pytest.raises(WeightsError, match="Permission denied"):
        load_weights(small_network(None), tmp_path / "x.weights.h5")


def test_an_empty_folder_and_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="No files in"):
        load_weights(small_network(None), tmp_path)
    with pytest.raises(WeightsError, match="There is no weights file"):
        load_weights(small_network(None), tmp_path / "nothing.h5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "another kind"),
        (b"\x80\x04\x95c__builtin__\neval\n.", "another kind"),
        (b"PK\x03\x04 broken", "damaged"),
        (b"\x89HDF\r\n\x1a\n", "damaged"),
    ],
)
def test_other_files_are_refused_with_what_they_are(tmp_path, content, message):
    (tmp_path / "weights.h5").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_weights(small_network(None), tmp_path / "weights.h5")


def test_a_zip_that_is_no_keras_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(WeightsError, match=r"without model\.weights\.h5"):
        load_weights(small_network(None), tmp_path / "model.pth")


def test_an_hdf5_file_of_something_else(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["measurements"] = np.zeros(3)
    with pytest.raises(WeightsError, match="without the weights of a Keras model"):
        load_weights(small_network(None), tmp_path / "data.h5")


def test_a_decompression_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(10_000_000))
    with pytest.raises(WeightsError, match="decompression bomb"):
        load_weights(small_network(None), tmp_path / "bomb.keras")


def _stem(file: h5py.File) -> h5py.Group:
    return file["layers/sequential/layers/conv2d/vars"]


def _claim_a_petabyte(file: h5py.File) -> None:
    del _stem(file)["0"]
    _stem(file).create_dataset("0", shape=(2**20, 2**20, 2**8), dtype="f4", chunks=(64, 64, 1))


def _link_outside(file: h5py.File) -> None:
    del _stem(file)["0"]
    _stem(file)["0"] = h5py.ExternalLink("other.h5", "/x")


def _link_softly(file: h5py.File) -> None:
    del _stem(file)["0"]
    _stem(file)["0"] = h5py.SoftLink("/layers/conv2d/vars/0")


def _store_outside(file: h5py.File) -> None:
    del _stem(file)["0"]
    _stem(file).create_dataset("0", shape=(4, 4, 3, 4), dtype="f4", external=[("/etc/passwd", 0, 768)])


def _virtual(file: h5py.File) -> None:
    del _stem(file)["0"]
    layout = h5py.VirtualLayout((4, 4, 3, 4), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 4, 3, 4))
    _stem(file).create_virtual_dataset("0", layout)


def _text(file: h5py.File) -> None:
    del _stem(file)["0"]
    _stem(file)["0"] = np.array(["a", "b"], dtype="S1")


def _circle(file: h5py.File) -> None:
    file["layers/sequential/again"] = file["layers"]


def _not_finite(file: h5py.File) -> None:
    _stem(file)["0"][0, 0, 0, 0] = np.nan


def _missing_array(file: h5py.File) -> None:
    del _stem(file)["1"]


@pytest.mark.parametrize(
    "harm",
    [
        _claim_a_petabyte,
        _link_outside,
        _link_softly,
        _store_outside,
        _virtual,
        _text,
        _circle,
        _not_finite,
        _missing_array,
    ],
)
def test_hostile_and_defective_files_are_refused(tmp_path, harm):
    path = tmp_path / "x.weights.h5"
    filled().save_weights(path)
    with h5py.File(path, "r+") as file:
        harm(file)
    with pytest.raises(WeightsError):
        load_weights(small_network(None), path)


@pytest.mark.parametrize("file_name", ["full.h5", "new.weights.h5", "model.keras"])
def test_damage_anywhere_never_shows_a_foreign_error(tmp_path, file_name):
    path, chance = tmp_path / file_name, random.Random(0)
    SAVERS[file_name](filled(), path)
    whole, model = path.read_bytes(), small_network(None)
    for attempt in range(8):  # `python -m tests.fuzz hdf5` tries thousands
        damaged = bytearray(whole)
        if attempt % 2:
            damaged = damaged[: chance.randrange(len(whole))]
        for _ in range(8 if damaged else 0):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            load_weights(model, path)
        except WeightsError as error:
            assert str(path) in str(error)


def test_file_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
