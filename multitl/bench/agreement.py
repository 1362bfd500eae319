"""Whether contenders do the same: judged on their checks, before any clock counts.

The standard is the median of all contenders, number by number, so one that errs stands out among three or more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multitl.bench.jobs import Record

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


@dataclass(frozen=True)
class Verdict:
    """logits, losses: the largest difference from the standard, as a share of the standard's largest value; None where
    there is nothing to compare.  faults: in what the contender disagrees; empty if it is ranked.
    """

    logits: float | None
    losses: float | None
    trainable: int
    faults: tuple[str, ...]


def judge(checks: Mapping[str, Record], dtype: str) -> dict[str, Verdict]:
    """checks: contender -> its finished check, of one contest."""
    logits = deviations({name: record.logits for name, record in checks.items()})
    losses = deviations({name: record.losses for name, record in checks.items()})
    trainable = Counter(record.trainable for record in checks.values())
    usual = max(trainable, key=lambda count: (trainable[count], count), default=0)
    verdicts = {}
    for name, record in checks.items():
        faults = [what for what, found in (("logits", logits[name]), ("losses", losses[name])) if is_far(found, dtype)]
        faults += ["trained parameters"] if record.trainable != usual else []
        verdicts[name] = Verdict(logits[name], losses[name], record.trainable, tuple(faults))
    return verdicts


def is_far(deviation: float | None, dtype: str) -> bool:
    return deviation is not None and not deviation <= TOLERANCE[dtype]  # a nan is far


def deviations(values: Mapping[str, Sequence]) -> dict[str, float | None]:
    """name -> largest difference from the median of all, as a share of its largest value.

    None for an empty one, infinite for one of another shape than most.
    """
    arrays = {name: np.asarray(value, "float64") for name, value in values.items() if len(value)}
    if not arrays:
        return dict.fromkeys(values)
    shape = Counter(array.shape for array in arrays.values()).most_common(1)[0][0]
    standard = np.median([array for array in arrays.values() if array.shape == shape], axis=0)
    size = max(float(np.abs(standard).max()), 1e-12)
    return {
        name: None if name not in arrays
        else float(np.abs(arrays[name] - standard).max()) / size if arrays[name].shape == shape
        else float("inf")
        for name in values
    }  # fmt: skip
