"""SavedModels that are damaged, hostile or about other things than images: refused, and nothing of them was run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import saved_models  # noqa: E402
from multitl_tensorflow import flattening, graphdef  # noqa: E402
from multitl_tensorflow.saved_models import read_module  # noqa: E402
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # noqa: E402

from multitl.errors import MultitlError, TranslationError, WeightsError  # noqa: E402

IMAGES = tf.TensorSpec((None, 24, 24, 3), name="images")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    return saved_models.write_reusable(saved_models.Network(), tmp_path / "module")


def translate(folder: Path) -> Any:
    return graphdef.translate(graphdef.prepare(read_module(folder)))


def refused(kind: type[MultitlError], folder: Path, *said: str) -> MultitlError:
    """The error, complete, with some words in it."""
    with pytest.raises(kind) as caught:
        translate(folder)
    error = caught.value
    assert error.problem and error.expected and error.received and error.fix
    for words in said:
        assert words in str(error)
    return error


def edit(folder: Path, change: Callable[[Any], None]) -> Path:
    """Change a module's protocol buffer."""
    proto = SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    change(proto.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())
    return folder


# --- about other things ---


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (tf.TensorSpec((None,), tf.string, "sentences"), "a module for text;"),
        (tf.TensorSpec((None, 128), tf.int32, "input_word_ids"), "tokens of text"),
        (tf.TensorSpec((None,), tf.float32, "waveform"), "sound or vectors"),
        (tf.TensorSpec((None, 16, 64, 64, 3), tf.float32, "frames"), "video"),
        (tf.TensorSpec((1, None, None, 3), tf.uint8, "image"), "8-bit images"),
    ],
)
def test_modules_without_images_are_named(spec, kind: str, tmp_path: Path):
    weights = tf.Variable(tf.ones(3))
    folder = saved_models.write_function(lambda x: tf.fill([2], weights[0]), tmp_path / "m", spec, held=weights)
    refused(TranslationError, folder, kind, f"{spec.name} {spec.dtype.name}", "multitl takes modules for images")


def test_several_outputs_without_a_usual_name_are_refused(tmp_path: Path):
    def boxes_and_scores(x):
        return {"boxes": tf.reduce_mean(x, 1), "scores": tf.reduce_mean(x, [1, 2])}

    folder = saved_models.write_function(boxes_and_scores, tmp_path / "m", IMAGES)
    refused(TranslationError, folder, "several outputs", "boxes", "scores", "feature_vector")


def test_what_does_not_depend_on_the_image_is_refused(tmp_path: Path):
    folder = saved_models.write_function(lambda x: tf.ones([1, 5]), tmp_path / "m", IMAGES)
    refused(TranslationError, folder, "gives the same whatever the image")


# --- unknown operations ---


def test_every_unknown_operation_is_listed_with_its_node(tmp_path: Path):
    def odd(x):
        x = tf.nn.local_response_normalization(x, name="normalised")
        return tf.reduce_mean(tf.math.igamma(x, x, name="odd"), [1, 2])

    error = refused(TranslationError, saved_models.write_function(odd, tmp_path / "m", IMAGES), "normalised", "odd")
    assert error.missing == ("LRN", "Igamma")


def test_loops_and_choices_by_the_image_are_refused(tmp_path: Path):
    def loop(x):
        (x,) = tf.while_loop(lambda y: tf.reduce_sum(y) < 100, lambda y: (y * 2,), (x,))
        return tf.reduce_mean(x, [1, 2])

    def choice(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.reduce_mean(x, [1, 2]), lambda: tf.reduce_max(x, [1, 2]))

    refused(TranslationError, saved_models.write_function(loop, tmp_path / "loop", IMAGES), "While")
    refused(TranslationError, saved_models.write_function(choice, tmp_path / "if", IMAGES), "depends on the image")


# --- hostile ---


