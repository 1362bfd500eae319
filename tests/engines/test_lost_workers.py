"""`finetune --workers 2`, one of whom is killed: the run ends by itself, as one process alone would have ended it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from live_processes import is_alive, wait_until
from quick_runs import BACKBONE

from multitl.cli.main import main

DEEP = ["--backbone", BACKBONE, "--weights", "none", "--image-size", "32", "--unfreeze", "last", "--steps", "8",
        "--batch-size", "8", "--learning-rate", "1e-3", "--backend", keras.config.backend()]  # fmt: skip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def workers(out: Path) -> dict[int, int]:
    """rank -> number of the process, of those that work on a run."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
            if str(out).encode() in words and b"multitl.system.children" in words:
                variables = dict(
                    line.split(b"=", 1) for line in (file.parent / "environ").read_bytes().split(b"\0")[:-1]
                )
                found[int(variables[b"RANK"])] = int(file.parent.name)
        except (OSError, ValueError):
            continue  # it has just ended
    return found


@pytest.mark.every_backend
@pytest.mark.slow
def test_a_killed_worker_changes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "two"
    command = [sys.executable, "-m", "multitl", "finetune", str(photos), *DEEP, "--workers", "2", "--out", str(out)]
    with (tmp_path / "said").open("w") as said:
        launcher = subprocess.Popen(command, stdout=said, stderr=said)
    wait_until((out / "checkpoint.safetensors").exists, seconds=300)
    first = workers(out)
    os.kill(first[1], signal.SIGKILL)
    assert launcher.wait(600) == 0, (tmp_path / "said").read_text()
    assert (tmp_path / "said").read_text().count("worker 1 was lost (killed by SIGKILL)") == 1
    assert not any(map(is_alive, [*first.values(), *workers(out).values()]))

    assert main(["finetune", str(photos), *DEEP, "--out", str(tmp_path / "one")]) == 0
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    for split in ("test", "validation"):
        assert two[split]["log_loss"] == pytest.approx(one[split]["log_loss"], abs=1e-5)
    tables = [np.genfromtxt(tmp_path / name / "history.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
              for name in ("one", "two")]  # fmt: skip
    np.testing.assert_allclose(tables[1]["loss"], tables[0]["loss"], atol=1e-5)
