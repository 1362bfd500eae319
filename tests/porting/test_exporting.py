"""Models leave for every ecosystem and answer there as they did here.

In CI each backend's process writes, and opens, the formats that are written under it; one port a backend goes through
the command line with its processes. `-m slow`: every format from every backend, and the round trips.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from conftest import elsewhere_slow
from sklearn.metrics import f1_score

import multitl
from multitl.adapters import load_function
from multitl.cli import main as cli
from multitl.errors import BackendError, MultitlError, PortError
from multitl.files.state_dict_files import read_state_dict
from multitl.judging.evaluation import load_run
from multitl.models.heads import backbone_of
from multitl.porting import asked, divergence, export_worker, exporting, proofs
from multitl.porting.formats import FORMATS
from multitl.porting.proof_worker import opened_by
from multitl.porting.references import Reference, make_reference
from multitl.standalone.programs import write_program
from multitl.system.writing import write_json
from multitl.translation import parity

BACKEND = keras.config.backend()
NETWORK = "torchvision/resnet18"
RECIPE = multitl.Recipe(image_size=32, head_epochs=3, weights="none", backbone=NETWORK, unfreeze="none", head="linear")
WRITTEN_HERE = [name for name, one in FORMATS.items() if one.backend in ("", BACKEND)]
ELSEWHERE = {"jax": "torch", "tensorflow": "stablehlo", "torch": "savedmodel"}[BACKEND]


@pytest.fixture(scope="module")
def run(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three colours."""
    return multitl.finetune(photo_folder, output=tmp_path_factory.mktemp("runs") / "run", recipe=RECIPE).output


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as it comes, with its own 1000 classes."""
    made = multitl.translate(NETWORK, tmp_path_factory.mktemp("networks") / "whole", weights="none", image_size=32)
    return made.output


@pytest.fixture(scope="module")
def reference(run: Path) -> Reference:
    """What it answers."""
    return make_reference(load_run(run), None, None)


def opened(folder: Path, name: str, run: Path, takes: str) -> Callable[[np.ndarray], np.ndarray]:
    """The artefact, written and opened in this process, which runs the backend that it is written under."""
    pytest.importorskip(FORMATS[name].packages[-1] if FORMATS[name].packages else "keras")
    folder.mkdir()
    calibration = ""
    if FORMATS[name].bits < 32:
        calibration = str(folder / "calibration.npy")
        pixels = make_reference(load_run(run), None, None).calibration
        np.save(calibration, exporting.as_taken(pixels, takes, load_run(run).card.preprocess))
    export_worker.export(export_worker.ExportJob(name, str(run), takes, calibration), folder)
    return load_function(FORMATS[name].runtime)(folder)


# LiteRT's own delegate cannot prepare an int8 ResNet-18 of 32 px, and fails as a user's program would
@pytest.mark.every_backend
@pytest.mark.parametrize("name", [name for name in WRITTEN_HERE if name != "litert-int8"])
def test_an_artefact_gives_the_models_answers(
    name: str, run: Path, reference: Reference, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In its runtime, and by the program that goes with it."""
    takes = FORMATS[name].takes
    answer = opened(tmp_path / name, name, run, takes)
    inputs = exporting.as_taken(reference.pixels, takes, load_run(run).card.preprocess)
    found = parity.compare(
        reference.outputs, np.concatenate([answer(inputs[:3]), answer(inputs[3:4]), answer(inputs[4:])])
    )
    if FORMATS[name].bits < 32:
        assert 0 < found.max_abs < 0.2  # it was rounded
    else:
        assert found.max_rel < 1e-5
    assert all(any((tmp_path / name).glob(file)) for file in FORMATS[name].files if not file.endswith(".data"))
    card = load_run(run).card
    write_program(tmp_path / name, FORMATS[name].runtime.partition(":")[2], card.preprocess, takes, card.class_names)
    monkeypatch.syspath_prepend(tmp_path / name)
    program = runpy.run_path(str(tmp_path / name / "classify.py"))
    images = [str(photo_folder / colour / "03.png") for colour in ("red", "green", "blue")]
    wanted = [(row["predicted"], row["confidence"]) for row in multitl.predict(run, images)]
    found_by_program = program["classify"](images, tmp_path / name)
    for ((label, confidence),), (expected, sure) in zip(found_by_program, wanted, strict=True):
        assert label == expected and confidence == pytest.approx(sure, abs=0.2 if FORMATS[name].bits < 32 else 1e-4)
    sys.modules.pop("load", None)


