"""What processes tell each other, and that one is lost: in threads where that is enough, else in real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from group_processes import free_address, together

from multitl.distribution import channel, peers
from multitl.distribution.channel import connect
from multitl.distribution.group import Group
from multitl.distribution.joining import joined, peer_timeout
from multitl.distribution.peers import ALONE_PEERS, Several
from multitl.errors import LOST, GroupError

PROGRAM = """
import os, signal, sys
from multitl.distribution.group import group_from_environment
from multitl.distribution.joining import joined
from multitl.errors import MultitlError, LOST, LostPeerError
try:
    with joined(group_from_environment()) as peers:
        peers.barrier()
        print("here", flush=True)
        if peers.rank == 1:
            exec(sys.argv[1])
        peers.barrier()
except MultitlError as error:
    print(error, file=sys.stderr)
    sys.exit(LOST if isinstance(error, LostPeerError) else 2)
"""


def test_everyone_hears_the_same():
    told = together(3, lambda peers: (peers.gather(bytes([peers.rank])), peers.broadcast(b"%d" % peers.rank)))
    assert told == [([b"\0", b"\1", b"\2"], b"0")] * 3


def test_the_first_one_alone_works():
    done: list[int] = []

    def work(peers: Several) -> Any:
        return peers.first(lambda: done.append(peers.rank) or told)

    told = {"step": 3, "loss": float("inf"), "names": ["a"], "bytes": b"\0", "of NumPy": np.float32(0.5)}
    assert together(3, work) == [told] * 3
    assert done == [0]


def test_sums_and_rows_are_the_same_bits_everywhere():
    def work(peers: Several) -> Any:
        own = np.full((2, 3), 0.1 * (1 + peers.rank), "float32")
        rows = np.full((peers.rank, 2), peers.rank, "int64") if peers.rank else np.empty(0)
        totals, means = peers.sum([own, np.float64(peers.rank)]), peers.mean([own])
        return [*totals, *means, peers.rows(rows), *peers.broadcast_arrays([own])]

    first, *others = together(3, work)
    assert [array.dtype.name for array in first] == ["float32", "float64", "float32", "int64", "float32"]
    np.testing.assert_allclose(first[0], 0.6, rtol=1e-6)
    np.testing.assert_allclose(first[2], 0.2, rtol=1e-6)
    assert first[1] == 3 and first[3].tolist() == [[1, 1], [2, 2], [2, 2]]
    np.testing.assert_array_equal(first[4], np.float32(0.1))
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [0, 2, 7])
def test_shares_are_all_of_it_side_by_side(count: int):
    shares = together(3, lambda peers: list(peers.share(range(count))))
    assert [index for share in shares for index in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_everything_is_handed_through():
    array = np.arange(3)
    with joined(Group()) as peers:
        assert peers is ALONE_PEERS
        assert peers.rows(array) is array and peers.sum([array])[0] is array
        assert peers.first(lambda: array) is array and peers.gather(b"a") == [b"a"]


def run(code: str, size: int = 2, **variables: str) -> list[tuple[int, str]]:
    """Exit code and messages of each of `size` processes, of which number 1 does something."""
    address, processes = free_address(), []
    for rank in range(size):
        own = os.environ | Group(rank, size, address).environment() | {"MULTITL_PEER_TIMEOUT": "3"} | variables
        command = [sys.executable, "-c", PROGRAM, code]
        processes.append(
            subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        )
    try:
        others = [process for rank, process in enumerate(processes) if rank != 1]
        told = {process: process.communicate(timeout=120)[1] for process in others}
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            told[process] = told.get(process) or process.communicate()[1]
    return [(process.returncode, told[process]) for process in processes]


@pytest.mark.parametrize(
    ("code", "ends", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", LOST, "Process 1 of 3 is lost: its connection was closed"),
        pytest.param(
            "os.kill(os.getpid(), signal.SIGSTOP)",
            LOST,
            "Process 1 of 3 is lost: it has been silent for 3 s",
            marks=pytest.mark.slow,
        ),
        ("1 / 0", LOST, "Process 1 of 3 ended: ZeroDivisionError"),
        ("raise MultitlError('No image.', fix='draw it')", 2, "Process 1 of 3 ended: MultitlError: No image."),
    ],
    ids=["killed", "stopped", "a bug", "a fault of the input"],
)
def test_the_others_end_with_a_message(code: str, ends: int, message: str):
    first, _, third = run(code, size=3)
    for exit_code, told in (first, third):
        assert exit_code == ends, told
        assert message in told and "to mend:" in told


@pytest.mark.slow
def test_a_process_that_waits_inside_of_a_framework_is_ended():
    """Nothing in Python can end a collective."""
    code = "print(peers, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    hanging = "import time; time.sleep(1000)"
    program = PROGRAM.replace("exec(sys.argv[1])\n", f"exec(sys.argv[1])\n        else:\n            {hanging}\n")
    address = free_address()
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", program, code], env=os.environ | Group(rank, 2, address).environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    )  # fmt: skip
    second.communicate(timeout=60)
    _, told = first.communicate(timeout=60)
    assert first.returncode == LOST
    assert "Process 1 of 2 is lost" in told and "--resume" in told


@pytest.mark.parametrize(
    ("host", "pod", "heard_at"),
    [("node0", "", "0.0.0.0"), ("localhost", "", "127.0.0.1"), ("127.0.0.1", "yes", "127.0.0.1"),
     ("localhost", "10.0.0.1", "0.0.0.0")],
)  # fmt: skip
def test_a_name_that_leads_to_loopback_is_heard_from_elsewhere(host: str, pod: str, heard_at: str, monkeypatch):
    """As Debian has a machine's own name in /etc/hosts, and Kubeflow calls the first of several pods."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port := int(free_address().split(":")[1])))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *what, **how: found)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", pod) if pod else monkeypatch.delenv("KUBERNETES_SERVICE_HOST", False)
    with channel._server(Group(0, 2, f"{host}:{port}")) as server:
        assert server.getsockname() == (heard_at, port)


