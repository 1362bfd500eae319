"""Backbones compared on a user's images by the head that would be solved on each, before anything is trained.

The images are looked at in one shuffled order, the same for every backbone, so that any two can be compared image by
image however far they came. The test part is not touched. Features go to the store, where `finetune` finds them.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from multitl.contracts import Backend, Dataset, Example, Goal, Peers, Pretrained
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader
from multitl.data.scanning import wholly_read
from multitl.errors import BackboneError, BackendError, DataError, RunError, TranslationError, WeightsError
from multitl.judging.evaluation import tell_left_out
from multitl.judging.merits import FIGURES, TITLES, Baseline, baselines_of, merit_of
from multitl.models.feature_maps import scaled
from multitl.models.first_layer import with_channels
from multitl.models.goals import GOALS
from multitl.models.preprocessing import with_values
from multitl.models.weight_hashes import weights_sha256
from multitl.recipes import Recipe
from multitl.sources.pretrained import load_pretrained
from multitl.system.messages import say
from multitl.system.printing import printable
from multitl.system.progress import progress_bar
from multitl.training.candidates import listed, recipe_of
from multitl.training.extractors import make_extractor, runtime_of
from multitl.training.feature_store import SHARD, FeatureStore, compute_features
from multitl.training.features import feature_key
from multitl.training.head_choice import is_clearly_better
from multitl.training.solved_head import Attempt, Task, attempt
from multitl.training.targets import goal_for, truth_of

FIRST_LOOK = SHARD  # images; looks are at this many, twice, four times as many, since each costs a path of penalties
# Standard errors of the mean difference between two backbones' losses of the same images. Three, where a head asks for
# two: a backbone is looked at several times and against a leader that won by chance in part, and one that is dropped
# is not seen again.
HOPELESS = 3.0
OF_A_BACKBONE = (BackboneError, WeightsError, TranslationError, BackendError)  # others can be used all the same


@dataclass(frozen=True, eq=False)
class Standing:
    """How good a backbone is out of fold, on the first `images` of `of`.

    score, interval, mae: see `merits.Merit`.  losses: (images,), log loss of each.  speed: images a second; None where
    every feature was stored.  stopped: why it was not finished, "" if it was.
    """

    name: str
    images: int
    of: int
    score: float
    interval: tuple[float, float]
    losses: np.ndarray
    speed: float | None
    parameters: int
    licence: str
    mae: float | None = None
    stopped: str = ""

    def about(self) -> dict[str, Any]:
        """For files: all but the loss of each image, which becomes one `log_loss`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "losses"}
        return values | {"interval": list(self.interval), "log_loss": float(self.losses.mean())}


@dataclass(frozen=True)
class Unusable:
    """A backbone that could not be loaded, and why."""

    name: str
    reason: str


