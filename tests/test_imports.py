"""Imports point one way, packages are entered by their face, and nothing heavy loads before it is needed."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from multitl.adapters import BACKENDS

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = {"jax", "jaxlib", "tensorflow", "torch", "torchvision"}

# From the ground up: a package imports from those above this line, and a file of a package from the files before it.
# Which files of a package others may use, its own `__all__` says. Without a dot: the files in multitl/ itself.
ORDER = {
    "": "version errors contracts adapters class_tables options verdicts",
    "system": "addresses budgets chatter flock regular_files heap hiding interrupts latency printing notebooks "
    "messages paths progress sizes threads scratch hashes cache children session swapping writing workers",
    "distribution": "group channel peers devices joining",
    "engines": "workers watching this_machine ray_engine",
    "recipes": "",
    "files": "csv_cells downloads hdf5_heaps hdf5_worker hdf5_contents zip_members plain_pickles sealed_arrays "
    "hdf5_files torch_tensors torch_files keras_files safetensors_files state_dict_files",
    "runs": "cards images heatmaps familiarity number_figures label_figures locks promises folders head_runs",
    "data": "augmentation bins split_names folders layouts listings resampling splits parts relabelling checks labels "
    "parquet_images tars containers stripes places tables shards tiffs dicoms bands stacks depths geometry images "
    "readable_images inspection pixel_store pixels remote scanning unlabelled columns",
    "given": "rows pictures arrays frames hugging_face torch_datasets keras_datasets kinds shelves",
    "standalone": "runtimes decisions classify programs",
    "models": "insides initialisers freezing preprocessing inference keras_archives saved_configs stages "
    "first_layer weight_hashes folding objective one_class several_labels numbers goals statistics weight_files "
    "feature_maps heads together norm_statistics model_files joint strangeness",
    "translation": "layouts values op_tables building filling cutting descriptions parity entries store state_dicts "
    "worker",
    "onnx_graphs": "values sheet elementwise activations convolutions shapes products attention recurrent pooling "
    "reductions normalisations writing running",
    "sources": "efficientnet_lite saved_graphs translated imagenet keras_catalogue pretrained tensorflow_ops pypi "
    "tfhub timm torchvision keras_networks saved_layers keras_applications saved_networks saved_weights file "
    "run",
    "explaining": "contributions anatomy explainers overlays",
    "judging": "axes separation metrics conformal costs label_metrics number_metrics predictions judges charts opening "
    "proportions merits evaluation findings label_findings number_findings picture_maps image_map histories reporting "
    "several_heads summaries choice_page asked map_rows explanations pairs comparison comparison_page",
    "training": "trackers groups candidates asked targets checkpoints extractors feature_rows feature_store logs "
    "listeners recording sessions phases features softmax_regression solved_head large_tasks class_means "
    "streamed_regression head_choice starts memories heads planning calibration trials racing ranking "
    "mistakes familiarity publishing coral transport domain_heads adaptation finetuning joint_lessons joint_publishing "
    "several_heads choosing",
    "reviewing": "label_errors answers issues asked subjects looks neighbours copies outliers weaknesses page "
    "reviewing drift",
    "porting": "generated_code formats folders asked references artefacts originals translate departures "
    "second_outputs export_worker proof_worker divergence proofs model_cards exporting",
    "serving": "answers artefacts answerers worker refusals forms openapi pictures app server",
    "bench": "jobs estimates machine pictures agreement notes options own_loop own_pipeline processes results "
    "preparation worker standings flags comparison board markdown page race command",
    "doctor": "probe traps diagnosis",
    "cli": "demo habits answers flags repeats terminal explained reviews launching finished_runs commands main",
}
# The first imports what it needs when it is called, the second is its functions with a run filled in, the third starts
# the top.
FACADE = ("multitl", "multitl.classifiers", "multitl.__main__")
ADAPTER_MAY_USE = {
    "multitl.contracts", "multitl.errors", "multitl.models.freezing", "multitl.models.insides",
    "multitl.models.objective", "multitl.system.chatter", "multitl.system.interrupts", "multitl.porting.generated_code",
    "multitl.system.regular_files", "multitl.system.scratch", "multitl.system.swapping",
    "multitl.translation.building", "multitl.translation.layouts", "multitl.translation.op_tables",
    "multitl.translation.parity", "multitl.translation.values", "multitl.version",
}  # fmt: skip
COMMANDS = ("describe.py",)  # writes the data files of sources, which no adapter knows of
ADAPTER_FILES = sorted((ROOT / "backends").rglob("*.py"))
LOADS_NO_KERAS = """adapters system.cache runs.cards cli.main contracts data.scanning cli.demo doctor.diagnosis errors
files.downloads system.hashes data.images judging.metrics doctor.probe recipes judging.predictions judging.reporting
runs.folders judging.opening training.asked training.candidates translation.entries judging.merits porting.asked
files.safetensors_files cli.terminal files.torch_files doctor.traps
reviewing.asked"""


def modules_in(folder: Path) -> dict[str, Path]:
    """Every module of the package `multitl` in a checkout."""
    parts = {path: path.relative_to(folder).with_suffix("").parts for path in (folder / "multitl").rglob("*.py")}
    return {".".join(names).removesuffix(".__init__"): path for path, names in parts.items()}


CORE = modules_in(ROOT)


def places() -> dict[str, tuple[int, int]]:
    """Module -> the place of its package from the ground up, and its place in there."""
    found = {}
    for floor, (package, files) in enumerate(ORDER.items()):
        found[f"multitl.{package}".rstrip(".")] = (floor, -1)
        for place, name in enumerate(files.split()):
            found[".".join(filter(None, ["multitl", package, name]))] = (floor, place)
    return found


PLACES = places()


def package_of(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 and ORDER.get(names[1]) else ""


def face_of(package: str) -> set[str]:
    """What the `__all__` of a package names."""
    for node in ast.parse((ROOT / "multitl" / package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def imports_of(path: Path, core: dict[str, Path] = CORE) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; `from multitl.data import images` counts as that module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            for alias in node.names:
                yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in core else module


def faults(folder: Path) -> list[str]:
    """Each import in the core of a checkout that goes up, or into a package by another way than its face."""
    core, found = modules_in(folder), []
    for name, path in core.items():
        if name in FACADE or name not in PLACES:
            continue
        for module in sorted(set(imports_of(path, core)) & PLACES.keys() - {"multitl"}):
            if PLACES[module] >= PLACES[name]:
                found.append(f"{name} -> {module}: up")
            package = package_of(module)
            if package and package != package_of(name) and module.rpartition(".")[2] not in face_of(package):
                found.append(f"{name} -> {module}: not in the face of {package}")
    return found


def root_of(module: str) -> str:
    return module.partition(".")[0]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_every_core_file_has_its_place():
    assert CORE.keys() - {*FACADE} == PLACES.keys() - {"multitl"}, "say in ORDER where these belong"


def test_core_imports_point_down_and_enter_packages_by_their_face():
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    ("planted", "line", "fault"),
    [
        ("multitl/system/cache.py", "from multitl.models.heads import pool", "multitl.models.heads: up"),
        ("multitl/data/splits.py", "from multitl.data import scanning", "multitl.data.scanning: up"),
        ("multitl/errors.py", "import multitl.recipes", "multitl.recipes: up"),
        (
            "multitl/cli/main.py",
            "from multitl.judging.separation import areas",
            "multitl.judging.separation: not in the face",
        ),
    ],
)
def test_a_planted_violation_is_seen(tmp_path: Path, planted: str, line: str, fault: str):
    shutil.copytree(ROOT / "multitl", tmp_path / "multitl", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / planted
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    (found,) = faults(tmp_path)
    assert fault in found


@pytest.mark.parametrize("package", [package for package, files in ORDER.items() if files and package])
def test_a_face_shows_only_what_others_use(package: str):
    """Nor what is not there."""
    others = {
        module
        for path in [*CORE.values(), *ADAPTER_FILES, *(ROOT / "benchmarks").rglob("*.py")]
        if (ROOT / "multitl" / package) not in path.parents
        for module in imports_of(path)
    }
    text = (ROOT / "multitl" / "adapters.py").read_text(encoding="utf-8")
    unused = {name for name in face_of(package) if f"multitl.{package}.{name}" not in others}
    assert {name for name in unused if f'"multitl.{package}.{name}"' not in text} == set()


def test_files_in_the_root_are_those_that_belong_to_no_step():
    files = {path.stem for path in (ROOT / "multitl").glob("*.py")}
    facade = {"__init__", "__main__", "classifiers"}
    assert files == facade | {
        "adapters",
        "class_tables",
        "contracts",
        "errors",
        "options",
        "recipes",
        "verdicts",
        "version",
    }


@pytest.mark.parametrize("name", [name for name in CORE if name not in FACADE and package_of(name) != "cli"])
def test_core_below_the_command_line_does_not_use_the_facade(name: str):
    assert "multitl" not in set(imports_of(CORE[name]))


@pytest.mark.parametrize("name", CORE)
def test_core_imports_no_framework_and_no_adapter(name: str):
    if name == "multitl.standalone.runtimes":
        pytest.skip("its functions are text that goes into classify.py, where they run")
    roots = {root_of(module) for module in imports_of(CORE[name])}
    assert roots & FRAMEWORKS == set()
    assert {root for root in roots if root.startswith("multitl_")} == set()


@pytest.mark.parametrize("path", ADAPTER_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_adapter_imports_its_framework_and_few_core_modules(path: Path):
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
from multitl.cli.commands import COMMANDS
from multitl.cli.main import main
for command in ["--help", "--version", *COMMANDS]:
    with contextlib.suppress(SystemExit):
        main([command] if command.startswith("-") else [command, "--help"])
print([name for name in {heavy} if name in sys.modules])
"""
    assert run_python(code) == "[]"
