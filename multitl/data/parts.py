"""Which part of a data set each image belongs to: train, validation or test.

What the data say is kept, what they do not say is cut off by splits.py. Few images a class are drawn here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from multitl.contracts import Split
from multitl.data.listings import Record
from multitl.data.splits import cut_splits, draw_shots
from multitl.errors import shorten

Placed = tuple[list[Record], list[str]]  # records that all have a split, and warnings


@dataclass(frozen=True)
class Parts:
    """How records are placed. hashes: path -> sha256.  Both fractions are shares, 0 to 1."""

    hashes: Mapping[str, str]
    validation_fraction: float
    test_fraction: float
    seed: int

    def cut(self, records: Sequence[Record]) -> Placed:
        """The parts that are missing, cut from the training images."""
        fractions = self._missing(records)
        is_cut = [record.split in (None, "train") for record in records]
        cut, whole = cut_splits(self._contents(compress(records, is_cut)), fractions, self.seed)
        splits = iter(cut)
        placed = [
            replace(record, split=next(splits)) if own else record for record, own in zip(records, is_cut, strict=True)
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
        is_drawn, fewer = draw_shots(self._contents(pool), shots, self.seed)
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

    def _contents(self, records: Iterable[Record]) -> list[tuple[str, str]]:
        return [(record.label, self.hashes[record.path]) for record in records]
