"""A finished run judged and used from its files: figures, single images, and every way a run folder can be broken."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import multitl
from multitl.cli.main import main
from multitl.contracts import Preprocess
from multitl.data.geometry import fit_pixels
from multitl.data.images import open_rgb
from multitl.errors import DataError, MultitlError, RecipeError, RunError
from multitl.judging import evaluation
from multitl.judging.evaluation import evaluate_run, load_run, predict_images
from multitl.judging.opening import check_predict
from multitl.models.inference import BATCH

COLOURS = ("blue", "green", "red")
PREPROCESS = Preprocess(16, 16, shorter_side=16)


def _save_colour_model(path: Path, sharpness: float = 20.0) -> None:
    """A classifier that names the strongest channel: right on every image of `photo_folder`."""
    pixels = keras.Input((16, 16, 3), dtype="uint8")
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255, dtype="float32")(pixels))
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(pixels, dense(means))
    dense.set_weights([np.eye(3)[::-1] * sharpness, np.zeros(3)])  # blue, green, red <- channels 2, 1, 0
    model.save(path)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "colours"
    folder.mkdir()
    _save_colour_model(folder / "model.keras")
    card = {
        "status": "complete", "seed": 3, "data": {"class_names": COLOURS}, "recipe": {"max_unreadable": 0.05},
        "backbone": {"name": "keras/Colours", "preprocess": dataclasses.asdict(PREPROCESS)}, "backend": {"name": "jax"},
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    """One to damage."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.mark.every_backend
def test_evaluate_gives_all_figures(finished_run: Path, photo_folder: Path) -> None:
    figures = evaluate_run(finished_run, photo_folder)
    assert figures["count"] == 48
    assert figures["accuracy"] == 1.0
    assert figures["confusion_matrix"] == [[16, 0, 0], [0, 16, 0], [0, 0, 16]]
    assert [row["class"] for row in figures["per_class"]] == list(COLOURS)
    assert 0 < figures["log_loss"] < 0.1
    assert json.dumps(figures, allow_nan=False)


