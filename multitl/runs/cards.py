"""Cards: what the folder of a run, a translated network or an artefact says of itself, read as input of anyone's.

Such a folder is handed on like any other file, so nothing in it is taken on trust. One type says what may stand in a
card, with types, ranges and lengths; every reader of a card goes through this module, and so does every writer.

msgspec checks while it decodes, which is why it was chosen: one small compiled package without dependencies that reads
straight into these types (pydantic is ten times its size and slower to import; attrs and cattrs know no ranges).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct

from multitl.class_tables import check_classes
from multitl.contracts import VALUE, Head, Job, Parity, Preprocess, Scale, Split, Stage, TranslatedWeight, Unreadable
from multitl.errors import MultitlError, RunError
from multitl.recipes import Recipe
from multitl.system.regular_files import MOST_CARD, MOST_FIGURES, read_regular

UNFINISHED = "finish the run with --resume, or name the folder of a finished one"

Text = Annotated[str, Meta(max_length=2**16)]
Line = Annotated[str, Meta(min_length=1, max_length=2**12, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]
ClassName = Annotated[str, Meta(min_length=1, max_length=2**12)]  # a folder's name may hold anything but NUL and "/"
Count = Annotated[int, Meta(ge=0, le=2**53)]
Share = Annotated[float, Meta(ge=0, le=1)]
Agreement = Annotated[float, Meta(ge=-1, le=1)]
Positive = Annotated[float, Meta(ge=0)]
HeadKind = Literal["linear", "mean", "kernel"]
Hex = Annotated[str, Meta(pattern=r"\A[0-9a-f]{0,64}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
T = TypeVar("T")

HEAD_TITLES: dict[HeadKind, str] = {"linear": "linear", "mean": "nearest class mean", "kernel": "kernel"}


class Machine(Struct, frozen=True):
    """What a model was made on."""

    name: Literal["jax", "tensorflow", "torch"]
    versions: dict[Line, Line] = {}
    devices: tuple[Text, ...] = ()


class Backbone(Struct, frozen=True, kw_only=True):
    """See `contracts.Pretrained`, `Origin`. tensors, classifier, unused: of a translated network only."""

    name: Line
    preprocess: Preprocess
    weights: Text = "default"
    file_sha256: Sha256 | None = None
    weights_sha256: Sha256 | None = None
    parameters: Count = 0
    licence: Text = ""
    url: Text = ""
    stages: tuple[Stage, ...] = ()
    parity: Parity | None = None
    feature_map: Text = ""
    tensors: tuple[TranslatedWeight, ...] = ()
    classifier: tuple[TranslatedWeight, ...] | None = None  # None: an older multitl did not write it down
    unused: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        _check_places(*self.tensors, *(self.classifier or ()))


class Data(Struct, frozen=True, kw_only=True):
    """What a run was trained and judged on; of a network that was not trained here the class names alone."""

    class_names: tuple[ClassName, ...]
    path: Text = ""
    fingerprint: Hex = ""
    counts: dict[Split, dict[ClassName, Count]] = {}
    images: dict[Split, Count] = {}  # which have one class each, unless they may have several labels
    unreadable: tuple[Unreadable, ...] = ()
    warnings: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("two classes of the same name")


class Features(Struct, frozen=True):
    computed: Count = 0
    reused: Count = 0


class Tried(TypedDict):
    """A penalty, and the mean log loss and accuracy out of fold that it gives."""

    penalty: Positive
    log_loss: Positive
    accuracy: Share


class Compared(TypedDict):
    """A kind of head at its best: mean log loss and accuracy out of fold, and by how much the loss of an image is more
    than with the first of those compared, with that mean's standard error.
    """

    kind: HeadKind
    log_loss: Positive
    accuracy: Share
    difference: float
    standard_error: Positive


class SolvedHead(Struct, frozen=True):
    """How a head without a hidden layer was found: the penalty, the gradient that is left as a share of what it is at
    zero, and what the penalty was chosen from, the last step of the way only roughly where it is clearly worse; nothing
    where it was given.  refitted: to train and validation images in the end.

    kind: "linear"; "mean": of the nearest class mean, without penalty and gradient; "kernel": linear on random waves.
    scale: of a mean, what half a squared distance is multiplied by; of a kernel, its width in median distances.
    compared: kinds of head, the first of which had to be beaten.  sample: how many images that was chosen by, where
    features of all do not fit into memory; the penalty is then that of `tried`, made smaller by the sample's share.
    penalties: of several labels an image, each label's own, chosen by its own loss; `penalty` is then the best of them
    all for all of them.
    """

    penalty: Positive
    gradient: Positive
    tried: tuple[Tried, ...] = ()
    refitted: bool = False
    kind: HeadKind = "linear"
    scale: Positive | None = None
    compared: tuple[Compared, ...] = ()
    sample: Count | None = None
    penalties: tuple[Positive, ...] = ()


class Ranked(Struct, frozen=True):
    """How a backbone stood out of fold on `images` of `of`: see `ranking.Standing`."""

    name: Line
    images: Count
    of: Count
    score: float
    interval: tuple[float, float]
    log_loss: Positive
    parameters: Count
    licence: Text
    speed: Positive | None = None
    mae: Positive | None = None
    stopped: Text = ""


class TriedHead(TypedDict):
    """What one of several heads gave. Of numbers the loss is the squared error, the accuracy the share explained."""

    temperature: Positive
    val_loss: Positive
    val_accuracy: Share


class Trial(Struct, frozen=True):
    """A way to fine-tune, and what it gave on the validation images; also of each head, by its name, if several were
    trained together.

    left_out: of the steps, for want of time.

    temperature: that its logits were divided by.  gain: by how much its Brier score is lower than that of the best
    before it, and noise: that difference's standard error; None where nothing was compared.
    """

    unfreeze: Line
    learning_rate: Positive
    steps: Count
    outcome: Literal["better", "no worse", "within noise", "worse", "diverged", "out of time"]
    seconds: Positive
    temperature: Positive | None = None
    val_loss: Positive | None = None
    val_accuracy: Share | None = None
    gain: float | None = None
    noise: Positive | None = None
    left_out: Count = 0
    heads: dict[Line, TriedHead] = {}


class Trials(Struct, frozen=True):
    """kept: number of the trial whose weights the model has, from 1; 0 for the head on the frozen backbone.

    finished: whether nothing more is to be tried.  steps: that there was time for; None for no limit.
    """

    kept: Count
    finished: bool
    steps: Count | None = None
    tried: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        if self.kept > len(self.tried):
            raise ValueError(f"trial {self.kept} of {len(self.tried)}")


class WayFigures(TypedDict):
    log_loss: Positive
    accuracy: Share


class WayTried(TypedDict):
    """A way to adapt: log loss and accuracy there and back, the mean entropy of what it says of the unlabelled images,
    in nats, and its figures on the run's own images by split.
    """

    name: Line
    log_loss: Positive
    accuracy: Share
    entropy: Positive
    figures: dict[Split, WayFigures]


class Adaptation(Struct, frozen=True):
    """How a classifier was adapted to so many images without labels: see adaptation.py.

    chosen: the name of a way; "none", the first that is tried, leaves it as it is.  counterparts: share of the training
    images that have a closer relative among the unlabelled ones than among themselves.
    """

    images: Count
    chosen: Line
    counterparts: Share = 0.0
    tried: tuple[WayTried, ...] = ()


class OldTest(Struct, frozen=True):
    """What was learned before, on `images` of the earlier run's `split`: the share that was right then and is now; of
    labels that of the answers at one half, of numbers the share of their variance that is explained.

    gone: more of them that are not to be found.  dropped: of classes that are left out.  trained: that are trained on
    now.
    """

    split: Split
    images: Count
    before: Share
    after: Share
    gone: Count = 0
    dropped: Count = 0
    trained: Count = 0

    def __str__(self) -> str:
        share = f"{self.before:.3f} before, {self.after:.3f} now"
        left_out = {"gone": self.gone, "of classes left out": self.dropped, "trained on now": self.trained}
        others = [f"{count:,} {why}" for why, count in left_out.items() if count]
        return f"{share} ({self.images:,} images{'; ' if others else ''}{', '.join(others)})"


class Start(Struct, frozen=True):
    """The finished run that a run went on from. model_sha256: of its model.keras.

    kept, new, dropped: classes.  images: that it was trained on, of classes that are kept, and known: how many of them
    are among these; None where it did not write them down.  head: what became of its classifier: "solved anew", "drawn
    towards it", "as it was", or "trained on".  old_test: None where none of its images are left to judge by.
    """

    run: Text
    model_sha256: Sha256
    kept: tuple[ClassName, ...]
    new: tuple[ClassName, ...]
    dropped: tuple[ClassName, ...]
    head: Literal["solved anew", "drawn towards it", "as it was", "trained on"]
    images: Count | None = None
    known: Count | None = None
    old_test: OldTest | None = None


class PlausibleSets(Struct, frozen=True):
    """From which probability a class is in a set that holds the true one for a share `coverage`: see conformal.py."""

    coverage: Share
    least: Share


class Card(Struct, frozen=True, kw_only=True):
    """card.json of a finished run or of a translated network; docs/reference/run-folder.md explains the keys.

    head: of a translated network, whether it has its own classifier; None for a run.  warnings: of the training.
    thresholds: where an image may have several labels, the probability from which each is given.
    plausible: where it has one class; None in a card of multitl 0.1.
    scale: of numbers, that by which those of the training images were standardised.
    files: SHA-256 of each file of a run, by its name; None in a card of multitl 0.1.
    output: of one of several heads, what its output is called in the model, which lies beside the folder of all heads.
    """

    status: Literal["complete"]
    backend: Machine
    backbone: Backbone
    data: Data
    recipe: Recipe
    seed: Count
    multitl: Text = ""
    created: Text = ""
    head: Head | None = None
    trained_parameters: Count = 0
    saved_model_difference: Positive = 0.0
    features: Features = Features()
    ranked: tuple[Ranked, ...] = ()
    start: Start | None = None
    solved_head: SolvedHead | None = None
    trials: Trials | None = None
    thresholds: tuple[Share, ...] = ()
    plausible: PlausibleSets | None = None
    scale: Scale | None = None
    adaptation: Adaptation | None = None
    seconds: dict[Line, Positive] = {}
    warnings: tuple[Text, ...] = ()
    files: dict[Line, Sha256] | None = None
    output: Text = ""

    def __post_init__(self) -> None:
        if len(self.thresholds) != (len(self.class_names) if self.recipe.labels == "several" else 0):
            raise ValueError(f"{len(self.thresholds)} thresholds of {len(self.class_names)} labels")
        if (self.scale is not None) != (self.recipe.labels == "number"):
            raise ValueError(f"the scale {self.scale}, with labels = {self.recipe.labels}")
        if self.scale and not (all(map(math.isfinite, self.scale)) and self.scale.deviation > 0):
            raise ValueError(f"the scale {self.scale}")
        if self.scale and self.class_names != (VALUE,):
            raise ValueError("a number that is not called so")
        check_classes(self.recipe.class_weights, self.recipe.costs, self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.data.class_names

    @property
    def preprocess(self) -> Preprocess:
        return self.backbone.preprocess

    def model_file(self, folder: Path) -> Path:
        """Of the run in `folder`: its own model.keras, or the one that it shares with other heads."""
        return (folder.resolve().parent.parent if self.output else folder) / "model.keras"

    @property
    def measure(self) -> str:
        """What the shares of `OldTest` are called."""
        names = {"one": "accuracy", "several": "share of right answers", "number": "explained variance"}
        return names[self.recipe.labels]


class Started(Struct, frozen=True, kw_only=True):
    """run.json: what a run was started with, which `--resume` compares.

    fingerprint: of the data, "" for a network that was not trained here.  weights_sha256: of the backbone's; None in a
    run of multitl 0.1.  from_sha256: of model.keras of the run that it goes on from; None if it began anew.  recipe: as
    in recipe.toml, which people edit; None in a run of multitl 0.1.
    """

    backend: Literal["jax", "tensorflow", "torch"]
    fingerprint: Hex
    weights_sha256: Sha256 | None = None
    from_sha256: Sha256 | None = None
    recipe: dict[str, Any] | None = None


class EntryCard(Struct, frozen=True, kw_only=True):
    """card.json of a translated network in the cache: see `translation.store.Entry`."""

    weights: tuple[TranslatedWeight, ...]
    stages: tuple[Stage, ...]
    unused: tuple[Text, ...]
    parity: Parity
    preprocess: Preprocess
    class_names: tuple[ClassName, ...]
    image_size: Count
    weights_sha256: Sha256
    versions: dict[Line, Line]
    licence: Text = ""
    url: Text = ""
    weights_note: Text = ""
    has_classifier: bool = True
    job: Job | None = None

    def __post_init__(self) -> None:
        _check_places(*self.weights)


class ClassFigures(Struct, frozen=True, kw_only=True, rename={"name": "class"}):
    name: ClassName
    precision: Share
    recall: Share
    f1: Share
    support: Count
    specificity: Share | None = None
    roc_auc: Share | None = None
    average_precision: Share | None = None


class Figures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `metrics.score` gives of one split."""

    count: Count
    accuracy: Share
    accuracy_ci: tuple[Share, Share]
    f1_macro: Share
    f1_macro_ci: tuple[Share, Share]
    f1_weighted: Share
    f1_weighted_ci: tuple[Share, Share]
    ece: Share
    ece_ci: tuple[Share, Share]
    log_loss: Positive
    per_class: tuple[ClassFigures, ...]
    confusion_matrix: tuple[tuple[Count, ...], ...]
    top5_accuracy: Share | None = None
    roc_auc: Share | None = None
    map: Share | None = None
    kappa: Agreement | None = None
    kappa_quadratic: Agreement | None = None
    cost: Positive | None = None
    cost_ci: tuple[Positive, Positive] | None = None
    cost_likeliest: Positive | None = None
    cost_likeliest_ci: tuple[Positive, Positive] | None = None
    cost_constant: Positive | None = None
    cost_constant_ci: tuple[Positive, Positive] | None = None
    constant_class: ClassName | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.per_class), len(self.confusion_matrix), *map(len, self.confusion_matrix)}
        if len(sizes) != 1:
            raise ValueError("a confusion matrix of another size than the classes")
        if self.count != sum(map(sum, self.confusion_matrix)):
            raise ValueError("a confusion matrix of another number of images")