class Candidate:
    """A loaded backbone and its features (n, channels) of the first n images in the common order.

    parameters: how many it has.  cost: those times the pixels of an image, as the work of a convolution grows.
    """

    def __init__(
        self, name: str, pretrained: Pretrained, recipe: Recipe, backend: Backend, pixels: PixelStore,
        goal: Goal = GOALS["one"],
    ) -> None:  # fmt: skip
        """recipe: its own.  pixels: of the network's geometry.  goal: knows the scale of numbers."""
        self.name, self.pretrained, self.recipe, self.goal = name, pretrained, recipe, goal
        self.parameters = pretrained.backbone.count_params()
        self.cost = self.parameters * pretrained.preprocess.height * pretrained.preprocess.width
        runtime = runtime_of(backend, recipe)
        key = feature_key(pretrained, recipe, backend.name, runtime, weights_sha256(pretrained.backbone), None)
        self.pixels = pixels
        self.store = FeatureStore(key, pretrained.backbone.output_shape[-1])
        self.extractor = cache(partial(make_extractor, pretrained, recipe.pooling, runtime))
        self.features = np.empty((0, self.store.channels), "float32")
        self.computed, self.seconds = 0, 0.0

    def advance(self, examples: Sequence[Example]) -> None:
        """Make the features of those that follow."""
        started = time.perf_counter()
        reader = PixelReader(examples, self.pretrained.preprocess, store=self.pixels)
        made = compute_features(self.extractor, examples, reader, self.store)
        if made.computed:
            self.computed += made.computed
            self.seconds += time.perf_counter() - started
        self.features = np.concatenate([self.features, made.values[:]])

    @threadpool_limits.wrap(limits=1, user_api="blas")
    def judge(self, labels: np.ndarray) -> Attempt:
        """The linear head out of fold on as many images as there are labels; its penalty is always chosen."""
        ones, seed = np.ones(len(labels), "float32"), self.recipe.seed
        task = Task([self.features[: len(labels)]], labels, ones, seed=seed, goal=self.goal)
        return attempt("linear", task, scaled(task.views[0][:]), 0.0)

    def standing(self, judged: Attempt, truth: np.ndarray, stopped: str = "") -> Standing:
        """truth: of all images. Raises DataError for too few to be judged out of fold."""
        if judged.answers is None:
            raise _too_few(len(truth))
        count, recipe = len(self.features), self.recipe
        merit = merit_of(recipe.labels, truth[:count], self.goal.activate(judged.answers()), recipe.seed)
        speed = self.computed / self.seconds if self.computed else None
        return Standing(
            self.name, count, len(truth), merit.score, merit.interval, judged.losses, speed, self.parameters,
            self.pretrained.origin.licence, merit.mae, stopped,
        )  # fmt: skip


def rank(dataset: Dataset, names: Sequence[str], recipe: Recipe, backend: Backend) -> Iterator[Standing | Unusable]:
    """Each backbone as soon as it is done: first those that cannot be used, then by cost, the cheapest first.

    dataset: see `read_all`.  names: see `candidates.recipe_of`.  recipe: its `backbone` and `l2` are not looked at.
    Raises BackboneError if none can be used, and what is the data's or the disk's fault, whichever backbone meets it.
    """
    examples, goal = shuffled(dataset, recipe.seed), goal_for(dataset, recipe)
    truth = goal.truth_of(examples, len(dataset.class_names))
    labels = goal.targets_of(truth, len(dataset.class_names))
    candidates: list[Candidate] = []
    failed: list[Unusable] = []
    pixels_of = cache(PixelStore)  # networks of one geometry share what is decoded
    for name in names:
        try:
            own = recipe_of(name, recipe)
            pretrained = load_backbone(own, backend)
        except (*OF_A_BACKBONE, RunError) as error:  # RunError: of a run that it was to come from
            failed.append(Unusable(name, str(error)))
            continue
        pixels = pixels_of(pretrained.preprocess.geometry)
        candidates.append(Candidate(name, pretrained, own, backend, pixels, goal))
    if not candidates:
        raise _none_usable(failed)
    yield from failed
    leader: tuple[Candidate, float] | None = None
    for candidate in sorted(candidates, key=lambda one: one.cost):
        try:
            standing = _follow(candidate, leader[0] if leader else None, examples, truth, labels)
        except OF_A_BACKBONE as error:
            failed.append(Unusable(candidate.name, str(error)))
            yield failed[-1]
            continue
        if not standing.stopped and (leader is None or standing.score > leader[1]):
            leader = candidate, standing.score
        yield standing
    if leader is None:
        raise _none_usable(failed)


def read_all(dataset: Dataset, recipe: Recipe) -> Dataset:
    """The images that `rank` takes: each was decoded, and what is damaged is left out and named. See `wholly_read`."""
    if not dataset.is_sampled:
        return dataset
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        found = wholly_read(dataset, recipe, lambda done, total: bar.update(task, completed=done, total=total))
    tell_left_out(found.unreadable[len(dataset.unreadable) :])
    return found


