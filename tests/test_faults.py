"""Bad input and faults, through the command line with everything real below it.

Every refusal is exit code 2 and a message that says what is wrong and how to mend it, without a traceback, and leaves
the disk as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import elsewhere_slow
from PIL import Image
from quick_runs import MOBILENET, QUICK, make_photos, message_of

import multitl
from multitl.cli.main import main
from multitl.judging.predictions import read_predictions

ODD_NAMES = (
    "-rf", "a b", 'quo"te', "apo'strophe", "猫", "<img src=x onerror=alert(1)>", "[red]", "[-red", "line\nbreak",
    "carriage\rreturn", "$HOME", "{{7*7}}", "comma,semicolon;", "%s%d",
)  # fmt: skip

Refuse = Callable[..., str]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder with its content; None for a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def run_python(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, under this process's backend; an empty variable is taken out of the environment."""
    environment = os.environ | {"KERAS_BACKEND": keras.config.backend()} | variables
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env={name: value for name, value in environment.items() if value},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def refused_elsewhere(*arguments: str | Path, **variables: str) -> str:
    """As `refuse`, in a process of its own."""
    done = run_python("-m", "multitl", *arguments, **variables)
    return message_of(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a command that must be refused and leave no trace; gives its message."""

    def run_command(*arguments: str | Path) -> str:
        before = tree(tmp_path)
        code = main([str(argument) for argument in arguments])
        message = message_of(code, *capsys.readouterr())
        assert tree(tmp_path) == before
        return message

    return run_command


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# Data


def folders(*names: str, count: int = 3) -> Callable[[Path], object]:
    return lambda root: make_photos(root, names, count)


def text_files(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "1.jpg").write_text("no picture")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda root: None, "Cannot find .*No such file", id="missing"),
        pytest.param(Path.mkdir, "is empty", id="empty"),
        pytest.param(folders("."), "has no class folders", id="no-classes"),
        pytest.param(folders("cat"), "one class only: cat", id="one-class"),
        pytest.param(folders("train/cat", "train/dog", "val/dgo"), r"not know: dgo\.(.|\n)*nearest: dog", id="unknown"),
        pytest.param(folders("test/cat", "test/dog"), "nothing to train on", id="no-training-part"),
        pytest.param(folders("cat", "dog", "cow/..", count=2), "without a training image.*: cow", id="empty-class"),
        pytest.param(folders("cat", "dog", count=1), "too few images", id="two-images"),
        pytest.param(text_files, r"None of the 2 image files(.|\n)*not an image", id="nothing-readable"),
        pytest.param(Path.touch, "neither a folder nor a table", id="a-file"),
        pytest.param(lambda root: os.mkfifo(root), "neither a folder nor a table", id="a-pipe"),
    ],
)
def test_data_that_cannot_be_trained_on(refuse: Refuse, tmp_path: Path, make: Callable, problem: str) -> None:
    make(tmp_path / "data")
    if "cow" in problem:
        (tmp_path / "data" / "cow").mkdir(exist_ok=True)
    assert re.search(problem, refuse("finetune", tmp_path / "data", "--out", tmp_path / "run", *QUICK))


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "no column of the paths"),
        ("path,label\n", "no rows"),
        ("path,label\n{0}/cat/00.png,cat\nnowhere.png,dog\n", "1 files that do not exist"),
        ("path,label\n{0}/cat/00.png,\n", "1 empty labels"),
        ("path,label,split\n{0}/cat/00.png,cat,weekday\n", "splits that are not known"),
        ("path,label\n{0}/cat/00.png,cat\n{0}/dog/00.png,cat\n", "one class only"),
        ("path,label\n{0}/cat,cat\n{0}/dog,dog\n", "2 files that do not exist"),
    ],
)
def test_table_that_cannot_be_trained_on(refuse: Refuse, photos: Path, tmp_path: Path, table: str, problem: str):
    path = tmp_path / "table.csv"
    path.write_text(table.format(photos))
    assert problem in refuse("finetune", path, "--out", tmp_path / "run", *QUICK)


def test_unreadable_files_are_refused_then_allowed_and_listed(refuse: Refuse, photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    Image.effect_noise((64, 64), 50).save(data / "cat" / "whole.jpg")
    whole = (data / "cat" / "whole.jpg").read_bytes()
    (data / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "cat" / "nothing.png").write_bytes(b"")
    (data / "dog" / "note.jpeg").write_text("<b>bring milk</b>")
    (data / "dog" / "bomb.png").write_bytes(png_header(60_000, 60_000))
    message = refuse("finetune", data, "--out", tmp_path / "run", *QUICK)
    assert "4 of 29 image files" in message and "--max-unreadable" in message
    assert main(["finetune", str(data), "--out", str(tmp_path / "run"), *QUICK, "--max-unreadable", "0.2"]) == 0
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    reasons = {Path(file["path"]).name: file["reason"] for file in card["data"]["unreadable"]}
    report = (tmp_path / "run" / "report.html").read_text()
    for name, reason in {"cut.jpg": "truncated", "nothing.png": "empty", "note.jpeg": "not an image", "bomb.png":
                         "decompression bomb"}.items():  # fmt: skip
        assert reason in reasons.pop(name) and name in report
    assert not reasons


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and then holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_decompression_bomb_does_not_fill_the_memory(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(60_000, 60_000))  # 10.8 GB as RGB
    code = """
        import resource, sys
        from multitl.cli.main import main
        run, bomb, image = sys.argv[1:]
        main(["predict", run, image])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        code = main(["predict", run, bomb])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
        sys.exit(code)
    """
    image = next(Path(read_predictions(finished / "predictions.csv").paths[0]).parent.glob("*.png"))
    done = run_python("-c", textwrap.dedent(code), finished, tmp_path / "bomb.png", image)
    assert done.returncode == 2 and "decompression bomb" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.every_backend
def test_names_of_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class folders, file names, the data's and the run's own names."""
    data, out = make_photos(tmp_path / "[bold] d'ata\n", ODD_NAMES, 3), tmp_path / "-run [/x] <b>"
    for name in ODD_NAMES:
        (data / name / "00.png").rename(data / name / f"{name}.png")
    assert main(["finetune", str(data), f"--out={out}", *QUICK]) == 0
    assert main(["finetune", str(data), f"--out={out}", *QUICK, "--resume"]) == 0  # complete already
    card = json.loads((out / "card.json").read_text())
    assert card["data"]["class_names"] == sorted(ODD_NAMES)
    assert {Path(path).parent.name for path in read_predictions(out / "predictions.csv").paths} == set(ODD_NAMES)
    report = (out / "report.html").read_text()
    assert "<img src=x" not in report and "&lt;img src=x" in report and "{{7*7}}" in report

    capsys.readouterr()
    assert main(["predict", "--json", "--", str(out), *(str(data / name / f"{name}.png") for name in ODD_NAMES)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["path"]).stem for row in rows] == list(ODD_NAMES)
    assert all(set(row["probabilities"]) == set(ODD_NAMES) for row in rows)
    assert main(["evaluate", str(out), str(data)]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_labels_that_are_markup(photos: Path, tmp_path: Path) -> None:
    """A table's labels may hold slashes. The third is too rare to be split, which a warning says."""
    labels = ["cat", "</script><script>alert(1)</script>", "[/red]"]
    rows = [f"{path},{labels[path.parent.name == 'dog']}" for path in sorted(photos.rglob("*.png"))]
    rows[0] = rows[0].replace(",cat", ",[/red]")
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]))
    assert main(["finetune", str(tmp_path / "table.csv"), "--out", str(tmp_path / "run"), *QUICK]) == 0
    report = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert(1)" not in report and "[/red]" in report