class Metrics(Struct, frozen=True):
    """metrics.json. test: None where the data has no test part."""

    test: Figures | None
    validation: Figures


class _Marked(Struct, frozen=True):
    """All that has to be known of an artefact's card before it is replaced."""

    port: dict[str, Any]


_READS_MARK = msgspec.json.Decoder(_Marked)  # what a hostile card is read by is compiled before it


def read_card(folder: str | os.PathLike[str], missing: str = UNFINISHED) -> Card:
    """The card of a finished run or a translated network. Raises RunError, with the advice `missing`."""
    try:
        return read_json_of(
            Path(folder, "card.json"), Card, "the card that multitl wrote when it had finished", missing
        )
    except RunError:
        if not is_port(Path(folder)):
            raise
        raise RunError(
            f"{folder} is an artefact that multitl port wrote, not a run.",
            expected="the folder of a finished run",
            received=str(folder),
            fix="name the run that it was made of; classify.py in it classifies images",
        ) from None


def read_entry_card(folder: Path) -> EntryCard:
    """The card of a network in the cache. Raises RunError."""
    return read_json_of(folder / "card.json", EntryCard, "the card of a translated network", f"rm -r {folder}")


def read_figures_of(folder: str | os.PathLike[str], kind: type[T], missing: str) -> T:
    """metrics.json of this type. Raises RunError."""
    path = Path(folder, "metrics.json")
    return read_json_of(path, kind, "the figures of a finished run", missing, MOST_FIGURES)


