"""The core of the suite with the oldest and the newest releases that pyproject.toml allows: `make test-versions`.

An environment is a Python and a file of constraints; each gets a folder of its own under `.venv-versions`, installed
once, and runs the files of `core.txt` under each backend. A table at the end says what passed. Needs nothing but
Python's own library, the interpreters named below (on PATH or from pyenv) and about 8 GB of disk an environment.

    python tests/versions.py                 # all
    python tests/versions.py oldest          # one
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from selection import ROOT, core

FOLDER = ROOT / ".venv-versions"
BACKENDS = {"jax": "not slow", "tensorflow": "every_backend and not slow", "torch": "every_backend and not slow"}
# As in `make test`; a process that a framework ends takes one test along. PYTEST_XDIST_AUTO_NUM_WORKERS=1 for one
SHARED_OUT = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile")


@dataclass(frozen=True)
class Environment:
    """python: as in "3.11".  constraints: a file of `constraints/` that pins what is installed."""

    name: str
    python: str
    constraints: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def executable(self) -> Path:
        return self.folder / "bin" / "python"


ENVIRONMENTS = (
    Environment("oldest", "3.11", "constraints/oldest.txt"),
    Environment("newest-3.12", "3.12", "constraints/newest.txt"),
    Environment("newest-3.13", "3.13", "constraints/newest.txt"),
)


@dataclass(frozen=True)
class Result:
    """What became of one backend's tests; `note` says why there are none."""

    environment: Environment
    backend: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def is_good(self) -> bool:
        return self.passed > 0 and self.failed == 0

    def row(self) -> str:
        """A line of the table."""
        cells = [self.environment.name, self.environment.python, self.backend, self.passed, self.failed, self.skipped]
        return f"| {' | '.join(map(str, cells))} | {self.note or f'{self.seconds:.0f} s'} |"


def find_python(version: str) -> str | None:
    """An interpreter of that version which runs: pyenv puts names on PATH that do not."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    return next((str(one) for one in candidates if one and version_of(one) == version), None)


def version_of(python: str | Path) -> str:
    """As in "3.11"; empty if it does not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def install(environment: Environment, python: str) -> None:
    """Make the environment, unless it is newer than what it was made from. Raises CalledProcessError."""
    stamp, constraints = environment.folder / "installed.stamp", ROOT / environment.constraints
    sources = (constraints, ROOT / "pyproject.toml")
    if stamp.exists() and all(stamp.stat().st_mtime > one.stat().st_mtime for one in sources):
        return
    print(f"Installing {environment.name} into {environment.folder}: some minutes, up to 8 GB", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", environment.folder], check=True)
    pip = [environment.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", constraints, "--editable", f"{ROOT}[test]"], check=True)
    stamp.touch()


def run_core(environment: Environment, backend: str) -> Result:
    """The core's share of one backend. What pytest said lies in the environment's folder, as <backend>.log."""
    log, report = environment.folder / f"{backend}.log", environment.folder / f"{backend}.xml"
    report.unlink(missing_ok=True)
    selection = ["-m", BACKENDS[backend], *core(whole=True)]
    command = [environment.executable, "-m", "pytest", "-q", *SHARED_OUT, f"--junitxml={report}", *selection]
    with log.open("w") as out:
        variables = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run(command, cwd=ROOT, env=variables, stdout=out, stderr=subprocess.STDOUT, check=False)
    return read_report(environment, backend, report)


def read_report(environment: Environment, backend: str, report: Path) -> Result:
    """Count what pytest's XML says; a process that died has left none."""
    if not report.exists():
        return Result(environment, backend, note=f"pytest ended early: {environment.folder / f'{backend}.log'}")
    suite = next(ElementTree.parse(report).iter("testsuite"))
    total, failures, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    failed = failures + errors
    return Result(environment, backend, total - failed - skipped, failed, skipped, float(suite.get("time", 0)))


def try_out(environment: Environment) -> list[Result]:
    """Install and run one environment."""
    python = find_python(environment.python)
    if python is None:
        return [Result(environment, "all", note=f"no Python {environment.python} on PATH or from pyenv")]
    try:
        install(environment, python)
    except subprocess.CalledProcessError as error:
        return [Result(environment, "all", note=f"could not be installed (exit code {error.returncode})")]
    results = []
    for backend in BACKENDS:
        results.append(run_core(environment, backend))
        print(results[-1].row(), flush=True)
    return results


def main(names: list[str]) -> int:
    """0 if everything passed, 1 if not, 2 for a name that is none."""
    known = {one.name: one for one in ENVIRONMENTS}
    if unknown := [name for name in names if name not in known]:
        print(f"No environment {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    results = [result for name in names or known for result in try_out(known[name])]
    print("\n| environment | Python | backend | passed | failed | skipped | |\n|---|---|---|---|---|---|---|")
    print("\n".join(result.row() for result in results))
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