def test_who_is_on_the_first_ones_machine_is_found_there():
    told = ["10.0.0.7:1", "127.0.1.1:2", "10.0.0.8:3"]
    assert peers._reachable(told) == ["10.0.0.7:1", "10.0.0.7:2", "10.0.0.8:3"]
    assert peers._reachable(["[::1]:1", "[::1]:2"]) == ["[::1]:1", "[::1]:2"]


def ends_of_handled_loss(before: str, after: str) -> list[tuple[str, int]]:
    """What two processes print, and their exit codes, the second of which fails, where both handle it.

    before, after: what each does before it joins, and once that is handled.
    """
    program = f"""
import atexit, sys, time
from multitl.distribution import channel
from multitl.distribution.group import group_from_environment
from multitl.distribution.joining import joined
from multitl.errors import DataError, MultitlError
channel.GRACE, group = 0.2, group_from_environment()
{before}
try:
    with joined(group) as peers:
        if group.rank:
            raise DataError("no images", expected="", received="", fix="")
        peers.barrier()
except MultitlError:
    {after}
"""
    address = free_address()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=os.environ | Group(rank, 2, address).environment(),
            stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    return [(one.communicate(timeout=60)[0], one.returncode) for one in both]


def test_who_has_handled_a_loss_goes_on():
    """Ten seconds after another one failed, a program that goes on with something else is still there."""
    assert ends_of_handled_loss("", "time.sleep(1); print('went on')") == [("went on\n", 0)] * 2


def test_who_hangs_at_its_end_after_a_loss_is_ended():
    """As in the farewell of a framework to its peers, which waits for those that are gone."""
    assert ends_of_handled_loss("group.rank or atexit.register(time.sleep, 1000)", "pass") == [("", 2), ("", 0)]


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(GroupError, match="Nothing can listen at") as caught:
            connect(Group(0, 2, address), 1.0)
    assert "another MASTER_PORT" in caught.value.fix


def test_those_that_do_not_come_are_named():
    address = free_address()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(connect, Group(rank, 3, address), 1.0) for rank in (0, 1)]
        faults = [one.exception() for one in waiting]
    assert all(isinstance(fault, GroupError) for fault in faults)
    assert "missing: RANK=2" in str(faults[0])


@pytest.mark.parametrize(
    ("second", "problem"), [(Group(1, 3), "WORLD_SIZE is 2 for rank 0 and 3 for rank 1"), (Group(0, 2), "RANK=0")]
)
def test_processes_that_contradict_each_other_are_refused(second: Group, problem: str):
    """A second rank 0 cannot listen where the first does; others are told by it."""
    address = free_address()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(connect, Group(0, 2, address), 1.0)
        fault = pool.submit(connect, Group(second.rank, second.size, address), 1.0).exception()
        assert isinstance(first.exception(), GroupError)
    assert isinstance(fault, GroupError)
    assert problem in str(fault) or "Nothing can listen" in str(fault)


def test_a_stranger_at_the_port_is_sent_away():
    address = free_address()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(connect, Group(0, 2, address), 10.0)
        host, port = address.split(":")
        while True:
            try:
                stranger = socket.create_connection((host, int(port)))
                break
            except OSError:
                assert not first.done()
        with stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            second = connect(Group(1, 2, address), 10.0)
        first.result().close()
        second.close()


@pytest.mark.parametrize("text", ["soon", "0", "nan"])
def test_a_timeout_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MULTITL_PEER_TIMEOUT", text)
    with pytest.raises(GroupError, match="MULTITL_PEER_TIMEOUT cannot be"):
        peer_timeout()
