"""TensorBoard logs without TensorFlow, written in the caller's thread.

tensorboardX's SummaryWriter writes in a thread of its own: on a full disk that thread dies, and the next epochs wait
for it for ever. What it knows of the format is used, its writer is not.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from multitl.system.writing import cannot_write

FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


class EpochLog:
    """Appends the figures of a line of history.csv to RUN/tensorboard, for `tensorboard --logdir RUN`.

    A file a process.
    """

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / "tensorboard" / name

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """row: the line of this number, from 1, of history.csv. Raises RunError if it cannot be written."""
        now = time.time()
        events = [Event(step=number, wall_time=now, summary=scalar(name, row[name])) for name in FIGURES]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                if not file.tell():
                    file.write(_record(Event(wall_time=now, file_version="brain.Event:2")))
                file.writelines(map(_record, events))
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _record(event: Event) -> bytes:
    """As TensorFlow frames it (TFRecord): the length and its checksum, the bytes and their checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join([length, _checksum(length), data, _checksum(data)])


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
