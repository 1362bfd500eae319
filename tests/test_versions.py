"""What `make test-versions` runs is what pyproject.toml promises."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
import versions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((versions.ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# tfhub: TF Hub needs an older setuptools than the rest; of mlflow and wandb the tests are made by hand (test_listeners)
UNTRIED = {"all", "test", "tfhub", "mlflow", "wandb"}
REPORT = '<testsuites><testsuite tests="7" failures="1" errors="1" skipped="2" time="8.4"/></testsuites>'


def pins(file: str) -> dict[str, Version]:
    """name -> version of a file of constraints."""
    lines = [line for line in (versions.ROOT / file).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def bounds() -> dict[str, Version]:
    """name -> the oldest version that a user may have."""
    texts = [*PROJECT["dependencies"], *(one for name, extra in EXTRAS.items() if name not in UNTRIED for one in extra)]
    asked = [one for one in map(Requirement, texts) if one.name != "multitl"]
    oldest = {one.name: next(part.version for part in one.specifier if part.operator == ">=") for one in asked}
    return {canonicalize_name(name): Version(version) for name, version in oldest.items()}


def test_the_oldest_set_is_what_pyproject_allows():
    oldest = pins("constraints/oldest.txt")
    assert {name: oldest.get(name) for name in bounds()} == bounds()


def test_the_newest_set_leaves_nothing_out_and_is_nowhere_older_than_the_tested_one():
    newest, tested = pins("constraints/newest.txt"), pins("constraints/tested.txt")
    assert bounds().keys() <= newest.keys()
    assert [name for name in bounds() if newest[name] < tested[name]] == []


def test_every_python_that_is_promised_is_tried():
    prefix = "Programming Language :: Python :: 3."
    promised = {one.removeprefix(prefix[:-2]) for one in PROJECT["classifiers"] if one.startswith(prefix)}
    assert promised and promised <= {one.python for one in versions.ENVIRONMENTS}


def test_the_core_exists_and_is_named_once():
    files = versions.core(whole=True)
    assert [one for one in files if not (versions.ROOT / one).is_file()] == []
    assert len(set(files)) == len(files) > 10


def test_an_interpreter_is_found_if_it_runs():
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert versions.find_python("3.0") is None
    if found := versions.find_python(own):
        assert versions.version_of(found) == own


def test_failures_and_errors_both_count(tmp_path: Path):
    (tmp_path / "jax.xml").write_text(REPORT)
    found = versions.read_report(versions.ENVIRONMENTS[0], "jax", tmp_path / "jax.xml")
    assert (found.passed, found.failed, found.skipped, found.is_good) == (3, 2, 2, False)
    assert found.row() == "| oldest | 3.11 | jax | 3 | 2 | 2 | 8 s |"


def test_a_process_that_died_is_no_success(tmp_path: Path):
    died = versions.read_report(versions.ENVIRONMENTS[0], "jax", tmp_path / "jax.xml")
    assert not died.is_good and "ended early" in died.row()


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]):
    assert versions.main(["odlest"]) == 2
    assert "there are: oldest" in capsys.readouterr().err
