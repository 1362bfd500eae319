"""What `port` and `translate` are asked for: which model, in which formats, where to; and what is refused at once.

That is before a framework loads. All of it is looked at again where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from multitl.adapters import FILE, RUN, SOURCES, check_backbone, check_head, folder_name
from multitl.data.scanning import check_path
from multitl.errors import PortError, nearest_names
from multitl.judging.opening import load_run
from multitl.porting.folders import check_output
from multitl.porting.formats import FORMATS, SECOND, check_format
from multitl.recipes import Recipe
from multitl.runs.folders import beside, check_folder
from multitl.runs.locks import locked, run_lock
from multitl.system.paths import expanded


def check_port(
    model: str, formats: Sequence[str], output: str | os.PathLike[str] | None, *,
    images: str | os.PathLike[str] | None, calibration: str | os.PathLike[str] | None, weights: str,
    image_size: int = 0, overwrite: bool, also: Sequence[str] = (),
) -> None:  # fmt: skip
    """Raises what `port` would, as far as names tell."""
    for to in formats:
        check_format(to)
        if also and not FORMATS[to].has_further:
            flags, able = [SECOND[name] for name in also], [name for name, one in FORMATS.items() if one.has_further]
            raise PortError(
                f"The format {to} has no outputs beside the first.",
                expected=", ".join(able),
                received=f"{to}, with {' '.join(flags)}",
                fix=f"leave {' and '.join(flags)} out, or --to {able[0]}",
            )
    folder = folder_of(model)
    if folder:
        card = load_run(folder).card
        for to in formats:
            check_goal(to, card.recipe)
        _refuse_idle({"weights": weights != "default", "image-size": bool(image_size)}, f"{folder}, which has its own")
    else:
        check_backbone(source_name(model), weights)
    for to in formats:
        check_output(output_of(model, to, output, alone=len(formats) == 1), overwrite=overwrite)
        if images is None and not (folder and (folder / "predictions.csv").is_file()):
            check_photos(to, are_photos=False)
    if not any(FORMATS[to].is_calibrated for to in formats):
        _refuse_idle({"calibration": calibration is not None}, f"{', '.join(formats)}, which rounds no activations")
    for place in (images, calibration):
        if place is not None:
            check_path(place)


def _refuse_idle(options: Mapping[str, bool], why: str) -> None:
    """Raises PortError for options that are given and would do nothing."""
    if idle := [f"--{name}" for name, is_given in options.items() if is_given]:
        raise PortError(
            f"{' and '.join(idle)} would do nothing.",
            expected="options that the model and the format have a use for",
            received=f"{' and '.join(idle)} for {why}",
            fix=f"leave {' and '.join(idle)} out",
        )


def check_translate(
    recipe: Recipe, head: str, output: str | os.PathLike[str], backend: str, *, overwrite: bool
) -> None:
    """Raises what `translate` would, as far as names tell. backend: the name of one that is installed."""
    check_head(head)
    check_backbone(recipe.backbone, recipe.weights)
    with locked(run_lock(Path(output)), Path(output)):
        check_folder(Path(output), recipe, backend, overwrite=overwrite, resume=False)


def check_goal(to: str, recipe: Recipe) -> None:
    """Raises PortError for a format that ends in one class an image where there may be several labels, or a number."""
    if FORMATS[to].is_state_dict and recipe.labels != "one":
        what = {"several": "several labels an image", "number": "a number"}[recipe.labels]
        raise PortError(
            f"The format {to} cannot carry {what}: the network's own class ends in a softmax.",
            expected="a model of one class an image, or another format",
            received=f"labels = {recipe.labels}",
            fix="--to torch-export, which PyTorch opens as well; multitl ports lists all",
        )


def check_photos(to: str, *, are_photos: bool) -> None:
    """Raises PortError for a format that needs photos where there are none."""
    if FORMATS[to].bits < 32 and not are_photos:
        raise PortError(
            f"The format {to} rounds numbers, which made-up images can neither guide nor judge.",
            expected="photos of the kind that the model is for",
            received="a model that no photos are known of",
            fix="name a folder of photos with --images",
        )


def output_of(model: str, to: str, output: str | os.PathLike[str] | None, *, alone: bool) -> Path:
    """Where a port goes. alone: whether it is the only one, which `output` then is the folder of."""
    if output is None:
        return Path(default_output(model, to))
    return Path(output) if alone else Path(output, to)


def default_output(model: str, to: str) -> str:
    """Beside a run's folder, else in runs/."""
    folder = folder_of(model)
    if folder:
        return str(beside(folder, to))
    return f"runs/{folder_name(source_name(model))}-{to}"


def folder_of(model: str) -> Path | None:
    """The folder of a run or a translated network that `model` names, by itself or by its model.keras."""
    path = expanded(model.removeprefix(RUN))
    try:
        if path.is_dir():
            return path
        is_saved = path.is_file() and path.name == "model.keras"
        return path.parent if is_saved and (path.parent / "card.json").is_file() else None
    except (OSError, ValueError):  # ValueError: a NUL
        return None


def source_name(model: str) -> str:
    """What `load_pretrained` takes. Raises PortError for what is neither a path nor the name of a network."""
    if expanded(model).is_file():
        return f"file:{model}"
    if model.startswith(FILE) or model.partition("/")[0] in SOURCES:
        return model
    raise PortError(
        f"There is no model {model!r}.",
        expected="the folder of a finished run, a .keras or .h5 file, or a network such as torchvision/resnet50",
        received=model,
        nearest=nearest_names(model, (str(card.parent) for card in Path("runs").glob("*/card.json"))),
        fix="multitl backbones, or look into runs/",
    )
