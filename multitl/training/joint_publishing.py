"""The folder of several heads made complete: one network, proved once, and for each head its figures, card and report.

Each head has a folder, heads/NAME, that is a run's but for the network, which all share. As of a run, all is made
beside and takes the place of what was there before, heads.json last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Dataset, Forward, Peers, Pretrained, Split
from multitl.data.pixels import PixelReader
from multitl.distribution.peers import ALONE_PEERS
from multitl.judging.judges import choose_thresholds, judge_of
from multitl.judging.several_heads import write_heads_report
from multitl.models.inference import compile_forward, predict_pixels
from multitl.models.joint import build_classifiers, side_by_side
from multitl.recipes import Recipe
from multitl.runs.cards import checked
from multitl.runs.head_runs import Heads, run_of, whole_heads
from multitl.runs.promises import HEAD_FILES, HEADS, REPORT, hash_files
from multitl.system.hashes import file_sha256
from multitl.system.regular_files import MOST_FIGURES
from multitl.system.scratch import temporary_folder
from multitl.system.writing import cannot_write, read_json, write_json, write_text
from multitl.training.checkpoints import Row, TrainingState
from multitl.training.features import JUDGED, RunFeatures, head_probabilities
from multitl.training.heads import refit_head
from multitl.training.joint_lessons import Part, joint_lesson, together
from multitl.training.publishing import PROVED, describe_trials
from multitl.training.racing import Lesson
from multitl.training.recording import finish, judge, save_model, write_history
from multitl.training.targets import scale_of, truth_of

JOINT_FILES = ("model.keras", "metrics.json", "history.csv", REPORT)  # in the folder of all


@dataclass(frozen=True, eq=False)
class JointPublisher:
    """images, features, readers: of all heads, which `parts` are.  about: what the card of each says, by its name.

    weights: of the losses, as asked and as numbers; None where they are learned.  seconds: of all, so far.
    """

    folder: Path
    images: Dataset
    pretrained: Pretrained
    recipe: Recipe
    parts: Sequence[Part]
    about: Mapping[str, Mapping[str, Any]]
    features: RunFeatures
    readers: Mapping[Split, PixelReader]
    asked_weights: str
    weights: Sequence[float] | None
    seconds: Mapping[str, float]
    peers: Peers = ALONE_PEERS

    @cached_property
    def lesson(self) -> Lesson:
        examples = {split: self.images.split(split) for split in self.readers}
        return joint_lesson(self.parts, self.recipe, examples, self.weights)

    @cached_property
    def alone(self) -> dict[str, dict[str, Any]]:
        """The figures of each head on the backbone as it was: to be asked for before that is trained."""
        if self.recipe.unfreeze == "none":
            return {}
        return {part.name: _figures(part, part.features.probabilities(part.head, part.goal)) for part in self.parts}

    def published(self) -> int | None:
        """See `racing.Contender`."""
        heads = whole_heads(self.folder)
        return heads.trials.kept if heads and heads.trials else None

    def publish_head(self, state: TrainingState) -> None:
        """The heads on the backbone as it was; those that were solved are fitted to validation images too, if the
        recipe says so, and come back as they were."""
        before = [part.head.get_weights() for part in self.parts]
        judged = {part.name: _fit_to_all(part) for part in self.parts}
        sample = self.features.judged["validation"][:PROVED]
        answers = [head_probabilities(part.head, sample, part.goal) for part in self.parts]
        self._publish(judged, np.concatenate(answers, axis=1), state, 0)
        for part, weights in zip(self.parts, before, strict=True):
            part.head.set_weights(weights)

    @property
    def looked_at(self) -> int:
        """See `racing.Contender`."""
        return 0

    def publish_trial(self, trained: int, state: TrainingState) -> None:
        """The network as it is: one pass over the images for all heads."""
        goals = together(self.parts)
        outputs = {
            split: goals.exact(predict_pixels(self._answer, self.readers[split]))
            for split in JUDGED
            if len(self.readers[split])
        }
        cut = {split: goals.parts(values) for split, values in outputs.items()}
        judged = {
            part.name: {
                split: values[place][part.rows[split]] for split, values in cut.items() if len(part.rows[split])
            }
            for place, part in enumerate(self.parts)
        }
        self._publish(judged, outputs["validation"][:PROVED], state, trained)

    def complete(self, state: TrainingState) -> None:
        """Say in cards and reports how it all went."""
        if self.recipe.unfreeze != "none":
            write_history(self.folder, state.rows)
            for part in self.parts:
                place = run_of(self.folder, part.name)
                write_history(place, rows_of(part, state))
                card = read_json(place / "card.json", missing="start again with --overwrite")
                made = {"trials": trials_of(part, state, is_finished=True), "warnings": state.warnings}
                finish(place, card | made | {"seconds": dict(self.seconds)}, HEAD_FILES)
        known = read_json(self.folder / HEADS, missing="start again with --overwrite", most=MOST_FIGURES)
        self._finish(self.folder, known, state, is_finished=True)

    @cached_property
    def _classifiers(self) -> keras.Model:
        """Built once: each new model is compiled anew."""
        heads = {part.name: (part.head, part.goal) for part in self.parts}
        return build_classifiers(self.pretrained, heads, self.recipe.pooling)

    @cached_property
    def _answer(self) -> Forward:
        return compile_forward(side_by_side(self._classifiers, self._names))

    @property
    def _names(self) -> list[str]:
        return [part.name for part in self.parts]

    def _publish(
        self, judged: Mapping[str, Mapping[Split, np.ndarray]], answers: np.ndarray, state: TrainingState, trained: int
    ) -> None:
        """answers: of the first validation images, all heads side by side, that the saved model has to give."""
        sample = self.readers["validation"].read(range(len(answers)))
        with temporary_folder(self.folder) as staged:
            difference = save_model(
                staged, self._classifiers, sample, answers, self.recipe.precision, together(self.parts), self._names
            )
            made = {"trained_parameters": trained, "saved_model_difference": difference}
            metrics = {
                part.name: self._write_head(run_of(staged, part.name), part, judged[part.name], state, made)
                for part in self.parts
            }
            write_json(staged / "metrics.json", metrics)
            write_history(staged, state.rows)
            kinds = {part.name: part.recipe.labels for part in self.parts}
            about = {"kinds": kinds, "finished": True, "weights": self.asked_weights, "alone": self.alone}
            about |= {"saved_model_difference": difference}
            self._finish(staged, about, state, is_finished=self.recipe.unfreeze == "none")
            _move(staged, self.folder)

    def _write_head(
        self, place: Path, part: Part, judged: Mapping[Split, np.ndarray], state: TrainingState, made: dict[str, Any]
    ) -> dict[str, Any]:
        """A head's own folder. made: of all heads, for its card.  Returns its figures by split."""
        place.mkdir(parents=True)
        write_text(place / "recipe.toml", part.asked.to_toml())
        thresholds, scale = _thresholds(part, judged), scale_of(part.dataset, part.recipe)
        metrics = judge(place, part.dataset, judged, part.recipe, thresholds, scale)
        write_history(place, rows_of(part, state))
        trained = made["trained_parameters"]
        is_refitted = not trained and part.solved is not None and part.recipe.refit
        own = sum(math.prod(variable.shape) for variable in part.head.trainable_variables)
        made = made | {
            "output": part.name,
            "trained_parameters": trained + own,
            "solved_head": part.solved and part.solved.about() | {"refitted": is_refitted},
            "trials": trials_of(part, state, is_finished=self.recipe.unfreeze == "none"),
            "thresholds": thresholds,
            "scale": scale,
            "warnings": state.warnings,
            "seconds": dict(self.seconds),
        }
        finish(place, {**self.about[part.name], **made}, HEAD_FILES)
        return metrics

    def _finish(self, folder: Path, about: dict[str, Any], state: TrainingState, *, is_finished: bool) -> None:
        """The report of all, then heads.json."""
        about |= {"trials": describe_trials(state, is_finished=is_finished), "warnings": state.warnings}
        about |= {"seconds": dict(self.seconds)}
        metrics = read_json(folder / "metrics.json", missing="start again with --overwrite", most=MOST_FIGURES)
        write_heads_report(folder, self.folder.resolve().name, metrics, about)
        files = hash_files(folder, JOINT_FILES)
        for name in self._names:
            place = run_of(folder, name)
            own = [place / file for file in (*HEAD_FILES, REPORT, "card.json")]
            files |= {path.relative_to(folder).as_posix(): file_sha256(path) for path in own}
        write_json(folder / HEADS, checked(about | {"files": files}, Heads))


