"""What people call the parts of a data set: `train`, `Training-Images`, `seg_train`, `trainset`, `birds_train`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from multitl.contracts import Split

WORDS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "validate", "dev"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
# what may stand beside such a word and says nothing
FILLERS = frozenset({
    "set", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures", "samples", "split", "folder",
    "dir", "seg",
})  # fmt: skip


def parse_split(name: str) -> Split | None:
    """The split that a folder or a table calls `name`; None if it is no spelling of one."""
    split, rest = _parse(name)
    return split if split and FILLERS.issuperset(rest) else None


def parse_splits(names: Iterable[str]) -> dict[str, Split]:
    """Those of folders beside each other that are splits: also birds_train and birds_test, which share all the rest.

    A class may be called model_train, but hardly another one model_test.
    """
    found: dict[str, Split] = {}
    alike: dict[tuple[str, ...], dict[str, Split]] = defaultdict(dict)
    for name in names:
        split, rest = _parse(name)
        if split:
            (found if FILLERS.issuperset(rest) else alike[rest])[name] = split
    for group in alike.values():
        if "train" in group.values() and len(set(group.values())) > 1:
            found |= group
    return found


def _parse(name: str) -> tuple[Split | None, tuple[str, ...]]:
    """The split that one word of a name means, and the others; no split if several words mean one, or none does."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip())  # TrainSet
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=\d)", spaced.lower()) if word]
    meant = [split for word in words if (split := _split_of(word))]
    rest = tuple(word for word in words if not _split_of(word) and not re.fullmatch(r"(19|20)\d\d", word))  # train2017
    return (meant[0] if len(meant) == 1 else None), rest


def _split_of(word: str) -> Split | None:
    plain = word.removesuffix("set")  # trainset
    return next((split for split, words in WORDS.items() if plain in words), None)
