"""torchvision, also where its build does not fit torch's; and what it says of its checkpoints.

torchvision's wheel holds a compiled part, which does not load into a torch of another build (a wheel made for CUDA, and
a CPU torch). No network that classifies images needs that part, and torchvision's import minds its absence in one place
only: it gives shape rules to two operators, which then do not exist. Once they are declared, everything else works.
timm imports torchvision, so the same holds for timm.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import sys
from enum import Enum
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from multitl.contracts import Checkpoint, Job, Preprocess
from multitl.errors import BackboneError, BackendError, nearest_names
from multitl_torch.transforms import from_torchvision

if TYPE_CHECKING:  # torch may be missing, which is for import_torchvision to say
    import torch

NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"  # of torchvision::nms and torchvision::qnms
LICENCE = "BSD-3-Clause"
OPTIONS = {  # of families whose graph depends on the image's size, or whose first weights take minutes to draw
    "vit_": lambda size: {"image_size": size},
    "maxvit_": lambda size: {"input_size": (size, size)},
    "googlenet": lambda size: {"init_weights": False},
    "inception_": lambda size: {"init_weights": False},
}
WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
SWAG = "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"


def import_torchvision() -> ModuleType:
    """The package torchvision. Raises BackendError if it or torch is missing, or if the two cannot work together."""
    _insist_on("torch", extra="torchvision")
    _insist_on("torchvision", extra="torchvision")
    try:
        return _import_declaring("torchvision")
    except Exception as error:  # whatever the first thing is that does not fit
        raise _misfit(error) from error


def import_timm() -> ModuleType:
    """The package timm. Raises BackendError as `import_torchvision` does."""
    _insist_on("timm", extra="timm")
    import_torchvision()
    return importlib.import_module("timm")


def checkpoints(name: str) -> dict[str, Checkpoint]:
    """The official weights of a network ("resnet50") by their names ("IMAGENET1K_V2"). Raises BackboneError."""
    members = _weights(name)
    return {member.name: _describe(member, member is members.DEFAULT) for member in members}


def categories(name: str, checkpoint: str = "DEFAULT") -> tuple[str, ...]:
    """The classes of a network's official weights, in the order of its outputs. Raises BackboneError."""
    members = _weights(name)
    if checkpoint not in members.__members__:
        raise BackboneError(
            f"The network torchvision/{name} has no weights {checkpoint!r}.",
            expected=", ".join(members.__members__),
            received=checkpoint,
            nearest=nearest_names(checkpoint, members.__members__),
            fix="choose one of these",
        )
    return tuple(members[checkpoint].meta["categories"] or ())


def _import_declaring(name: str) -> ModuleType:
    """Import a package; where that fails for an operator of torchvision's, declare it and try again.

    An import that failed, ours or somebody's before us, leaves submodules behind that the next one would trip over.
    Declaring an operator twice is an error of torch's, so this ends.
    """
    if name not in sys.modules:
        for left in [module for module in sys.modules if module.startswith(f"{name}.")]:
            del sys.modules[left]
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        missing = re.search(r"operator (torchvision::q?nms) does not exist", str(error))
        if not missing:
            raise
    import torch

    torch.library.define(missing[1], NMS)  # torch keeps it for the life of the process
    return _import_declaring(name)


