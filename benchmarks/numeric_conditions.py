"""Whether the numeric tests hold with other kernels: `python benchmarks/numeric_conditions.py [BACKEND ...]`.

Runs them, one process after another, under each of CONDITIONS on each backend (default: all three), as other processors
would compute: other kernels sum in another order and round otherwise. Prints a table of the tests that passed and the
names of those that failed; exit code 1 if any did.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from startup import machine

BACKENDS = ("jax", "tensorflow", "torch")
TESTS = Path(__file__).resolve().parents[1] / "tests"
NAMES = (
    "parity", "verifying", "translation", "translations", "fx", "fx_ops", "from_torch", "graphdef", "graphdef_ops",
    "tensorflow_ops", "saved_layers", "cutting", "folding", "fused", "fused_adam", "channels_last", "depthwise",
    "statistics", "heads", "inference", "feature_store", "freezing", "phases", "training", "evaluation", "native_loops",
    "resume", "cross_backend",
)  # fmt: skip
PARITY = "training_parity"  # its slow tests as well


@dataclass(frozen=True)
class Condition:
    """How a run differs from any other. one_core: the whole run is kept on the first that it may use."""

    name: str
    environment: tuple[tuple[str, str], ...] = ()
    one_core: bool = False


CONDITIONS = (
    Condition("as it is"),
    Condition("TF_ENABLE_ONEDNN_OPTS=0", (("TF_ENABLE_ONEDNN_OPTS", "0"),)),
    Condition("ONEDNN_MAX_CPU_ISA=AVX2", (("ONEDNN_MAX_CPU_ISA", "AVX2"), ("ATEN_CPU_CAPABILITY", "avx2"))),
    Condition("one thread", (("OMP_NUM_THREADS", "1"),), one_core=True),
)


def main() -> int:
    backends = sys.argv[1:] or BACKENDS
    print(f"# The numeric tests under other conditions\n\n{machine()}; {datetime.date.today()}.\n")
    print("| | " + " | ".join(backends) + " |\n|---|" + "---|" * len(backends))
    failed: list[str] = []
    for condition in CONDITIONS:
        print(f"| {condition.name} |", end="", flush=True)
        for backend in backends:
            outcome, names = run_tests(backend, condition)
            failed += [f"{condition.name}, {backend}: {name}" for name in names]
            print(f" {outcome} |", end="", flush=True)
        print()
    print("\n" + "\n".join(f"- {line}" for line in failed) if failed else "\nNone failed.")
    return int(bool(failed))


def run_tests(backend: str, condition: Condition) -> tuple[str, list[str]]:
    """How many passed and failed, and the names of those that did not pass."""
    share = "not slow" if backend == "jax" else "every_backend and not slow"
    runs = [run_pytest(backend, condition, *what) for what in ((share, NAMES), ("every_backend", (PARITY,)))]
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", "\n".join(run.stdout for run in runs), re.MULTILINE)
    broken = [f"pytest ended with {run.returncode}" for run in runs if run.returncode not in (0, 1)]
    return summarise([run.stdout for run in runs]), failures + broken


def run_pytest(
    backend: str, condition: Condition, marks: str, names: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    files = [str(TESTS / f"test_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-m", marks, *files]
    if condition.one_core:
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    environment = os.environ | {"KERAS_BACKEND": backend} | dict(condition.environment)
    return subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True)


def summarise(outputs: list[str]) -> str:
    """The counts of all runs together: "300 passed, 1 failed"."""
    counts: dict[str, int] = {}
    for number, what in re.findall(r"(\d+) (passed|failed|errors?)\b", "\n".join(text[-300:] for text in outputs)):
        counts[what] = counts.get(what, 0) + int(number)
    return ", ".join(f"{number} {what}" for what, number in counts.items()) or "nothing ran"


if __name__ == "__main__":
    sys.exit(main())
