"""What goes wrong in a worker arrives here as what it is. Real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from multitl.errors import BackendError, MultitlError, RunError, TranslationError, WeightsError
from multitl.system.workers import run_worker, save_array

WORKER = """
import resource, sys
from pathlib import Path
from multitl import errors
from multitl.system.workers import report_errors

def work():
    kind = sys.argv[2]
    if kind == "weights":
        raise errors.WeightsError("Bad.", fix="this", expected="good", received="bad", nearest=["better"])
    if kind == "translation":
        raise errors.TranslationError("Not known.", fix="that", missing=("aten.fft", "aten.svd"))
    if kind == "bug":
        raise ZeroDivisionError("a bug")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # no file may grow past it, as on a full disk
    if kind == "full":
        Path(sys.argv[1], "model").write_bytes(bytes(1000))
    if kind == "full for the report":
        raise errors.WeightsError("B" + 1000 * "a" + "d.", fix="this")
    if kind == "full, by a library's own error":
        raise RuntimeError("serialising: I/O error: No space left on device (os error 28)")

sys.exit(report_errors(work, Path(sys.argv[1], "error.json")))
"""


@pytest.fixture
def fault_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """kind -> the error that comes of it."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "faulty.py").write_text(WORKER)
    paths = [str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def run(kind: str) -> MultitlError:
        with pytest.raises(MultitlError) as caught:
            run_worker("faulty", [str(tmp_path), kind], "jax", tmp_path, task="tries", extra="jax")
        return caught.value

    return run


def test_errors_arrive_as_they_were_raised(fault_of) -> None:
    error = fault_of("weights")
    assert type(error) is WeightsError
    assert (error.problem, error.fix, error.expected, error.nearest) == ("Bad.", "this", "good", ("better",))
    error = fault_of("translation")
    assert type(error) is TranslationError and error.missing == ("aten.fft", "aten.svd")


def test_a_bug_is_told_in_its_last_words(fault_of) -> None:
    error = fault_of("bug")
    assert type(error) is TranslationError and "exit code 1: ZeroDivisionError: a bug" in str(error)


@pytest.mark.parametrize("kind", ["full", "full for the report", "full, by a library's own error"])
def test_a_full_disk_is_told_as_such(fault_of, kind: str) -> None:
    error = fault_of(kind)
    assert type(error) is RunError and "no room left" in error.problem and "free some space" in error.fix


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy.py").write_text("import nonesuch")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(BackendError, match=r"pip install 'multitl\[extra\]'"):
        run_worker("needy", [], "nonesuch", tmp_path, task="tries", extra="extra")


def test_an_array_on_a_full_disk_has_its_errno(tmp_path: Path) -> None:
    """np.save raises an OSError that says nothing but how much was written."""
    save_array(tmp_path / "small.npy", np.arange(12).reshape(3, 4))
    assert np.array_equal(np.load(tmp_path / "small.npy"), np.arange(12).reshape(3, 4))
    code = f"""
        import errno, resource
        from pathlib import Path
        import numpy as np
        from multitl.system.workers import save_array
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            save_array(Path({str(tmp_path / "large.npy")!r}), np.zeros(10_000))
        except OSError as error:
            print(errno.errorcode[error.errno])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout == "EFBIG\n", done.stderr