def test_many_classes_of_few_images(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "data", [f"class {index}" for index in range(60)], 3)
    assert main(["finetune", str(data), "--out", str(tmp_path / "run"), *QUICK]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["count"] == metrics["validation"]["count"] == 60
    assert len(metrics["test"]["per_class"]) == 60 and "top5_accuracy" in metrics["test"]


def test_no_test_part(refuse: Refuse, capsys, tmp_path: Path) -> None:
    data = make_photos(tmp_path / "data", ["train/cat", "train/dog", "valid/cat", "valid/dog"], 4)
    assert main(["finetune", str(data), "--out", str(tmp_path / "run"), *QUICK]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"] is None and metrics["validation"]["count"] == 8
    assert "no test part" in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert "has no test images" in refuse("evaluate", tmp_path / "run", data)
    assert main(["evaluate", str(tmp_path / "run"), str(data), "--split", "validation"]) == 0


# Options, backbones and backends


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--backbone keras/MobileNett", r"Unknown backbone .keras/MobileNett.\.(.|\n)*nearest: keras/MobileNet,"),
        ("--backbone pypi/efficientnet_lite9", "nearest: .*pypi/efficientnet_lite0"),
        ("--backbone hub/ResNet50", r"SOURCE/NAME with a source of keras, pypi(.|\n)*nearest: keras/ResNet50"),
        ("--backbone ResNet50", r"nearest: keras/ResNet50"),
        ("--backbone keras/MobileNet:alpha=0.3", r"Unknown variant 'alpha=0\.3'(.|\n)*alpha=0\.25"),
        ("--backbone keras/ResNet50:alpha=0.5", "no variants"),
        ("--backbone keras/MobileNet --image-size 5", "cannot take images of 5 x 5"),
        ("--unfreeze stage9", r"called 'stage9'(.|\n)*nearest: stage"),
        ("--unfreeze last:0", "called 'last:0'"),
        ("--head-epochs 0", "trains nothing"),
        ("--dropout 1.5", r"dropout cannot be 1\.5(.|\n)*0 to 0\.95"),
        ("--l2 nan", "l2 cannot be nan"),
        ("--seed 99999999999999999999", "seed cannot be"),
        ("--optimizer adm", "nearest: adam"),
        ("--overwrite --resume", "exclude each other"),
        ("--l2 1e38 --dropout 0.1", r"Training diverged(.|\n)*lower --head-learning-rate"),
    ],
)
def test_options_that_cannot_be(capsys, photos: Path, tmp_path: Path, options: str, problem: str) -> None:
    code = main(["finetune", str(photos), "--out", str(tmp_path / "run"), *QUICK, *options.split()])
    assert re.search(problem, message_of(code, *capsys.readouterr()))
    assert (tmp_path / "run").exists() == ("diverged" in problem)


