"""TensorBoard logs: what is in them, and a disk that is full."""

from __future__ import annotations

import struct
import subprocess
import sys
import textwrap
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from multitl.training.logs import FIGURES, EpochLog

ROW = {"phase": "head", "epoch": 1, "loss": 0.5, "accuracy": 0.75, "val_loss": 0.25, "val_accuracy": 1.0,
       "learning_rate": 0.125, "seconds": 3.0}  # fmt: skip


def read_events(folder: Path) -> list[Event]:
    """All events of all files: each is its length, a checksum of that, the bytes, a checksum of those."""
    events = []
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_every_epoch_is_on_disk_at_once(tmp_path: Path) -> None:
    log = EpochLog(tmp_path)
    assert not list(tmp_path.iterdir())  # a run that never comes to an epoch leaves no log
    for epoch in (1, 2):
        log.add(epoch, ROW)
        version, *events = read_events(tmp_path / "tensorboard")
        assert version.file_version == "brain.Event:2"
        values = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
        assert values == {(step, name): ROW[name] for step in range(1, epoch + 1) for name in FIGURES}


def test_full_disk_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    code = f"""
        import resource
        from pathlib import Path
        from multitl.errors import RunError
        from multitl.training.logs import EpochLog
        log, failures = EpochLog(Path({str(tmp_path)!r})), 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for epoch in range(40):
            try:
                log.add(epoch, {ROW!r})
            except RunError as error:
                assert "--resume" in str(error)
                failures += 1
        assert failures > 30
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
