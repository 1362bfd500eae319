from __future__ import annotations

import dataclasses
import math
import os
import pydoc
import re
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.errors import RecipeError
from multitl.options import parse_duration
from multitl.recipes import Options, Recipe, combine, read_options

FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
NUMBERS = [name for name, field in FIELDS.items() if type(field.default) in (int, float)]


def values_of(field: dataclasses.Field) -> st.SearchStrategy:
    """Any valid value of an option; free text includes what TOML has to escape."""
    limits, kind = field.metadata, type(field.default)
    if limits["choices"]:
        return st.sampled_from(limits["choices"])
    if kind is bool:
        return st.booleans()
    if field.name == "budget":
        return st.sampled_from(["none", "90", "2.5s", "10m", "1.5h"])
    if field.name == "range":
        return st.sampled_from(["", "0,4095", "-1, 1", "-1e3,2.5"])
    if field.name == "channels":
        return st.sampled_from(["", "4,3,2", "1, 1,12", "all", "1", "1,2,3,4,5"])
    if field.name == "class_weights":
        return st.sampled_from(["none", "balanced", "cat=2,dog=0.5", '"a,b=1","c""d=2"', "weights.csv"])
    if field.name == "loss":
        return st.sampled_from(["cross_entropy", "focal", "focal:0.5"])
    if field.name == "costs":
        return st.sampled_from(["", "true,predicted,cost\ncat,dog,1\n", ',a,b\n"a\nb",0,.5', "costs.csv"])
    if field.name == "relabel":
        return st.sampled_from(["", "path,issue,verdict,sha256\na,label,keep,sha256:0123456789abcdef\n", "issues.csv"])
    if kind is str:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    least, most = limits["least"], limits["most"]
    if kind is int:
        return st.integers(least, most if most is not None else 2**31)
    return st.floats(least, most if most is not None else 1e6)


def fits_together(options: dict) -> bool:
    trains = bool(options["head_epochs"] or options["unfreeze"] != "none")
    is_solved = not options["hidden"] and not options["dropout"] and options["head_epochs"]
    is_one = not (options["bits"] and options["range"])
    has_head = bool(is_solved or options["head"] in ("auto", "linear"))
    return trains and is_one and has_head and options["shots"] != 1


def settled(options: dict) -> dict:
    """Without options for one class an image only, where it has another goal; with an adaptation that can be."""
    if options["labels"] != "one":
        options = options | {"head": "auto", "class_weights": "none", "costs": "", "unlabelled": ""}
    if options["labels"] == "number":
        options = options | {"shots": 0, "label_smoothing": 0.0, "loss": "cross_entropy"}
    is_kept = options["unfreeze"] == "none" and not options["hidden"] and not options["dropout"]
    can_adapt = options["unlabelled"] and is_kept and options["head_epochs"]
    return options if can_adapt else options | {"adapt": "auto"}


every = st.fixed_dictionaries({name: values_of(field) for name, field in FIELDS.items()})
recipes = every.map(settled).filter(fits_together)


@given(recipes)
def test_toml_gives_an_equal_recipe_back(options: dict):
    recipe = Recipe(**options)
    assert Recipe.from_mapping(tomllib.loads(recipe.to_toml())) == recipe


def test_toml_file_gives_an_equal_recipe_back(tmp_path: Path):
    recipe = Recipe(backbone="keras/MobileNet:alpha=0.25", l2=1e-7, train_batch_norm=True)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert Recipe.read(tmp_path / "recipe.toml") == recipe


def test_every_option_explains_itself_in_the_file():
    lines = Recipe().to_toml().splitlines()
    assert len(lines) == len(FIELDS)
    for line, field in zip(lines, FIELDS.values(), strict=True):
        assert line.startswith(f"{field.name} = ") and line.endswith(f"  # {field.metadata['help']}")


@pytest.mark.parametrize("name", NUMBERS)
def test_limits_are_included_and_nothing_beyond(name: str):
    limits = FIELDS[name].metadata
    for bound, step in ((limits["least"], -1), (limits["most"], 1)):
        if bound is None:
            continue
        kind = type(FIELDS[name].default)
        assert getattr(Recipe(**{"unfreeze": "all", name: kind(bound)}), name) == bound
        beyond = bound + step if kind is int else math.nextafter(bound, step * math.inf)
        with pytest.raises(RecipeError, match=f"The option {name} cannot be"):
            Recipe(**{name: beyond})


