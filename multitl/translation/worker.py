"""Translate one network in a process of its own: `python -m multitl.translation.worker JOB FOLDER`.

Writes model.keras and card.json into FOLDER, or error.json for what is the input's or the machine's fault. Nothing is
written before the translation has been compared with its original.
"""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from multitl.adapters import load_translator
from multitl.contracts import Job, Original, Parity, Translation, Translator
from multitl.errors import BackboneError
from multitl.files.state_dict_files import read_state_dict
from multitl.models.keras_archives import write_keras_archive
from multitl.models.weight_hashes import weights_sha256
from multitl.runs.cards import EntryCard, checked
from multitl.system.workers import report_errors
from multitl.system.writing import write_json
from multitl.translation.cutting import classifier_weights
from multitl.translation.filling import extract, fill, is_all_weights
from multitl.translation.state_dicts import classes_in, fit
from multitl.version import __version__


def translate(job: Job, folder: Path) -> None:
    """Open, translate, fill, compare, save. See `store.translated` for the errors."""
    sys.setrecursionlimit(10_000)  # Keras saves nested structures recursively
    translator = load_translator(job.source)
    original = translator.open_original(job, classes=0)
    if original.missing_classifier and job.head == "keep":
        raise _nothing_to_keep(job)
    translation = original.translate()
    note = ""
    if job.weights not in ("default", "none"):
        original, translation, note = _with_file(job, translator, original, translation)
    parity = original.verify(translation)
    write_keras_archive(translation.model, folder / "model.keras")
    card = _card(job, translator, original, translation, parity, note)
    write_json(folder / "card.json", checked(card, EntryCard))


def _with_file(
    job: Job, translator: Translator, original: Original, translation: Translation
) -> tuple[Original, Translation, str]:
    """The weights of a local file in both networks. A classifier of other classes makes both anew, if it is to be
    kept.
    """
    state = read_state_dict(job.weights)
    classifier = original.missing_classifier or classifier_weights(translation)
    classes = classes_in(state, translation.weights, classifier)
    if job.head == "keep" and classes and classes != translation.model.output_shape[-1]:
        original = translator.open_original(job, classes)
        translation = original.translate()
    free = classifier if job.head == "cut" else ()
    fitting = fit(
        state, translation.weights, unused=translation.unused, classifier=free, network=f"{job.source}/{job.name}",
        resampled=original.resampled,
    )  # fmt: skip
    tensors = extract(translation.model, translation.weights) | dict(
        fitting.tensors
    )  # random ones for a cut classifier
    original.load(tensors)
    if is_all_weights(translation.model, translation.weights):
        fill(translation.model, translation.weights, tensors)
        return original, translation, fitting.note
    return original, original.translate(), fitting.note


def _card(
    job: Job, translator: Translator, original: Original, translation: Translation, parity: Parity, note: str
) -> dict[str, Any]:
    return {
        "multitl": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "job": asdict(job),
        "weights_note": note,
        "weights_sha256": weights_sha256(translation.model),
        "versions": {"keras": keras.__version__} | translator.versions(),
        "parity": asdict(parity),
        "image_size": original.image_size,
        "preprocess": asdict(original.preprocess),
        "class_names": list(original.class_names),
        "licence": original.licence,
        "url": original.url,
        "stages": [asdict(stage) for stage in translation.stages],
        "weights": [asdict(weight) for weight in translation.weights],
        "unused": list(translation.unused),
        "has_classifier": not original.missing_classifier,
    }


def _nothing_to_keep(job: Job) -> BackboneError:
    return BackboneError(
        f"{job.source}/{job.name} has no classifier to keep: its weights come without one, it gives features.",
        expected="a network that was trained to classify",
        received='head = "keep"',
        fix="--head cut: the whole network serves as the backbone",
    )


def main(arguments: list[str]) -> int:
    """JOB as JSON, and the folder to write to."""
    job, folder = Job(**json.loads(arguments[0])), Path(arguments[1])
    return report_errors(lambda: translate(job, folder), folder / "error.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