@pytest.mark.parametrize("command", [["finetune", ""], ["finetune", "x", "--out", ""], ["predict", "run", ""]])
def test_empty_path_is_not_the_working_directory(capsys, command: list[str]) -> None:
    """What `multitl finetune "$PHOTOS"` comes to if the variable is not set."""
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2 and "the path is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (b"head_epochs = ", "Cannot read the recipe"),
        (b"\xff\xfe\x00", "Cannot read the recipe"),
        (b"head_epoch = 3", r"Unknown option 'head_epoch' in .*recipe\.toml(.|\n)*nearest: head_epochs"),
        (b"dropout = 7", r"dropout cannot be 7"),
        (b"batch_size = 'many'", "batch_size cannot be 'many'"),
    ],
)
def test_recipe_that_cannot_be_followed(refuse: Refuse, photos: Path, tmp_path: Path, recipe: bytes, problem: str):
    (tmp_path / "recipe.toml").write_bytes(recipe)
    options = ["--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml"]
    assert re.search(problem, refuse("finetune", photos, *options))


def test_backend_that_is_unknown_or_at_odds_with_the_variable(photos: Path, tmp_path: Path) -> None:
    options = ["finetune", photos, "--out", tmp_path / "run", *QUICK]
    message = refused_elsewhere(*options, "--backend", "tensorflw", KERAS_BACKEND="")
    assert "Unknown backend 'tensorflw'" in message and "nearest: tensorflow" in message
    assert "Unknown backend 'numpy'" in refused_elsewhere(*options, KERAS_BACKEND="numpy")
    message = refused_elsewhere(*options, "--backend", "jax", KERAS_BACKEND="torch")
    assert "--backend jax and KERAS_BACKEND=torch" in message
    assert not (tmp_path / "run").exists()


HIDE = """
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {names} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
"""