def settle_backbone(
    dataset: Dataset, recipe: Recipe, backend: Backend, peers: Peers
) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe with the best of the backbones that it names, and how they stood; nothing to say of a single one."""
    names = listed(recipe.backbone)
    if len(names) == 1:
        return recipe, []
    best, ranked = peers.first(lambda: _best(dataset, names, recipe, backend))
    return recipe_of(best, recipe), ranked


def _best(dataset: Dataset, names: Sequence[str], recipe: Recipe, backend: Backend) -> tuple[str, list[dict[str, Any]]]:
    """The best one's name, and how all of them stood."""
    found = []
    for one in rank(read_all(dataset, recipe), names, recipe, backend):
        say(describe_standing(one, recipe.labels))
        found += [one] if isinstance(one, Standing) else []
    found.sort(key=by_score)
    return found[0].name, [one.about() for one in found]


def baselines_for(dataset: Dataset, recipe: Recipe) -> list[Baseline]:
    """What can be said of the same images without looking at any."""
    truth = truth_of(dataset, recipe, "train", "validation")
    return baselines_of(recipe.labels, truth, dataset.class_names)


def describe_standing(one: Standing | Unusable, labels: str) -> str:
    """A line for the terminal. labels: the recipe's."""
    if isinstance(one, Unusable):
        return f"{printable(one.name)}: cannot be used: {one.reason.splitlines()[0]}"
    speed = "stored" if one.speed is None else f"{one.speed:.0f} images/s"
    if one.stopped:
        return f"{printable(one.name)}: given up after {one.images} of {one.of} images: {one.stopped}"
    low, high = one.interval
    what = f"{TITLES[FIGURES[labels]]} {one.score:.3f} [{low:.3f}, {high:.3f}]"
    return f"{printable(one.name)}: {what}, {speed}"


def by_score(one: Standing) -> tuple[bool, float, float]:
    """To sort by: the best first, those that were given up last."""
    return bool(one.stopped), -one.score, float(one.losses.mean())


def shuffled(dataset: Dataset, seed: int) -> list[Example]:
    """Train and validation images: in the data set's own order the first shard would be of one class."""
    examples = [*dataset.split("train"), *dataset.split("validation")]
    return [examples[index] for index in np.random.default_rng(seed).permutation(len(examples))]


def is_hopeless(one: Attempt, leader: Attempt) -> bool:
    """Whether it is worse on the same images by more than noise, in log loss and in accuracy."""
    return is_clearly_better(leader, one, HOPELESS)


def _follow(
    candidate: Candidate, leader: Candidate | None, examples: Sequence[Example], truth: np.ndarray, labels: np.ndarray
) -> Standing:
    """To the last image, or to the look at which it falls behind. truth, labels: of the examples."""
    total, look = len(examples), FIRST_LOOK
    while leader and look < total:
        candidate.advance(examples[len(candidate.features) : look])
        own, best = candidate.judge(labels[:look]), leader.judge(labels[:look])
        if is_hopeless(own, best):
            why = f"log loss {own.losses.mean():.3f}, of {leader.name} {best.losses.mean():.3f} on the same images"
            return candidate.standing(own, truth, f"{why}: more than {HOPELESS:g} standard errors apart")
        look *= 2
    candidate.advance(examples[len(candidate.features) :])
    return candidate.standing(candidate.judge(labels), truth)


def load_backbone(recipe: Recipe, backend: Backend) -> Pretrained:
    """With the decoding and pixel values that the recipe asks for.

    Seeded anew: random weights do not depend on what came before.
    """
    random.seed(recipe.seed)
    backend.make_deterministic(recipe.seed, is_strict=recipe.deterministic)
    pretrained = load_pretrained(recipe.backbone, recipe.weights, recipe.image_size)
    preprocess = with_values(pretrained.preprocess, recipe.preprocess)
    return with_channels(replace(pretrained, preprocess=preprocess), recipe.decoding)


def _too_few(count: int) -> DataError:
    return DataError(
        "There are too few images to compare backbones on.",
        expected="images for two folds at least",
        received=f"{count} training and validation images",
        fix="add images, or choose a backbone by name",
    )


def _none_usable(failed: Sequence[Unusable]) -> BackboneError:
    reasons = "; ".join(f"{one.name}: {one.reason.splitlines()[0]}" for one in failed)
    return BackboneError(
        "None of the backbones can be used here.",
        expected="at least one that can be loaded",
        received=reasons or "no name",
        fix="multitl backbones",
    )
