"""What frameworks do not promise is touched in insides.py alone, each with its reason."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("multitl", "backends")
FRAMEWORKS = ("jax", "keras", "tensorflow", "torch", "torchvision")
PRIVATE = re.compile(r"_(?!_)\w*|src")  # a part of a dotted name that is nobody else's business
INSIDE = re.compile(rf"({'|'.join(FRAMEWORKS)})(\.\w+)*?\.(_(?!_)\w*|src|python)\b[\w.:]*")
LOOK_UPS = ("getattr", "hasattr", "_inside")
SWAPPERS = ("setattr", "delattr", "swapped")
WHY = re.compile(r"\bWhy: \S+")

# What looks like a use and is none, and who may: a file, what is in it, and the reason.
NO_USES = {
    ("multitl/cli/flags.py", "argparse._ActionsContainer"): "a type's name, never evaluated; the parent of two classes",
    ("multitl/cli/flags.py", "self._option_string_actions"): "argparse's, which is no framework",
    ("multitl/adapters.py", "'jax._src.xla_bridge'"): "a logger's name; with another one, JAX says a word more",
    ("multitl/files/torch_tensors.py", "'torch._utils _rebuild_parameter'"): "a name that stands in files",
    ("multitl/files/torch_tensors.py", "'torch._utils _rebuild_tensor'"): "a name that stands in files",
    ("multitl/files/torch_tensors.py", "'torch._utils _rebuild_tensor_v2'"): "a name that stands in files",
    ("multitl/distribution/channel.py", "os._exit"): "documented, for a process whose other threads wait for ever",
    ("multitl/recipes.py", "Recipe.__doc__ = ..."): "our own class, which says what its fields are",
    ("multitl/sources/saved_layers.py", "'keras.src.ops'"): "a name that stands in files",
    ("backends/multitl_tensorflow/export.py", "module.__call__ = ..."): "our own object, called as Keras 2 calls it",
    ("backends/multitl_torch/backend.py", "torch.utils.deterministic.fill_uninitialized_memory = ..."): "a setting",
    ("backends/multitl_torch/backend.py", "torch.backends.cudnn.benchmark = ..."): "a setting",
}
NAMES_IN_FILES = ("multitl/models/saved_configs.py",)  # a list of what descriptions may name; nothing is looked up


def is_private(name: str) -> bool:
    """Whether a dotted name leads where nothing is promised."""
    return any(PRIVATE.fullmatch(part) for part in name.split(".")) or name.startswith("tensorflow.python")


def own_names(tree: ast.Module) -> set[str]:
    """The underscored names that a file itself gives to functions, attributes of its classes and its variables."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and is_self(inner.value):
                    found.add(inner.attr)
                elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    found.add(inner.id)
    return found


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def of_frameworks(tree: ast.Module) -> set[str]:
    """The names by which a file knows a framework and what it imports from one."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for one in node.names:
                source = node.module if isinstance(node, ast.ImportFrom) else one.name
                if (source or "").partition(".")[0] in FRAMEWORKS:
                    found.add((one.asname or one.name).partition(".")[0])
    return found


def root_of(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def uses(tree: ast.Module, own_package: str) -> Iterator[tuple[ast.AST, str]]:
    """Every private name that a file touches, as it is written there, and every replacement in others' code."""
    own, imported = own_names(tree), of_frameworks(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = [start + one.name for one in node.names]
            yield from ((node, name) for name in names if is_private(name) and not name.startswith(own_package))
        elif isinstance(node, ast.Attribute):
            if is_private(node.attr) and node.attr not in own:
                yield node, ast.unparse(node)
            elif not isinstance(node.ctx, ast.Load) and (root_of(node) in imported or is_dunder_of_another(node)):
                yield node, f"{ast.unparse(node)} = ..."
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SWAPPERS:
            yield node, ast.unparse(node.func)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LOOK_UPS:
            names = [one.value for one in node.args if isinstance(one, ast.Constant)]
            yield from ((node, repr(name)) for name in names if isinstance(name, str) and is_private(name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and INSIDE.match(node.value):
            yield node, repr(node.value)
        elif isinstance(node, ast.JoinedStr) and any(INSIDE.match(ast.unparse(one)) for one in node.values):
            yield node, ast.unparse(node)


def is_dunder_of_another(node: ast.Attribute) -> bool:
    return node.attr.startswith("__") and not is_self(node.value)


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(path for name in FOLDERS for path in (folder / name).rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path


def faults(folder: Path) -> list[str]:
    """Each use of a private name in a checkout outside of insides.py."""
    found = []
    for name, path in files(folder):
        if path.name == "insides.py" or name in (*NAMES_IN_FILES, "multitl/system/swapping.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{name}: {use}" for _, use in uses(tree, "multitl") if (name, use) not in NO_USES]
    return found


def without_reason(folder: Path) -> list[str]:
    """Each use in an insides.py that says no why: in its function's docstring, or as the last argument of an Inside."""
    found = []
    for name, path in ((name, path) for name, path in files(folder) if path.name == "insides.py"):
        for part in ast.parse(path.read_text(encoding="utf-8")).body:
            touched = list(uses(ast.Module([part], []), "multitl"))
            is_code = any(not isinstance(node, ast.Constant | ast.JoinedStr) for node, _ in touched)
            if touched and not is_reasoned(part, is_code):
                found.append(f"{name}: {', '.join(use for _, use in touched)}")
    return found


def is_reasoned(part: ast.stmt, is_code: bool) -> bool:
    """is_code: it touches something, and does not only name it, as the beginning of a place does."""
    if isinstance(part, ast.FunctionDef):
        return WHY.search(ast.get_docstring(part) or "") is not None
    calls = [node for node in ast.walk(part) if isinstance(node, ast.Call) and root_of(node.func) == "Inside"]
    return not is_code and all(len(call.args) == 3 for call in calls)


def test_private_names_are_touched_in_insides_alone():
    assert faults(ROOT) == []


def test_every_exception_is_needed():
    seen = {
        (name, use)
        for name, path in files(ROOT)
        for _, use in uses(ast.parse(path.read_text(encoding="utf-8")), "multitl")
    }
    assert NO_USES.keys() <= seen


def test_every_use_inside_has_its_reason():
    assert without_reason(ROOT) == []


@pytest.mark.parametrize(
    ("planted", "line", "fault"),
    [
        ("multitl/models/heads.py", "from keras.src import backend", "keras.src.backend"),
        ("multitl/models/heads.py", "import keras.src.backend.jax.nn", "keras.src.backend.jax.nn"),
        ("multitl/models/heads.py", "PLACE = 'keras.src.ops.nn'", "'keras.src.ops.nn'"),
        ("multitl/models/heads.py", "NODES = [one._inbound_nodes for one in ()]", "one._inbound_nodes"),
        ("multitl/models/heads.py", "getattr(keras.Model, '_flatten_layers')", "'_flatten_layers'"),
        ("multitl/models/heads.py", "keras.layers.Dense.call = print", "keras.layers.Dense.call = ..."),
        ("multitl/models/heads.py", "setattr(keras.layers.Dense, 'call', print)", "setattr"),
        ("backends/multitl_torch/fx.py", "torch._foreach_add_([], 1)", "torch._foreach_add_"),
        ("backends/multitl_torch/fx.py", "from torch.nn.modules.batchnorm import _BatchNorm", "_BatchNorm"),
        ("backends/multitl_torch/fx.py", "def f(self):\n    return self._momentums", "self._momentums"),
        (
            "backends/multitl_tensorflow/running.py",
            "from tensorflow.python import eager",
            "tensorflow.python.eager",
        ),
        ("backends/multitl_jax/backend.py", "from jax._src import core", "jax._src.core"),
    ],
)
def test_a_planted_use_is_seen(tmp_path: Path, planted: str, line: str, fault: str):
    copy = tmp_path / planted
    copy.parent.mkdir(parents=True)
    copy.write_text(f"{(ROOT / planted).read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    (found,) = faults(tmp_path)
    assert found.startswith(f"{planted}: ") and found.endswith(fault)


@pytest.mark.parametrize(
    "lines",
    [
        "def f(model):\n    '''All of it.'''\n    return model._flatten_layers()",
        "def f(model):\n    '''All of it.'''\n    return _inside(model, '_flatten_layers')()",
        "PLACE = Inside('keras.src.backend.torch.nn:conv', 'inputs')",
        "from keras.src.backend.torch import nn",
        "PARTS = keras.Model._flatten_layers",
    ],
)
def test_a_use_without_a_reason_is_seen(tmp_path: Path, lines: str):
    folder = tmp_path / "backends" / "multitl_torch"
    shutil.copytree(ROOT / "backends" / "multitl_torch", folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "insides.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\n{lines}\n")
    assert len(without_reason(tmp_path)) == 1
