"""Cutting validation and test images off a data set, and drawing few: stratified, seeded, blind to names and order.

An image's place depends on the seed and on image contents only: within a class, images are ordered by a hash of (seed,
content) and the first ones are cut off. Copies of an image share the hash, so they always end on one side.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from multitl.contracts import Split


def cut_splits(
    images: Sequence[tuple[str, str]], fractions: Mapping[Split, float], seed: int
) -> tuple[list[Split], list[str]]:
    """The split of each (class, sha256): cut off in the order of `fractions`, each a share of what is left by then.

    Every class keeps at least one distinct image in train and gets at least one in each split cut off, if it has
    enough distinct images; else all of it stays in train, and the class is in the second list. An image that carries
    two labels stays in train: as a judge it would be wrong once whatever the answer.
    """
    if not fractions:
        return ["train"] * len(images), []
    class_of: dict[str, str] = {}
    doubtful = {sha256 for label, sha256 in images if class_of.setdefault(sha256, label) != label}
    copies: dict[str, dict[str, int]] = defaultdict(dict)
    for label, sha256 in images:
        movable = copies[label]
        if sha256 not in doubtful:
            movable[sha256] = movable.get(sha256, 0) + 1

    chosen: dict[str, Split] = {}
    too_small = []
    for label, movable in copies.items():
        if len(movable) <= len(fractions):
            too_small.append(label)
        else:
            chosen |= _cut_class(movable, fractions, seed)
    return [chosen.get(sha256, "train") for _, sha256 in images], too_small


def cut_by_labels(
    images: Sequence[tuple[tuple[str, ...], str]], fractions: Mapping[Split, float], seed: int
) -> list[Split]:
    """`cut_splits` of (labels, sha256), any number of labels an image: iterative stratification (Sechidis et al. 2011).

    The label with the fewest images left goes first, as the hardest to spread: each of its images, in the order of the
    hash, joins the split that lacks most of that label. Images without labels are spread like those of one more label.
    Every label has an image in train, and one in each split where it has enough that no rarer label decided on.
    """
    if not fractions:
        return ["train"] * len(images)
    sets: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for labels, sha256 in images:
        sets[sha256].add(labels or ("",))
    movable = {sha256: found.pop() for sha256, found in sets.items() if len(found) == 1}
    chosen = _spread(movable, _shares(fractions), seed)
    return [chosen.get(sha256, "train") for _, sha256 in images]


def _shares(fractions: Mapping[Split, float]) -> dict[Split, float]:
    """Of all images, train last: each fraction is of what is left by then."""
    shares: dict[Split, float] = {}
    for split, fraction in fractions.items():
        shares[split] = fraction * (1 - sum(shares.values()))
    return shares | {"train": 1 - sum(shares.values())}


def _spread(movable: Mapping[str, tuple[str, ...]], shares: Mapping[Split, float], seed: int) -> dict[str, Split]:
    """The split of each content. movable: sha256 -> labels, at least one."""
    having: dict[str, list[str]] = defaultdict(list)  # label -> contents, in the order of the hash
    for sha256 in _shuffled(movable, seed):
        for label in movable[sha256]:
            having[label].append(sha256)
    left = dict(having)
    wanted = {label: _wanted(len(contents), shares) for label, contents in left.items()}
    room = {split: share * len(movable) for split, share in shares.items()}
    chosen: dict[str, Split] = {}
    while left:
        rarest = min(left, key=lambda label: (len(left[label]), label))
        for sha256 in left.pop(rarest):
            lacks = wanted[rarest]
            split = max(shares, key=lambda one: (lacks[one], room[one]))
            chosen[sha256] = split
            room[split] -= 1
            for label in movable[sha256]:
                wanted[label][split] -= 1
        left = {label: [one for one in contents if one not in chosen] for label, contents in left.items()}
        left = {label: contents for label, contents in left.items() if contents}
    for contents in having.values():
        if all(chosen[sha256] != "train" for sha256 in contents):
            chosen[contents[0]] = "train"
    return chosen


def _wanted(count: int, shares: Mapping[Split, float]) -> dict[Split, float]:
    """How many images of a label each split is to get: at least one, train first of all."""
    wanted = {split: max(1.0, share * count) for split, share in shares.items()}
    wanted["train"] = max(1.0, count - sum(wanted.values()) + wanted["train"])
    return wanted


def draw_shots(images: Sequence[tuple[str, str]], shots: int, seed: int) -> tuple[list[bool], list[str]]:
    """Whether each (class, sha256) is among `shots` of its class drawn by the seed; and the classes that have fewer.

    Of copies the first is drawn. What is drawn for fewer shots is a part of what is drawn for more.
    """
    firsts: dict[str, dict[str, int]] = defaultdict(dict)
    for position, (label, sha256) in enumerate(images):
        firsts[label].setdefault(sha256, position)
    drawn = {first[sha256] for first in firsts.values() for sha256 in _shuffled(first, seed)[:shots]}
    fewer = sorted(label for label, first in firsts.items() if len(first) < shots)
    return [position in drawn for position in range(len(images))], fewer


def _shuffled(contents: Iterable[str], seed: int) -> list[str]:
    return sorted(contents, key=lambda sha256: hashlib.sha256(f"{seed}:{sha256}".encode()).digest())


def _cut_class(copies: Mapping[str, int], fractions: Mapping[Split, float], seed: int) -> dict[str, Split]:
    """The split of the images of one class that leave train. copies: sha256 -> how many files have this content."""
    left = _shuffled(copies, seed)
    chosen: dict[str, Split] = {}
    for position, (split, fraction) in enumerate(fractions.items()):
        spare = len(left) - (len(fractions) - position)  # train and the splits to come need one each
        taken = _take(left, copies, fraction, spare)
        chosen |= dict.fromkeys(taken, split)
        left = [sha256 for sha256 in left if sha256 not in chosen]
    return chosen


def _take(ordered: Sequence[str], copies: Mapping[str, int], fraction: float, spare: int) -> list[str]:
    """The first images whose files make up `fraction` of all, at least one and at most `spare` of them."""
    wanted = round(fraction * sum(copies[sha256] for sha256 in ordered))
    taken: list[str] = []
    files = 0
    for sha256 in ordered:
        if len(taken) < spare and files + copies[sha256] <= wanted:
            taken.append(sha256)
            files += copies[sha256]
    return taken or [min(ordered, key=copies.__getitem__)]
