"""A data set in one container or in several beside each other: train-000.tar, train-001.tar, test-000.tar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from multitl.data.containers import TAR
from multitl.data.listings import Listing, Record, list_records
from multitl.data.split_names import parse_splits
from multitl.data.tables import Reading, check_one_class_each, list_table
from multitl.data.tars import list_tar
from multitl.errors import DataError

NUMBERS = re.compile(r"[-_. ]*\d+([-_ ]of[-_ ]\d+)?$")  # train-00000-of-00002


def list_shards(root: Path, shards: Sequence[Path], reading: Reading) -> Listing:
    """List the images of shards. Splits are those in a shard, else the one that its name says. Raises DataError."""
    stems = {shard: NUMBERS.sub("", shard.stem) for shard in shards}
    splits = parse_splits(set(stems.values()))
    records: list[Record] = []
    for shard in shards:
        split = splits.get(stems[shard])
        records += [replace(one, split=one.split or split) for one in _records_of(shard, reading)]
    return list_records(root, records)


def _records_of(shard: Path, reading: Reading) -> Sequence[Record]:
    if shard.suffix.lower() not in TAR:
        return list_table(shard, reading).records
    check_one_class_each(shard, reading)
    try:
        return list_tar(shard)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{shard} cannot be read.",
            expected="a tar archive that is not compressed, so that images can be read at random",
            received=str(error),
            fix="unpack it with gunzip if it is compressed, or write it again",
        ) from error
