"""A data set in one container or in several beside each other: train-000.tar, train-001.tar, test-000.tar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from multitl.data import tars
from multitl.data.containers import TAR
from multitl.data.listings import Listing, Record, list_records
from multitl.data.split_names import parse_splits
from multitl.data.tables import Reading, check_one_class_each, list_table
from multitl.errors import DataError

NUMBERS = re.compile(r"[-_. ]*\d+([-_ ]of[-_ ]\d+)?$")  # train-00000-of-00002


def list_shards(root: Path, shards: Sequence[Path], reading: Reading) -> Listing:
    """List the images of shards. Splits are those in a shard, else the one that its name says. Raises DataError."""
    stems = {shard: NUMBERS.sub("", shard.stem) for shard in shards}
    splits = parse_splits(set(stems.values()))
    in_tars = _records_in([shard for shard in shards if shard.suffix.lower() in TAR], reading)
    records: list[Record] = []
    for shard in shards:
        split, found = splits.get(stems[shard]), in_tars.get(shard)
        found = list_table(shard, reading).records if found is None else found
        records += [replace(one, split=one.split or split) for one in found]
    return list_records(root, records)


def _records_in(archives: Sequence[Path], reading: Reading) -> Mapping[Path, Sequence[Record]]:
    for archive in archives:
        check_one_class_each(archive, reading)
        try:
            tars.index(str(archive))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{archive} cannot be read.",
                expected="a tar archive that is not compressed, so that images can be read at random",
                received=str(error),
                fix="unpack it with gunzip if it is compressed, or write it again",
            ) from error
    return tars.list_tars(archives)
