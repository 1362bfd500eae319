"""What docs/architecture.md and CONTRIBUTING.md name is there: files, functions in them, packages in their order."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import keras
import pytest
from test_imports import ORDER

from multitl.adapters import BACKENDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
MACRO = re.compile(r"{% macro (\w+)\(")
SIDE = 69  # columns of the core, in the picture

if keras.config.backend() != "jax":
    pytest.skip("no framework is asked here", allow_module_level=True)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def named(name: str) -> list[tuple[str, str]]:
    """Each path of a page in backticks, with what follows its colon; "*" and {a,b} in it are left to `files`."""
    words = re.findall(r"`([\w./*{},-]+/[\w.*{},-]*)(?::([\w.]+))?`", page(name))
    return list(dict.fromkeys(words))


def files(pattern: str) -> list[Path]:
    """What a path of a page stands for; "*" may stand for several."""
    return sorted(ROOT.glob(pattern.rstrip("/")))


@cache
def definitions(path: Path) -> frozenset[str]:
    """Functions, classes and "Class.method" of a Python file; macros of a template."""
    text = path.read_text(encoding="utf-8")
    return frozenset(_definitions(ast.parse(text)) if path.suffix == ".py" else MACRO.findall(text))


def _definitions(parent: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    for node in parent.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node, f"{node.name}.")


@pytest.mark.parametrize("name", PAGES)
def test_every_path_is_there(name: str):
    assert [path for path, _ in named(name) if not files(path)] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_function_is_where_the_page_says(name: str):
    functions = [(path, function) for path, function in named(name) if function]
    missing = [f"{path}:{function}" for path, function in functions if function not in definitions(ROOT / path)]
    assert missing == []


def test_these_tests_see_the_names():
    """Guards the patterns above: a page whose names they miss would pass everything."""
    functions = [function for _, function in named("docs/architecture.md") if function]
    assert len(functions) > 50 and "PixelReader.batches" in functions and "confusion_table" in functions
    assert "fit_pixels" in definitions(ROOT / "multitl/data/geometry.py")
    assert "not_there" not in definitions(ROOT / "multitl/data/geometry.py")
    for name in PAGES:
        assert page(name).count("`multitl/") == len(re.findall(r"`multitl/[\w./:]*`", page(name)))


def picture() -> list[str]:
    return page("docs/architecture.md").split("```text\n")[1].split("```")[0].splitlines()


def test_the_picture_shows_the_packages_in_their_order():
    shown = [name for line in picture() for name in re.findall(r"│ ([a-z_]+) {3,}", line[:SIDE])]
    assert shown == [name for name in reversed(ORDER) if name]
    (ground,) = (line for line in picture() if "version" in line)
    assert set(re.findall("[a-z_]+", ground)) == set(ORDER[""].split())


def test_the_picture_shows_the_backends():
    beside = "\n".join(line[SIDE:] for line in picture())
    assert re.findall(r"multitl_(\w+)", beside) == list(BACKENDS)
    for file in re.findall(r"\w+\.py", beside):
        assert files(f"backends/multitl_*/{file}") or file == "adapters.py"


def test_the_picture_is_straight():
    for line in picture():
        assert line[SIDE - 1] in "┐│┤┘" and (len(line) == SIDE or line[-1] in "┐│┘"), line
    assert {len(line) for line in picture()} == {SIDE, 109}


def test_every_step_of_the_walk_has_its_place_in_the_picture():
    steps = set(re.findall(r"^(\d+)\. \*\*", page("docs/architecture.md"), re.MULTILINE))
    assert steps == {str(number) for number in range(1, 13)}
    marks = re.findall(r" {2,}([\d ]+) │", "\n".join(line[:SIDE] for line in picture()))
    assert {step for mark in marks for step in mark.split()} == steps


def test_the_table_of_contributing_has_a_row_for_every_package():
    """In the order of their floors."""
    rows = re.findall(r"^\| `multitl/(\w*)/?`", page("CONTRIBUTING.md"), re.MULTILINE)
    assert rows == [name for name in ORDER if name and name != "recipes"]