@pytest.mark.every_backend
def test_predict_gives_an_entry_an_image_in_order(finished_run: Path, photo_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    images = [photo_folder / "red/03.png", broken, photo_folder / "blue/07.png"]
    red, unreadable, blue = predict_images(finished_run, images)
    assert (red["predicted"], blue["predicted"]) == ("red", "blue")
    assert red["path"] == str(images[0])
    assert list(red["probabilities"]) == list(COLOURS)
    assert sum(red["probabilities"].values()) == pytest.approx(1)
    assert red["confidence"] == max(red["probabilities"].values())
    assert unreadable.keys() == {"path", "error"}
    assert unreadable["path"] == str(broken)
    assert json.dumps([red, unreadable, blue])


@pytest.mark.every_backend
def test_the_number_of_images_does_not_change_an_answer(finished_run: Path, photo_folder: Path) -> None:
    together = predict_images(finished_run, [photo_folder])
    assert len(together) == 48  # a batch and a half
    for path in (photo_folder / "green/00.png", photo_folder / "red/15.png"):
        alone = predict_images(finished_run, [path])
        assert alone == [entry for entry in together if entry["path"] == str(path)]


@pytest.mark.every_backend
def test_predictions_are_those_of_the_model_itself(finished_run: Path, photo_folder: Path) -> None:
    path = photo_folder / "green/05.png"
    model = keras.models.load_model(finished_run / "model.keras", compile=False)
    wanted = keras.ops.convert_to_numpy(model(fit_pixels(open_rgb(path), PREPROCESS)[None]))[0]
    entry = predict_images(finished_run, [path])[0]
    assert list(entry["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=1e-6)


def test_evaluate_takes_the_asked_for_split(finished_run: Path, photo_folder: Path, tmp_path: Path) -> None:
    for split, colours in (("test", COLOURS), ("validation", COLOURS[:2])):
        for colour in colours:
            shutil.copytree(photo_folder / colour, tmp_path / split / colour)
    assert evaluate_run(finished_run, tmp_path)["count"] == 48
    figures = evaluate_run(finished_run, tmp_path, "validation")
    assert figures["count"] == 32
    assert figures["per_class"][2]["support"] == 0
    assert figures["f1_macro"] == 1.0


def test_evaluate_names_files_it_leaves_out(finished_run: Path, photo_folder: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(photo_folder, tmp_path / "data")
    (tmp_path / "data/red/00.png").write_bytes(b"")
    assert evaluate_run(finished_run, tmp_path / "data")["count"] == 47
    assert "00.png" in capsys.readouterr().err.replace("\n", "")
    for i in range(1, 6):
        (tmp_path / f"data/red/0{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"--max-unreadable 0\.1"):
        evaluate_run(finished_run, tmp_path / "data")
    assert evaluate_run(finished_run, tmp_path / "data", max_unreadable=0.13)["count"] == 42
    with pytest.raises(RecipeError, match="max_unreadable"):
        evaluate_run(finished_run, tmp_path / "data", max_unreadable=1.3)


def test_a_class_that_the_run_does_not_know_is_named(finished_run: Path, photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "data")
    (tmp_path / "data/red").rename(tmp_path / "data/violet")
    with pytest.raises(DataError, match="violet"):
        evaluate_run(finished_run, tmp_path / "data")


def test_no_readable_image_is_a_data_error(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png: empty"):
        predict_images(finished_run, [tmp_path / "a.png"])
    with pytest.raises(DataError, match=r"Cannot find .*missing\.png") as caught:
        predict_images(finished_run, tmp_path / "missing.png")
    assert caught.value.expected == "an image file, or a folder of images"
    with pytest.raises(DataError, match="There is no image to look at") as caught:
        predict_images(finished_run, [])
    assert (caught.value.received, caught.value.fix) == ("no path", "name an image file or a folder")


@pytest.mark.parametrize("form", [str, Path])
def test_paths_are_text_or_paths_and_one_image_needs_no_list(finished_run: Path, photo_folder: Path, form: type):
    run, image = form(finished_run), photo_folder / "red/03.png"
    (alone,) = multitl.predict(run, form(image))
    assert (alone["path"], alone["predicted"]) == (str(image), "red")
    for several in ([form(image)], (form(image),), (path for path in [image])):
        assert multitl.predict(run, several) == [alone]
    assert len(multitl.predict(run, form(image.parent))) == 16
    assert multitl.evaluate(run, form(photo_folder))["count"] == 48


def test_any_pixel_format_is_classified(finished_run: Path, tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "CMYK"):
        Image.new("RGB", (30, 20), (200, 10, 10)).convert(mode).save(tmp_path / f"{mode}.tiff")
    entries = {Path(entry["path"]).stem: entry["predicted"] for entry in predict_images(finished_run, [tmp_path])}
    assert {entries[mode] for mode in ("P", "RGBA", "CMYK")} == {"red"}


def test_rows_come_while_later_files_are_still_to_be_read(
    finished_run: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def reading(paths, preprocess, looks):
        for path in paths:
            read.append(path)
            yield np.asarray(Image.open(path).convert("RGB").resize((16, 16)))

    monkeypatch.setattr(evaluation, "read_files", reading)
    run, paths = check_predict(finished_run, photo_folder)
    rows = evaluation.classify(run, paths)
    assert next(rows)["path"] == paths[0] and len(read) == BATCH < len(paths)
    assert [row["path"] for row in rows] == paths[1:]


def test_a_table_of_predictions_is_what_predict_gives(finished_run: Path, photo_folder: Path, tmp_path: Path, capsys):
    (tmp_path / "=bad.png").write_bytes(b"no image")
    arguments = ["predict", str(finished_run), str(photo_folder / "red"), str(tmp_path / "=bad.png"), "--csv",
                 str(tmp_path / "out.csv")]  # fmt: skip
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"17 images, 1 of them unreadable: {tmp_path / 'out.csv'}\n"
    with (tmp_path / "out.csv").open() as file:
        *rows, bad = csv.DictReader(file)
    known = multitl.predict(finished_run, photo_folder / "red")
    assert [row["path"] for row in rows] == [one["path"] for one in known]
    assert {row["predicted"] for row in rows} == {"red"}
    assert [float(row["p:green"]) for row in rows] == pytest.approx([one["probabilities"]["green"] for one in known])
    assert bad["error"] and not bad["predicted"] and not bad["p:red"]
    assert main(arguments) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--top", "1"]) == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[1].endswith(f",,,{rows[0]['confidence']}")


def test_json_lines(finished_run: Path, photo_folder: Path, capsys) -> None:
    assert main(["predict", str(finished_run), str(photo_folder), "--jsonl", "--top", "1"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 48
    assert rows[0]["predicted"] == "blue" and list(rows[0]["probabilities"]) == ["blue"]


@pytest.mark.parametrize("form", ["--csv", "--jsonl"])
def test_who_interrupts_keeps_whole_lines(
    finished_run: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, form: str
) -> None:
    def reading(paths, preprocess, looks):
        for path in paths[:40]:
            yield np.asarray(Image.open(path).convert("RGB").resize((16, 16)))
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "read_files", reading)
    more = [form, *([str(tmp_path / "out.csv")] if form == "--csv" else [])]
    assert main(["predict", str(finished_run), str(photo_folder), *more]) == 130
    text = (tmp_path / "out.csv").read_text() if form == "--csv" else capsys.readouterr().out
    assert text.endswith("\n") and len(text.splitlines()) == BATCH + (form == "--csv")


def test_a_missing_run_names_its_neighbours(finished_run: Path) -> None:
    with pytest.raises(RunError, match="There is no run folder") as caught:
        load_run(finished_run.with_name("colour"))
    assert caught.value.nearest == (str(finished_run),)


def test_an_unfinished_run_is_refused(copied_run: Path) -> None:
    (copied_run / "card.json").unlink()
    with pytest.raises(RunError, match="--resume"):
        load_run(copied_run)


@pytest.mark.parametrize("card", ["", "{", "[]", "null", "{}", '{"status": "running"}', '{"status": "complete"}'])
def test_a_damaged_card_is_a_run_error(copied_run: Path, card: str) -> None:
    (copied_run / "card.json").write_text(card)
    with pytest.raises(RunError):
        load_run(copied_run)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def _rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Change the files in an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


def _replace_weights(path: Path) -> None:
    _rewrite(path, lambda name, content: b"not an HDF5 file" if name.endswith(".h5") else content)


def _claim_gigabytes(path: Path) -> None:
    """A dense layer of 24 GB, though the file has 12 numbers."""
    _rewrite(path, lambda _, content: content.replace(b'"units": 3', b'"units": 2000000000'))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _insert_code(path: Path) -> None:
    """A Lambda layer with pickled bytecode: what safe mode is there to refuse."""
    pixels = keras.Input((16, 16, 3), dtype="uint8")
    outputs = keras.layers.Lambda(lambda x: keras.ops.softmax(keras.ops.mean(x, axis=(1, 2))), output_shape=(3,))(
        pixels
    )
    keras.Model(pixels, outputs).save(path)


def _shrink(path: Path) -> None:
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    keras.Model(pixels, keras.layers.Flatten()(pixels)).save(path)


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink, _cut, lambda path: path.write_bytes(b""), _replace_weights, _insert_code, _shrink,
        _claim_gigabytes, _pipe,
    ],
)  # fmt: skip
def test_a_damaged_or_unsafe_model_is_a_run_error(copied_run: Path, photo_folder: Path, damage) -> None:
    damage(copied_run / "model.keras")
    with pytest.raises(RunError, match="cannot be used") as caught:
        predict_images(copied_run, [photo_folder / "red/00.png"])
    assert isinstance(caught.value, MultitlError)
    assert len(caught.value.received) < 500
