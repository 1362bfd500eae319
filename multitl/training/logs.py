"""TensorBoard's record of a run without TensorFlow, written in the caller's thread.

tensorboardX's SummaryWriter writes in a thread of its own: on a full disk that thread dies, and the next epochs wait
for it for ever. What it knows of the format is used, its writer is not.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from multitl.system.writing import cannot_write
from multitl.training.trackers import FIGURES

FILE = "events.out.tfevents.multitl"  # TensorBoard looks for the middle of the name


class EpochLog:
    """Appends the figures of a line of history.csv to RUN/tensorboard, for `tensorboard --logdir RUN`.

    One file a run: whoever resumes writes it anew, with the lines from before.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._mode = folder / "tensorboard" / FILE, "wb"

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """row: the line of this number, from 1, of history.csv. Raises RunError if it cannot be written."""
        now = time.time()
        events = [Event(step=number, wall_time=now, summary=scalar(name, row[name])) for name in FIGURES]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(self._mode) as file:
                self._mode = "ab"
                if not file.tell():
                    file.write(_record(Event(wall_time=now, file_version="brain.Event:2")))
                file.writelines(map(_record, events))
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self, figures: Mapping[str, float] | None) -> None:
        """Everything is on disk already."""


def _record(event: Event) -> bytes:
    """As TensorFlow frames it (TFRecord): the length and its checksum, the bytes and their checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join([length, _checksum(length), data, _checksum(data)])


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
