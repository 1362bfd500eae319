"""`python tests/slow_runs.py [pytest's arguments]`: every slow test on each backend that it is for, one by one.

It takes hours, and up to 20 GB. What failed, what was skipped and how long each took is said at the end, and lies in
runs/slow/BACKEND.xml.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "runs" / "slow"
NOTHING_TO_RUN = 5  # pytest's code, where the arguments name tests that are not for a backend
MARKS = {"jax": "slow", "tensorflow": "slow and every_backend", "torch": "slow and every_backend"}


@dataclass(frozen=True)
class Outcome:
    """Of one test under one backend. reason: of a skip or failure, its first line."""

    name: str
    word: str
    seconds: float
    reason: str


def main(arguments: list[str]) -> int:
    RESULTS.mkdir(parents=True, exist_ok=True)
    codes = {backend: run(backend, arguments) for backend in MARKS}
    for backend, code in codes.items():
        print(f"\n{backend}: pytest ended with {code}")
        for one in sorted(outcomes(RESULTS / f"{backend}.xml"), key=lambda one: (one.word, -one.seconds)):
            print(f"  {one.word:7} {one.seconds:7.1f} s  {one.name}  {one.reason}".rstrip())
    return int(any(code not in (0, NOTHING_TO_RUN) for code in codes.values()))


def run(backend: str, arguments: list[str]) -> int:
    report = RESULTS / f"{backend}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", MARKS[backend], f"--junit-xml={report}", *arguments]
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def outcomes(report: Path) -> list[Outcome]:
    """None if pytest did not get as far as writing them."""
    return [outcome(case) for case in ElementTree.parse(report).iter("testcase")] if report.is_file() else []


def outcome(case: ElementTree.Element) -> Outcome:
    name, seconds = f"{case.get('classname')}::{case.get('name')}", float(case.get("time", 0))
    for word in ("failure", "error", "skipped"):
        found = case.find(word)
        if found is not None:
            return Outcome(name, word, seconds, found.get("message", "").partition("\n")[0][:100])
    return Outcome(name, "passed", seconds, "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
