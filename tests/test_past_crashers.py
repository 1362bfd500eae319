"""Files that once crashed multitl, hung it, filled its memory or showed a traceback: tests/corpus/READER/FILE.

Each is refused on the command line, by exit code 2 and a message, and costs no more than importing a framework.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multitl.cli.main import main

CORPUS = Path(__file__).parent / "corpus"
FILES = [path for reader in ("hdf5", "keras", "archive") for path in sorted((CORPUS / reader).iterdir())]
MOST_MEMORY = 10**9  # bytes
MEASURED = """
import json, re, sys
from pathlib import Path
from multitl.cli.main import main
codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([codes, int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])]))
"""


def commands(path: Path, folder: Path) -> list[list[str]]:
    """What a user may do with such a file."""
    if path.parent.name == "archive":
        return [["translate", f"tfhub/{path}", "--out", str(folder / "out")]]
    weights = ["finetune", str(folder / "data"), "--backbone", "keras/MobileNet:alpha=0.25", "--image-size", "32"]
    found = [[*weights, "--weights", str(path), "--out", str(folder / "run")]]
    if path.name.endswith(".weights.h5"):
        return found
    return [*found, ["translate", f"file:{path}", "--out", str(folder / "out")]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the photos that finetune insists on."""
    root = tmp_path_factory.mktemp("crashers")
    for name in ("a", "b"):
        (root / "data" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number + 100 * (name == "b")).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(root / "data" / name / f"{number}.png")
    return root


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_past_crasher_is_refused(path: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    for command in commands(path, folder):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert path.name in error and "received" in error and "Traceback" not in error


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
def test_all_past_crashers_together_take_little_memory(folder: Path):
    """In a process of their own; those that it starts limit themselves (test_hdf5_files.py)."""
    every = [command for path in FILES for command in commands(path, folder)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps(every)], capture_output=True, text=True, env=os.environ, timeout=600
    )
    assert done.returncode == 0, done.stderr
    codes, kilobytes = json.loads(done.stdout.splitlines()[-1])
    assert codes == [2] * len(every)
    assert kilobytes * 1024 < MOST_MEMORY