def test_code_and_files_are_refused_wherever_they_stand(tmp_path: Path):
    marker = tmp_path / "marker"

    def write(x):
        tf.io.write_file(str(marker), "executed")
        return tf.reduce_mean(x, [1, 2])

    def read(x):
        return tf.reduce_mean(x, [1, 2]) + tf.strings.to_number(tf.io.read_file("/etc/hostname"))

    def python(x):
        return tf.reduce_mean(x, [1, 2]) + tf.py_function(lambda: marker.write_text("executed") * 1.0, [], tf.float32)

    for name, function, op in (
        ("write", write, "WriteFile"),
        ("read", read, "ReadFile"),
        ("python", python, "EagerPyFunc"),
    ):
        folder = saved_models.write_function(function, tmp_path / name, IMAGES)
        refused(WeightsError, folder, op, "run code or touch files", "nothing of it was run")
    assert not marker.exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", "C:\\secret", "..\\..\\secret"])
def test_assets_outside_the_module_are_refused(path: str, module: Path):
    def add(meta) -> None:
        meta.asset_file_def.add(filename=path).tensor_info.name = "asset:0"

    refused(WeightsError, edit(module, add), "an asset outside the module", path)


def test_constants_that_claim_to_be_huge_are_refused(module: Path):
    def inflate(meta) -> None:
        nodes = [node for one in meta.graph_def.library.function for node in one.node_def if node.op == "Const"]
        for node in nodes:
            tensor = node.attr["value"].tensor
            tensor.tensor_shape.ClearField("dim")
            for size in (10**6, 10**6):
                tensor.tensor_shape.dim.add(size=size)

    refused(WeightsError, edit(module, inflate), "a constant of 1000000000000 numbers")


def test_many_constants_that_fill_the_memory_are_refused(module: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flattening, "MOST_BYTES", 1000)
    refused(WeightsError, module, "more than 1000 bytes")


@pytest.mark.parametrize("count", [2**15, 2**40])
def test_results_of_enormous_size_are_refused(count: int, tmp_path: Path):
    def fill(x):
        return tf.reduce_mean(x, [1, 2]) + tf.reduce_sum(tf.fill([count, count], tf.constant(2.0)))

    refused(TranslationError, saved_models.write_function(fill, tmp_path / "m", IMAGES), "enormous size", "Fill")


def test_functions_that_call_themselves_are_refused(module: Path):
    def circle(meta) -> None:
        for function in meta.graph_def.library.function:
            called = function.signature
            call = function.node_def.add(name="again", op="StatefulPartitionedCall")
            call.input.extend(argument.name for argument in called.input_arg)
            call.attr["f"].func.name = called.name
            for output in called.output_arg:
                function.ret[output.name] = "again:output:0"

    refused(WeightsError, edit(module, circle), "call each other more than")


def test_calls_that_double_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flattening, "MOST_NODES", 1000)

    def twice(function: Any) -> Any:
        return tf.function(lambda x: function(function(x)), input_signature=[tf.TensorSpec((None, 3))])

    doubled: Any = tf.function(lambda x: tf.identity(x), input_signature=[tf.TensorSpec((None, 3))])
    for _ in range(12):
        doubled = twice(doubled)
    folder = saved_models.write_function(lambda x: doubled(tf.reduce_mean(x, [1, 2])), tmp_path / "m", IMAGES)
    refused(WeightsError, folder, "more than 1000")


# --- damaged ---


def test_truncated_variables_are_refused(module: Path):
    (data,) = (module / "variables").glob("variables.data-*")
    data.write_bytes(data.read_bytes()[:-1000])
    refused(WeightsError, module, "cannot be read")


def test_variables_larger_than_their_files_are_refused_before_they_are_read(module: Path):
    (data,) = (module / "variables").glob("variables.data-*")
    data.write_bytes(data.read_bytes()[:500])
    refused(WeightsError, module, "variables of", "bytes in files of 500 bytes")