def test_path_that_is_no_text_is_refused():
    with pytest.raises(RecipeError, match="weights"):
        Recipe(weights="model-\udcff.h5")


def test_recipe_that_trains_nothing_is_refused():
    with pytest.raises(RecipeError, match="trains nothing"):
        Recipe(head_epochs=0, unfreeze="none")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("0.5m", 30), ("none", None)]
)
def test_budget_is_a_time(text: str, seconds: float | None):
    assert parse_duration(Recipe(budget=text).budget) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3m", "10 m", "ten", "1d", "1e3", "nan", "inf", "9" * 400])
def test_other_budgets_are_refused(text: str):
    with pytest.raises(RecipeError, match=r"budget cannot be(.|\n)*90s, 10m or 1.5h"):
        Recipe(budget=text)


def test_an_option_of_an_older_version_says_what_to_write_instead(tmp_path: Path):
    (tmp_path / "old.toml").write_text('unfreeze = "last"\nepochs = 8\n')
    with pytest.raises(RecipeError, match=r"Unknown option 'epochs'(.|\n)*to mend: steps = epochs \* training images"):
        Recipe.read(tmp_path / "old.toml")


@pytest.mark.parametrize("options", [{"hidden": 8}, {"dropout": 0.1}, {"head_epochs": 0, "unfreeze": "all"}])
def test_a_head_that_can_only_be_solved_is_not_trained(options: dict):
    for head in ("mean", "kernel"):
        with pytest.raises(RecipeError, match="is solved, not trained"):
            Recipe(head=head, **options)
    assert Recipe(head="linear", **options).head == "linear"


def test_one_image_a_class_is_refused():
    with pytest.raises(RecipeError, match="none can be spared for validation"):
        Recipe(shots=1)
    assert Recipe(shots=2).shots == 2


@pytest.mark.parametrize("name", NUMBERS)
def test_not_a_number_is_refused(name: str):
    for value in (math.nan, "3", None, True):
        with pytest.raises(RecipeError, match=name):
            Recipe(**{name: value})


def test_whole_numbers_do_for_a_fraction_but_not_the_reverse():
    assert Recipe(l2=1).l2 == 1
    with pytest.raises(RecipeError, match="head_epochs"):
        Recipe(head_epochs=2.0)


def test_wrong_choice_names_the_choices_and_the_nearest():
    with pytest.raises(RecipeError) as caught:
        Recipe(optimizer="adm")
    assert caught.value.expected == "one of adam, adamw, sgd"
    assert "adam" in caught.value.nearest


def test_pixel_values_of_no_known_name_are_refused():
    with pytest.raises(RecipeError) as caught:
        Recipe(preprocess="cafe")
    assert caught.value.expected == "one of auto, torch, caffe, tf, unit, bytes"
    assert caught.value.nearest == ("caffe",)
    assert Recipe(preprocess="unit").differences(Recipe()) == {"preprocess": ("unit", "auto")}


