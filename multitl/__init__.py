"""multitl: transfer learning that does not care which framework you use.

Nothing here imports Keras or a framework until a function is called: Keras fixes its backend when it is first imported,
so `backend=` (or KERAS_BACKEND) must be settled before that. A function first looks at what it is asked for, by names
alone, so that nobody waits for a framework to hear of a misspelt folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Unpack

from multitl.adapters import check_backbone, check_backend, check_head, load_backend, translate_module
from multitl.contracts import Head, Preprocess, Pretrained, Result, Split, Stage
from multitl.errors import (
    BackboneError,
    BackendError,
    CacheError,
    DataError,
    GroupError,
    LostPeerError,
    MultitlError,
    PortError,
    RecipeError,
    RunError,
    ServeError,
    TranslationError,
    WeightsError,
)
from multitl.recipes import AnyRecipe, Options, Recipe, combine
from multitl.version import __version__

if TYPE_CHECKING:  # nothing here loads a framework
    import keras

    from multitl.classifiers import Classifier
    from multitl.porting.exporting import Ported
    from multitl.porting.translate import Translated
    from multitl.reviewing.drift import Drift
    from multitl.reviewing.reviewing import Review
    from multitl.training.choosing import Choice
    from multitl.training.several_heads import HeadsResult

__all__ = [
    "BackboneError",
    "BackendError",
    "CacheError",
    "DataError",
    "GroupError",
    "LostPeerError",
    "MultitlError",
    "PortError",
    "Preprocess",
    "Pretrained",
    "Recipe",
    "RecipeError",
    "Result",
    "RunError",
    "ServeError",
    "Stage",
    "TranslationError",
    "WeightsError",
    "__version__",
    "choose",
    "compare",
    "drift",
    "evaluate",
    "explain",
    "finetune",
    "finetune_heads",
    "from_torch",
    "load",
    "load_pretrained",
    "port",
    "predict",
    "review",
    "translate",
]


def __dir__() -> list[str]:
    """What is public, and no module or name that this file needs itself."""
    return __all__


def load_pretrained(
    name: str, weights: str | PathLike[str] = "default", image_size: int = 0, head: Head = "cut"
) -> Pretrained:
    """Build a backbone and fill in its pretrained weights.

    name: "SOURCE/NAME[:variant]", e.g. "keras/MobileNet:alpha=0.25", "torchvision/resnet50", "timm/resnet50.a1_in1k";
    the folder of a finished run, for its backbone as it was fine-tuned; or "file:PATH" for a .keras or .h5 model of
    your own.
    weights: "default" or "imagenet" (the official ones), "none" (random), or the path of a weights file or folder.
    image_size: side of the square input in pixels; 0 for the backbone's own.
    head: "keep" for the whole network with its original classifier, whose logits `.class_names` name.

    Returns `.backbone` (a functional keras.Model from preprocessed pixels to a feature map), `.preprocess`, `.stages`,
    `.origin`. Runs on the backend of KERAS_BACKEND, else the fastest installed; the process keeps it.
    Raises BackboneError for an unknown name and WeightsError for weights that are missing or do not fit.
    """
    check_head(head)
    check_backbone(name, str(weights))
    load_backend()
    from multitl.sources import pretrained

    return pretrained.load_pretrained(name, str(weights), image_size, head)


def from_torch(module: Any, example_input: Any) -> keras.Model:
    """Any `torch.nn.Module` that maps images to tensors, as an ordinary Keras functional model.

    module: your network; it is left as it is. Out of DataParallel and torch.compile it is unwrapped, and of one in half
    or double precision or on a GPU a float32 copy is taken.
    example_input: a float tensor (batch, channels, height, width); the Keras model takes (batch, height, width,
    channels) of the same height and width, and any batch size. Inputs of other ranks keep their axes' order, except
    that the second axis of three or more goes last. A tuple of tensors gives a model of several inputs, named as the
    arguments of forward(); one of int64 may be what an nn.Embedding reads, and keeps its axes.

    Feature maps come out channels last, as Keras has them: (batch, height, width, channels) for what PyTorch has as
    (batch, channels, height, width), and (batch, length, channels) likewise. Every other output, such as tokens
    (batch, tokens, channels) or a map that the module itself has permuted to channels last, keeps its axes' order.

    The model is made of stock layers with the module's weights, trains on the backend that is running, and has been
    compared with the module before it is returned. A kernel that weight_norm or spectral_norm computes is the number
    that it is now. Raises TranslationError with a list of all operations that multitl does not know, or with the first
    layer that differs.
    """
    load_backend()
    return translate_module("torch", module, example_input).model


def translate(
    name: str,
    output: str | PathLike[str],
    *,
    weights: str | PathLike[str] = "default",
    image_size: int = 0,
    head: Head = "keep",
    preprocess: str = "auto",
    backend: str | None = None,
    overwrite: bool = False,
) -> Translated:
    """Save a pretrained network as it is, without training: a folder with `model.keras` and `card.json`.

    name, weights, image_size: as for `load_pretrained`.  head: "keep" its classifier, so that `predict` and
    `evaluate` work with the folder on the original classes, or "cut" it off.
    The model takes 8-bit pixels; it gives probabilities, or the feature map. Errors as `load_pretrained`'s and
    `finetune`'s.
    """
    from multitl.porting import asked

    recipe = Recipe(backbone=name, weights=str(weights), image_size=image_size, preprocess=preprocess)
    asked.check_translate(recipe, head, output, check_backend(backend), overwrite=overwrite)
    adapter = load_backend(backend)
    from multitl.porting import translate

    with adapter.fast_paths():
        return translate.translate(
            name, weights=str(weights), image_size=image_size, head=head, preprocess=preprocess,
            backend=adapter, output=output, overwrite=overwrite,
        )  # fmt: skip


def port(
    model: str | PathLike[str],
    to: str,
    output: str | PathLike[str] | None = None,
    *,
    images: str | PathLike[str] | None = None,
    calibration: str | PathLike[str] | None = None,
    preprocess: bool = True,
    explain: bool = False,
    unknown: bool = False,
    weights: str | PathLike[str] = "default",
    image_size: int = 0,
    backend: str | None = None,
    overwrite: bool = False,
) -> Ported:
    """Write a model for another ecosystem, and prove there that it still gives the same answers.

    model: the folder of a run or of `translate`, a .keras or .h5 file, or the name of a network.
    to: "onnx", "torch", "tfhub", "litert-int8", ...; `multitl ports` lists the formats.
    output: the folder to make, with the artefact and card.json (default: the model's folder with "-FORMAT" after it).
    images: what to compare answers on, a folder or table of photos, labelled or not; by default the images that the run
    was judged on.  calibration: photos that show the ranges of numbers of 8 bits; by default the validation images.
    preprocess: True for an artefact that takes pixels (of "tfhub", as is its custom, [0, 1]), False for one that
    takes what the backbone takes.  explain: of "onnx" and "litert", a second output "contributions" (n, h, w,
    classes): what each place gives to each logit, which is their sum and a bias.  unknown: likewise "strangeness"
    (n, 1); the card says above which an image is unknown, as `predict` calls it.  weights, image_size: of a
    network, as for `load_pretrained`.
    backend: what computes the answers that the artefact is compared with; the artefact is written by whichever can.

    Nothing is kept that does not give the same answers: PortError. Other errors: PortError for an unknown format or
    model, BackendError for packages that are missing, with the pip line, and those of `load_pretrained`.
    """
    from multitl.porting import asked, formats

    also = formats.second_outputs(explain=explain, unknown=unknown)
    asked.check_port(
        str(model), [to], output, images=images, calibration=calibration, weights=str(weights),
        image_size=image_size, overwrite=overwrite, also=also,
    )  # fmt: skip
    adapter = load_backend(backend)
    from multitl.porting import exporting

    with adapter.fast_paths():
        ported, faults = exporting.port_all(
            str(model), [to], output, backend=adapter, images=images, calibration=calibration, preprocess=preprocess,
            weights=str(weights), image_size=image_size, overwrite=overwrite, also=also,
        )  # fmt: skip
    if faults:
        raise faults[0]
    return ported[0]


def finetune(
    data: Any,
    *,
    backbone: str | None = None,
    weights: str | PathLike[str] | None = None,
    backend: str | None = None,
    output: str | PathLike[str] | None = None,
    recipe: AnyRecipe = None,
    overwrite: bool = False,
    resume: bool = False,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
    log_to: str = "",
    **options: Unpack[Options],
) -> Result:
    """Fine-tune a pretrained backbone on labelled images; judge, save and report the classifier.

    data: a folder `class/images` or `train|validation|test/class/images`, or a CSV or Parquet file with the columns
    path,label[,split]; or `(images, labels)` or `(images, labels, splits)` of arrays (n, height, width[, channels]) or
    lists; a list of (image or path, label[, split]); a DataFrame of pandas, Polars or Arrow; a data set of Hugging
    Face, PyTorch or Keras, or a tf.data.Dataset; or a dict of any of these by split. Pixels are uint8.
    backbone, weights: as for `load_pretrained`.  backend: "jax", "tensorflow" or "torch".
    output: the run folder to make (default: runs/<data>-<backbone>-<backend>).
    recipe: a `Recipe`, a dict of some options, or the path of a TOML file of them, such as a run's recipe.toml.
    overwrite / resume: what to do if `output` exists; without either that is an error.
    on_epoch: is called with each line of history.csv as a dict, when it is saved: epoch, phase ("head", "finetune"),
    trial, step, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds. What it raises stops the run, which
    `resume` continues.  log_to: "tensorboard", "mlflow" or "wandb", or several, a,b.
    options: single options, e.g. unfreeze="last", budget="20m"; `help(multitl.Recipe)` explains each.
    What is given by name, `backbone` and `weights` included, wins over the recipe, and the recipe over the defaults.

    Returns paths, class names and `metrics`: {"test": {...} or None where there is no test part, "validation": {...}}.
    Raises a MultitlError that says what to mend. What was finished before an error stays in `output`.
    """
    named = {name: value for name, value in {"backbone": backbone, "weights": weights}.items() if value is not None}
    own = finetune.__kwdefaults__ or {}  # who misspells an option may mean one of these
    complete = combine(recipe, named | options, also=own)
    from multitl.distribution.group import group_from_environment
    from multitl.distribution.joining import joined
    from multitl.training import asked, candidates, groups

    known, given, group = check_backend(backend), complete, group_from_environment()
    groups.check_group(group, complete)
    asked.check_listeners(on_epoch, log_to)
    with joined(group) as peers:
        complete = candidates.settle(given)
        data = asked.settle_data(data, complete, candidates.named_in(complete))
        output = asked.run_folder(data, output, given, known)
        listing = asked.check_finetune(
            data, known, output, complete, overwrite=overwrite, resume=resume, rank=group.rank
        )
        adapter = load_backend(backend)
        adapter.join(peers)
        from multitl.training import finetuning as training

        with adapter.fast_paths():
            return training.finetune(
                data, backend=adapter, output=output, recipe=complete, overwrite=overwrite, resume=resume,
                on_epoch=on_epoch, log_to=log_to, listing=listing, peers=peers,
            )  # fmt: skip


def finetune_heads(
    data: str | PathLike[str],
    heads: str | Mapping[str, str],
    *,
    head_weights: str | Mapping[str, float] = "",
    backend: str | None = None,
    output: str | PathLike[str] | None = None,
    recipe: AnyRecipe = None,
    overwrite: bool = False,
    resume: bool = False,
) -> HeadsResult:
    """Train several heads on one backbone, each for a column of a table; every image is passed through it once.

    data: a CSV or Parquet file with a column of paths, one a head, and perhaps one of splits; a cell may be empty.
    heads: "defect=class, angle=number", or a dict of the same: columns, each with class, labels or number.
    recipe: as for `finetune`. With unfreeze="none" each head is solved on the backbone as it is; else backbone and
    heads are then trained together, and what is better for all of them on validation images is kept.
    head_weights: of the heads' losses in that training, "defect=2, angle=1" or a dict, 1 where nothing is said; or
    "learned", by the uncertainty of each (arXiv:1705.07115).  backend, output, overwrite, resume: as for `finetune`.

    Returns `.output`, `.results` (a `Result` a head, whose run lies in output/heads/NAME), `.metrics` by head, `.alone`
    (the same on the backbone as it was, if that was trained), `.model_path`, a network with an output for each head by
    its name, and `.report_path`. `predict` and `evaluate` take the folder. Raises a MultitlError that says what to
    mend.
    """
    complete = combine(recipe, {})
    text, weights = (
        given if isinstance(given, str) else ",".join(f"{name}={value}" for name, value in given.items())
        for given in (heads, head_weights)
    )
    from multitl.data.columns import parse_targets
    from multitl.distribution.group import group_from_environment
    from multitl.training import asked, candidates, groups

    groups.refuse_group(group_from_environment(), "finetune_heads")
    targets, known, given = parse_targets(text), check_backend(backend), complete
    complete = candidates.settle(given)
    output = asked.run_folder(data, output, given, known)
    asked.check_finetune_heads(data, targets, weights, known, output, complete, overwrite=overwrite, resume=resume)
    adapter = load_backend(backend)
    from multitl.training import several_heads

    with adapter.fast_paths():
        return several_heads.finetune_heads(
            data, targets, backend=adapter, output=output, recipe=complete, weights=weights,
            overwrite=overwrite, resume=resume,
        )  # fmt: skip


def choose(
    data: Any,
    backbones: Iterable[str],
    *,
    backend: str | None = None,
    output: str | PathLike[str] | None = None,
    recipe: AnyRecipe = None,
    overwrite: bool = False,
) -> Choice:
    """Compare backbones by the head that would be solved on each, by five-fold cross-validation; nothing is trained.

    data: as for `finetune`; its test part is not looked at.
    backbones: names as for `load_pretrained`, "NAME@WEIGHTS" for one with weights of its own, "NAME@96px" for one with
    images of that size; or "auto": all whose official weights lie on this machine.
    output: the folder to make, with choice.html and choice.json (default: runs/choose-<data>).
    recipe: of its options weights, image_size, preprocess, pooling, precision, seed and those of the data count; a
    `finetune` with the same ones starts from the features that are stored here.

    Backbones that cost little come first; one that is clearly behind the best so far is given up on the way, and one
    that cannot be loaded is listed with the reason; a name that its source does not list is refused at once.

    Returns `.standings`, the best first (name, score, interval, losses, speed in images a second, parameters, licence),
    where a score is the accuracy, of several labels an image the mean average precision, of a number R2; `.baselines`,
    what needs no picture; `.unusable`, `.page` and `.command`.
    Raises a MultitlError that says what to mend, BackboneError if none can be used.
    """
    complete = combine(recipe, {})
    from multitl.distribution.group import group_from_environment
    from multitl.training import asked, candidates, groups

    groups.refuse_group(group_from_environment(), "choose")
    names = candidates.settle_names(backbones.split(",") if isinstance(backbones, str) else list(backbones), complete)
    data = asked.settle_data(data, complete, candidates.candidates(names, complete))
    listing = asked.check_choose(data, names, output, complete, overwrite=overwrite)
    adapter = load_backend(backend)
    from multitl.training import choosing

    with adapter.fast_paths():
        return choosing.choose(
            data, names, backend=adapter, output=output, recipe=complete, overwrite=overwrite, listing=listing
        )


def evaluate(
    run: str | PathLike[str],
    data: Any,
    *,
    split: Split = "test",
    backend: str | None = None,
    images: str | PathLike[str] = "",
    path_column: str = "",
    label_column: str = "",
    costs: str | PathLike[str] = "",
    max_unreadable: float | None = None,
) -> dict[str, Any]:
    """Judge a finished run on labelled images: the figures that metrics.json holds for one split.

    data: as for `finetune`; of a data set with splits the part `split` is used, else every image.
    images: the folder that the paths in a table are relative to.  path_column, label_column: names of its columns; by
    default those that the run was trained with.
    costs: a .csv file of what mistakes cost, as the option of `finetune`, in the place of the run's own: the class of
    the least expected cost is answered.
    max_unreadable: the share of files, 0 to 1, above which unreadable ones are an error (default: the run's own).
    Returns count, accuracy, f1_macro, f1_weighted, ece, log_loss, roc_auc, map, kappa, per_class, confusion_matrix,
    intervals (*_ci) and, with more than five classes, top5_accuracy; of classes that are grades kappa_quadratic.
    With costs also cost, cost_likeliest and cost_constant, means of an image: of these answers, of the likeliest
    classes, and of always answering constant_class.
    Of a run with several labels an image count, map (mean average precision), f1_macro, f1_micro, subset_accuracy,
    hamming_loss, roc_auc, log_loss, per_label and intervals; of one that predicts a number count, mae, rmse, median_ae,
    r2, bias, intervals and always_mean, the errors of whoever always says the mean of the training images; of a folder
    with several heads the figures of each by its name.
    """
    from multitl.data.tables import Reading
    from multitl.judging import opening
    from multitl.runs.head_runs import has_heads

    reading = Reading(str(images), path_column, label_column)
    if has_heads(run):
        opening.refuse_costs(run, costs)
        opening.refuse_label_column(reading)
        opening.lenient(Recipe(), max_unreadable)
        adapter = load_backend(backend)
        from multitl.judging import several_heads

        with adapter.fast_paths():
            return several_heads.evaluate_heads(run, data, split, reading, max_unreadable)
    with opening.lent_data(run, data, reading) as path:
        opening.check_evaluate(run, path, split, reading, costs, max_unreadable)
        adapter = load_backend(backend)
        from multitl.judging import evaluation

        with adapter.fast_paths():
            return evaluation.evaluate_run(run, path, split, reading, costs, max_unreadable)


def compare(
    runs: Iterable[str | PathLike[str]], *, output: str | PathLike[str] | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Put finished runs of the same classes beside each other, two to eight; no framework is loaded.

    output: the folder to make, with compare.html and compare.json (default: runs/compare-<run>-<run>).

    Returns what compare.json holds: the figures of each run with 95 % intervals; of each pair, on the images that both
    were judged on, the differences with their paired bootstrap intervals and the p-value of McNemar's exact test (of
    numbers an exact sign test: which is nearer more often); and the options that differ.
    Raises RunError for runs that cannot be compared: of other classes, or without an image in common.
    """
    from multitl.judging import comparison_page

    return comparison_page.compare(runs, output, overwrite=overwrite).about()


def predict(
    run: str | PathLike[str],
    images: Any,
    *,
    backend: str | None = None,
    costs: str | PathLike[str] = "",
) -> list[dict[str, Any]]:
    """Classify image files, or folders of them, with a finished run; or images of an object.

    images: one path, or any number of them; or what `finetune` takes, with labels or without: an array, a list of
    images, a DataFrame. Images without a path are called row-0, row-1, ...
    costs: as for `evaluate`.
    Returns one dict an image: path, predicted (class name), confidence in [0, 1], probabilities (class name -> float),
    or path and error for a file that cannot be read. What a run knows of its usual images adds plausible (a set of
    classes that holds the true one for 90 % of these), familiarity (in (0, 1]: the share of these as strange to
    the model or stranger) and unknown (whether that is below 0.05). Of a run with several labels an image `predicted`
    is the list of those that are given, the likeliest first, and there is no confidence; of one that predicts a number
    there are path and value. Of a folder with several heads there is such a dict for each by its name, beside the path.
    Raises DataError for a path that does not exist, or no image.
    """
    from multitl.judging import opening
    from multitl.runs.head_runs import has_heads

    with opening.lent_images(run, images) as (files, names):
        if has_heads(run):
            opening.refuse_costs(run, costs)
            adapter = load_backend(backend)
            from multitl.judging import several_heads

            with adapter.fast_paths():
                rows = several_heads.predict_heads(run, files)
        else:
            opened, paths = opening.check_predict(run, files, costs)
            adapter = load_backend(backend)
            from multitl.judging import evaluation

            with adapter.fast_paths():
                rows = list(evaluation.classify(opened, paths))
    return [row | {"path": names.get(row["path"], row["path"])} for row in rows]


def explain(
    run: str | PathLike[str],
    images: Any,
    *,
    classes: Iterable[str] = (),
    true: str = "",
    output: str | PathLike[str] | None = None,
    backend: str | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Where in images a run sees what it says: a map for the class that is predicted, and for the true one.

    images: as for `predict`. The true class is known of files in a folder that is called as a class, and of a table of
    paths and labels; or `true` names that of all images.  classes: further ones to show.
    output: a folder to make, with a picture for each image, the maps over the photo side by side, and
    explanations.json.  overwrite: whether it may take the place of earlier explanations.

    Returns one dict an image: path, what `predict` says of it but for the probabilities, true (names, where known) and
    maps, each with class, shown_as ("predicted", "true", "asked"), probability (of a number value), map (h, w), logit,
    bias, error, and kind. "exact": with average pooling and a linear head the logit is the sum of the map, the bias and
    `elsewhere`, which is 0 but for tokens that stand for no place; error is how far off that is, as a share of the
    image's largest logit - bias. "gradient x activation", of anything else: to first order, how the logit would change
    without a position; bias and error are None.
    Raises RunError for a network without a map of features in it, DataError as `predict` and for unknown classes.
    """
    from pathlib import Path

    from multitl.judging import asked, opening

    if output is not None:
        asked.check_folder_for_explanations(Path(output), overwrite=overwrite)
    with opening.lent_images(run, images) as (files, names):
        request = asked.explanation_request(run, files, list(classes), true, names)
        adapter = load_backend(backend)
        from multitl.judging import explanations

        with adapter.fast_paths(), adapter.full_precision():
            place = None if output is None else Path(output)
            return explanations.explain_images(request, place, overwrite=overwrite)


def review(
    run: str | PathLike[str],
    data: str | PathLike[str] | None = None,
    *,
    backend: str | None = None,
    output: str | PathLike[str] | None = None,
    overwrite: bool = False,
) -> Review:
    """Find what may be wrong with the data of a finished run: labels, copies, outliers. Nothing is trained.

    data: where its images lie by now (default: where they were).
    output: the folder to make, with issues.csv, review.json and review.html (default: RUN-review).

    Returns `.issues`, dicts of path, label, part, issue, suggested, score and other, `.table`, the path of issues.csv,
    and `.about`, what review.json holds. Write keep, remove or the right class into the column `verdict` of the table,
    and `finetune(data, relabel=table)` goes by it. Raises a MultitlError that says what to mend.
    """
    from multitl.reviewing import asked

    opened = asked.check_review(run, data, output, overwrite=overwrite)
    adapter = load_backend(backend)
    from multitl.reviewing import reviewing

    with adapter.fast_paths():
        return reviewing.review(opened, data, backend=adapter, output=output, overwrite=overwrite)


def drift(
    run: str | PathLike[str],
    images: str | PathLike[str],
    data: str | PathLike[str] | None = None,
    *,
    backend: str | None = None,
) -> Drift:
    """Say whether new images, which need no labels, look like those that a run was made of.

    images: a folder of them, at least eight.  data: where the run's own images lie by now (default: where they were).
    Returns `.verdict` in words, `.unknown`, the share of images that are further from the training images than 95 % of
    the run's other images are (None where these are fewer than 20), `.area`, how well a classifier tells them from
    those (0.5: not at all), both with intervals, and `.about()`, which names the images that are furthest away. Raises
    a MultitlError that says what to mend.
    """
    from multitl.reviewing import asked

    opened = asked.check_drift(run, images, data)
    adapter = load_backend(backend)
    from multitl.reviewing import drift as measuring

    with adapter.fast_paths():
        return measuring.measure_drift(opened, images, data, backend=adapter)


def load(run: str | PathLike[str], *, backend: str | None = None) -> Classifier:
    """Open a finished run, or a folder of `translate`; the model itself is loaded when it is first needed.

    Returns an object with `.predict(images)`, `.evaluate(data)`, `.explain(images)` and `.port(to)`, which are the
    functions of those names here, `.report()` (the page's path), `.model` (the Keras model), `.classes`, `.card` and
    `.metrics`; it shows itself in a line, and in a notebook with the classes and the confusion matrix.
    Raises RunError for a folder that is missing, unfinished or damaged.
    """
    if backend:
        check_backend(backend)
    from multitl import classifiers

    return classifiers.load(run, backend)