@pytest.mark.parametrize(
    ("hidden", "options", "problem"),
    [
        (["torch"], ["--backend", "torch"], r"'torch' is not installed(.|\n)*pip install 'multitl\[torch\]'"),
        (["jax", "tensorflow", "torch"], [], r"No backend is installed(.|\n)*pip install 'multitl\[jax\]'"),
    ],
)
def test_backend_that_is_not_installed(photos: Path, tmp_path: Path, hidden: list[str], options: list[str], problem):
    (tmp_path / "sitecustomize.py").write_text(HIDE.replace("{names}", repr(hidden)))
    command = ["finetune", photos, "--out", tmp_path / "run", *QUICK, *options]
    assert re.search(problem, refused_elsewhere(*command, PYTHONPATH=str(tmp_path), KERAS_BACKEND=""))


def test_backend_whose_installation_is_broken(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import ctypes; ctypes.CDLL('libcudart-of-another-day.so')")
    command = ["finetune", photos, "--out", tmp_path / "run", *QUICK, "--backend", "torch"]
    message = refused_elsewhere(*command, PYTHONPATH=str(tmp_path), KERAS_BACKEND="")
    assert "installed but cannot be loaded" in message and "libcudart-of-another-day.so" in message


# Weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good weights of MobileNet and damaged or foreign files."""
    folder = tmp_path_factory.mktemp("weights")
    multitl.load_pretrained(MOBILENET, "none", 32).backbone.save_weights(folder / "good.weights.h5")
    good = (folder / "good.weights.h5").read_bytes()
    (folder / "cut.h5").write_bytes(good[: len(good) // 2])
    (folder / "text.h5").write_text("not the weights you are looking for")
    (folder / "empty.h5").touch()
    os.mkfifo(folder / "pipe.h5")
    multitl.load_pretrained("keras/MobileNet:alpha=0.5", "none", 32).backbone.save_weights(folder / "other.weights.h5")
    return folder


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere.h5", "There is no weights file.*No such file"),
        ("~nobody-at-all/x.h5", "There is no weights file"),
        (300 * "x", "There is no weights file.*name too long"),
        ("text.h5", "a file of another kind"),
        ("empty.h5", "an empty file"),
        ("cut.h5", "damaged or unreadable"),
        ("pipe.h5", "not a regular file"),
        ("other.weights.h5", r"does not fit.*layers differ(.|\n)*conv1: 3x3x3x16.* in the file, 3x3x3x8 in the model"),
    ],
)
def test_weights_that_do_not_fit(refuse: Refuse, photos: Path, weights: Path, tmp_path: Path, name: str, problem: str):
    options = [
        "--out",
        tmp_path / "run",
        *QUICK,
        "--backbone",
        MOBILENET,
        "--weights",
        name if name.startswith("~") else weights / name,
    ]
    assert re.search(problem, refuse("finetune", photos, *options))


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, of util-linux")
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_folders_that_may_not_be_looked_into(photos: Path, finished: Path, weights: Path, tmp_path: Path, mode: int):
    """Also for root: without two capabilities, permissions hold for root as for anybody."""
    data, file = Path(shutil.copytree(photos, tmp_path / "data")), weights / "good.weights.h5"
    closed = Path(shutil.copytree(weights, tmp_path / "closed", ignore=shutil.ignore_patterns("pipe*")))
    commands = [
        ["finetune", data, "--out", tmp_path / "run", *QUICK],
        [
            "finetune",
            photos,
            "--out",
            tmp_path / "run",
            *QUICK,
            "--backbone",
            MOBILENET,
            "--weights",
            closed / file.name,
        ],
        ["finetune", photos, "--out", closed / "run", *QUICK],
        ["predict", finished, data / "cat"],
        ["predict", closed, photos],
    ]
    code = (
        "import json, sys; from multitl.cli.main import main; print([main(each) for each in json.loads(sys.argv[1])])"
    )
    as_anybody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    for folder in (data / "cat", closed):
        folder.chmod(mode)
    try:
        done = subprocess.run(
            [*(as_anybody if os.getuid() == 0 else []), sys.executable, "-c", code, json.dumps(commands, default=str)],
            env=os.environ | {"KERAS_BACKEND": keras.config.backend()}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    finally:
        for folder in (data / "cat", closed):
            folder.chmod(0o755)
    assert (done.stdout, done.returncode) == (f"{[2] * len(commands)}\n", 0), done.stderr
    assert done.stderr.count("Permission denied") >= len(commands) and "Traceback" not in done.stderr


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("layout", ["zip", "pickle"])
def test_pickle_in_a_weights_file_is_not_executed(refuse: Refuse, photos: Path, tmp_path: Path, layout: str) -> None:
    import pickle

    path, payload = tmp_path / "evil.pth", pickle.dumps({"weight": Trap(tmp_path / "executed")}, protocol=2)
    if layout == "pickle":
        path.write_bytes(payload)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", payload)
            archive.writestr("evil/version", "3\n")
    options = ["--out", tmp_path / "run", "--backbone", "pypi/efficientnet_lite0", "--weights", path]
    refuse("finetune", photos, *options)
    assert not (tmp_path / "executed").exists()


def trapped_model(path: Path, marker: Path) -> None:
    """A .keras file of the shapes of a run on two classes whose Lambda layer writes a file when it is called."""

    def halves(x, file: str = str(marker)):
        import pathlib

        pathlib.Path(file).touch()
        return x[:, 0, 0, :2] / 255

    model = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), keras.layers.Lambda(halves, output_shape=(2,))])
    model.save(path)
    model(np.zeros((1, 32, 32, 3), np.uint8))
    assert marker.exists()  # it does what it is meant to do
    marker.unlink()


