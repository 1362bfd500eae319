"""`model.keras` of a folder that may be anyone's: a sound one gives what it gave, any other is refused, at no cost."""

from __future__ import annotations

import ast
import contextlib
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_descriptions import changed

from multitl.errors import WeightsError
from multitl.models.initialisers import bounded_weights, numpy_initialisers
from multitl.models.model_files import load_saved_model

layers = keras.layers
ROOT = Path(__file__).resolve().parents[2]
SIZE = 8
IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
Config = dict[str, Any]


def network(policy: str = "float32") -> keras.Model:
    """A classifier as multitl saves them: a nested backbone, operations, attention, dropout, penalties, constants."""
    keras.config.set_dtype_policy(policy)
    try:
        with numpy_initialisers(seed=1):
            inner = keras.Input((SIZE, SIZE, 3))
            x = layers.Conv2D(4, 3, strides=2, padding="same", activation="silu")(inner)
            x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
            x = keras.ops.clip(x * np.array([1.0, 2.0, 0.5, 3.0], "float32") + 0.5, -3, 6)[:, 1:]
            x = layers.Reshape((12, 4))(layers.SeparableConv2D(4, 1)(x))
            x = layers.Add()([layers.MultiHeadAttention(2, 3)(x, x), layers.EinsumDense("abc,c->abc", (None, 4))(x)])
            backbone = keras.Model(inner, keras.ops.mean(layers.GroupNormalization(2)(x), axis=1), name="backbone")
            pixels = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="pixels")
            scaled = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0], dtype="float32")(pixels)
            dense = layers.Dense(5, kernel_regularizer=keras.regularizers.L2(0.1))
            head = keras.Sequential([keras.Input((4,)), layers.Dropout(0.1, seed=3), dense])
            logits = head(backbone(scaled))
            return keras.Model(pixels, layers.Softmax(dtype="float32")(logits), name="classifier")
    finally:
        keras.config.set_dtype_policy("float32")


def answer(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(IMAGES))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "model.keras"
    network().save(path)
    return path


def layer_of(config: Config, kind: str) -> Config:
    """The first layer of a class, wherever it is."""
    waiting = [config]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if one.get("class_name") == kind and "inbound_nodes" in one:
                return one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    raise KeyError(kind)


@pytest.mark.every_backend
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_sound_file_gives_what_plain_keras_gives(tmp_path: Path, policy: str):
    model = network(policy)
    for weight in model.weights:
        if "kernel" in weight.path:
            weight.assign(np.random.default_rng(1).normal(0, 0.3, weight.shape).astype("float32"))
    model.save(tmp_path / "model.keras")
    loaded = load_saved_model(tmp_path / "model.keras")
    plain = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(answer(loaded), answer(plain))
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in plain.weights]
    assert np.ptp(answer(loaded), axis=0).max() > 0


def test_an_optimizer_in_the_file_is_left_there(tmp_path: Path):
    model = network()
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
    model.fit(IMAGES, np.arange(3, dtype="int32"), verbose=0)  # JAX has no int64, and says so since 0.12
    model.save(tmp_path / "model.keras")
    loaded = load_saved_model(tmp_path / "model.keras")
    assert not loaded.compiled
    np.testing.assert_allclose(answer(loaded), answer(model), atol=1e-6)


# What is refused


def units(config: Config) -> None:
    layer_of(config, "Conv2D")["config"]["filters"] = 2_000_000_000


def units_built_at_once(config: Config) -> None:
    layer = layer_of(config, "Conv2D")
    layer["config"]["filters"] = 2_000_000_000
    layer["build_config"] = {"input_shape": [None, SIZE, SIZE, 2_000_000_000]}


def units_drawn_otherwise(config: Config) -> None:
    units(config)
    initialiser = {"module": "keras.initializers", "class_name": "RandomNormal", "config": {}, "registered_name": None}
    layer_of(config, "Conv2D")["config"]["kernel_initializer"] = initialiser


def becomes(**values: Any) -> Callable[[Config], None]:
    """A Conv2D becomes something else of the same name."""

    def change(config: Config) -> None:
        layer = layer_of(config, "Conv2D")
        layer |= {"config": {"name": layer["config"]["name"]}, "registered_name": None} | values

    return change


def put(kind: str, key: str, value: Any) -> Callable[[Config], None]:
    return lambda config: layer_of(config, kind)["config"].update({key: value})


