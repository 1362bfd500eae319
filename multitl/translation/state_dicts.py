"""The tensors of a PyTorch network under its own names, whatever names the program that wrote the file gave them.

Training programs put a prefix before every name, and keep a moving average of the weights beside them. Only by the
network's own names can a wrapper's prefix "model." be told from a module that is called "model".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from multitl.contracts import TranslatedWeight
from multitl.errors import WeightsError
from multitl.files.state_dict_files import AVERAGE, StateDict, some

_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")  # the last two are a profiler's (thop)
_TRAINING = ("optimizer", "scheduler", "lr_scheduler", "scaler", "criterion", "loss", "loss_fn")
_DEEPEST = 20  # modules in modules that are looked at
Resampled = Callable[[str, np.ndarray], np.ndarray | None]
_LONGEST_NAME = 1000  # a name of a million dots must not take for ever


def fit(
    state: StateDict,
    weights: Iterable[TranslatedWeight],
    *,
    unused: Collection[str] = (),
    classifier: Collection[str] = (),
    network: str = "this network",
    resampled: Resampled = lambda name, array: None,
) -> StateDict:
    """The tensors of `weights` under the network's own names, in float32. Names and shapes decide, nothing is guessed.

    unused: names of the original's state_dict that its graph never reads.  classifier: names of weights whose place a
    new head takes: they are left out, and so is another head that is there instead, or beside the network; the note
    says what differs. Empty if the head is kept.  network: its name, for messages.  resampled: see
    `contracts.Original`, of one that can be asked.

    Raises WeightsError with the names that are missing, unexpected or of another shape.
    """
    shapes = {weight.name: weight.shape for weight in weights}
    return fit_shapes(state, shapes, unused=unused, classifier=classifier, network=network, resampled=resampled)


def fit_shapes(
    state: StateDict,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    unused: Collection[str] = (),
    classifier: Collection[str] = (),
    network: str = "this network",
    resampled: Resampled = lambda name, array: None,
) -> StateDict:
    """As `fit`, for a network that is known by the names and shapes of its weights."""
    known = {*shapes, *unused, *classifier}
    prefix = _prefix(state.tensors, known)
    named = _without(prefix, state.tensors)
    wanted = {name: shape for name, shape in shapes.items() if name not in classifier}
    others = [name for name in state.tensors if not _is_expected(name, prefix, known)]
    heads = {name for name in others if classifier and _is_of_a_head(name, prefix, wanted, known)}
    odd = [name for name, shape in wanted.items() if name in named and named[name].shape != shape]
    moved = {name: array for name in odd if (array := resampled(name, named[name])) is not None}
    named |= moved
    misshaped = [name for name in odd if name not in moved]
    differences = {
        "missing": [name for name in wanted if name not in named],
        "unexpected": [name for name in others if name not in heads],
        "of another shape": [f"{name} {named[name].shape} for {wanted[name]}" for name in misshaped],
    }
    if differences["missing"]:  # it is of another network, in which nothing is a head of this one
        differences["unexpected"] = others
    if any(differences.values()):
        pairs = [(named[name].shape, wanted[name]) for name in misshaped]
        raise _misfit(state.file, network, differences, len(wanted), None if classifier else pairs)
    tensors = {name: _float32(named[name]) for name in wanted}
    _check_finite(tensors, state.file)
    heads |= {prefix + name for name in classifier if name in named and named[name].shape != shapes.get(name)}
    notes = [
        state.note,
        f"the prefix {prefix!r} cut off its names" if prefix else "",
        f"its head, which does not fit, left out: {some(sorted(heads))}" if heads else "",
        f"made at another image size, so interpolated: {some(sorted(moved))}" if moved else "",
    ]
    return StateDict(tensors, state.file, "; ".join(filter(None, notes)))


def classes_in(state: StateDict, weights: Iterable[TranslatedWeight], classifier: Collection[str]) -> int | None:
    """How many classes the classifier in the file has: the rows of its tensors. None if it has none, or no one number.

    weights, classifier: as for `fit`, of a network of the same architecture; its own number of classes does not matter.
    """
    names = {*(weight.name for weight in weights), *classifier}
    named = _without(_prefix(state.tensors, names), state.tensors)
    rows = {named[name].shape[:1] for name in classifier if name in named}
    return rows.pop()[0] if len(rows) == 1 and () not in rows else None


def _prefix(names: Iterable[str], known: Collection[str]) -> str:
    """What stands before the network's names in the file: the beginning with which most of them are there.

    Of equals a moving average's, which is another copy of all of them, then the shortest.
    """
    votes = Counter(prefix for name in names for prefix in _prefixes(name, known))
    return max(votes, key=lambda prefix: (votes[prefix], bool(AVERAGE.search(prefix)), -len(prefix)), default="")


def _prefixes(name: str, known: Collection[str]) -> list[str]:
    """The beginnings of a name, "" and those that end in a dot, after which a known name follows."""
    if len(name) > _LONGEST_NAME:
        return []
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
    return [name[:start] for start in starts if name[start:] in known]


def _without(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors whose names have the prefix, by the rest of their names."""
    return {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}