@pytest.mark.every_backend
def test_onnx_says_what_it_takes_and_gives(run: Path, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    opened(tmp_path / "onnx", "onnx", run, "pixels")
    written = onnx.load(tmp_path / "onnx" / "model.onnx")
    (taken,), (given,) = written.graph.input, written.graph.output
    sizes = [size.dim_param or size.dim_value for size in taken.type.tensor_type.shape.dim]
    assert sizes == ["batch", 32, 32, 3] and taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert given.name == "probabilities"
    assert {one.key: one.value for one in written.metadata_props} == {"class_names": '["blue", "green", "red"]'}


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # OpenVINO forks when it is imported, and JAX says so
@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.packages])
def test_what_opens_an_artefact_is_named_with_its_version(name: str):
    """Whatever the distribution is called that a package came with: tensorflow-cpu is tensorflow."""
    package = FORMATS[name].packages[-1]
    pytest.importorskip(package)
    assert re.fullmatch(rf"{package} \d+\.\S+", opened_by(FORMATS[name]))


@pytest.mark.slow
@pytest.mark.every_backend
def test_an_artefact_takes_what_the_backbone_takes(run: Path, reference: Reference, tmp_path: Path):
    name = {"jax": "stablehlo", "tensorflow": "savedmodel", "torch": "torch-export"}[BACKEND]
    answer = opened(tmp_path / name, name, run, "normalised")
    inputs = exporting.as_taken(reference.pixels, "normalised", load_run(run).card.preprocess)
    assert inputs.dtype == np.float32
    assert parity.compare(reference.outputs, answer(inputs)).max_rel < 1e-5


@elsewhere_slow
def test_a_port_from_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Written under another backend, opened by its own runtime, in processes of their own."""
    out = tmp_path / "port"
    assert cli.main(["port", str(run), "--to", ELSEWHERE, "--out", str(out), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    card = json.loads((out / "card.json").read_text())
    assert said == card | {"output": str(out)}
    assert card["port"]["format"] == ELSEWHERE
    assert card["written_by"]["backend"] == FORMATS[ELSEWHERE].backend != BACKEND
    assert "Keras" not in card["opened_by"]
    proof = card["proof"]
    assert proof["on"] == "the run's test images"
    assert proof["max_rel"] < 1e-5 and proof["top1"] == 1
    assert (
        proof["accuracy_after"]
        == proof["accuracy_before"]
        == pytest.approx(json.loads((run / "metrics.json").read_text())["test"]["accuracy"])
    )
    assert card["bytes"] > 10**5 and card["latency"]["milliseconds"] > 0
    assert card["class_names"] == ["blue", "green", "red"]
    assert {path.name for path in out.parent.iterdir()} == {"port"}  # nothing of the making is left
    assert f"gives the probabilities of {len(card['class_names'])} classes" in (out / "README.md").read_text()
    leftovers = {"written.json", "proof.npz", "error.json"}
    assert not leftovers & {path.name for path in out.iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch writes state_dicts")
@pytest.mark.every_backend
def test_a_whole_network_goes_back_into_its_class(network: Path, tmp_path: Path):
    opened(tmp_path / "torch", "torch", network, "pixels")
    state = read_state_dict(tmp_path / "torch" / "model.pth").tensors
    same = safetensors.numpy.load_file(tmp_path / "torch" / "model.safetensors")
    assert state.keys() == same.keys()
    assert all(np.array_equal(state[name], same[name]) for name in state)
    assert state["fc.weight"].shape == (1000, 512)
    assert "NETWORK, OPTIONS = 'resnet18', {'num_classes': 1000}" in (tmp_path / "torch" / "load.py").read_text()


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch writes state_dicts")
@pytest.mark.every_backend
def test_frozen_tensors_come_back_bit_by_bit(photo_folder: Path, tmp_path: Path):
    """From a file through training to a file."""
    import torch
    from multitl_torch.torchvision import import_torchvision

    torch.manual_seed(1)
    original = import_torchvision().models.get_model("resnet18", weights=None)
    torch.save(original.state_dict(), tmp_path / "original.pth")
    recipe = dataclasses.replace(
        RECIPE, weights=str(tmp_path / "original.pth"), unfreeze="last", learning_rate=5e-4, steps=2
    )
    run = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe).output
    opened(tmp_path / "torch", "torch", run, "pixels")
    state = read_state_dict(tmp_path / "torch" / "model.pth").tensors
    stages = json.loads((run / "card.json").read_text())["backbone"]["stages"]
    tensors = json.loads((run / "card.json").read_text())["backbone"]["tensors"]
    trained = {one["name"] for one in tensors if one["layer"] in stages[-1]["layers"]}
    moved = {name for name, tensor in original.state_dict().items() if not np.array_equal(state[name], tensor.numpy())}
    assert moved - {"fc.weight", "fc.bias"} <= trained
    assert moved & trained


def run_here(module: str, arguments: list[str], *_: object, **__: object) -> None:
    """What a worker does, in this process: where the test is of what comes after it."""
    assert importlib.import_module(module).main(arguments) == 0


def test_failure_leaves_nothing_and_takes_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "run_worker", run_here)
    monkeypatch.setattr(divergence, "run_worker", run_here)
    out = tmp_path / "port"
    write_json(out / "card.json", {"port": {}})
    (out / "model.keras").write_bytes(b"of an older port")
    before = {path: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(parity, "MAX_REL", -1)
    with pytest.raises(PortError, match="does not give the answers"):
        multitl.port(run, "keras", out, overwrite=True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_older_port_comes_back_if_its_replacement_was_killed(run: Path, tmp_path: Path):
    """Between its leaving the place and the new one's taking it."""
    write_json(tmp_path / ".port.older" / "card.json", {"port": {}})
    with pytest.raises(PortError, match="exists already"):
        multitl.port(run, "keras", tmp_path / "port")
    assert [path.name for path in tmp_path.rglob("*")] == ["port", "card.json"]