@pytest.mark.every_backend
def test_code_in_a_keras_file_is_not_executed(refuse: Refuse, photos: Path, run: Path, tmp_path: Path) -> None:
    trapped_model(tmp_path / "evil.keras", tmp_path / "executed")
    options = ["--out", tmp_path / "new", *QUICK, "--weights", tmp_path / "evil.keras"]
    assert "evil.keras" in refuse("finetune", photos, *options)
    shutil.copy(tmp_path / "evil.keras", run / "model.keras")
    assert "model.keras cannot be used" in refuse("predict", run, photos)
    assert "model.keras cannot be used" in refuse("evaluate", run, photos)
    assert not (tmp_path / "executed").exists()


def test_download_without_a_network(photos: Path, tmp_path: Path) -> None:
    nobody_listens = "http://127.0.0.1:9"
    message = refused_elsewhere(
        "finetune", photos, "--out", tmp_path / "run", *QUICK, "--backbone", MOBILENET, "--weights", "default",
        KERAS_HOME=str(tmp_path / "keras"), HTTPS_PROXY=nobody_listens, https_proxy=nobody_listens,
        NO_PROXY="", no_proxy="",
    )  # fmt: skip
    assert "Cannot download the weights of keras/MobileNet:alpha=0.25" in message and "--weights PATH/" in message
    assert not (tmp_path / "run").exists()


# The run folder, and the disk


def test_folder_that_is_there_already(refuse: Refuse, photos: Path, run: Path, tmp_path: Path) -> None:
    message = refuse("finetune", photos, "--out", run, *QUICK)
    assert "exists already" in message and "--resume" in message and "--overwrite" in message
    message = refuse("finetune", photos, "--out", run, *QUICK, "--resume", "--seed", "5")
    assert "other options" in message and "seed = 5" in message
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "model.keras").write_text("three years of work")
    for option in ("--overwrite", "--resume", "--seed=0"):
        assert "not a run of multitl" in refuse("finetune", photos, "--out", tmp_path / "thesis", *QUICK, option)
        (tmp_path / "file").touch()
        assert "a file" in refuse("finetune", photos, "--out", tmp_path / "file", *QUICK, option)


@pytest.mark.parametrize("folder", ["/proc/self/run", "/dev/null/run", "/tmp/" + 300 * "long"])
def test_place_that_cannot_be_written(refuse: Refuse, photos: Path, folder: str) -> None:
    message = refuse("finetune", photos, "--out", folder, *QUICK)
    assert "Cannot write" in message and "--out" in message


