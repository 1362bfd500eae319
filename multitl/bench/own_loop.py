"""multitl as a contender: the functions that `multitl finetune` calls, on the backend of this process.

Satisfies `jobs.Contender`. The loop is that of phases.py, with its determinism, its checkpoints in memory and its
progress bar; what a step costs includes all that happens in a step of a real run.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import keras
import numpy as np

from multitl.adapters import load_backend
from multitl.bench.jobs import Job
from multitl.contracts import Backend, Example, Forward
from multitl.models.freezing import FreezePolicy, apply_policy, leaf_layers
from multitl.models.heads import build_extractor, build_head
from multitl.models.inference import compile_forward, predict_batches
from multitl.recipes import Recipe
from multitl.sources.pretrained import load_pretrained
from multitl.system.heap import kept_heap
from multitl.system.scratch import temporary_folder
from multitl.system.writing import read_json
from multitl.training.checkpoints import PhaseName, TrainingState
from multitl.training.extractors import make_extractor, runtime_of
from multitl.training.finetuning import finetune
from multitl.training.phases import Batch, Draw, Phase, run_phase

Pairs = Iterable[tuple[np.ndarray, np.ndarray]]


def describe() -> tuple[dict[str, str], list[str]]:
    backend = load_backend()
    return {"keras": keras.__version__} | backend.versions(), backend.devices()


def open_loop(job: Job) -> OwnLoop:
    backend = load_backend()
    backend.make_deterministic(job.seed)
    if job.cell.dtype != "float32":
        keras.config.set_dtype_policy("mixed_bfloat16")
    return OwnLoop(job, backend)


class OwnLoop:
    """Satisfies `jobs.Loop`."""

    def __init__(self, job: Job, backend: Backend) -> None:
        self._settings = ExitStack()  # for the life of the process
        for setting in (kept_heap(), backend.fast_paths(), backend.full_precision()):
            self._settings.enter_context(setting)
        self.job, self.backend = job, backend
        pretrained = load_pretrained(job.cell.backbone, job.weights, job.image_size)
        policy = FreezePolicy("none") if job.cell.task == "head" else FreezePolicy("all", train_batch_norm=True)
        apply_policy(policy, pretrained.backbone, pretrained.stages)
        for layer in leaf_layers(pretrained.backbone):
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0  # stochastic depth, too: contenders must agree step by step
        self.recipe = recipe_for(job)
        extractor = build_extractor(pretrained, "avg")
        self.head = build_head(np.ones((1, extractor.output_shape[-1])), job.classes, self.recipe)
        self.model = keras.Model(extractor.input, self.head(extractor.output), name="finetune")
        self._answer = compile_forward(self.model)
        if job.cell.task == "head":  # no other asks for features
            self._extract = make_extractor(pretrained, "avg", runtime_of(backend, self.recipe))

    def trainable(self) -> int:
        trained = self.head if self.job.cell.task == "head" else self.model
        return sum(int(np.prod(weight.shape)) for weight in trained.trainable_variables)

    def predict(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        return _in_order(self._answer, batches)

    def extract(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        return _in_order(self._extract, batches)

    def finetune(self, batches: Pairs) -> list[float]:
        return self._train("finetune", self.model, batches)

    def train_head(self, batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        rows = np.split(self.extract(pixels for pixels, _ in batches), len(batches))
        return self._train("head", self.head, [(row, labels) for row, (_, labels) in zip(rows, batches, strict=True)])

    def fit(self, train: Sequence[Example], validation: Sequence[Example]) -> Iterator[tuple[float, float]]:
        """`multitl finetune` from the data on: it finds the same examples, judges, saves and reports as well."""
        with temporary_folder() as folder:
            os.environ["MULTITL_CACHE"] = str(folder)  # no features from an earlier run
            run = folder / "run"
            recipe = whole_job_recipe(self.job)
            result = finetune(
                self.job.data, backend=self.backend, output=run, recipe=recipe, overwrite=False, resume=False
            )
            seconds = read_json(run / "card.json", missing="")["seconds"]
            rows = np.genfromtxt(result.output / "history.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
        elapsed = sum(seconds[name] for name in ("data", "backbone", "features"))
        for row in np.atleast_1d(rows):
            elapsed += float(row["seconds"])
            yield elapsed, float(row["val_accuracy"])

    def wait(self) -> None:
        self.backend.synchronize()

    def peak_device_bytes(self) -> int:
        return self.backend.peak_device_bytes()

    def _train(self, name: PhaseName, model: keras.Model, batches: Pairs) -> list[float]:
        """In a check a leg a step, since a leg is what the loop tells the loss of; else one leg of all."""
        steps = len(batches)  # type: ignore[arg-type]
        given = iter(batches)

        def take(draws: Sequence[Draw]) -> Iterator[Batch]:
            return (self._with_targets(batch) for batch in itertools.islice(given, len(draws)))

        phase = Phase(
            name, model, self.job.cell.batch_size * steps, steps, 1 if self.job.stage == "check" else steps,
            self.job.learning_rate, take, validate=lambda: (0.0, 0.0), unbiased_variance=name == "finetune",
        )  # fmt: skip
        state = TrainingState()
        run_phase(phase, self.recipe, state, save=lambda state: None)
        return [row["loss"] for row in state.rows]

    def _with_targets(self, batch: tuple[np.ndarray, np.ndarray]) -> Batch:
        inputs, labels = batch
        return (inputs,), np.eye(self.job.classes, dtype="float32")[labels], np.ones(len(labels), "float32")


def _in_order(forward: Forward, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Outputs of batches of one size."""
    given = iter(batches)
    first = next(given)
    return np.concatenate(list(predict_batches(forward, itertools.chain([first], given), len(first))))


def recipe_for(job: Job) -> Recipe:
    """No penalty, no schedule, no early stop: what every contender does."""
    return Recipe(
        batch_size=job.cell.batch_size, seed=job.seed, optimizer=job.optimizer, schedule="constant", l2=0.0, patience=0,
        precision="float32" if job.cell.dtype == "float32" else "mixed",
    )  # fmt: skip


def whole_job_recipe(job: Job) -> Recipe:
    """The quick way, but for the number of epochs."""
    precision = "float32" if job.cell.dtype == "float32" else "mixed"
    return Recipe(
        backbone=job.cell.backbone, weights=job.weights, image_size=job.image_size, head_epochs=job.epochs, patience=0,
        seed=job.seed, precision=precision, unfreeze="none",
    )  # fmt: skip
