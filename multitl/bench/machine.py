"""The machine that results belong to."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from multitl.system.threads import default_threads
from multitl.version import __version__, installed_versions

PACKAGES = (
    "keras", "numpy", "jax", "jaxlib", "tensorflow", "tensorflow-cpu", "torch", "torchvision", "pillow",
)  # fmt: skip


def describe_machine() -> dict[str, object]:
    """Plain values by name."""
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "multitl": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": default_threads(),
        "memory_bytes": _memory(),
        "accelerators": _accelerators(),
        "load": round(os.getloadavg()[0], 2) if sys.platform != "win32" else None,
        "versions": installed_versions(PACKAGES),
    }


def _processor() -> str:
    try:
        names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int:
    names = os.sysconf_names if sys.platform != "win32" else {}
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else 0


def _accelerators() -> list[str]:
    """NVIDIA's, by name; others are named by the frameworks in each record."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split("\n")[:-1] if not done.returncode else []