def test_a_damaged_index_is_refused(module: Path):
    index = module / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[: index.stat().st_size // 2])
    refused(WeightsError, module, "variables that cannot be read")


def test_changed_values_are_noticed(module: Path):
    """The checkpoint holds a checksum of every tensor."""
    (data,) = (module / "variables").glob("variables.data-*")
    content = bytearray(data.read_bytes())
    content[40] ^= 255
    data.write_bytes(content)
    refused(WeightsError, module, "cannot be read")


def test_absent_variables_are_named(module: Path):
    for file in (module / "variables").iterdir():
        file.unlink()
    refused(WeightsError, module, "variables without values", "kernel")


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"<html>not found</html>"])
def test_a_file_that_is_no_graph_is_refused(content: bytes, module: Path):
    (module / "saved_model.pb").write_bytes(content)
    refused(WeightsError, module, "saved_model.pb")


def test_a_truncated_graph_is_refused(module: Path):
    path = module / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-500])
    refused(WeightsError, module, "saved_model.pb")


def test_references_to_nowhere_are_refused(module: Path):
    def forget(meta) -> None:
        del meta.graph_def.library.function[:]

    def number(meta) -> None:
        for function in meta.object_graph_def.concrete_functions.values():
            for place in range(len(function.bound_inputs)):
                function.bound_inputs[place] = 10**6

    original = (module / "saved_model.pb").read_bytes()
    refused(WeightsError, edit(module, forget), "damaged or unsafe")
    (module / "saved_model.pb").write_bytes(original)
    refused(WeightsError, edit(module, number), "an object that is not there")


def test_children_that_are_not_there_are_refused(module: Path):
    def lose(meta) -> None:
        for node in meta.object_graph_def.nodes:
            for child in node.children:
                child.node_id = 10**6

    refused(MultitlError, edit(module, lose))


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_never_ends_in_anything_but_an_error_of_ours(seed: int, module: Path):
    """A few bytes of the graph changed: translated all the same, or refused."""
    random, path = np.random.default_rng(seed), module / "saved_model.pb"
    content = bytearray(path.read_bytes())
    for place in random.integers(0, len(content), 3):
        content[place] = random.integers(0, 256)
    path.write_bytes(content)
    try:
        translate(module)
    except MultitlError as error:
        assert error.problem and error.fix


# --- variables that only the restoring operations find ---


def swapped(name: str) -> str:
    """Keys that are the names of other variables of the same shape: names must not be trusted where graphs say more."""
    pair = {"stem/norm/gamma": "stem/norm/beta", "stem/norm/moving_mean": "stem/norm/moving_variance"}
    return (pair | {other: one for one, other in pair.items()}).get(name, name)


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize(
    "key", [lambda name: f"layer-{len(name)}/{name.replace('/', '.')}/.ATTRIBUTES/VARIABLE_VALUE", swapped]
)
def test_variables_are_found_as_the_graph_restores_them(key, use_resource: bool, tmp_path: Path):
    held = saved_models.write_restored(tmp_path / "model", key, use_resource)
    translation = translate(tmp_path / "model")
    images = np.random.default_rng(0).uniform(0, 1, (4, *IMAGES.shape[1:])).astype("float32")
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    wanted = serve(tf.constant(images))["scores"].numpy()
    found = keras.ops.convert_to_numpy(translation.model(images))
    assert np.abs(found - wanted).max() < 1e-6 * np.ptp(wanted)
    assert {weight.name for weight in translation.weights} == held.keys()


@pytest.mark.parametrize("change", ["circle", "nowhere", "nameless"])
def test_a_damaged_restoration_is_no_value(change: str, tmp_path: Path):
    saved_models.write_restored(tmp_path / "model", lambda name: f"key/{name}")

    def damage(meta) -> None:
        for node in meta.graph_def.node:
            if node.op == "Identity" and node.name.startswith("save/"):
                node.input[0] = {"circle": node.name, "nowhere": "no/such:node"}.get(change, node.input[0])
            if node.op == "RestoreV2" and change == "nameless":
                del node.input[1:]

    refused(TranslationError, edit(tmp_path / "model", damage), "a variable without a value (11)")
