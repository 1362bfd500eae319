"""Source `run`: the backbone of a finished run, as it was fine-tuned: the run's folder, or "run:FOLDER".

It keeps the name of the network that it came from, and the way back to that network's own weights, so that what is
trained further can leave in the same formats. The folder is data: card and model are read as anyone's.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from multitl.adapters import OF_RUNS, holds, known_runs
from multitl.contracts import BackboneInfo, Head, Origin, Pretrained
from multitl.errors import BackboneError, RunError, WeightsError, nearest_names
from multitl.runs.cards import Card, read_card
from multitl.runs.head_runs import refuse_heads
from multitl.system.hashes import file_sha256
from multitl.system.paths import expanded

if TYPE_CHECKING:  # `backbones` must answer without loading a framework
    import keras


def backbones() -> list[BackboneInfo]:
    """One line that stands for every run."""
    return [BackboneInfo("run:FOLDER", 0, "that of its backbone", "the folder of a finished run, also without run:")]


def check(name: str, weights: str) -> None:
    """See `contracts.Source`."""
    if holds(name, "card.json"):
        return
    refuse_heads(expanded(name))
    is_begun = any(holds(name, file) for file in OF_RUNS)
    raise RunError(
        f"There is no finished run in {name}.",
        expected="a folder that multitl finetune made, with card.json and model.keras",
        received="a run that is not finished" if is_begun else f"{name}, which is none",
        nearest=nearest_names(name, known_runs()),
        fix="finish the run with --resume" if is_begun else "check the path, or look into runs/",
    )


def at_hand(image_size: int) -> list[str]:
    """None: a user's own are named. See `contracts.Source`."""
    return []


def load(name: str, weights: str, image_size: int, head: Head = "cut") -> Pretrained:
    """Read the backbone of a run. See `contracts.Source`.

    name: path of the folder of a finished run, or of a network that was translated without its classifier.  weights:
    "default", the run's.  image_size: 0, or the run's own.

    Raises RunError for a folder that is missing, unfinished or damaged, WeightsError for other weights, BackboneError
    for another size, for head="keep", and for a network that has its original classifier.
    """
    folder = expanded(name)
    card = read_card(folder)
    _check_asked(folder, card, weights, image_size, head)
    return pretrained_of(folder, card, open_model(folder, card))


def pretrained_of(folder: Path, card: Card, model: keras.Model) -> Pretrained:
    """Of a run that is open. model: as `open_model` gives it. Raises RunError where it is not the card's."""
    backbone = _backbone(folder, card, model)
    sha256 = file_sha256(card.model_file(folder))
    about = card.backbone
    source = about.name.partition(":" if about.name.startswith("file:") else "/")[0]
    return Pretrained(
        name=about.name,
        backbone=backbone,
        preprocess=about.preprocess,
        stages=about.stages,
        origin=Origin(source, str(folder), sha256, about.licence, about.url),
        weights=about.tensors,
        classifier=about.classifier or (),
        unused=about.unused,
        parity=about.parity,
        feature_map=about.feature_map,
        content=sha256,  # and not the network's name: the card may say any, and features are stored by it
    )


def open_model(folder: Path, card: Card) -> keras.Model:
    """The whole model of a run: uint8 pixels -> what it gives. Raises RunError for a damaged one."""
    from multitl.models.joint import load_network

    try:
        model = load_network(card.model_file(folder), card.output)
    except WeightsError as error:
        raise _damaged(folder, error.received) from error
    if len(model.inputs) != 1 or model.input_shape != (None, *card.preprocess.shape):
        raise _damaged(folder, f"a model of inputs {[tuple(one.shape) for one in model.inputs]}")
    return model


def _backbone(folder: Path, card: Card, model: keras.Model) -> keras.Model:
    from multitl.models.freezing import leaf_layers
    from multitl.models.heads import backbone_of

    try:
        backbone = backbone_of(model)
    except StopIteration as error:
        raise _damaged(folder, "a model without a backbone in it") from error
    if len(backbone.outputs) != 1 or len(backbone.output_shape) != 4:
        raise _damaged(folder, f"a backbone that gives {backbone.output_shape}, no feature map")
    named = Counter(layer for stage in card.backbone.stages for layer in stage.layers)
    weighted = {layer.name for layer in leaf_layers(backbone) if layer.weights}
    if named != Counter(weighted):
        odd = sorted(weighted ^ named.keys()) or [name for name, count in named.items() if count > 1]
        raise _damaged(folder, f"stages that do not name each layer with weights once, such as {odd[0]}")
    return backbone


def _check_asked(folder: Path, card: Card, weights: str, image_size: int, head: Head) -> None:
    size = card.preprocess.height, card.preprocess.width
    if card.head == "keep":
        raise BackboneError(
            f"{folder} is a network with its original classifier.",
            expected="the folder of a finished run",
            received="one that multitl translate made",
            fix=f"name the network itself: {card.backbone.name}",
        )
    if head == "keep":
        raise BackboneError(
            f"{folder} is a run, and a Keras model with its classifier already.",
            expected="head = cut",
            received="head = keep",
            fix=f"multitl.load({str(folder)!r}).model, or {card.model_file(folder)}",
        )
    if weights != "default":
        raise WeightsError(
            f"The backbone of {folder} has weights of its own.",
            expected="weights = default",
            received=f"weights = {weights}",
            fix=f"leave --weights out, or name the network that they are for: --backbone {card.backbone.name}",
        )
    if image_size and size != (image_size, image_size):
        raise BackboneError(
            f"The backbone of {folder} takes images of {size[0]} x {size[1]} pixels.",
            expected="image_size = 0",
            received=f"image_size = {image_size}",
            fix="leave --image-size out",
        )


def _damaged(folder: Path, received: str) -> RunError:
    return RunError(
        f"The model of {folder} cannot be used as a backbone.",
        expected="the model that multitl finetune wrote, and the card beside it",
        received=received,
        fix="run multitl finetune again with --overwrite, or name another run",
    )