def test_unknown_key_names_the_nearest_and_the_file(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("head_epoch = 3\n")
    with pytest.raises(RecipeError, match="head_epoch") as caught:
        Recipe.read(path)
    assert "head_epochs" in caught.value.nearest
    assert str(path) in caught.value.problem


DAMAGED = [b"head_epochs == 3", b"\xff\xfe", b"[a", b"x = 1\nx = 2", b"x = " + b"[" * 5000, b"l2 = " + b"9" * 5000]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(RecipeError, match="Cannot read the recipe"):
        read_options(tmp_path / "bad.toml")


def test_missing_file_and_folder_are_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.toml")  # in a run folder that somebody made, it would be waited for without end
    reasons = ["No such file or directory", "Is a directory", "not a regular file", "not a regular file"]
    paths = [tmp_path / "none.toml", tmp_path, tmp_path / "pipe.toml", "/dev/zero"]
    for path, reason in zip(paths, reasons, strict=True):
        with pytest.raises(RecipeError) as caught:
            read_options(path)
        assert caught.value.problem == f"Cannot read the recipe {path}: {reason}."


def test_table_in_a_recipe_is_an_unknown_option(tmp_path: Path):
    (tmp_path / "nested.toml").write_text("[optimiser]\nepochs = 3\n")
    with pytest.raises(RecipeError, match="Unknown option 'optimiser'"):
        Recipe.read(tmp_path / "nested.toml")


def test_differences_lists_both_values():
    assert Recipe(seed=1).differences(Recipe(seed=2, hidden=8)) == {"seed": (1, 2), "hidden": (0, 8)}
    assert Recipe().differences(Recipe()) == {}


def test_help_lists_every_option_with_its_default_meaning_and_range():
    words = " ".join(re.sub(r"^ \|", "", pydoc.plain(pydoc.render_doc(Recipe)), flags=re.MULTILINE).split())
    for field in FIELDS.values():
        assert f" {field.name} = {field.default!r} {' '.join(field.metadata['help'].split())} (" in words
    assert "image_size = 0 side of the square input in pixels; 0: the backbone's own (int, 0 to 4096)" in words
    assert all(len(line) <= 120 for line in Recipe.__doc__.splitlines())


def test_keywords_are_the_options_of_a_recipe_with_their_types():
    """What a type checker and an editor see, who run nothing: a new field of Recipe needs a line there."""
    keywords = dict(get_type_hints(Recipe))
    del keywords["backbone"], keywords["weights"]  # arguments of `multitl.finetune` in their own right
    assert list(get_type_hints(Options).items()) == list(keywords.items())


@pytest.fixture(params=["mapping", "text", "path", "recipe"])
def six_steps(request: pytest.FixtureRequest, tmp_path: Path):
    """steps = 6 in each form that a recipe may be given in."""
    path = tmp_path / "six.toml"
    path.write_text("steps = 6\n", encoding="utf-8")
    return {"mapping": {"steps": 6}, "text": str(path), "path": path, "recipe": Recipe(steps=6)}[request.param]


def test_recipe_comes_in_four_forms_and_keywords_win(six_steps):
    assert combine(six_steps, {}) == Recipe(steps=6)
    assert combine(six_steps, {"steps": 3, "l2": 0.5}) == Recipe(steps=3, l2=0.5)
    assert combine(six_steps, {"hidden": 4}) == Recipe(steps=6, hidden=4)


def test_no_recipe_is_the_defaults():
    assert combine(None, {}) == combine({}, {}) == Recipe()
    assert combine(None, {"seed": 3}) == Recipe(seed=3)


def test_recipe_of_another_type_is_refused():
    for value in (5, ["epochs"], True):
        with pytest.raises(RecipeError, match="A recipe cannot be of the type") as caught:
            combine(value, {})
        assert caught.value.expected == "a multitl.Recipe, a dict of options, or the path of a TOML file"


def test_options_are_checked_together():
    """A value that is replaced is not looked at, and what is right alone may be wrong beside another."""
    assert combine({"steps": -1, "unfreeze": "all"}, {"steps": 2}) == Recipe(steps=2, unfreeze="all")
    with pytest.raises(RecipeError, match="trains nothing"):
        combine({"unfreeze": "none"}, {"head_epochs": 0})


def test_paths_are_taken_for_their_text():
    assert combine({"weights": Path("old/net.h5")}, {}).weights == os.path.join("old", "net.h5")  # noqa: PTH118
    assert combine(None, {"weights": Path("net.h5")}).weights == "net.h5"


@pytest.mark.parametrize("recipe", [None, {"steps": 3}])
def test_misspelt_keyword_names_what_may_be_meant(recipe):
    with pytest.raises(RecipeError, match=r"Unknown option 'epoch'\.") as caught:
        combine(recipe, {"epoch": 3})
    assert caught.value.nearest[0] == "head_epochs"
    assert (caught.value.received, caught.value.fix) == ("epoch", "rename or remove 'epoch'")
    with pytest.raises(RecipeError) as caught:
        combine(recipe, {"ouput": "runs/a"}, also=["data", "output"])
    assert caught.value.nearest[0] == "output"