def _is_expected(name: str, prefix: str, known: Collection[str]) -> bool:
    """Whether a name of the file is the network's, or of what training programs keep beside it.

    Those are counters, the state of optimizer and loss, and a moving average, or the weights beside a moving average.
    """
    prefixes = _prefixes(name, known)
    if prefix in prefixes or name.rpartition(".")[2] in _COUNTERS or name.partition(".")[0] in _TRAINING:
        return True
    return any(AVERAGE.search(other) or AVERAGE.search(prefix) for other in prefixes)


def _is_of_a_head(name: str, prefix: str, wanted: Collection[str], known: Collection[str]) -> bool:
    """Whether an unknown tensor belongs to a head in the place of the network's own, or beside the network.

    In its place: in a module of the network in which nothing else is wanted. Beside it: in a module that the network
    does not have, and that is no other copy of it. More layers in a module that is wanted make another network.
    """
    if not name.startswith(prefix):
        return not _prefixes(name, wanted)
    parts = name[len(prefix) :].split(".")[:_DEEPEST]
    modules = [".".join(parts[:depth]) + "." for depth in range(1, len(parts))]
    place = next((one for one in modules if not any(other.startswith(one) for other in wanted)), "")
    return place != "" and (place == modules[0] or any(other.startswith(place) for other in known))


def _other_classes(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[int, int] | None:
    """(classes of the file, of the network), if the shapes (found, wanted) differ in their rows alone and all alike.

    A layer inside the network cannot differ so: the columns of the next one would differ too.
    """
    rows = {(found[:1], wanted[:1]) for found, wanted in pairs}
    if len(rows) != 1 or any(found[1:] != wanted[1:] or not found for found, wanted in pairs):
        return None
    ((found,), (wanted,)) = rows.pop()
    return found, wanted


def _misfit(
    file: Path,
    network: str,
    differences: Mapping[str, Sequence[str]],
    count: int,
    pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]] | None,
) -> WeightsError:
    """count: of the weights that are wanted.  pairs: shapes (found, wanted), None if the classifier is not wanted."""
    problem = f"The weights in {file} are not those of {network}: {sum(map(len, differences.values()))} differ."
    fix = "--weights default, or another --backbone, or the file of this one"
    if pairs is not None and not differences["unexpected"]:
        classes = None if differences["missing"] else _other_classes(pairs)
        problem = f"The file {file} has {classes[0]} classes, {network} has {classes[1]}." if classes else problem
        fix = f"leave --head keep out, if only the classifier differs: a new one takes its place; or {fix}"
    return WeightsError(
        problem,
        expected=f"the {count} weights of {network}",
        received="; ".join(f"{kind}: {some(names)}" for kind, names in differences.items() if names),
        fix=fix,
    )


def _float32(array: np.ndarray) -> np.ndarray:
    """Half and double precision as float32; integers stay."""
    with np.errstate(over="ignore"):  # the caller looks for infinities
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _check_finite(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    if broken := [name for name, array in tensors.items() if not np.isfinite(array).all()]:
        raise WeightsError(
            f"The weights in {file} are not all finite numbers in float32.",
            expected="numbers",
            received=f"NaN or infinity in {some(broken)}",
            fix="take a checkpoint from before the training diverged",
        )