def test_the_first_operation_that_differs_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, images = run / "model.keras", parity.probe_images((32, 32, 3), count=2)
    backbone = backbone_of(keras.models.load_model(model, compile=False))
    other, wrong = "torch" if BACKEND != "torch" else "jax", backbone.operations[12].name
    (tmp_path / "same").mkdir()
    said = divergence.first_divergence(run, images, other, tmp_path / "same")
    assert said == f"under {other} the Keras model itself is the same, so the conversion or the runtime changed it"

    found = divergence.values(backbone, images)
    monkeypatch.setattr(divergence, "values", lambda *_: found | {wrong: found[wrong] * 1.01})
    (tmp_path / "wrong").mkdir()
    said = divergence.first_divergence(run, images, other, tmp_path / "wrong")
    assert said == f"the first operation that differs under {other} is {wrong}"


def test_a_port_is_replaced_on_request_and_nothing_else_is(run: Path, tmp_path: Path):
    other = tmp_path / "holiday"
    other.mkdir()
    (other / "photo.jpg").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(PortError, match="exists already"):
            multitl.port(run, "keras", other, overwrite=overwrite)
    with pytest.raises(PortError, match="exists already"):
        multitl.port(run, "keras", run, overwrite=True)
    assert (other / "photo.jpg").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("model", "to", "error", "text"),
    [
        ("runs/nothing", "onnx", PortError, "There is no model"),
        ("torchvision/resnet5000", "keras", MultitlError, "resnet50"),
        ("RUN", "onxn", PortError, "nearest: onnx"),
        ("RUN", "coreml", PortError, "multitl ports"),
        ("PHOTOS", "onnx", MultitlError, "card.json"),
    ],
)
def test_bad_models_and_formats(model: str, to: str, error: type, text: str, run: Path, photo_folder: Path, tmp_path):
    path = {"RUN": run, "PHOTOS": photo_folder}.get(model, model)
    with pytest.raises(error, match=text):
        multitl.port(path, to, tmp_path / "port")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"weights": "w.pth"}, "--weights"),
        ({"image_size": 64}, "--image-size"),
        ({"calibration": "."}, "--calibration"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict, told: str, run: Path, tmp_path: Path):
    with pytest.raises(PortError, match=f"{told} would do nothing"):
        multitl.port(run, "keras", tmp_path / "port", **options)


def test_a_missing_package_is_said_with_its_pip_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hidden = lambda package: package != "onnxruntime"  # noqa: E731
    monkeypatch.setattr("multitl.porting.formats.is_present", hidden)
    with pytest.raises(BackendError, match=r"(?s)no onnxruntime.*pip install 'multitl\[onnx\]'"):
        multitl.port(run, "onnx", tmp_path / "port")


def test_a_folder_that_cannot_be_written(run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MultitlError, match="Cannot write"):
        multitl.port(run, "keras", tmp_path / "file" / "port")


