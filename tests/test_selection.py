"""`make check` finds the tests of what changed; the lists of test files name files that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import selection
import slow_runs


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("multitl/data/splits.py", ["tests/data/test_splits.py"]),
        ("multitl/recipes.py", ["tests/test_recipes.py"]),
        (  # has none of its own
            "multitl/porting/formats.py",
            ["tests/porting/test_exporting.py", "tests/porting/test_model_cards.py"],
        ),
        ("backends/multitl_torch/fx.py", ["tests/backends/test_fx.py"]),
        ("benchmarks/multitl_native/no_such_module.py", []),
        ("tests/data/test_splits.py", ["tests/data/test_splits.py"]),
        ("tests/data/test_that_was_removed.py", []),
        ("tests/conftest.py", []),
        ("README.md", []),
    ],
)
def test_what_mirrors_a_file(file: str, tests: list[str]) -> None:
    assert selection.tests_of([file]) == tests


def test_lists_name_files_once_and_right() -> None:
    core = (selection.ROOT / "tests" / "core.txt").read_text().splitlines()
    assert len(selection.core()) > 20 and selection.core() == core[2 : 2 + len(selection.core())]
    for listed in (selection.LONGEST, [line for line in core if not line.startswith("#")]):
        assert len(listed) == len(set(listed)) > 0
        assert [file for file in listed if not (selection.ROOT / file).is_file()] == []


def test_the_longest_come_first() -> None:
    listed = selection.LONGEST
    assert sorted(["tests/test_imports.py", listed[1], listed[0]], key=selection.place)[:2] == listed[:2]


def test_a_summary_says_how_each_slow_test_ended(tmp_path: Path) -> None:
    (tmp_path / "jax.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.a" name="test_b" time="1.5"/>'
        '<testcase classname="tests.a" name="test_c" time="2"><failure message="assert 1 == 2&#10;more"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert slow_runs.outcomes(tmp_path / "jax.xml") == [
        slow_runs.Outcome("tests.a::test_b", "passed", 1.5, ""),
        slow_runs.Outcome("tests.a::test_c", "failure", 2, "assert 1 == 2"),
    ]
    assert slow_runs.outcomes(tmp_path / "nothing.xml") == []
