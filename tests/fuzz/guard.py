"""The audit hook of a mutant's process: it ends the process at whatever a file must never bring about.

Python tells a hook of code that is compiled or run, of processes, sockets, libraries, and of files that are opened or
removed. What native code does is not told; the server looks for files that it left in the working directory.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

VIOLATED = 117  # exit code
REPORT = "violation.txt"
ROOT = Path(__file__).resolve().parents[2]
OWN_CODE = tuple(f"{ROOT / folder}/" for folder in ("multitl", "backends"))  # templates are compiled when used
_PROCESSES = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.spawn", "os.startfile", "pty.spawn")
_NETWORK = ("socket.", "http.client.", "urllib.", "ftplib.", "smtplib.", "webbrowser.")
_CODE = ("exec", "compile", "marshal.loads", "function.__new__", "code.__new__", "ctypes.dlopen", "cpython.run_")
_ONE_PATH = (
    "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr",
)  # fmt: skip
_TWO_PATHS = ("os.rename", "os.link", "os.symlink")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DEFINING = (dataclasses.__file__, collections.__file__)  # run code that they write, for classes of ours
_PYTHON_FLAGS = ("-P", "-B", "-s")  # not -E or -I: the worker would be without this hook


def install(folder: Path) -> None:
    """From now on, and for ever: nothing is written outside `folder`, where a violation is written down, too."""
    sys.addaudithook(hook_for(os.path.realpath(folder), lambda reason: _end(folder, reason)))


def hook_for(folder: str, end: Callable[[str], None]) -> Callable[[str, tuple], None]:
    """end: called with what was tried; it should not come back."""

    def hook(event: str, arguments: tuple) -> None:
        reason = _forbidden(event, arguments, folder)
        if reason:
            end(reason)

    return hook


def _end(folder: Path, reason: str) -> None:
    """Without an exception, which a reader could catch."""
    with contextlib.suppress(OSError):
        (folder / REPORT).write_text(reason, encoding="utf-8", errors="replace")
    os._exit(VIOLATED)


def _forbidden(event: str, arguments: tuple, folder: str) -> str:
    """What is wrong with an event; "" for nothing."""
    if event == "open":
        path, _, flags = arguments
        is_fine = not (flags or 0) & _WRITING or path == os.devnull or _lies_in(path, -1, folder)
        return "" if is_fine else f"opened for writing: {path!r}"
    if event == "ctypes.dlopen" and arguments[0] is None:
        return ""  # this process itself: how a worker asks to die with its parent
    if event == "compile" and _is_parsed():
        return ""  # literals in a file of NumPy, say: they are not run
    if event in _ONE_PATH:
        return "" if _lies_in(arguments[0], arguments[-1], folder) else f"{event}: {arguments!r}"
    if event in _TWO_PATHS:
        paths = arguments[1:2] if event == "os.symlink" else arguments[:2]
        return "" if all(_lies_in(path, arguments[-1], folder) for path in paths) else f"{event}: {arguments!r}"
    if event in ("subprocess.Popen", "os.posix_spawn"):
        asks_processor = list(arguments[1]) == ["uname", "-p"] and _is_import()  # the module platform, for NumPy
        return "" if asks_processor or _is_own_worker(arguments[1]) else f"{event}: {arguments[1]!r}"
    if event == "pickle.find_class" or event.startswith((*_PROCESSES, *_NETWORK)):
        return f"{event}: {arguments!r}"[:2000]
    if event.startswith(_CODE) and not (_is_own_code(arguments) or _is_import()):
        return f"{event}: {arguments!r}"[:2000]
    return ""


def _lies_in(path: Any, directory: Any, folder: str) -> bool:
    """directory: the file descriptor that a relative path starts from, -1 for the working directory."""
    if isinstance(path, int):
        return True  # it was opened before
    text = os.fsdecode(path)
    if isinstance(directory, int) and directory >= 0:
        text = os.path.join(Path(f"/proc/self/fd/{directory}").readlink(), text)  # noqa: PTH118
    parent = os.path.realpath(os.path.dirname(os.path.abspath(text)))  # noqa: PTH100, PTH120
    return f"{parent}/".startswith(f"{folder}/")


def _is_own_worker(command: Any) -> bool:
    """`python -P -m multitl.SOMETHING`, by this very interpreter, is how the readers read in a process of its own."""
    if not command or not isinstance(command, Sequence) or isinstance(command, str | bytes):
        return False
    first, *rest = [os.fsdecode(one) for one in command]
    flags = rest[: rest.index("-m")] if "-m" in rest else ["-c"]
    rest += ["", ""]
    return first == sys.executable and set(flags) <= {*_PYTHON_FLAGS} and rest[len(flags) + 1].startswith("multitl.")


def _is_own_code(arguments: tuple) -> bool:
    """Whether what is compiled or run comes from a file of ours: a template, say."""
    names = [one.co_filename if isinstance(one, CodeType) else one for one in arguments]
    return any(isinstance(name, str) and name.startswith(OWN_CODE) and Path(name).is_file() for name in names)


def _is_parsed() -> bool:
    """Whether it is `ast.parse` that compiles."""
    frame = _maker()
    return frame is not None and frame.f_code is ast.parse.__code__


def _is_import() -> bool:
    """Whether a module is being imported, or started by `python -m`: both compile and run code of their own."""
    frame = _maker()
    if (
        frame is None
        or frame.f_code.co_filename in _DEFINING
        or _is_frozen(frame, "importlib", "_compile_bytecode", "_call_with_frames_removed")
        or _is_frozen(frame, "runpy", "_run_code")
    ):
        return True
    while frame is not None:
        if _is_frozen(frame, "importlib", "_find_and_load"):
            return True
        frame = frame.f_back
    return False


def _maker() -> FrameType | None:
    """The function that made an event; None for Python itself as it starts."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame


def _is_frozen(frame: FrameType, module: str, *functions: str) -> bool:
    code = frame.f_code
    return code.co_filename.startswith(f"<frozen {module}") and code.co_name in functions