@pytest.mark.parametrize(
    ("top1", "before", "after", "kept"),
    [(0.95, None, None, True), (0.89, None, None, False), (0.89, 0.85, 0.83, True), (0.89, 0.85, 0.80, False)],
)
def test_eight_bits_may_change_a_few_answers(top1: float, before: float | None, after: float | None, kept: bool):
    found = parity.Parity(max_abs=0.5, max_rel=0.5, max_spread=0.5, top1=top1, inputs=400)
    assert proofs._is_same(found, FORMATS["litert-int8"], before, after) == kept
    assert not proofs._is_same(found, FORMATS["litert"], before, after)


def test_labels_that_are_never_given_are_not_the_same():
    """Though nearly all answers, a yes or a no each, are."""
    random = np.random.default_rng(0)
    truth = random.random((200, 20)) < 0.05
    given = truth ^ (random.random(truth.shape) < 0.01)
    assert proofs.overlap(truth, given) == pytest.approx(f1_score(truth, given, average="micro"))
    assert proofs.overlap(given, np.zeros_like(given)) == 0.0
    assert proofs.overlap(np.zeros_like(given), np.zeros_like(given)) == 1.0


@pytest.mark.parametrize(
    ("model", "folder"),
    [("torchvision/resnet18", "runs/torchvision-resnet18-onnx"), ("file:a/b/flowers.h5", "runs/file-flowers-onnx")],
)
def test_where_a_port_goes_if_nobody_says(model: str, folder: str):
    assert asked.default_output(model, "onnx") == folder


def test_eight_bits_want_photos(network: Path, tmp_path: Path):
    with pytest.raises(PortError, match="--images"):
        multitl.port(network, "litert-int8", tmp_path / "port")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"hidden": 8}, "hidden layer"),
        pytest.param({"head": "mean"}, "length 1", marks=pytest.mark.slow),
        pytest.param({"head": "kernel"}, "length 1", marks=pytest.mark.slow),
        ({"backbone": "keras/MobileNet:alpha=0.25"}, "class of PyTorch"),
        pytest.param({"pooling": "max", "image_size": 64}, "pools by max", marks=pytest.mark.slow),
    ],
)
def test_what_has_no_place_in_the_original_class(changes: dict, text: str, photo_folder: Path, tmp_path: Path):
    recipe = dataclasses.replace(RECIPE, head_epochs=1, **changes)
    run = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe).output
    with pytest.raises(PortError, match=f"(?s){text}.*--to torch-export"):
        export_worker.export(export_worker.ExportJob("torch", str(run), "pixels"), tmp_path)


@pytest.mark.every_backend
@pytest.mark.slow
def test_one_of_several_heads_goes_back_too(photo_folder: Path, tmp_path: Path):
    rows = [(path, path.parent.name, number % 2) for number, path in enumerate(sorted(photo_folder.glob("*/*.png")))]
    lines = ["path,colour,odd", *(f"{path},{colour},{'odd' if odd else 'even'}" for path, colour, odd in rows)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    made = multitl.finetune_heads(
        tmp_path / "table.csv", "colour=class, odd=class", output=tmp_path / "run", recipe=RECIPE
    )
    multitl.port(made.output / "heads" / "odd", "torch", output=tmp_path / "ported")
    assert list((tmp_path / "ported").rglob("model.safetensors"))


def test_ports_lists_formats(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("multitl.porting.formats.is_present", lambda package: package != "openvino")
    assert cli.main(["ports"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in FORMATS)
    assert "pip install 'multitl[openvino]'" in said and "multitl[onnx]" not in said
    assert cli.main(["ports", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["openvino"]["missing"] == ["openvino"]


def test_photos_of_other_classes_are_compared_without_accuracy(network: Path, photo_folder: Path):
    reference = make_reference(load_run(network), photo_folder, None)
    assert reference.labels is None and reference.are_photos
    assert len(reference.pixels) == 48


def test_made_up_images_stand_in_where_there_are_none(network: Path):
    reference = make_reference(load_run(network), None, None)
    assert not reference.are_photos and reference.labels is None
    assert reference.pixels.dtype == np.uint8 and np.ptp(reference.pixels) > 100


@pytest.mark.slow
@pytest.mark.every_backend
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "litert-int8"])
def test_every_format_from_every_backend(name: str, run: Path, tmp_path: Path):
    card = multitl.port(run, name, tmp_path / "port").card
    assert FORMATS[name].bits < 32 or card["proof"]["max_rel"] < 1e-5
