"""How long the command line takes to answer: `python benchmarks/startup.py [RUNS] > benchmarks/startup.md`.

Each figure is the median over RUNS fresh processes (default 15), after one that warms the disk cache.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

MULTITL = [sys.executable, "-m", "multitl"]
COMMANDS = {
    "python -c pass (the floor)": [sys.executable, "-c", "pass"],
    "import multitl": [sys.executable, "-c", "import multitl"],
    "multitl --help": [*MULTITL, "--help"],
    "multitl finetune --help": [*MULTITL, "finetune", "--help"],
    "multitl backbones": [*MULTITL, "backbones"],
}


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"# Start-up time\n\n{machine()}; {runs} runs each; {datetime.date.today()}.\n")
    print("| | median, s | slowest, s |\n|---|---:|---:|")
    for name, command in COMMANDS.items():
        seconds = time_command(command, runs)
        print(f"| {name} | {statistics.median(seconds):.3f} | {max(seconds):.3f} |", flush=True)


def time_command(command: list[str], runs: int) -> list[float]:
    """Wall seconds of each run, the first left out."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def machine() -> str:
    """Processor, cores, Python."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