def test_cache_that_cannot_be_written(capsys, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITL_CACHE", "/proc/self/cache")
    code = main(["finetune", str(photos), "--out", str(tmp_path / "run"), *QUICK])
    assert "MULTITL_CACHE" in message_of(code, *capsys.readouterr())


FULL_DISK = """
import resource, sys
from multitl.cli.main import main

for folder, limit in zip(sys.argv[1:4], (12_000, 40_000, 1_000_000)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))  # no file may grow past it, as on a full disk
    code = main([*sys.argv[4:], "--out", folder])
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    print(code, main([*sys.argv[4:], "--out", folder, "--resume"]), file=sys.stderr)
"""


@elsewhere_slow
def test_full_disk_then_resumed_ends_as_if_nothing_happened(photos: Path, tmp_path: Path) -> None:
    """The disk is full for the features, for the checkpoint, then for the model, which is the largest file."""
    runs, finished = [tmp_path / "features", tmp_path / "checkpoint", tmp_path / "model"], tmp_path / "finished"
    quick = [*QUICK, "--backbone", MOBILENET]
    assert main(["finetune", str(photos), "--out", str(finished), *quick]) == 0
    done = run_python("-c", FULL_DISK, *runs, "finetune", photos, *quick, MULTITL_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    files = re.findall(r"multitl: Cannot write (.*): File too large\.", done.stderr)
    assert [Path(file).suffix for file in files] == [".safetensors", ".safetensors", ".keras"]
    assert str(tmp_path / "cache") in files[0] and files[1:] == [
        f"{runs[1]}/checkpoint.safetensors",
        f"{runs[2]}/model.keras",
    ]
    assert re.findall(r"^\d \d$", done.stderr, re.MULTILINE) == ["2 0"] * 3
    for folder in runs:
        assert (folder / "metrics.json").read_text() == (finished / "metrics.json").read_text()
        assert {path.name for path in folder.iterdir()} == {path.name for path in finished.iterdir()}


# Judging and using a run


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_run_that_cannot_be_used(refuse: Refuse, photos: Path, run: Path, tmp_path: Path, command: str) -> None:
    message = refuse(command, tmp_path / "rum", photos)
    assert "There is no run folder" in message and f"nearest: {run}" in message
    assert "Cannot read" in refuse(command, photos, photos)
    (run / "card.json").rename(tmp_path / "card.json")
    assert "--resume" in refuse(command, run, photos)
    (run / "card.json").write_text('{"status": "complete"}')
    assert "missing required field" in refuse(command, run, photos)
    (tmp_path / "card.json").rename(run / "card.json")
    model = (run / "model.keras").read_bytes()
    for damaged in (model[: len(model) // 2], b"", b"PK\x03\x04 and so on"):
        (run / "model.keras").write_bytes(damaged)
        assert "model.keras cannot be used" in refuse(command, run, photos)
    (run / "model.keras").unlink()
    assert "model.keras cannot be used" in refuse(command, run, photos)


def test_evaluating_a_class_that_the_run_does_not_know(refuse: Refuse, finished: Path, tmp_path: Path) -> None:
    data = make_photos(tmp_path / "data", ["cat", "dgo"], 2)
    message = refuse("evaluate", finished, data)
    assert "the run does not know: dgo" in message and "nearest: dog" in message
    assert "Cannot find" in refuse("evaluate", finished, tmp_path / "nowhere")
    assert "is empty" in refuse("evaluate", finished, next(iter(make_photos(tmp_path / "x", ["y"], 0).iterdir())))


def test_predicting_what_is_no_image(refuse: Refuse, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    assert "Cannot find" in refuse("predict", finished, tmp_path / "nowhere.png")
    assert "no image to look at" in refuse("predict", finished, tmp_path / "pictures")
    (tmp_path / "pictures" / "a.jpg").write_text("no picture")
    assert "None of the images can be read" in refuse("predict", finished, tmp_path / "pictures")


def test_predicting_a_mixture(capsys, finished: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    good = str(photos / "cat" / "00.png")
    capsys.readouterr()
    assert main(["predict", str(finished), str(tmp_path), good, "--json"]) == 0
    bad_row, good_row = json.loads(capsys.readouterr().out)
    assert (
        bad_row == {"path": str(tmp_path / "bad.jpg"), "error": bad_row["error"]} and "not an image" in bad_row["error"]
    )
    assert good_row["path"] == good and good_row["predicted"] in ("cat", "dog")
