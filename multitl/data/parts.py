"""Which part of a data set each image belongs to: train, validation or test.

What the data say is kept, what they do not say is cut off by splits.py. Few images a class are drawn here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from multitl.contracts import Split
from multitl.data.bins import bins_of
from multitl.data.listings import Record
from multitl.data.splits import cut_by_labels, cut_splits, draw_shots
from multitl.errors import shorten

BINS = 10  # of numbers, in which they are cut
Before = Callable[[str], Split | None]
Placed = tuple[list[Record], list[str]]  # records that all have a split, and warnings


def nowhere(sha256: str) -> Split | None:
    """Of a data set that is new."""
    return None


@dataclass(frozen=True)
class Parts:
    """How records are placed. hashes: path -> sha256.  Both fractions are shares, 0 to 1.

    before: sha256 -> the part that an image was in when it was met before: whatever is cut, it stays there.
    """

    hashes: Mapping[str, str]
    validation_fraction: float
    test_fraction: float
    seed: int
    before: Before = nowhere

    def cut(self, records: Sequence[Record]) -> Placed:
        """The parts that are missing, cut from the training images."""
        fractions = self._missing(records)
        stay = [self.before(self.hashes[record.path]) if fractions else None for record in records]
        records = [self._placed_before(record, split, fractions) for record, split in zip(records, stay, strict=True)]
        is_cut = [record.split in (None, "train") and not split for record, split in zip(records, stay, strict=True)]
        cut, whole = self._cut(list(compress(records, is_cut)), fractions)
        judged = {record.label for record in records if record.split in fractions}  # by images of before
        whole = [name for name in whole if name not in judged]
        splits = iter(cut)
        placed = [
            Record(record.path, record.label, next(splits)) if own else record
            for record, own in zip(records, is_cut, strict=True)
        ]
        warning = (
            f"Classes too small to cut {' and '.join(fractions)} images from, kept for training: {shorten(whole)}."
        )
        return placed, [warning] if whole else []

    def draw(self, placed: Sequence[Record], shots: int) -> Placed:
        """So many images a class of all that is not test, a validation part included; validation is cut from them anew.

        So a run sees no more than these, and its test is that of a run on all images. Without a test validation judges
        in the end, so it stays as it is, and train alone is drawn from.
        """
        judge: Split = "test" if any(record.split == "test" for record in placed) else "validation"
        pool = [record for record in placed if record.split != judge]
        is_drawn, fewer = self._draw(pool, shots)
        drawn = [replace(record, split="train") for record in compress(pool, is_drawn)]
        records, warnings = self.cut(drawn + [record for record in placed if record.split == judge])
        warning = f"Classes of fewer than {shots} images beside those that judge, all of them taken: {shorten(fewer)}."
        return records, [*warnings, warning] if fewer else warnings

    def _missing(self, records: Sequence[Record]) -> dict[Split, float]:
        """What is to be cut off, in order, and the share of each."""
        present = {record.split for record in records}
        if "validation" in present:
            return {}
        if "test" in present:
            return {"validation": self.validation_fraction}
        return {"test": self.test_fraction, "validation": self.validation_fraction}

    @staticmethod
    def _placed_before(record: Record, split: Split | None, fractions: Mapping[Split, float]) -> Record:
        """A part that the data have already is not added to."""
        if not split or record.split not in (None, "train"):
            return record
        return replace(record, split=split if split in fractions else "train")

    def _cut(self, records: Sequence[Record], fractions: Mapping[Split, float]) -> tuple[list[Split], list[str]]:
        """See splits.py; classes are cut one by one, and so are numbers, bin by bin; labels that share images all
        together.
        """
        numbers = [record.label for record in records if isinstance(record.label, float)]
        if numbers:
            hashes = [self.hashes[record.path] for record in records]
            binned = list(zip(map(str, bins_of(numbers, BINS)), hashes, strict=True))
            return cut_splits(binned, fractions, self.seed)[0], []
        if any(isinstance(record.label, tuple) for record in records):
            sets = [(record.labels, self.hashes[record.path]) for record in records]
            return cut_by_labels(sets, fractions, self.seed), []
        return cut_splits(self._pairs(records), fractions, self.seed)

    def _draw(self, records: Sequence[Record], shots: int) -> tuple[list[bool], list[str]]:
        """See splits.py; an image is drawn if it is among those of any of its labels."""
        owners = [row for row, record in enumerate(records) for _ in record.labels or ("",)]
        are_drawn, fewer = draw_shots(self._pairs(records), shots, self.seed)
        drawn = set(compress(owners, are_drawn))
        return [row in drawn for row in range(len(records))], [name for name in fewer if name]

    def _pairs(self, records: Iterable[Record]) -> list[tuple[str, str]]:
        """(label, sha256), those of an image one after the other; of one without labels a single one, ""."""
        return [(label, self.hashes[record.path]) for record in records for label in record.labels or ("",)]