def trials_of(part: Part, state: TrainingState, *, is_finished: bool) -> dict[str, Any]:
    """For the card of one head: what each trial gave it. Gain and noise are of all heads together."""
    trials = describe_trials(state, is_finished=is_finished)
    tried = [
        {name: value for name, value in one.items() if name != "heads"} | one.get("heads", {}).get(part.name, {})
        for one in state.tried
    ]
    return trials | {"tried": tried}


def rows_of(part: Part, state: TrainingState) -> list[Row]:
    """For the history of one head: its training, and the end of each trial; what it lost in training is not known."""
    rows = list(part.state.rows)
    for number, tried in enumerate(state.tried, start=1):
        if own := tried.get("heads", {}).get(part.name):
            rows.append(
                Row(
                    phase="finetune", trial=number, step=tried["steps"], loss=math.nan, accuracy=math.nan,
                    val_loss=own["val_loss"], val_accuracy=own["val_accuracy"], learning_rate=tried["learning_rate"],
                    seconds=tried["seconds"],
                )
            )  # fmt: skip
    return rows


def _fit_to_all(part: Part) -> dict[Split, np.ndarray]:
    """What a head says of its images; where it is fitted to the validation images then, of those from before."""
    told = part.features.probabilities(part.head, part.goal)
    if part.solved is None or not part.recipe.refit:
        return told
    refit_head(part.head, part.solved, part.features, part.dataset, part.recipe)
    return part.features.probabilities(part.head, part.goal) | {"validation": told["validation"]}


def _thresholds(part: Part, judged: Mapping[Split, np.ndarray]) -> list[float]:
    truth = truth_of(part.dataset, part.recipe, "validation")
    return choose_thresholds(part.recipe, truth, judged["validation"])


def _figures(part: Part, judged: Mapping[Split, np.ndarray]) -> dict[str, Any]:
    """As metrics.json has them."""
    scale = scale_of(part.dataset, part.recipe)
    judge = judge_of(part.recipe, part.dataset.class_names, _thresholds(part, judged), scale)
    scored = {split: judge.score(truth_of(part.dataset, part.recipe, split), told) for split, told in judged.items()}
    return {"test": None, "validation": None} | scored


def _move(staged: Path, folder: Path) -> None:
    """heads.json last: a kill in between leaves one that does not fit the files, so that they are made again."""
    files = [path.relative_to(staged) for path in sorted(staged.rglob("*")) if path.is_file()]
    for name in sorted(files, key=lambda name: name == Path(HEADS)):
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).replace(folder / name)
        except OSError as error:
            raise cannot_write(folder / name, error) from error
