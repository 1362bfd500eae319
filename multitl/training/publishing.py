"""A run may finish more than once: with the head on the frozen backbone, then with whatever trial is better.

Each time all files are made in a folder beside and take the places of those before, the card last; so the folder holds
a judged classifier from the head on, whatever happens.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Dataset, Forward, Goal, Peers, Pretrained, Result, Split
from multitl.data.pixels import PixelReader
from multitl.distribution.peers import ALONE_PEERS
from multitl.errors import RunError
from multitl.judging.conformal import COVERAGE, least_plausible
from multitl.judging.costs import cost_matrix
from multitl.judging.judges import choose_thresholds
from multitl.models.heads import build_classifier
from multitl.models.inference import compile_forward, predict_pixels
from multitl.models.strangeness import features_and_logits
from multitl.recipes import Recipe
from multitl.runs.cards import read_card
from multitl.runs.familiarity import Familiarity, write_familiarity
from multitl.runs.heatmaps import write_heatmaps
from multitl.runs.promises import FILES, REPORT, broken_files
from multitl.standalone.programs import write_program
from multitl.system.scratch import temporary_folder
from multitl.system.writing import cannot_write, read_json
from multitl.training.checkpoints import TrainingState
from multitl.training.familiarity import MOST_TRAIN, MOST_USUAL, Seen, groups_of, learn_familiarity, rows_to_see
from multitl.training.feature_rows import chosen
from multitl.training.features import JUDGED, RunFeatures, head_logits
from multitl.training.head_choice import SolvedHead
from multitl.training.heads import refit_head
from multitl.training.memories import Memory
from multitl.training.mistakes import mistakes_of
from multitl.training.racing import Lesson
from multitl.training.recording import finish, judge, present_files, save_model, write_history
from multitl.training.targets import goal_for, scale_of, targets_of, truth_of
from multitl.training.trials import Examination, brier_scores

PROVED = 8  # images that the saved model answers for
STARTED = ("recipe.toml", "run.json")  # which are there before training begins


@dataclass(frozen=True)
class Publisher:
    """Makes a run folder complete.

    recipe: with the head's penalty settled.  solved: how the head was, if it was.  about: what the card says in any
    case.  readers: the images by split.  memory: of the run that this one goes on from.
    peers: who share the work of judging; the first writes.
    """

    folder: Path
    dataset: Dataset
    pretrained: Pretrained
    head: keras.Model
    solved: SolvedHead | None
    recipe: Recipe
    about: Mapping[str, Any]
    features: RunFeatures
    readers: Mapping[Split, PixelReader]
    memory: Memory | None = None
    peers: Peers = ALONE_PEERS

    @property
    def looked_at(self) -> int:
        """See `racing.Contender`: what `learn_familiarity` looks at, but for validation images that are judged."""
        usual = len(self.readers["validation"])
        return min(MOST_TRAIN, len(self.readers["train"])) + (MOST_USUAL if usual > MOST_USUAL else 0)

    @property
    def lesson(self) -> Lesson:
        targets, weights = targets_of(self.dataset, self.recipe)
        goal, truth = self._goal, truth_of(self.dataset, self.recipe, "validation")

        def scores() -> np.ndarray:
            aims, _ = targets_of(self.dataset, self.recipe, ("validation",))
            return brier_scores(aims, goal.as_targets(self.features.probabilities(self.head, goal)["validation"]))

        return Lesson(
            self.head, [self.head.get_layer("logits")], None, self.dataset.split("train"), targets, weights,
            lambda predict: Examination(lambda: goal.activate(predict()), truth, goal), scores,
        )  # fmt: skip

    def published(self) -> int | None:
        """See `racing.Contender`."""
        if broken_files(self.folder):
            return None
        trials = read_card(self.folder).trials
        return trials.kept if trials else None

    def publish_head(self, state: TrainingState) -> None:
        """The head on the frozen backbone.

        One that was solved is fitted to the validation images too, if the recipe says so, and comes back as it was; the
        figures on them are from before.
        """
        probabilities = self.features.probabilities(self.head, self._goal)
        judged, before = probabilities, self.head.get_weights()
        familiarity = self._learn(self._see_features)
        old_test = self.memory.judge_head(self.head) if self.memory else None
        if is_refitted := self.solved is not None and self.recipe.refit:
            refit_head(self.head, self.solved, self.features, self.dataset, self.recipe, self.peers)
            probabilities = self.features.probabilities(self.head, self._goal)
            judged = probabilities | {"validation": judged["validation"]}
            if self.memory and not self._remembers_validation:
                old_test = self.memory.judge_head(self.head)
        about = self._describe(0, is_refitted, old_test)
        self.peers.first(lambda: self._publish(probabilities["validation"], judged, state, about, familiarity))
        self.head.set_weights(before)

    def publish_trial(self, trained: int, state: TrainingState) -> None:
        """The network as it is. trained: parameters of the backbone that were."""
        few = self._look("validation") if len(self.readers["validation"]) <= MOST_USUAL else None  # pass once
        judged = {
            split: self._told(few.logits) if few and split == "validation" else self._predict(self.readers[split])
            for split in JUDGED
            if len(self.readers[split])
        }
        old_test = self.memory.judge_network(self._predict) if self.memory else None
        about, familiarity = self._describe(trained, False, old_test), self._learn(partial(self._see_pixels, usual=few))
        self.peers.first(lambda: self._publish(judged["validation"], judged, state, about, familiarity))

    def _predict(self, reader: PixelReader) -> np.ndarray:
        logits = slice(self._channels, None)
        return self._told(predict_pixels(self._see, reader, peers=self.peers, columns=logits))

    def _told(self, logits: np.ndarray) -> np.ndarray:
        return self._goal.exact(self._goal.activate(logits))

    def learn_familiarity(self) -> Familiarity:
        """What the usual images look like to the network as it is, whose head must not know the validation images."""
        return self._learn(self._see_pixels)

    def _learn(self, see: Callable[[Split, np.ndarray], Seen]) -> Familiarity:
        """see: some images of a split, by their places."""
        recipe = self.recipe
        seed, has_classes = recipe.seed, recipe.labels == "one"
        groups, usual = (groups_of(self.dataset.split(split), recipe.labels) for split in ("train", "validation"))
        rows = rows_to_see(groups, MOST_TRAIN, seed)
        trained = see("train", rows)
        others = see("validation", rows_to_see(np.zeros(len(usual)), MOST_USUAL, seed))
        return learn_familiarity(trained, groups[rows], others, has_classes=has_classes, seed=seed)

    def _see_features(self, split: Split, rows: np.ndarray) -> Seen:
        """By the features of the backbone as it was, and the head."""
        features = chosen(self.features.train[0] if split == "train" else self.features.judged[split], rows)[:]
        return Seen(features, head_logits(self.head, features))

    def _see_pixels(self, split: Split, rows: np.ndarray, *, usual: Seen | None = None) -> Seen:
        """usual: of all validation images, where they passed already."""
        if usual and split == "validation":
            return Seen(usual.features[rows], usual.logits[rows])
        return self._look(split, rows.tolist())

    def _look(self, split: Split, rows: Sequence[int] | None = None) -> Seen:
        found = predict_pixels(self._see, self.readers[split], peers=self.peers, rows=rows)
        return Seen(*np.split(found, [self._channels], axis=1))

    def publish_adapted(
        self, answers: np.ndarray, judged: Mapping[Split, np.ndarray], state: TrainingState, adaptation: dict[str, Any],
        familiarity: Familiarity,
    ) -> None:  # fmt: skip
        """What was published, as it is now that it is adapted to other images: see `adaptation.py`."""
        card = self._card()
        about = {name: card[name] for name in ("trained_parameters", "solved_head", "start") if name in card}
        if self.memory:
            is_seen = self._remembers_validation and not state.kept and self.recipe.refit
            old_test = None if is_seen else self.memory.judge_network(self._predict)
            about["start"] = about["start"] | {"old_test": old_test}
        self._publish(answers, judged, state, about | {"adaptation": adaptation}, familiarity)

    def complete(
        self, state: TrainingState, seconds: Mapping[str, float], adaptation: dict[str, Any] | None = None
    ) -> Result:
        """Say in the card and the report of what was published how it all went."""
        write_history(self.folder, state.rows)
        made: dict[str, Any] = {"trials": describe_trials(state, is_finished=True), "adaptation": adaptation}
        made |= {"seconds": dict(seconds), "warnings": state.warnings}
        return finish(self.folder, self._card() | made, present_files(self.folder))

    def _card(self) -> dict[str, Any]:
        return read_json(self.folder / "card.json", missing="start again with --overwrite")

    @property
    def _remembers_validation(self) -> bool:
        """Whether the earlier run had no test images, so that a head that is refitted has seen what it is judged by."""
        return self.memory is not None and self.memory.remembered.split == "validation"

    @property
    def _goal(self) -> Goal:
        return goal_for(self.dataset, self.recipe)

    @property
    def _channels(self) -> int:
        """Of the features that `_see` gives, before the logits."""
        return self.pretrained.backbone.output_shape[-1]

    @cached_property
    def _classifier(self) -> keras.Model:
        """Built once: each new model is compiled anew."""
        return build_classifier(self.pretrained, self.head, self.recipe.pooling, self._goal)

    @cached_property
    def _see(self) -> Forward:
        """Pixels -> features and logits side by side."""
        both = keras.layers.Concatenate(dtype="float32")(features_and_logits(self._classifier))
        return compile_forward(keras.Model(self._classifier.input, both))

    def _describe(self, trained: int, is_refitted: bool, old_test: Mapping[str, Any] | None) -> dict[str, Any]:
        solved = self.solved and self.solved.about() | {"refitted": is_refitted}
        trained += int(sum(np.prod(variable.shape) for variable in self.head.trainable_variables))
        start = self.about.get("start")
        known = {"start": dict(start) | {"old_test": old_test}} if start else {}
        return {"trained_parameters": trained, "solved_head": solved} | known

    def _publish(
        self, answers: np.ndarray, judged: Mapping[Split, np.ndarray], state: TrainingState, about: Mapping[str, Any],
        familiarity: Familiarity,
    ) -> None:  # fmt: skip
        """answers: probabilities of the validation images that the saved model has to give."""
        truth = truth_of(self.dataset, self.recipe, "validation")
        thresholds = choose_thresholds(self.recipe, truth, judged["validation"])
        sample = self.readers["validation"].read(range(min(PROVED, len(self.readers["validation"]))))
        mistakes = mistakes_of(self.dataset, judged, self.recipe, self.readers)
        with temporary_folder(self.folder) as staged:
            for name in STARTED:
                shutil.copy(self.folder / name, staged)
            difference = save_model(
                staged, self._classifier, sample, answers[: len(sample)], self.recipe.precision, self._goal,
                ask=mistakes.ask,
            )  # fmt: skip
            write_heatmaps(staged, mistakes.heatmaps())
            write_familiarity(staged, familiarity)
            how, names = self.pretrained.preprocess, self.dataset.class_names
            costs = cost_matrix(self.recipe.costs, names)
            write_program(staged, "open_keras", how, "pixels", names, thresholds, costs)
            scale = scale_of(self.dataset, self.recipe)
            judge(staged, self.dataset, judged, self.recipe, thresholds, scale)
            write_history(staged, state.rows)
            trials = describe_trials(state, is_finished=False)
            made = {"saved_model_difference": difference, "trials": trials, "warnings": state.warnings}
            made |= {"thresholds": thresholds, "scale": scale}
            made |= {"plausible": plausible_sets(truth, judged["validation"], self.recipe)}
            finish(staged, {**self.about, **about, **made})
            _move(staged, self.folder)


def describe_trials(state: TrainingState, *, is_finished: bool) -> dict[str, Any]:
    """For the card."""
    return {"kept": state.kept, "finished": is_finished, "steps": state.budget_steps, "tried": state.tried}


def plausible_sets(truth: np.ndarray, probabilities: np.ndarray, recipe: Recipe) -> dict[str, float] | None:
    """For the card; of images that have not one class none. Of validation images."""
    if recipe.labels != "one":
        return None
    return {"coverage": COVERAGE, "least": least_plausible(truth, probabilities)}


def has_more_to_try(folder: Path) -> bool:
    """Whether a run that was stopped had published something already. A card that cannot be read is nobody's."""
    try:
        trials = read_card(folder).trials
    except RunError:
        return False
    return trials is not None and not trials.finished


def _move(staged: Path, folder: Path) -> None:
    """The card last: a kill in between leaves one that does not fit the files, so that they are made again."""
    for name in [name for name in (*FILES, REPORT, "card.json") if name not in STARTED]:
        try:
            (staged / name).replace(folder / name)
        except OSError as error:
            raise cannot_write(folder / name, error) from error
