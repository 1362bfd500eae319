"""The package as others get it: built, installed alone in a bare environment, and used there. Needs pip's network.

Two minutes, most of it pip's: before a release, with the other slow tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import keras
import pytest
from quick_runs import QUICK, make_photos

import multitl

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("multitl", "backends/multitl_jax", "backends/multitl_tensorflow", "backends/multitl_torch",
            "benchmarks/multitl_native")  # fmt: skip
NEEDED = {  # what once was missing, or easily is: a .gitignore names a folder, data files are no Python
    "multitl/runs/cards.py",
    "multitl/judging/templates/report.html.j2",
    "multitl/judging/templates/report.css",
    "multitl/sources/imagenet_classes.json",
    "multitl/sources/torchvision_networks/resnet50.json.xz",
    *(f"{Path(package).name}/py.typed" for package in PACKAGES),
}
PROGRAM = """
import multitl

def main() -> None:
    result = multitl.finetune("photos", steps=3, learning_rate=1e-3, recipe={"hidden": 8})
    rows = multitl.predict(result.output, "one.jpg")
    reveal_type(rows)
    reveal_type(multitl.DataError("a", fix="b").nearest)
    multitl.finetune("photos", epoch=3)
    multitl.load_backend
"""
SEEN = [  # by a type checker in PROGRAM: line, kind, words
    (7, "note", 'Revealed type is "list[dict[str, Any]]"'),
    (8, "note", 'Revealed type is "tuple[str, ...]"'),
    (9, "error", 'Unexpected keyword argument "epoch" for "finetune"'),
    (10, "error", 'does not explicitly export attribute "load_backend"'),
]

pytestmark = pytest.mark.slow
if keras.config.backend() != "jax":
    pytest.skip("runs once, in environments of its own", allow_module_level=True)
if not (ROOT / ".git").exists():
    pytest.skip("git knows which files belong to the package", allow_module_level=True)


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What a command prints, started without a trace of this checkout and its settings."""
    hidden = ("PYTHON", "KERAS", "MULTITL", "PYTEST", "JAX", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | variables
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def make_environment(folder: Path, *requirements: str) -> Path:
    """A new virtual environment with these and what they need, as tested; returns its folder of programs."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    constraints = ("--constraint", str(ROOT / "constraints" / "tested.txt"))
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", *constraints, *requirements, cwd=folder.parent)
    return folder / "bin"


def contents(wheel: Path) -> dict[str, int]:
    """Path -> checksum of every file of a wheel but those that describe it."""
    with zipfile.ZipFile(wheel) as archive:
        return {member.filename: member.CRC for member in archive.infolist() if ".dist-info/" not in member.filename}


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python that builds."""
    return make_environment(tmp_path_factory.mktemp("builder") / "environment", "hatchling") / "python"


@pytest.fixture(scope="module")
def dist(builder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(builder, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds multitl, JAX, and nothing else."""
    return make_environment(tmp_path_factory.mktemp("installed") / "environment", f"{wheel}[jax]")


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path):
    tracked = run("git", "ls-files", *PACKAGES, cwd=ROOT).splitlines()
    expected = {path.removeprefix("backends/").removeprefix("benchmarks/") for path in tracked}
    assert contents(wheel).keys() == expected
    assert expected >= NEEDED


def test_the_wheel_says_what_it_is(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(archive.read(metadata).decode())
        (commands,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "multitl = multitl.cli.main:main" in archive.read(commands).decode()
        assert any(name.endswith("/LICENSE") for name in archive.namelist())
    assert (about["Name"], about["Version"]) == ("multitl", multitl.__version__)


def test_the_sdist_makes_the_same_wheel(dist: Path, wheel: Path, builder: Path, tmp_path: Path):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    run(builder, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=source)
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert contents(again) == contents(wheel)


def test_the_sdist_holds_what_its_tests_read(dist: Path):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    assert [path for path in tracked if path not in held and not path.startswith(".")] == []


def test_a_bare_environment_trains(installed: Path, tmp_path: Path):
    make_photos(tmp_path / "photos", ["cat", "dog"], 10)
    where = run(installed / "python", "-c", "import multitl; print(multitl.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    command = [installed / "multitl", "finetune", "photos", "--out", "runs/first", *QUICK]
    printed = run(*command, cwd=tmp_path, MULTITL_CACHE=str(tmp_path / "cache"), JAX_PLATFORMS="cpu")
    assert "report" in printed and "macro F1" in printed
    page = (tmp_path / "runs" / "first" / "report.html").read_text(encoding="utf-8")
    assert "</html>" in page and "Confusion matrix" in page
    frameworks = run(installed / "python", "-m", "pip", "list", "--format", "freeze", cwd=tmp_path)
    assert "jax==" in frameworks and "torch==" not in frameworks and "tensorflow" not in frameworks


def test_a_type_checker_sees_the_public_names(installed: Path, tmp_path: Path):
    """Of the installed package, which py.typed allows."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    options = ["--config-file=", "--follow-imports=silent", "--python-executable", str(installed / "python")]
    command = [sys.executable, "-m", "mypy", *options, "--strict", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("program.py:")]
    for line, kind, words in SEEN:
        assert any(text.startswith(f"program.py:{line}: {kind}") and words in text for text in lines), done.stdout
    assert {int(line.split(":")[1]) for line in lines} == {line for line, _, _ in SEEN}
