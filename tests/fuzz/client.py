"""The other end of a server: give it files, get outcomes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from .outcomes import Outcome

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
Files = Mapping[str, bytes]  # path inside a folder -> content
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # a process with threads cannot fork


class Server:
    """A server of one reader, to be used in a `with`. Mutants are written to a temporary folder."""

    def __init__(self, reader: str, backend: str = "numpy", is_folder: bool = False, quick: bool = False) -> None:
        """reader: "MODULE:FUNCTION", see server.py.  backend: of Keras, for that process.  is_folder: what it reads.

        quick: workers are forks too, see quick_workers.py.
        """
        self._inside = "folder" if is_folder else ""
        places = [HERE / "worker_site", HERE.parent, ROOT, ROOT / "backends", ROOT / "benchmarks"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, places)), "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **dict.fromkeys(_ONE_THREAD, "1"),
        }  # fmt: skip
        self._scratch = tempfile.TemporaryDirectory(prefix="multitl-fuzz-")
        self._folder = Path(self._scratch.name).resolve() / "mutant"
        self._processes = [self._start(["fuzz.quick_workers", self._scratch.name], environment)] if quick else []
        if quick:
            environment["MULTITL_FUZZ_WORKERS"] = self._scratch.name
        self._processes.append(self._start(["fuzz.server", reader], environment))
        self._is_ready = False

    def _start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", *command], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=self._scratch.name,
        )  # fmt: skip

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._scratch.cleanup()

    def run(self, files: Files) -> Outcome:
        """What becomes of one file, or of a folder of several. A hang counts if it happens twice: machines are busy."""
        first = self._run(files)
        return self._run(files) if first.kind == "hang" else first

    def _run(self, files: Files) -> Outcome:
        shutil.rmtree(self._folder, ignore_errors=True)
        for name in ("work", "tmp", "input"):
            (self._folder / name).mkdir(parents=True)
        write_files(files, self._folder / "input" / self._inside)
        if not self._is_ready:
            for process in self._processes:
                _answer(process, "ready")
            self._is_ready = True
        server = self._processes[-1]
        assert server.stdin is not None
        print(self._folder, file=server.stdin, flush=True)
        return Outcome(**json.loads(_answer(server, "{")))


def _answer(process: subprocess.Popen[str], beginning: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith(beginning):
        raise RuntimeError(f"a server ended with {process.poll()}: {line!r}")
    return line


def write_files(files: Files, folder: Path) -> None:
    """Files below a folder, which is made."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_files(path: Path) -> dict[str, bytes]:
    """A file under its name, or all the files of a folder."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}