def constants_alone(config: Config) -> None:
    layer = layer_of(config, "Conv2D")
    layer |= {"module": "keras.src.ops.numpy", "class_name": "Zeros", "registered_name": "Zeros"}
    layer["config"] = {"name": layer["config"]["name"]}
    layer["inbound_nodes"] = [{"args": [[2_000_000_000]], "kwargs": {}}]


def array(dtype: Any) -> dict[str, Any]:
    return {"class_name": "__numpy__", "config": {"value": [1.0, 2.0, 3.0], "dtype": dtype}}


def function(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


REFUSED: list[tuple[Callable[[Config], object], str]] = [
    (units, "claims more weights"),
    (units_built_at_once, "claims more weights"),
    (units_drawn_otherwise, "claims more weights"),
    (constants_alone, "a call on no tensor"),
    (becomes(module="keras.layers", class_name="Lambda"), "the class 'Lambda'"),
    (becomes(module="keras.layers", class_name="TorchModuleWrapper"), "the class 'TorchModuleWrapper'"),
    (becomes(module="keras.layers", class_name="TFSMLayer", config={"filepath": "/tmp/x"}), "the class 'TFSMLayer'"),
    (becomes(module="keras.layers", class_name="JaxLayer"), "the class 'JaxLayer'"),
    (becomes(module="keras.layers", class_name="TextVectorization"), "the class 'TextVectorization'"),
    (becomes(module="keras.utils", class_name="get_file"), "the class 'get_file'"),
    (becomes(module="os", class_name="system"), "the class 'system'"),
    (becomes(module=["keras.layers"], class_name="Conv2D"), "the class 'Conv2D'"),
    (becomes(module="keras.layers", class_name=["Conv2D"]), "the class"),
    (becomes(module="keras.layers", class_name="Conv2D", registered_name="Mine>Magic"), "its author's own"),
    (becomes(class_name="__lambda__", config={"value": "x"}), "the class '__lambda__'"),
    (becomes(class_name="__typespec__", config=[], spec_name="x"), "the class '__typespec__'"),
    (put("Conv2D", "activation", function("os", "system")), "the function 'system'"),
    (put("Conv2D", "activation", function("builtins", "eval")), ""),
    (put("Conv2D", "activation", ["relu"]), ""),
    (put("Conv2D", "dtype", "S2000000000"), ""),
    (put("Normalization", "mean", array("S2000000000")), "an array of type"),
    (put("Normalization", "mean", array("O")), "an array of type"),
    (put("Normalization", "mean", array(["f4"])), "an array of type"),
    (put("Normalization", "mean", {"class_name": "__tensor__", "config": {}}), "an array without"),
    (lambda config: config.clear(), "no network"),
    (lambda config: config.update(class_name="Lambda"), "no network"),
    (lambda config: layer_of(config, "Conv2D").pop("module"), "the class 'Conv2D' of None"),
    (put("Conv2D", "name", "half of a character: \ud800"), ""),
    (put("Conv2D", "filters", 5), ""),
    (put("Conv2D", "kernel_size", [3, 3, 3]), ""),
    (put("Conv2D", "strides", 10**400), ""),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_a_description_that_keras_is_not_to_build_is_refused(sound: Path, tmp_path: Path, change, said: str):
    path = changed(sound, tmp_path / "model.keras", change)
    with pytest.raises(WeightsError, match=r"cannot be used|Cannot read") as caught:
        load_saved_model(path)
    assert said in caught.value.received
    assert len(caught.value.received) < 700 and caught.value.fix


@pytest.mark.parametrize(
    ("layer", "claim"),
    [
        (lambda: layers.UpSampling2D(2), {"size": [50_000, 50_000]}),
        (lambda: layers.ZeroPadding2D(1), {"padding": [[0, 50_000], [0, 50_000]]}),
        (lambda: layers.Resizing(8, 8), {"height": 50_000, "width": 50_000}),
    ],
)
def test_outputs_that_would_fill_the_memory_are_refused_though_they_need_no_weights(tmp_path: Path, layer, claim: dict):
    start = [keras.Input((SIZE, SIZE, 3)), layers.Conv2D(3, 3), layer()]
    keras.Sequential([*start, layers.GlobalAveragePooling2D()]).save(tmp_path / "sound.keras")
    assert load_saved_model(tmp_path / "sound.keras").output_shape == (None, 3)

    def change(config: Config) -> None:
        config["config"]["layers"][2]["config"].update(claim)

    with pytest.raises(WeightsError, match="would give"):
        load_saved_model(changed(tmp_path / "sound.keras", tmp_path / "model.keras", change))


def deep(config: Config) -> None:
    value: Any = 1
    for _ in range(500):
        value = [value]
    config["config"]["metadata"] = value


def test_what_is_nested_without_end_is_refused(sound: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="without end"):
        load_saved_model(changed(sound, tmp_path / "model.keras", deep))


def extra(name: str, content: bytes = b"x") -> Callable[[zipfile.ZipFile], None]:
    return lambda archive: archive.writestr(name, content)


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (extra("../evil.py"), "outside it"),
        (extra("/etc/evil"), "outside it"),
        (extra("assets/..\\..\\evil"), "outside it"),
        (extra("Config.json"), ""),
        (lambda archive: archive.writestr("a", bytes(2**20), zipfile.ZIP_BZIP2), "unusual way"),
        (lambda archive: archive.writestr("a", bytes(2**20), zipfile.ZIP_LZMA), "unusual way"),
    ],
)
def test_an_archive_of_other_things_is_refused_or_they_are_not_looked_at(sound: Path, tmp_path: Path, add, said: str):
    path = changed(sound, tmp_path / "model.keras", lambda config: None)
    with zipfile.ZipFile(path, "a") as archive:
        add(archive)
    with pytest.raises(WeightsError, match=said) if said else contextlib.nullcontext():
        load_saved_model(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.keras"]


def test_two_members_of_one_name_are_refused(sound: Path, tmp_path: Path):
    path = changed(sound, tmp_path / "model.keras", lambda config: None)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", "{}")
    with pytest.raises(WeightsError, match="two files of one name"):
        load_saved_model(path)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of everything in a description."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(one, (*path, key))


WRONG: list[Any] = [
    None, -1, 0, 1.5, True, "x", [], {}, [None], ["relu"], {"a": 1}, 10**10, 10**400, float("nan"),
    {"class_name": "Lambda", "config": {}}, {"class_name": ["x"], "config": {}}, array("S2000000000"),
]  # fmt: skip


@pytest.mark.parametrize("count", [15, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_changed_description_never_shows_a_foreign_error(sound: Path, tmp_path: Path, count: int):
    chance, path = random.Random(count), tmp_path / "model.keras"
    with zipfile.ZipFile(sound) as archive:
        known = list(places(json.loads(archive.read("config.json"))))
    for _ in range(count):
        *above, last = chance.choice(known)
        value = chance.choice(WRONG)
        changed(sound, path, lambda config: reduce(getitem, above, config).__setitem__(last, value))  # noqa: B023
        with contextlib.suppress(WeightsError):
            load_saved_model(path)


# Who loads models


def test_plain_keras_loads_no_file_but_what_this_process_wrote():
    """Everything else goes through `load_saved_model`."""
    found = set()
    for path in [*ROOT.glob("multitl/**/*.py"), *ROOT.glob("backends/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("load_model", "load_weights", "model_from_json"):
                found.add(path.name)
    assert found == {"model_files.py", "recording.py", "runtimes.py"}


def test_variables_beyond_the_bound_are_refused_and_the_bound_ends():
    with bounded_weights(12):
        layers.Dense(3).build((None, 3))
        with pytest.raises(ValueError, match="claims more weights"):
            layers.Dense(1, use_bias=False).build((None, 1))
    layers.Dense(3).build((None, 3))


@pytest.mark.every_backend
def test_a_network_of_16_bits_computes_in_float32_on_request(tmp_path: Path):
    images = keras.Input((8, 8, 3), dtype="uint8")
    nested = keras.Sequential([keras.layers.Conv2D(4, 3, dtype="mixed_bfloat16")], name="nested")
    x = keras.layers.GlobalAveragePooling2D(dtype="mixed_bfloat16")(nested(keras.layers.Rescaling(1 / 255)(images)))
    model = keras.Model(images, keras.layers.Dense(2, dtype="float32")(x))
    model.save(tmp_path / "model.keras")
    kept, plain = (load_saved_model(tmp_path / "model.keras", in_float32=asked) for asked in (False, True))
    assert kept.get_layer("nested").layers[0].compute_dtype == "bfloat16"
    assert plain.get_layer("nested").layers[0].compute_dtype == "float32"
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
