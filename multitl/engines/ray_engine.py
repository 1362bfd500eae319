"""Workers where Ray puts them: on one machine or a cluster of them. Ray places, watches and gives up machines; a worker
is the same process as elsewhere, held by an actor. https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multitl.distribution.group import Group
from multitl.engines.this_machine import own_cores
from multitl.engines.workers import PATIENCE, Job, Worker
from multitl.errors import GroupError
from multitl.system import interrupts
from multitl.system.messages import say
from multitl.system.scratch import temporary_folder
from multitl.system.threads import thread_variables

GONE = -9  # as if by SIGKILL, which Windows does not have: the code of a worker whose actor or machine is no more
PATIENT = 600.0  # seconds that a cluster has to make room, as one that grows on demand does
MOMENT = 5.0  # seconds
LOOK, NEWS = 0.1, 1.0  # seconds that an answer is waited for, and that a worker's machine waits for news of it
PASSED_ON = ("KERAS_", "MULTITL_", "JAX_", "XLA_", "TF_", "TORCH_", "NCCL_", "GLOO_", "AWS_", "HF_")  # variables


class Node(Worker):
    """The actor: a worker, and what is asked of its machine."""

    def where(self) -> tuple[str, str]:
        """Which node, and its address."""
        import ray

        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()

    def port(self) -> int:
        from multitl.engines.workers import free_port

        return free_port()

    def sees(self, path: str) -> bool:
        return Path(path).exists()


class RayTeam:
    """Rank 0 writes where this process does, bars included; what the others write is kept."""

    def __init__(self, nodes: Sequence[Any], jobs: Sequence[Job]) -> None:
        import ray

        self._ray, self._nodes = ray, nodes
        self._codes: list[int | None] = [None] * len(nodes)
        self._texts = [b""] * len(nodes)
        ray.get([node.start.remote(job, is_heard=False) for node, job in zip(nodes, jobs, strict=True)])
        self._asked = {rank: node.look.remote(NEWS) for rank, node in enumerate(nodes)}

    def codes(self) -> list[int | None]:
        """Asks those whose last answer has come; one that does not answer is left to Ray, which gives it up."""
        asked = list(self._asked.values())
        ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=LOOK) if asked else ([], [])
        for rank, one in [(rank, one) for rank, one in self._asked.items() if one in ready]:
            self._hear(rank, one)
        return list(self._codes)

    def _hear(self, rank: int, answer: Any) -> None:
        try:
            code, out, errors = self._ray.get(answer)
        except self._ray.exceptions.RayError:
            self._codes[rank] = GONE
            del self._asked[rank]
            return
        if rank:
            self._texts[rank] = (self._texts[rank] + out + errors)[-(2**16) :]
        else:
            _show(sys.stdout, out)
            _show(sys.stderr, errors)
        if code is None or out or errors:
            self._asked[rank] = self._nodes[rank].look.remote(NEWS)
        else:
            self._codes[rank] = code
            del self._asked[rank]

    def words(self, rank: int) -> str:
        return self._texts[rank].decode("utf-8", errors="replace").strip()

    def is_heard(self, rank: int) -> bool:
        return rank == 0

    def end(self, patience: float = 0.0) -> None:
        """Ask those that still run to end, and let them tell why; then there are none any more."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            if patience:
                self._ray.get([node.ask_to_end.remote() for node in self._nodes], timeout=patience)
                end = time.monotonic() + patience
                while None in self.codes() and time.monotonic() < end:
                    pass
        for node in self._nodes:
            self._ray.kill(node)


