"""Imports point one way, the core knows no framework, and nothing heavy loads before it is needed."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multitl.adapters import BACKENDS

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = {"jax", "jaxlib", "tensorflow", "torch", "torchvision"}
ADAPTER_MAY_USE = {
    "multitl.contracts", "multitl.errors", "multitl.generated_code", "multitl.layouts", "multitl.parity",
    "multitl.regular_files", "multitl.scratch", "multitl.translation",
}  # fmt: skip

# From the ground up: a module imports from its own layer or from those above this line, never from below.
LAYERS = (
    "errors contracts recipes cache progress threads interrupts hiding resampling plain_pickles hdf5_heaps axes "
    "version console writing weight_hashes formats hashes heap latency layouts regular_files generated_code zip_members hdf5_worker hdf5_contents flock scratch "
    "children csv_cells budgets",
    "adapters runs locks workers preprocessing images listings splits tables data_checks pixels data augmentation "
    "freezing heads folding initialisers stages statistics parity translation descriptions cutting translations "
    "hdf5_files keras_archives keras_files torch_files safetensors_files weight_files state_dicts downloads metrics "
    "predictions charts findings logs sealed_arrays promises checkpoints cards saved_configs model_files",
    "sources pretrained artefacts originals divergence",
    "inference translation_worker",
    "feature_store features phases",
    "evaluation reporting recording training networks",
    "references export_worker proof_worker",
    "exporting",
    "probe traps doctor demo terminal flags bench session cli __main__",
)
CORE = {
    "multitl." + ".".join(path.relative_to(ROOT / "multitl").with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "multitl").rglob("*.py")
    if path != ROOT / "multitl" / "__init__.py"  # the façade: it imports the top lazily, by design
}
DEPTH = {name: depth for depth, names in enumerate(LAYERS) for name in names.split()}
LAYER = {name: DEPTH[name.split(".")[1]] for name in CORE if name.split(".")[1] in DEPTH}
COMMANDS = ("describe.py",)  # writes the data files of sources, which no adapter knows of
ADAPTER_FILES = sorted((ROOT / "backends").rglob("*.py"))
LOADS_NO_KERAS = """adapters cache cards cli contracts data demo doctor downloads errors hashes images metrics probe
recipes predictions reporting runs safetensors_files state_dicts terminal torch_files traps"""


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; `from multitl import data` counts as multitl.data."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            for alias in node.names:
                yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in CORE else module


def root_of(module: str) -> str:
    return module.partition(".")[0]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_every_core_file_has_a_layer():
    assert CORE.keys() - LAYER.keys() == set(), "say in LAYERS where these belong"


@pytest.mark.parametrize("name", CORE)
def test_core_imports_point_down(name: str):
    upward = {module for module in imports_of(CORE[name]) if LAYER.get(module, -1) > LAYER[name]}
    assert upward == set()


def test_core_imports_have_no_cycle():
    graph = {name: set(imports_of(path)) & CORE.keys() for name, path in CORE.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(CORE)


@pytest.mark.parametrize("name", [name for name in CORE if LAYER.get(name) != len(LAYERS) - 1])
def test_core_below_the_command_line_uses_of_the_facade_only_its_version(name: str):
    tree = ast.parse(CORE[name].read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "multitl"
    }
    assert used <= {"__version__"}


@pytest.mark.parametrize("name", CORE)
def test_core_imports_no_framework_and_no_adapter(name: str):
    roots = {root_of(module) for module in imports_of(CORE[name])}
    assert roots & FRAMEWORKS == set()
    assert {root for root in roots if root.startswith("multitl_")} == set()


@pytest.mark.parametrize("path", ADAPTER_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_adapter_imports_its_framework_and_six_core_modules(path: Path):
    package = path.relative_to(ROOT / "backends").parts[0]
    own = package.removeprefix("multitl_")
    assert own in BACKENDS
    modules = set(imports_of(path))
    core = {module for module in modules if root_of(module) == "multitl"}
    core = set() if path.name in COMMANDS else core
    roots = {root_of(module) for module in modules}
    assert core <= ADAPTER_MAY_USE
    assert {root for root in roots if root.startswith("multitl_")} <= {package}
    allowed = {"torch", "torchvision"} if own == "torch" else {own, f"{own}lib"}
    assert roots & FRAMEWORKS <= allowed


def test_no_file_is_a_drawer_for_odds_and_ends():
    folders = ("multitl", "backends", "tests", "benchmarks", "examples")
    names = {path.stem for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert names & {"utils", "util", "common", "helpers", "misc"} == set()


def test_importing_multitl_and_its_light_modules_loads_no_framework():
    modules = ", ".join(["multitl", *(f"multitl.{name}" for name in LOADS_NO_KERAS.split())])
    heavy = sorted({"keras", *FRAMEWORKS})
    assert run_python(f"import sys, {modules}\nprint([name for name in {heavy} if name in sys.modules])") == "[]"


def test_help_loads_neither_a_framework_nor_numpy_nor_rich():
    heavy = sorted({"keras", "numpy", "rich", "PIL", *FRAMEWORKS})
    code = f"""
import contextlib, sys
from multitl.cli import COMMANDS, main
for command in ["--help", "--version", *COMMANDS]:
    with contextlib.suppress(SystemExit):
        main([command] if command.startswith("-") else [command, "--help"])
print([name for name in {heavy} if name in sys.modules])
"""
    assert run_python(code) == "[]"
