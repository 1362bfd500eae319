"""Which images of a data set each of several workers reads: a stretch of them, so that nobody reads what others do.

What can only be read together, a row group of a Parquet table, goes to one worker where that leaves the stretches about
even; so does a shard, which may have to be fetched first.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise

from multitl.data.containers import group_of

SLACK = 4  # an end may move by this part of a worker's share


def stripe(paths: Sequence[str], rank: int, size: int) -> range:
    """The indices of worker `rank` of `size`; each image is one worker's. paths: in the order of the data set."""
    groups = [group_of(path) for path in paths]
    ends = [0, *(_end(groups, worker, size) for worker in range(1, size)), len(paths)]
    return range(*list(pairwise(ends))[rank])


def _end(groups: Sequence[Hashable], worker: int, size: int) -> int:
    """Where a worker's stretch begins, and that of the one before ends: between two groups, if that is near."""
    even, most = len(groups) * worker // size, len(groups) // (SLACK * size)
    for distance in range(most + 1):
        for place in (even - distance, even + distance):
            if 0 < place < len(groups) and groups[place - 1] != groups[place]:
                return place
    return even