@contextmanager
def connected(address: str, workers: int) -> Iterator[None]:
    """Ray, of a cluster that is there, or of this machine alone until the end of the block.

    Raises GroupError where Ray is not installed, or nothing answers at the address.
    """
    check_ray(address)
    os.environ.setdefault("RAY_worker_niceness", "0")  # by itself 15
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    handlers = {number: signal.getsignal(number) for number in interrupts.NUMBERS}
    with contextlib.ExitStack() as stack:
        alone: dict[str, Any] = {}
        if not address and not os.environ.get("RAY_ADDRESS"):
            folder = stack.enter_context(temporary_folder(Path("/tmp")))  # paths of sockets have to be short
            count = max(workers, len(own_cores()))
            alone = {"address": "local", "num_cpus": count, "_temp_dir": str(folder), "include_dashboard": False,
                     "object_store_memory": 100 * 2**20}  # fmt: skip
        stack.callback(ray.shutdown)
        try:
            ray.init(**({"address": address or None} | alone), log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _unreachable(address, error) from error
        for number, handler in handlers.items():  # Ray's own would end this process without a word
            signal.signal(number, handler)
        yield


def count_workers() -> int:
    """How many a cluster has room for: one a GPU, or one a machine where there are none."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return int(sum(node.get("GPU", 0) for node in nodes)) or max(1, sum(node.get("CPU", 0) > 0 for node in nodes))


def check_ray(address: str) -> None:
    """Raises GroupError where Ray is not installed, or its address leads nowhere."""
    from multitl.adapters import is_installed

    if not is_installed("ray"):
        raise GroupError(
            "The engine ray is not installed.",
            expected="the Python package ray",
            received="none",
            fix="pip install 'multitl[ray]'; several workers of this machine need none: leave --engine out",
        )
    if address.startswith("ray://"):
        raise GroupError(
            "A cluster is used from one of its own machines.",
            expected="auto, or HOST:PORT as `ray start --head` says it",
            received=f"--address {address}, which is of Ray Client",
            fix="ray job submit --address http://HEAD:8265 -- multitl finetune ... --engine ray",
        )
    host, colon, port = address.rpartition(":")
    if colon:
        try:
            socket.create_connection((host.strip("[]"), int(port)), MOMENT).close()
        except (OSError, ValueError, OverflowError) as error:
            raise _unreachable(address, error) from error


@contextmanager
def ray_team(arguments: Sequence[str], workers: int, run: Path, module: str = "multitl") -> Iterator[RayTeam]:
    """Start the command line's `arguments` as so many workers of the cluster; none is left at the end of the block.

    run: the folder that rank 0 writes.  Raises GroupError where there is no room, or rank 0 does not see the folder.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    share = _share(workers)
    group = placement_group(_bundles(workers, share), strategy="PACK")
    nodes: list[Any] = []
    team: RayTeam | None = None
    try:
        _wait_for_room(group, workers, share)
        actor, wants = ray.remote(Node), {"num_cpus": share["CPU"], "num_gpus": share.get("GPU", 0)}
        bundles = [_in_bundle(group, index) for index in range(workers)]
        nodes = [actor.options(scheduling_strategy=place, **wants).remote() for place in bundles]
        places = ray.get([node.where.remote() for node in nodes])
        order = sorted(range(workers), key=lambda index: (index > 0, places[index][1], index))
        nodes, places = [nodes[index] for index in order], [places[index] for index in order]
        _check_folder(nodes[0], places[0], run)
        port = ray.get(nodes[0].port.remote())
        team = RayTeam(nodes, list(_jobs(module, arguments, places, port, int(share["CPU"]))))
        yield team
    except KeyboardInterrupt as interrupt:
        if team:
            with interrupts.held_back():
                team.end(PATIENCE)
            if team.codes()[0] in (130, 143):  # it has said how to go on
                raise SystemExit(interrupts.exit_code(interrupt)) from interrupt
        raise
    finally:
        with interrupts.held_back():
            for node in nodes:
                ray.kill(node)
            remove_placement_group(group)


def _jobs(
    module: str, arguments: Sequence[str], places: Sequence[tuple[str, str]], port: int, threads: int
) -> Iterator[Job]:
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    counts = Counter[str]()
    for rank, (node, _) in enumerate(places):
        group = Group(rank, len(places), f"{places[0][1]}:{port}", counts[node]).environment()
        counts[node] += 1
        yield Job(
            module,
            tuple(arguments),
            passed | group | thread_variables(threads),
            str(Path.cwd()),
            screen=None if rank else _screen(),
        )


def _screen() -> tuple[int, int] | None:
    """Columns and lines of the terminal where people look, if they do."""
    if not sys.stderr.isatty():
        return None
    size = os.get_terminal_size(sys.stderr.fileno())
    return size.columns, size.lines


def _share(workers: int) -> dict[str, float]:
    """What each worker gets: a GPU, if there are any, and as many cores as all can have."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu = float(any(node.get("GPU") for node in nodes))
    most = int(max((node.get("CPU", 0) for node in nodes), default=1))
    fitting = (cores for cores in range(most, 0, -1) if sum(_room(node, cores, gpu) for node in nodes) >= workers)
    return {"CPU": float(next(fitting, 1))} | ({"GPU": gpu} if gpu else {})


def _room(node: dict[str, float], cores: int, gpu: float) -> int:
    """For how many workers of so many cores, and a GPU perhaps, a machine has room."""
    room = node.get("CPU", 0) // cores
    return int(min(room, node.get("GPU", 0)) if gpu else room)


def _bundles(workers: int, share: dict[str, float]) -> list[dict[str, float]]:
    """The first one on the machine of this process, whose folders people mean, if it has the room."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    here = next(node for node in ray.nodes() if node["NodeID"] == own)
    has_room = all(here["Resources"].get(name, 0) >= count for name, count in share.items())
    first = {f"node:{here['NodeManagerAddress']}": 0.001} if has_room else {}
    return [share | first, *(dict(share) for _ in range(workers - 1))]


def _in_bundle(group: Any, index: int) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)


def _wait_for_room(group: Any, workers: int, share: dict[str, float]) -> None:
    import ray

    if group.wait(MOMENT):
        return
    wanted = ", ".join(f"{count * workers:g} {name}" for name, count in share.items())
    total = ", ".join(f"{ray.cluster_resources().get(name, 0):g} {name}" for name in share)
    say(f"waiting for room for {workers} workers: {wanted}; the cluster has {total}")
    if not group.wait(PATIENT):
        raise GroupError(
            f"The cluster has no room for {workers} workers.",
            expected=f"{wanted}, free, within {PATIENT:.0f} s",
            received=total,
            fix="fewer --workers, or more machines; `ray status` says what is in use",
        )


def _check_folder(node: Any, place: tuple[str, str], run: Path) -> None:
    """Raises GroupError where the machine of rank 0 does not have the folder that this one has."""
    import ray

    if place[0] == ray.get_runtime_context().get_node_id():
        return
    with temporary_folder(run.resolve().parent) as token:
        if not ray.get(node.sees.remote(str(token))):
            raise GroupError(
                f"The machine that writes the run, {place[1]}, does not have the folder {run.resolve().parent}.",
                expected="a folder that all machines of the cluster share",
                received=str(run),
                fix="let --out lie on a shared disk, as DATA and MULTITL_CACHE do",
            )


def _show(stream: Any, text: bytes) -> None:
    if text:
        stream.flush()
        getattr(stream, "buffer", stream).write(text)
        stream.flush()


def _unreachable(address: str, error: Exception) -> GroupError:
    return GroupError(
        f"No cluster of Ray answers at {address or os.environ.get('RAY_ADDRESS') or 'this machine'}.",
        expected="auto on a machine of a cluster, or HOST:PORT as `ray start --head` says it",
        received=" ".join(str(error).split())[:200],
        fix="ray start --head on the first machine; or leave --address out, for this machine alone",
    )
