"""What `import multitl` shows, and the forms in which `finetune` takes a recipe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import keras
import pytest

import multitl
from multitl.errors import RecipeError
from multitl.recipes import Recipe

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("multitl", "backends/multitl_jax", "backends/multitl_tensorflow", "backends/multitl_torch")
FORMS: dict[str, Callable] = {"str": str, "Path": Path}

if keras.config.backend() != "jax":
    pytest.skip("no framework is asked here", allow_module_level=True)


def test_dir_is_what_is_public():
    assert dir(multitl) == sorted(multitl.__all__) == multitl.__all__
    assert "__version__" in multitl.__all__
    assert [name for name in multitl.__all__ if not hasattr(multitl, name)] == []


def test_a_star_brings_what_is_public():
    names: dict = {}
    exec("from multitl import *", names)
    assert names.keys() - {"__builtins__"} == set(multitl.__all__)


def test_everything_public_says_what_it_is():
    for name in set(multitl.__all__) - {"__version__"}:
        assert getattr(multitl, name).__doc__, name


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks/multitl_native"])
def test_type_checkers_may_trust_the_hints(package: str):
    assert (ROOT / package / "py.typed").read_bytes() == b""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """What `finetune` would train by, for its arguments."""
    monkeypatch.setattr("multitl.training.asked.check_finetune", lambda *args, **kwargs: None)
    monkeypatch.setattr("multitl.training.finetuning.finetune", lambda data, *, recipe, **others: recipe)
    return cast(Callable[..., Recipe], partial(multitl.finetune, "photos"))


def test_recipe_by_name_wins_over_a_dict_and_that_over_the_defaults(taken: Callable[..., Recipe]):
    assert taken() == Recipe()
    assert taken(steps=3, learning_rate=1e-3) == Recipe(steps=3, learning_rate=1e-3)
    assert taken(recipe={"head_epochs": 5, "hidden": 8}, head_epochs=1) == Recipe(head_epochs=1, hidden=8)


@pytest.mark.parametrize("form", FORMS)
def test_recipe_of_a_run_is_one(taken: Callable[..., Recipe], tmp_path: Path, form: str):
    """With a backbone of its own: an argument that is not given replaces nothing."""
    earlier = Recipe(backbone="keras/MobileNet", weights="none", hidden=8)
    (tmp_path / "recipe.toml").write_text(earlier.to_toml(), encoding="utf-8")
    path = FORMS[form](tmp_path / "recipe.toml")
    assert taken(recipe=path) == taken(recipe=earlier) == earlier
    changed = taken(recipe=path, weights=FORMS[form]("net.h5"), backbone="keras/VGG16", seed=5)
    assert changed == Recipe(backbone="keras/VGG16", weights="net.h5", hidden=8, seed=5)


@pytest.mark.parametrize(
    ("wrong", "problem", "expected", "nearest"),
    [
        ({"epoch": 3}, "Unknown option 'epoch'", "one of backbone, weights, image_size", "head_epochs"),
        ({"ouput": "runs/a"}, "Unknown option 'ouput'", "one of ", "output"),
        ({"recipe": {"learningrate": 1}}, "Unknown option 'learningrate'", "one of ", "learning_rate"),
        ({"head_epochs": "3"}, "The option head_epochs cannot be '3'", "int, 0 to 10000", ""),
        ({"head_epochs": None}, "The option head_epochs cannot be None", "int, 0 to 10000", ""),
        ({"dropout": 1.5}, "The option dropout cannot be 1.5", "float, 0 to 0.95", ""),
        ({"optimizer": "adm"}, "The option optimizer cannot be 'adm'", "one of adam, adamw, sgd", "adam"),
        ({"backbone": 5}, "The option backbone cannot be 5", "str", ""),
        ({"recipe": "gone.toml"}, "Cannot read the recipe gone.toml", "a TOML file with lines", ""),
        ({"recipe": 5}, "A recipe cannot be of the type int", "a multitl.Recipe, a dict of options", ""),
    ],
)
def test_a_wrong_option_gets_its_hint(wrong: dict, problem: str, expected: str, nearest: str):
    with pytest.raises(RecipeError) as caught:
        multitl.finetune("photos", **wrong)
    assert caught.value.problem.startswith(problem)
    assert caught.value.expected.startswith(expected)
    assert nearest in caught.value.nearest or not nearest
    assert "options" not in caught.value.nearest
    assert caught.value.received and caught.value.fix


def test_a_wrong_option_is_found_before_a_framework_loads():
    code = """
import sys, multitl
try:
    multitl.finetune("photos", epoch=3)
except multitl.RecipeError:
    print([name for name in ("keras", "jax", "tensorflow", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
