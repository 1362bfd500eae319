"""The pages in docs/: their blocks run, every public name is described, and the site builds without a warning.

Blocks are as in test_readme.py, which runs the pages of PAGES; here run those that want a place of their own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from quick_runs import QUICK, make_photos
from test_readme import EVERY_PAGE, PAGES, ROOT, page

import multitl
from multitl.cli.main import main, parse
from multitl.contracts import SPLITS
from multitl.recipes import Recipe

if keras.config.backend() != "jax":
    pytest.skip("runs once", allow_module_level=True)

sys.path.append(str(ROOT / "docs"))
import generated_pages

HELD_ELSEWHERE = {"multitl doctor": "test_readme.py"}  # start of a command -> where it is run
LOOK = ["--image-size", "32", "--unfreeze", "none"]  # of a backbone that the page names


def plain(folder: Path) -> None:
    make_photos(folder / "photos", ["dress", "hat"], 12)


def with_new(folder: Path) -> None:
    plain(folder)
    shutil.copytree(folder / "photos" / "hat", folder / "new")
    for name in ("dress", "hat"):
        shutil.copy(folder / "photos" / name / "00.png", folder / "new" / f"{name}.jpg")


def with_copies(folder: Path) -> None:
    plain(folder)
    shutil.copy(folder / "photos" / "hat" / "00.png", folder / "photos" / "hat" / "again.png")
    shutil.copytree(folder / "photos" / "hat", folder / "new")


def with_tables(folder: Path) -> None:
    make_photos(folder / "pictures", ["oak", "elm"], 12)
    rows = [f"{name}/{index:02}.png,{name}" for name in ("oak", "elm") for index in range(12)]
    parts = [SPLITS[0 if index < 8 else 1 if index < 10 else 2] for index in range(12)] * 2
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]))
    shutil.copytree(folder / "pictures", folder, dirs_exist_ok=True)
    lines = [f"{row},{part}" for row, part in zip(rows, parts, strict=True)]
    (folder / "photos.csv").write_text("\n".join(["file,species,split", *lines]))


def with_old_model(folder: Path) -> None:
    plain(folder)
    shutil.copy(ROOT / "tests" / "keras_files" / "functional.h5", folder / "old.h5")


def with_checkpoint(folder: Path) -> None:
    plain(folder)
    import torch
    from multitl_torch.torchvision import import_torchvision

    torch.save(import_torchvision().models.squeezenet1_1().state_dict(), folder / "squeezenet.pth")


def checkout(folder: Path) -> None:
    shutil.copytree(ROOT / "examples", folder / "examples")


slow = pytest.mark.slow
RUN: dict[str, tuple[Callable[[Path], None], list[str]]] = {  # page -> what lies there, flags added to `finetune`
    "how-to/own-table.md": (with_tables, QUICK),
    "how-to/wrong-labels.md": (with_copies, QUICK),
    "how-to/what-it-does-not-know.md": (with_copies, QUICK),
    "how-to/unknown-images.md": (with_copies, QUICK),
}
RUN_SLOWLY = {
    "tutorial.md": (checkout, QUICK),
    "how-to/use-a-gpu.md": (plain, QUICK),
    "how-to/imbalanced-classes.md": (plain, QUICK),
    "how-to/few-images.md": (plain, QUICK),
    "how-to/keras-2-to-pytorch.md": (with_old_model, ["--unfreeze", "none"]),
    "how-to/torchvision-to-jax.md": (with_checkpoint, LOOK),
    "how-to/on-a-phone.md": (with_new, QUICK),
    "how-to/onnx-service.md": (with_new, QUICK),
}


@pytest.mark.parametrize("name", [*RUN, *(pytest.param(name, marks=slow) for name in RUN_SLOWLY)])
def test_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare, more = (RUN | RUN_SLOWLY)[name]
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page(f"docs/{name}"), re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(text, name, "exec"), {"__name__": "page"})
        elif language == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    run(line[2:], more)
        else:
            assert language == "csv"


def run(command: str, more: list[str]) -> None:
    """A command of a page; what is for another backend gets its own process."""
    program, *arguments = shlex.split(command)
    if command.startswith(tuple(HELD_ELSEWHERE)):
        return
    if program == "multitl" and arguments[0] == "finetune":
        arguments += more
    if program == "multitl" and "torch" not in arguments:
        assert main(arguments) == 0, command
    else:
        start = ["-m", "multitl"] if program == "multitl" else []
        environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
        done = subprocess.run(
            [sys.executable, *start, *arguments], env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_every_page_with_blocks_is_run():
    """Here, by test_readme.py, or by a test that names it."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    pages = [Path(name) for name in EVERY_PAGE if name.startswith("docs/") and re.search(r"^```\w", page(name), re.M)]
    held = {Path(name) for name in (*PAGES, *(f"docs/{name}" for name in (*RUN, *RUN_SLOWLY)))}
    assert len(pages) > 20
    assert [one for one in pages if one not in held and not re.search(rf"\b{one.stem}(\.md|\")", tests)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "how-to").glob("*.md")), ids=lambda path: path.name)
def test_a_how_to_is_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 27


def test_flags_in_the_text_exist():
    """Of multitl; those of other programs stand in tables of coming-from.md's first column."""
    known = set(re.findall(r"`(--[a-z][a-z-]+)", generated_pages.every_command()))
    known |= {"--" + name.replace("_", "-") for name in Recipe.__dataclass_fields__} | {"--from", "--help"}
    for name in (*RUN, *RUN_SLOWLY, "how-to/coming-from.md", "faq.md", *(
        f"explanation/{path.name}" for path in (ROOT / "docs" / "explanation").glob("*.md"))):  # fmt: skip
        text = re.sub(r"^\| (timm|fastai|TAO|Model Maker) .*? \|", "", page(f"docs/{name}"), flags=re.MULTILINE)
        flags = {re.sub(r"^--no-(?=deterministic|refit|preprocess)", "--", flag)
                 for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}  # fmt: skip
        assert flags <= known, name


def test_every_public_name_is_described():
    """What the reference is written from: commands and flags, options, names with their signatures."""
    pages = generated_pages.pages()
    for name in set(multitl.__all__) - {"__version__"}:
        assert f"\n### {name}\n" in pages["every-name"]
    assert "| `--recipe FILE` | TOML file of options" in pages["every-command"]
    assert "; 0: the backbone's own. *0 to 4096; default `0`* |" in pages["every-option"]
    assert '\n- **weights**: "default"' in pages["every-name"]


def test_a_name_without_a_docstring_ends_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(multitl.evaluate, "__doc__", None)
    with pytest.raises(ValueError, match=r"multitl\.evaluate has no docstring"):
        generated_pages.every_name()


def test_what_assistants_are_told_is_so():
    """AGENTS.md: its commands parse, and it is short."""
    text = page("AGENTS.md")
    commands = re.findall(r"^\$ multitl (.+)$", text, re.MULTILINE)
    assert len(text.splitlines()) <= 80 and len(commands) > 4
    assert all(callable(parse(shlex.split(command)).run) for command in commands)
    with_json = set(re.findall(r"`([a-z]+)`", re.search(r"`--json` puts(.+?)`finetune` has none", text, re.DOTALL)[1]))
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", generated_pages.every_command(), re.M | re.DOTALL))
    assert with_json == {name for name, section in sections.items() if "| `--json`" in section}


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path):
    """`make docs`, where Sphinx is installed."""
    pytest.importorskip("furo")
    command = [sys.executable, str(ROOT / "docs" / "build_site.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 60
    for path in pages:
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)="(https?:)?//', path.read_text("utf-8"))
        assert loaded == [], path
