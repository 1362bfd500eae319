"""Jobs in processes of their own: what a contender does, crash or hang included, becomes a Record."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from multitl.bench.jobs import FRAMEWORKS, MULTITL, Job, Record

# Contenders run one at a time, but none may grab a GPU's whole memory: its peak is measured.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONWARNINGS": "ignore",
}
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC",
)  # fmt: skip


def missing_packages(contender: str) -> list[str]:
    """What would have to be installed."""
    own = [] if contender in MULTITL or contender == "multitl" else ["multitl_native"]
    return [package for package in [*FRAMEWORKS[contender], *own] if importlib.util.find_spec(package) is None]


def environment_for(job: Job) -> Mapping[str, str]:
    threads = dict.fromkeys(THREAD_VARIABLES, str(job.threads))
    backend = {"KERAS_BACKEND": keras_backend(job.cell.contender)}
    return os.environ | ENVIRONMENT | threads | backend


def keras_backend(contender: str) -> str:
    """Of multitl's contenders their own; keras-directory is TensorFlow's; the others use no Keras."""
    return contender if contender in MULTITL else "tensorflow"


def run_job(job: Job, limit: float, *, is_last: bool) -> Record:
    """Wait for one process, `limit` seconds at most. Never raises, but for Ctrl-C, which ends the process as well.

    is_last: the limit is what was left of the budget, so a process that meets it is not to blame.
    """
    if missing := missing_packages(job.cell.contender):
        return Record(job, "not installed", f"pip install {' '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        file, errors = Path(folder) / "record.json", Path(folder) / "stderr"
        module = ["-m", "multitl.bench.worker"]
        command = [sys.executable, "-P", *module, json.dumps(asdict(job)), str(file), repr(time.time())]
        code = call(command, environment_for(job), errors, limit)
        if code is None:
            said = "the budget ended" if is_last else f"no result within {limit:.0f} s"
            return Record(job, "out of time" if is_last else "hung", said)
        if code or not file.is_file():
            return Record(job, "crashed", last_words(code, errors))
        return Record.from_mapping(json.loads(file.read_text(encoding="utf-8")))


def call(command: list[str], environment: Mapping[str, str], errors: Path, limit: float) -> int | None:
    """The exit code, or None if it took longer than `limit` seconds; nothing it started is left behind."""
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_words(code: int, errors: Path) -> str:
    lines = [line.strip() for line in errors.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith(("For simplicity, JAX", "-----"))]
    words = lines[-1][:300] if lines else "it said nothing"
    return f"killed by {signal.Signals(-code).name}: {words}" if code < 0 else words
