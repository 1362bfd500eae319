"""Which process of how many this one is, and where the first one listens. One process is one device.

torchrun, Kubernetes' training operators and whoever starts processes by hand say it in RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT and LOCAL_RANK; Slurm's srun in variables of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from multitl.errors import GroupError

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LOCAL = "LOCAL_RANK"
OURS = "MULTITL_WORKER"  # of processes that multitl itself started as workers
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST")  # the latter two of what srun started alone
MOST = 4096  # processes
PORTS = range(1024, 65535)
SLURM_PORTS = range(61440, 65535)  # as JAX chooses there: by the number of the job
BY_HAND = "RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 multitl finetune ... and the same with RANK=1"


@dataclass(frozen=True)
class Group:
    """One process among those of a run.

    rank: from 0, the first of which writes and speaks.  size: processes in all.  address: "host:port" where the first
    one listens; empty for one alone.  local_rank: which of its machine's processes, and so which of its devices.
    """

    rank: int = 0
    size: int = 1
    address: str = ""
    local_rank: int = 0

    def environment(self) -> dict[str, str]:
        """What a process is started with that is to be this one."""
        host, _, port = self.address.rpartition(":")
        values = (self.rank, self.size, host, port, self.local_rank)
        return dict(zip((*NAMES, LOCAL), map(str, values), strict=True)) | {OURS: "1"}


ALONE = Group()


def group_from_environment(environment: Mapping[str, str] = os.environ) -> Group:
    """The group that this process was started as one of; `ALONE` where nobody said anything.

    Raises GroupError for what is incomplete or makes no sense.
    """
    given = {name: environment[name] for name in NAMES if environment.get(name)}
    if "RANK" not in given and "WORLD_SIZE" not in given:
        given |= _slurm(environment)
    if "RANK" not in given and "WORLD_SIZE" not in given:
        return ALONE
    size = _number(given, "WORLD_SIZE", range(1, MOST + 1))
    rank = _number(given, "RANK", range(size))
    if size == 1:
        return ALONE
    host = _text(given, "MASTER_ADDR")
    port = _number(given, "MASTER_PORT", PORTS)
    if environment.get("TORCHELASTIC_RUN_ID"):
        port += 1  # torchrun itself listens at MASTER_PORT
    local = {LOCAL: environment.get(LOCAL) or environment.get("SLURM_LOCALID") or "0"}
    return Group(rank, size, f"{host}:{port}", _number(local, LOCAL, range(MOST)))


def _slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The same names, of a task that srun started; nothing where it started one alone, or somebody else did."""
    number, count, nodes = (environment.get(name, "") for name in SLURM)
    if count in ("", "1") or not number or not nodes:
        return {}
    job = environment.get("SLURM_JOB_ID", "")
    default = SLURM_PORTS[int(job) % len(SLURM_PORTS)] if job.isdecimal() else SLURM_PORTS[0]
    host = environment.get("MASTER_ADDR") or _first_node(nodes)
    port = environment.get("MASTER_PORT") or str(default)
    return {"RANK": number, "WORLD_SIZE": count, "MASTER_ADDR": host, "MASTER_PORT": port}


def _first_node(nodes: str) -> str:
    """ "gpu[007-012,020],login" -> "gpu007"."""
    name, bracket, rest = re.split(r"(?<!\[),|$", nodes, maxsplit=1)[0].partition("[")
    return name + re.split(r"[-,\]]", rest)[0] if bracket else name


def _text(given: Mapping[str, str], name: str) -> str:
    if not given.get(name):
        raise GroupError(
            f"This process is one of several, but {name} is missing.",
            expected=", ".join(NAMES),
            received=", ".join(f"{key}={value}" for key, value in given.items()),
            fix=f"{BY_HAND}; or unset RANK and WORLD_SIZE to work alone",
        )
    return given[name]


def _number(given: Mapping[str, str], name: str, allowed: range) -> int:
    text = _text(given, name)
    if not text.isdecimal() or int(text) not in allowed:
        raise GroupError(
            f"{name} cannot be {text!r}.",
            expected=f"a whole number from {allowed.start} to {allowed.stop - 1}",
            received=", ".join(f"{key}={value}" for key, value in given.items()),
            fix=f"{BY_HAND}; or unset RANK and WORLD_SIZE to work alone",
        )
    return int(text)
