"""Jobs in processes of their own: what a contender does, crash or hang included, becomes a Record."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from multitl.bench.jobs import FRAMEWORKS, MULTITL, Job, Record
from multitl.system import children
from multitl.system.scratch import temporary_folder
from multitl.system.threads import thread_variables

# Contenders run one at a time, but none may grab a GPU's whole memory: its peak is measured.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONWARNINGS": "ignore",
}


def missing_packages(contender: str) -> list[str]:
    """What would have to be installed."""
    own = [] if contender in MULTITL or contender == "multitl" else ["multitl_native"]
    return [package for package in [*FRAMEWORKS[contender], *own] if importlib.util.find_spec(package) is None]


def pip_line(missing: Sequence[str]) -> str:
    """What installs them; multitl's extras know which versions work."""
    extras = list(dict.fromkeys(package for package in missing if package != "multitl_native"))
    if "torchvision" in extras:
        extras = [extra for extra in extras if extra != "torch"]  # comes with it
    return f"pip install 'multitl[{','.join(extras)}]'" if extras else "pip install --force-reinstall multitl"


def environment_for(job: Job) -> Mapping[str, str]:
    threads = thread_variables(job.threads)
    backend = {"KERAS_BACKEND": keras_backend(job.cell.contender)}
    return {"TORCHINDUCTOR_CACHE_DIR": inductors_folder()} | os.environ | ENVIRONMENT | threads | backend


def inductors_folder() -> str:
    """Where PyTorch keeps what it has compiled, by default; each process has other temporary files, but not another
    compiler.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = "multitl"
    return str(Path(tempfile.gettempdir(), f"torchinductor_{user}"))


def keras_backend(contender: str) -> str:
    """Of multitl's contenders their own; keras-directory is TensorFlow's; the others use no Keras."""
    return contender if contender in MULTITL else "tensorflow"


def run_job(job: Job, limit: float, *, is_last: bool) -> Record:
    """Wait for one process, `limit` seconds at most. Never raises, but for Ctrl-C, which ends the process as well.

    is_last: the limit is what was left of the budget, so a process that meets it is not to blame.
    """
    if missing := missing_packages(job.cell.contender):
        return Record(job, "not installed", pip_line(missing))
    with temporary_folder() as folder:
        file = folder / "record.json"
        arguments = [json.dumps(asdict(job)), str(file), repr(time.time())]
        ended = children.run("multitl.bench.worker", arguments, environment_for(job), limit)
        if ended.code is None:
            said = "the budget ended" if is_last else f"no result within {limit:.0f} s"
            return Record(job, "out of time" if is_last else "hung", said)
        if ended.code or not file.is_file():
            return Record(job, "crashed", children.last_words(ended))
        return Record.from_mapping(json.loads(file.read_text(encoding="utf-8")))
