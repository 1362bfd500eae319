"""multitl: transfer learning that does not care which framework you use.

Nothing here imports Keras or a framework until a function is called: Keras fixes its backend when it is first imported,
so `backend=` (or KERAS_BACKEND) must be settled before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from multitl.adapters import load_backend
from multitl.contracts import Preprocess, Pretrained, Result, Split, Stage
from multitl.errors import MultitlError
from multitl.recipes import Recipe

__version__ = "0.1.0"
__all__ = [
    "MultitlError",
    "Preprocess",
    "Pretrained",
    "Recipe",
    "Result",
    "Stage",
    "evaluate",
    "finetune",
    "load_pretrained",
    "predict",
]


def load_pretrained(name: str, weights: str | PathLike[str] = "default", image_size: int = 0) -> Pretrained:
    """Build a backbone and fill in its pretrained weights.

    name: "SOURCE/NAME[:variant]", e.g. "keras/ResNet50" or "keras/MobileNet:alpha=0.25".
    weights: "default" (the official ones), "none" (random), or the path of a weights file or folder.
    image_size: side of the square input in pixels; 0 for the backbone's own.

    Returns `.backbone` (a functional keras.Model from preprocessed pixels to a feature map), `.preprocess`, `.stages`,
    `.origin`. Runs on the backend of KERAS_BACKEND, else the first installed; the process keeps it.
    Raises BackboneError for an unknown name and WeightsError for weights that are missing or do not fit.
    """
    load_backend()
    from multitl import pretrained

    return pretrained.load_pretrained(name, str(weights), image_size)


def finetune(
    data: str | PathLike[str],
    *,
    backbone: str | None = None,
    weights: str | PathLike[str] | None = None,
    backend: str | None = None,
    output: str | PathLike[str] | None = None,
    recipe: Recipe | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Result:
    """Fine-tune a pretrained backbone on labelled images; judge, save and report the classifier.

    data: a folder `class/images` or `train|validation|test/class/images`, or a CSV or Parquet file with the columns
    path,label[,split].
    backbone, weights: as for `load_pretrained`; override the recipe's.  backend: "jax", "tensorflow" or "torch".
    output: the run folder to make (default: runs/<data>-<backbone>-<backend>).
    recipe: every other option; `multitl finetune --help` explains each.
    overwrite / resume: what to do if `output` exists; without either that is an error.

    Returns paths, class names and `metrics`: {"test": {...} or None where there is no test part, "validation": {...}}.
    Raises a MultitlError that says what to mend. What was finished before an error stays in `output`.
    """
    adapter = load_backend(backend)
    from multitl import training

    with adapter.fast_paths():
        return training.finetune(
            data,
            backbone=backbone,
            weights=weights,
            backend=adapter,
            output=output,
            recipe=recipe or Recipe(),
            overwrite=overwrite,
            resume=resume,
        )


def evaluate(
    run: str | PathLike[str], data: str | PathLike[str], *, split: Split = "test", backend: str | None = None
) -> dict[str, Any]:
    """Judge a finished run on labelled images: the figures that metrics.json holds for one split.

    data: as for `finetune`; of a data set with splits the part `split` is used, else every image.
    Returns count, accuracy, f1_macro, f1_weighted, ece, log_loss, per_class, confusion_matrix, intervals (*_ci) and,
    with more than five classes, top5_accuracy.
    """
    adapter = load_backend(backend)
    from multitl import evaluation

    with adapter.fast_paths():
        return evaluation.evaluate_run(run, data, split)


def predict(
    run: str | PathLike[str], images: Sequence[str | PathLike[str]], *, backend: str | None = None
) -> list[dict[str, Any]]:
    """Classify image files (or folders of them) with a finished run.

    Returns one dict an image: path, predicted (class name), confidence in [0, 1], probabilities (class name -> float),
    or path and error for a file that cannot be read.
    """
    adapter = load_backend(backend)
    from multitl import evaluation

    with adapter.fast_paths():
        return evaluation.predict_images(run, images)