def _insist_on(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise BackendError(
            f"The networks of {extra} need the package {package}, which is not installed.",
            expected=f"that python -c 'import {package}' works",
            received="no such package",
            fix=f"pip install 'multitl[{extra}]'",
        )


def _misfit(error: Exception) -> BackendError:
    """torch 2.N and torchvision 0.(N + 15) are released together."""
    torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    numbers = re.match(r"2\.(\d+)\.\d+(?:\+(\w+))?", torch)
    wanted = f"torchvision==0.{int(numbers[1]) + 15}.*" if numbers else "torchvision"
    index = f" --index-url https://download.pytorch.org/whl/{numbers[2]}" if numbers and numbers[2] else ""
    return BackendError(
        f"torchvision {torchvision} cannot be imported with torch {torch}.",
        expected=f"{wanted}, which was made for this torch",
        received=f"{type(error).__name__}: {error}".partition("\n")[0],
        fix=f"pip install --force-reinstall --no-deps '{wanted}'{index}",
    )


def _weights(name: str) -> Any:
    """torchvision's enumeration of a classification network's weights."""
    models = importlib.import_module(f"{import_torchvision().__name__}.models")
    known = models.list_models(module=models)
    if name not in known:
        raise BackboneError(
            f"Unknown backbone torchvision/{name}.",
            expected=f"one of the {len(known)} classification networks of torchvision.models",
            received=f"torchvision/{name}",
            nearest=[f"torchvision/{near}" for near in nearest_names(name, known)],
            fix="multitl backbones 'torchvision/*'",
        )
    return models.get_model_weights(name)


def _describe(member: Enum, is_default: bool) -> Checkpoint:
    weights = member.value
    meta = weights.meta
    digest = re.search(r"-([0-9a-f]{8,})\.pth$", weights.url)
    accuracy = meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return Checkpoint(
        name=member.name,
        is_default=is_default,
        url=weights.url,
        sha256=digest[1] if digest else "",
        classes=len(meta["categories"] or ()),
        parameters=meta["num_params"],
        megabytes=round(meta["_file_size"] * 2**20 / 10**6, 1),
        top1=None if math.isnan(accuracy) else round(accuracy / 100, 5),
        smallest=meta["min_size"],
        recipe=meta.get("recipe", ""),
        licence=_licence(meta.get("license", "")),
        preprocess=from_torchvision(weights.transforms()),
    )


def _licence(text: str) -> str:
    """torchvision names a licence only where it is not its own; SWAG's page is that of CC BY-NC 4.0."""
    return {"": LICENCE, SWAG: "CC BY-NC 4.0"}.get(text, text)


def open_network(job: Job, classes: int) -> tuple[torch.nn.Module, Preprocess, tuple[str, ...], str, str]:
    """The module with random weights, its preprocessing, class names, licence and address. See `contracts.Translator`.

    Official weights come as a path: multitl fetches them itself.
    """
    models = importlib.import_module(f"{import_torchvision().__name__}.models")
    name, _, wanted = job.name.partition(":")
    known = {one.name.upper(): one for one in checkpoints(name).values()}
    checkpoint = known[wanted.upper()] if wanted else next(one for one in known.values() if one.is_default)
    size = job.image_size or checkpoint.preprocess.height
    module = _create(models, name, _options(name, size, classes))
    preprocess = from_torchvision(_weights(name)[checkpoint.name].transforms(), size)
    names = categories(name, checkpoint.name) if classes in (0, checkpoint.classes) else ()
    return module, preprocess, names, checkpoint.licence, checkpoint.url


def open_class(job: Job, classes: int) -> tuple[torch.nn.Module, str, dict[str, Any]]:
    """A network without auxiliary heads, which training alone needs; the arguments of `get_model` that make it."""
    models = importlib.import_module(f"{import_torchvision().__name__}.models")
    name = job.name.partition(":")[0]
    _weights(name)
    options = _options(name, job.image_size, classes)
    options |= {"aux_logits": False} if name.startswith(WITH_AUXILIARY_HEADS) else {}
    return _create(models, name, options), name, options


def _options(name: str, size: int, classes: int) -> dict[str, Any]:
    options: dict[str, Any] = {"num_classes": classes} if classes else {}
    return options | next((option(size) for family, option in OPTIONS.items() if name.startswith(family)), {})


def _create(models: ModuleType, name: str, options: dict[str, Any]) -> torch.nn.Module:
    try:
        return models.get_model(name, weights=None, **options)
    except (AssertionError, ValueError) as error:  # how torchvision refuses a size
        raise BackboneError(
            f"torchvision cannot make {name} as asked for.",
            expected="an image size that the network takes",
            received=f"{options}: {error}",
            fix="leave --image-size out for the network's own",
        ) from error
