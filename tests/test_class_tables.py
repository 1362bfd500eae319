"""Tables of classes that an option holds, as people write them and as a recipe keeps them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from multitl.class_tables import parse_weights, weights_by_class
from multitl.errors import RecipeError
from multitl.recipes import Recipe, combine

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
