"""classify.py: put together from our own modules, and the same pixels as multitl's."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import multitl
from multitl.contracts import Decoding, Preprocess
from multitl.data.images import decode_pixels, read_file
from multitl.standalone import classify, runtimes
from multitl.standalone.programs import program, write_program
from multitl.system.budgets import Budget

RUNTIMES = [name for name in dir(runtimes) if name.startswith("open_")]
MODES = ("RGB", "RGBA", "LA", "L", "1", "P", "CMYK", "YCbCr")
PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 4), dtype=np.uint8)


def write_picture(folder: Path, mode: str) -> Path:
    """Rotated by its EXIF data where the format keeps any."""
    path, exif = folder / f"{mode}.{'jpg' if mode in ('CMYK', 'YCbCr') else 'png'}", Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(PIXELS)
    (image.quantize() if mode == "P" else image.convert(mode)).save(path, exif=exif)
    return path


def as_json(how: Preprocess) -> SimpleNamespace:
    """As the program reads it."""
    return SimpleNamespace(**json.loads(json.dumps(asdict(how) | {"takes": "pixels"})))


@pytest.mark.parametrize("mode", MODES)
def test_any_picture_of_8_bits_gives_the_same_pixels(mode: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path, mode)
    for resize, antialias in product(("crop", "squash", "cover", "fit"), (True, False)):
        how = Preprocess(24, 20, resize, 28, antialias=antialias, interpolation="bicubic", fill=(1, 2, 3))
        ours = decode_pixels(read_file(path), how, Budget(10**6))
        theirs = classify.fit_pixels(classify.read_rgb(str(path), as_json(how)), as_json(how))
        np.testing.assert_array_equal(theirs, ours)


def test_the_page_that_was_trained_on_is_read(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    how = as_json(Preprocess(8, 8, "squash", decoding=Decoding(page=3)))
    assert np.asarray(classify.read_rgb(str(tmp_path / "a.tif"), how))[0, 0, 0] == 30


def test_more_than_8_bits_are_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.arange(64, dtype="uint16").reshape(8, 8)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep.png: more than 8 bits"):
        classify.read_picture(str(tmp_path / "deep.png"), as_json(Preprocess(8, 8)))


@pytest.mark.parametrize("takes", ["pixels", "unit", "normalised"])
def test_images_are_as_the_artefact_takes_them(takes: str) -> None:
    from multitl.porting.exporting import as_taken

    how = Preprocess(8, 8, channel_order="bgr", scale=(0.1, 0.2, 0.3), offset=(1.0, 2.0, 3.0))
    pixels = PIXELS[None, :8, :8, :3]
    told = SimpleNamespace(**vars(as_json(how)) | {"takes": takes})
    np.testing.assert_array_equal(classify.as_taken(pixels, told), as_taken(pixels, takes, how))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_program_is_whole_and_knows_nothing_of_multitl(runtime: str) -> None:
    text = program(runtime)
    tree = ast.parse(text)
    imported = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
    assert not [line for line in imported if "multitl" in line]
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"classify", "read_rgb", "open_model", "fit_pixels", "resample"} <= defined
    assert "Preprocess" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_names_with_line_breaks_stay_one_line(tmp_path: Path) -> None:
    write_program(tmp_path, "open_keras", Preprocess(8, 8), "pixels", ["a\nb", "c", ""])
    assert (tmp_path / "labels.txt").read_text() == "a b\nc\n\n"


@pytest.mark.every_backend
def test_a_run_is_used_without_multitl(photo_folder: Path, tmp_path: Path) -> None:
    """Started as a user starts it, from another folder."""
    recipe = multitl.Recipe(image_size=32, weights="none", backbone="keras/MobileNet:alpha=0.25", unfreeze="none")
    run = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe).output
    images = [str(photo_folder / "red" / "00.png"), str(write_picture(tmp_path, "RGBA"))]
    wanted = [(row["path"], row["predicted"], row["confidence"]) for row in multitl.predict(run, images)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(images[1]).read_bytes()[:200])
    bad = [str(cut), str(tmp_path / "missing.png"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(run / "classify.py"), images[0], *bad, images[1]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert [line.partition(": ")[0] for line in done.stderr.splitlines() if ": " in line][-3:] == bad
    found = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(path, label) for path, label, _ in found] == [(path, label) for path, label, _ in wanted]
    assert [float(figure) for *_, figure in found] == pytest.approx([one for *_, one in wanted], abs=1e-4)
