"""What travels between `multitl bench` and its processes: a `Job` goes in, a `Record` comes out, both as JSON.

A *contender* is a way to do a task: multitl on one backend, or a native loop. A *cell* is one contender at one task on
one network with one batch size and dtype. Every cell is checked once against the others, then measured several times,
each time in a new process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from multitl.contracts import Example

if TYPE_CHECKING:  # nothing here loads NumPy
    import numpy as np

T = TypeVar("T")
Stage = Literal["check", "measure", "job"]  # a whole job: images in, an accuracy out
State = Literal["done", "not installed", "not available", "crashed", "hung", "out of time"]

TASKS = {
    "head": "one pass through the frozen backbone; with data, the whole job: pass, epochs of the head, accuracy",
    "finetune": "training steps of the whole network, batch normalisation included",
    "predict": "images in, logits out",
    "load": "a new process up to its first batch of logits",
    "input": "image files in, batches of pixels out; needs data",
}
DTYPES = ("float32", "bfloat16")
PHASES = ("import", "load", "compile")  # up to the first step
MULTITL = ("jax", "tensorflow", "torch")
NATIVE = {  # contender -> the module with its loop
    "native-jax": "multitl_native.jax_loop",
    "native-tf": "multitl_native.tensorflow_loop",
    "native-tf-xla": "multitl_native.tensorflow_loop",
    "native-torch": "multitl_native.pytorch",
    "native-torch-compile": "multitl_native.pytorch",
    "textbook": "multitl_native.textbook",
}
PIPELINES = {  # contenders of the task "input"
    "multitl": "multitl.bench.own_pipeline",
    "torch-dataloader": "multitl_native.torch_pipeline",
    "tf-data": "multitl_native.tensorflow_pipelines",
    "keras-directory": "multitl_native.tensorflow_pipelines",
}
OPPONENTS = {"jax": "native-jax", "tensorflow": "native-tf", "torch": "native-torch"}  # of multitl's backends
FRAMEWORKS = {  # contender -> the packages it cannot do without
    "jax": ("jax",),
    "tensorflow": ("tensorflow",),
    "torch": ("torch",),
    "native-jax": ("jax",),
    "native-tf": ("tensorflow",),
    "native-tf-xla": ("tensorflow",),
    "native-torch": ("torch", "torchvision"),
    "native-torch-compile": ("torch", "torchvision"),
    "textbook": ("torch", "torchvision"),
    "multitl": (),
    "torch-dataloader": ("torch", "torchvision"),
    "tf-data": ("tensorflow",),
    "keras-directory": ("tensorflow",),
}


@dataclass(frozen=True)
class Cell:
    """What is compared: cells that differ in the contender only compete with each other."""

    backbone: str
    task: str
    batch_size: int
    dtype: str
    contender: str

    @property
    def contest(self) -> Cell:
        """The cell without its contender: one bar chart."""
        return replace(self, contender="")


@dataclass(frozen=True)
class Job:
    """One process's work.

    weights: a .safetensors file of the backbone by PyTorch's names.  image_size: side in pixels.  steps: timed windows
    of `window` steps each, after the first step (which compiles) and `warmup` more.  repetition: -1 for the check.
    data: path of labelled images, or "".  epochs, accuracy: of the whole job.  seconds: after which a job that trains
    epoch by epoch stops, to be extrapolated.  check_rate: of SGD when all is trained in a check.
    """

    cell: Cell
    stage: Stage
    weights: str
    image_size: int
    threads: int
    repetition: int = 0
    steps: int = 5
    warmup: int = 1
    window: int = 1
    classes: int = 10
    seed: int = 0
    data: str = ""
    epochs: int = 10
    accuracy: float = 0.0
    seconds: float = 600.0
    check_rate: float = 1e-5

    @property
    def optimizer(self) -> str:
        """Plain SGD with momentum shows a wrong gradient; Adam, which people use, hides its size."""
        return "sgd" if self.stage == "check" else "adam"

    @property
    def learning_rate(self) -> float:
        """Constant."""
        of_head = self.cell.task == "head"
        return (1e-3 if of_head else self.check_rate) if self.stage == "check" else (3e-3 if of_head else 1e-4)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Job:
        """Raises ValueError for values of other types."""
        return _converted(values, cls)


@dataclass(frozen=True)
class Record:
    """What one process found.

    seconds: by name: "import", "load", "compile" (the first step, beyond a usual one), and of a whole job "features"
    (one pass over all images) and "job" (from the process's start to the end).  window_seconds: each of
    `job.window` steps.  host_bytes, device_bytes: the most that was in use, 0 where that cannot be known.
    logits: of the probe images, row by row.  losses: of the first steps.  trainable: parameters.
    curve: (seconds since the process started, validation accuracy) after each epoch of a whole job; epochs that were
    extrapolated are not in it.  accuracy_seconds: when the asked accuracy was reached, 0 if never.
    """

    job: Job
    state: State = "done"
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    window_seconds: list[float] = field(default_factory=list)
    host_bytes: int = 0
    device_bytes: int = 0
    logits: list[list[float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    trainable: int = 0
    curve: list[list[float]] = field(default_factory=list)
    accuracy_seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Images a second, of each window."""
        images = self.job.cell.batch_size * self.job.window
        return [images / seconds for seconds in self.window_seconds]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Record:
        """Raises ValueError for values of other types."""
        return _converted(values, cls)


def _converted(values: Mapping[str, Any], kind: type[T]) -> T:
    import msgspec  # not when the command line starts

    return msgspec.convert(values, kind)


class Loop(Protocol):
    """A network of one framework with a new head, in its own process.

    Pixels are uint8 (batch, height, width, 3), labels int64 (batch,). What an iterable gives is used up in order, one
    batch a step; reading the next batch means that the step before has been handed to the device.
    """

    def trainable(self) -> int:
        """Number of parameters that the job's task trains."""

    def predict(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Pixels -> logits (n, classes) float32."""

    def extract(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Pixels -> pooled features (n, channels) float32."""

    def finetune(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        """Train everything, a step a batch; the loss before each step."""

    def train_head(self, batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        """Train the head alone on (pixels, labels), in the way this contender does it; the loss before each step."""

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> Iterable[tuple[float, float]]:
        """The whole job of the task "head" on image files; after each epoch the seconds since the call and the
        validation accuracy. It may end after the first epoch that ends later than `job.seconds`.
        """

    def wait(self) -> None:
        """Until the device has finished."""

    def peak_device_bytes(self) -> int:
        """The most memory of an accelerator that was in use; 0 on a CPU."""


class Contender(Protocol):
    """A module with a loop; importing it imports its framework."""

    def describe(self) -> tuple[dict[str, str], list[str]]:
        """Package -> version, and the devices' names."""

    def open_loop(self, job: Job) -> Loop:
        """Build the network and fill in its weights. Raises LookupError for a network it does not have."""


class Pipeline(Protocol):
    """A module that reads image files; importing it imports its framework."""

    def describe(self) -> tuple[dict[str, str], list[str]]:
        """As for `Contender`."""

    def read(self, job: Job, examples: Sequence[Example]) -> Iterable[int]:
        """Decode, resize and batch each file once, in order; yields the number of images of each batch."""
