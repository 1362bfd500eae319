"""What a race is to be: every option of `multitl bench`, checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from multitl.adapters import check_backbone
from multitl.bench.jobs import DTYPES, MULTITL, NATIVE, PIPELINES, TASKS, Cell
from multitl.errors import RecipeError, nearest_names

SHORTEST = 60  # seconds: less is over before three frameworks are imported
DEFAULT_BACKBONE = "torchvision/resnet50"
USUAL = ("jax", "tensorflow", "torch", "native-jax", "native-tf", "native-tf-xla", "native-torch", "textbook")


@dataclass(frozen=True)
class Options:
    """contenders: those of PIPELINES are for the task "input"; without any of them it has them all.
    budget: seconds for everything.  repetitions: at most.  timeout: seconds after which a process counts as hung.
    threads: cores for each process.  image_size: 0 for the network's own.  Construction raises MultitlErrors.
    """

    backbones: tuple[str, ...] = (DEFAULT_BACKBONE,)
    contenders: tuple[str, ...] = USUAL
    tasks: tuple[str, ...] = ("head", "finetune")
    batch_sizes: tuple[int, ...] = (16,)
    dtypes: tuple[str, ...] = ("float32",)
    image_size: int = 0
    weights: str = "none"
    data: str = ""
    epochs: int = 10
    accuracy: float = 0.0
    budget: float = 1500.0
    repetitions: int = 5
    timeout: float = 300.0
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_all("contender", self.contenders, (*MULTITL, *NATIVE, *PIPELINES), "--backends")
        _check_all("task", self.tasks, TASKS, "--task")
        _check_all("dtype", self.dtypes, DTYPES, "--dtype")
        for backbone in self.backbones:
            check_backbone(backbone, self.weights)
        if self.budget < SHORTEST:
            raise RecipeError(
                f"A budget of {self.budget:g} seconds is too small.",
                expected=f"at least {SHORTEST} seconds; a contender alone takes 10 to 60 before its first step",
                received=f"--budget {self.budget:g}",
                fix="--budget 1500",
            )
        if "input" in self.tasks and not self.data:
            raise RecipeError(
                "The task input reads image files, and none were named.",
                expected="a folder class/images, as for multitl finetune",
                received="--task input without --data",
                fix="add --data FOLDER",
            )

        self._check_tasks()

    def _check_tasks(self) -> None:
        """Raises RecipeError for contenders without a task, and for tasks without a contender."""
        readers = [name for name in self.contenders if name in PIPELINES]
        networks = [task for task in self.tasks if task != "input"]
        if readers and "input" not in self.tasks:
            raise RecipeError(
                f"{readers[0]} reads image files, and no task does.",
                expected="the task input for " + ", ".join(readers),
                received="--task " + ",".join(self.tasks),
                fix="--task input --data FOLDER",
            )
        if networks and len(readers) == len(self.contenders):
            raise RecipeError(
                f"No contender is for the task {networks[0]}.",
                expected="some of " + ", ".join([*MULTITL, *NATIVE]),
                received="--backends " + ",".join(self.contenders),
                fix="--backends " + ",".join([MULTITL[0], *self.contenders]),
            )

    def cells(self) -> list[Cell]:
        """Everything there is to measure; contenders of a contest follow one another."""
        loops = [name for name in self.contenders if name not in PIPELINES]
        networks = [task for task in self.tasks if task != "input"]
        contests = product(self.backbones, networks, self.batch_sizes, self.dtypes, loops)
        readers = [name for name in self.contenders if name in PIPELINES] or list(PIPELINES)
        files = product(self.batch_sizes, readers) if "input" in self.tasks else ()
        return [Cell(*contest) for contest in contests] + [
            Cell("files", "input", size, "uint8", name) for size, name in files
        ]


def _check_all(kind: str, names: Sequence[str], known: Sequence[str] | dict[str, str], flag: str) -> None:
    for name in names:
        if name not in known:
            raise RecipeError(
                f"Unknown {kind} {name!r}.",
                expected="some of " + ", ".join(known),
                received=name or "nothing",
                nearest=nearest_names(name, known),
                fix=f"{flag} " + ",".join(list(known)[:2]),
            )
