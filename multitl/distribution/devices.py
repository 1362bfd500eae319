"""Which of its machine's GPUs is this process' own: settled before a framework looks for them."""

from __future__ import annotations

import os
from pathlib import Path

from multitl.distribution.group import Group
from multitl.errors import GroupError

VISIBLE = "CUDA_VISIBLE_DEVICES"
GPUS = Path("/proc/driver/nvidia/gpus")  # one folder each


def take_device(group: Group) -> None:
    """Leave one GPU visible, that of this process' number on its machine; nothing where there are none, or where the
    launcher has left one alone.

    Raises GroupError where there are fewer than processes.
    """
    given = os.environ.get(VISIBLE)
    names = [name.strip() for name in given.split(",")] if given else []
    if given is None and GPUS.is_dir():
        names = [str(number) for number in range(len(list(GPUS.iterdir())))]
    if len(names) < 2 and not (names and given is None):
        return
    if group.local_rank >= len(names):
        raise GroupError(
            "There are more processes on this machine than GPUs.",
            expected=f"LOCAL_RANK from 0 to {len(names) - 1}",
            received=f"LOCAL_RANK={group.local_rank}",
            fix=f"start {len(names)} processes here; or set {VISIBLE} to nothing to compute on the CPU",
        )
    os.environ[VISIBLE] = names[group.local_rank]
