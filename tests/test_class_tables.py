"""Tables of classes that an option holds, as people write them and as a recipe keeps them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from multitl.class_tables import costs_by_class, parse_costs, parse_weights, weights_by_class
from multitl.errors import RecipeError
from multitl.recipes import Recipe, combine

COSTS = {("cat", "dog"): 5.0, ("dog", "cat"): 1.0}
ODD = {"a,b": 2.0, "c=d": 0.5, ' "e"': 3.0, "ä\nz": 1.0}


def write(folder: Path, text: str) -> str:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_weights_are_written_out_or_in_a_file(tmp_path: Path):
    assert parse_weights("cat=2, dog=.5") == {"cat": 2.0, "dog": 0.5}
    for header in ("", "class,weight\n", "\ufeffClass, Weight\n"):
        settled = combine(None, {"class_weights": write(tmp_path, f"{header}cat,2\ndog, 0.5\n\n")})
        assert settled.class_weights == "cat=2,dog=0.5"
    assert weights_by_class("cat=2,dog=.5", ["dog", "cat"]) == [0.5, 2.0]


def test_a_recipe_keeps_the_table_and_not_the_file(tmp_path: Path):
    path = write(tmp_path, 'class,weight\n"a,b",2\nc=d,0.5\n" ""e""",3\n"ä\nz",1\n')
    for given in (Recipe(class_weights=path), {"class_weights": path}):
        recipe = combine(given, {})
        assert parse_weights(recipe.class_weights) == ODD
    Path(path).unlink()
    text = tmp_path / "recipe.toml"
    text.write_text(recipe.to_toml(), encoding="utf-8")
    assert combine(text, {}) == recipe == Recipe(**tomllib.loads(recipe.to_toml()))
    with pytest.raises(RecipeError, match=r"(?s)Cannot read .*No such file.*--recipe RUN/recipe\.toml"):
        combine(None, {"class_weights": path})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot be"),
        ("balanc", "nearest.*balanced"),
        ("cat", "cannot be"),
        ("cat=2,dog", "cannot be"),
        ("cat=0,dog=1", "'0' is no weight for the class 'cat'"),
        ("cat=-1,dog=1", "no weight"),
        ("cat=nan,dog=1", "no weight"),
        ("cat=inf,dog=1", "no weight"),
        ("cat=two,dog=1", "no weight"),
        ("cat=2,cat=1", "two weights"),
        ('cat=2,"dog=1', "no CSV"),
        ("cat=2\ndog=1", "cannot be"),
    ],
)
def test_weights_that_are_none_are_refused(text: str, told: str):
    with pytest.raises(RecipeError, match=f"(?s){told}"):
        Recipe(class_weights=text)


@pytest.mark.parametrize("text", ["", "class,weight\n", "cat\n", "cat,1,2\n", "cat,0\n", "cat,1\ncat,2\n"])
def test_files_that_hold_no_weights_are_refused(text: str, tmp_path: Path):
    with pytest.raises(RecipeError):
        combine(None, {"class_weights": write(tmp_path, text)})


def test_weights_are_of_all_classes_and_of_no_others():
    with pytest.raises(RecipeError, match=r"(?s)names classes that there are not: dgo.*dog"):
        weights_by_class("cat=2,dgo=1", ["cat", "dog"])
    with pytest.raises(RecipeError, match="says nothing of dog"):
        weights_by_class("cat=2", ["cat", "dog"])


@pytest.mark.parametrize(
    "text",
    [
        "true,predicted,cost\ncat,dog,5\ndog,cat,1\n",
        "\ufeffTrue, Predicted, Cost\ndog,cat,1.0\ncat,dog,5\ncat,cat,0\n",
        ",cat,dog\ncat,0,5\ndog,1,0\n",
        "true class,dog,cat\ndog,,1\ncat,5,\n",
    ],
)
def test_both_forms_of_costs_say_the_same(text: str, tmp_path: Path):
    path = write(tmp_path, text)
    recipe = combine(None, {"costs": path})
    assert parse_costs(recipe.costs) == COSTS
    Path(path).unlink()
    assert combine(recipe, {}) == recipe == Recipe(**tomllib.loads(recipe.to_toml()))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("costs", "no table of costs.*nearest.*costs.csv"),
        ("true,predicted,cost\n", "no table of costs"),
        ("true,predicted,cost\ncat,dog\n", "no table of costs"),
        ("true,predicted,cost\ncat,dog,much\n", "'much' is no cost of answering 'dog' where 'cat' is true"),
        ("true,predicted,cost\ncat,dog,-1\n", "no cost"),
        ("true,predicted,cost\ncat,dog,nan\n", "no cost"),
        ("true,predicted,cost\ncat,dog,inf\n", "no cost"),
        ("true,predicted,cost\ncat,dog,1\ncat,dog,2\n", "two costs"),
        (",cat,dog\ncat,0,1\ncat,1,0\n", "two costs"),
        (',cat,dog\n"cat,0,1\n', "no CSV"),
    ],
)
def test_costs_that_are_none_are_refused(text: str, told: str):
    with pytest.raises(RecipeError, match=f"(?s){told}"):
        Recipe(costs=text)


def test_costs_are_of_the_classes_and_make_no_answer_free():
    table = "true,predicted,cost\ncat,dog,5\ndog,cat,1\n"
    assert costs_by_class(table, ["dog", "cat"]) == COSTS
    with pytest.raises(RecipeError, match=r"(?s)names classes that there are not: dog.*dgo"):
        costs_by_class(table, ["cat", "dgo"])
    with pytest.raises(RecipeError, match="to answer cow is always free"):
        costs_by_class(table, ["cat", "cow", "dog"])
    with pytest.raises(RecipeError, match=r"costs = .* is for one class an image"):
        Recipe(labels="several", costs=table)