def read_metrics(folder: str | os.PathLike[str], missing: str = UNFINISHED) -> dict[str, Any]:
    """metrics.json as `metrics.score` gives it, by split; None for a split without images. Raises RunError."""
    metrics = read_figures_of(folder, Metrics, missing)
    return msgspec.json.decode(msgspec.json.encode(metrics))  # lists again, as whoever reads the file gets them


def read_started(folder: Path) -> Started | None:
    """What a run was started with; None if it was killed before it got that far. Raises RunError."""
    path = folder / "run.json"
    if not path.exists() and not (folder / "card.json").exists():
        return None
    return read_json_of(path, Started, "what multitl wrote when it started the run", "start again with --overwrite")


def is_port(folder: Path) -> bool:
    """Whether a folder is an artefact that multitl made."""
    try:
        _READS_MARK.decode(read_regular(folder / "card.json", MOST_CARD))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def checked(values: Mapping[str, Any], kind: type = Card) -> Mapping[str, Any]:
    """A card that is about to be written. Raises ValueError for what could not be read again: a bug, not an input."""
    msgspec.json.decode(msgspec.json.encode(values), type=kind)
    return values


def as_line(text: str) -> str:
    """A name as it stands in a card: what cannot be printed, such as a newline in a file's name, becomes "?"."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _check_places(*weights: TranslatedWeight) -> None:
    """Raise ValueError where a shape, how it is split and the order of axes do not fit each other."""
    for one in weights:
        is_order = sorted(one.axes) == list(range(len(one.split)))
        is_size = all(side >= 0 for side in (*one.shape, *one.split)) and math.prod(one.shape) == math.prod(one.split)
        if not (is_order and is_size):
            raise ValueError(f"{one.name} of shape {one.shape}, split {one.split}, axes {one.axes}")


def read_json_of(path: Path, kind: type[T], expected: str, missing: str, most: int = MOST_CARD) -> T:
    """A file of this type, of `most` bytes. Raises RunError, with the advice `missing`."""
    try:
        return _decode(path, kind, most)
    except (OSError, ValueError, RecursionError, MultitlError) as error:  # MultitlError: an option outside its range
        reason = error.problem if isinstance(error, MultitlError) else f"{type(error).__name__}: {error}"
        raise RunError(f"Cannot read {path}.", expected=expected, received=reason[:500], fix=missing) from error


def _decode(path: Path, kind: type[T], most: int = MOST_CARD) -> T:
    return msgspec.json.decode(read_regular(path, most), type=kind)
