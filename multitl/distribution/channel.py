"""The line between the processes of a run: bytes through rank 0, over TCP, and a watch on who is still there.

No framework is needed for it, so that all that is decided on the host goes the same way on every backend, and a peer
that is killed, stopped or cut off is noticed while this process waits inside of a framework's collective, which nothing
but the end of the process can end.

Whoever reaches the port can take a process' place before it comes, and reads what is told: it is for the network of a
cluster, not for the internet.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from multitl.distribution.group import Group
from multitl.errors import LOST, GroupError, LostPeerError
from multitl.system.addresses import is_loopback

MAGIC = b"multitl peers 1\n"
HEAD = struct.Struct("!cQ")  # of a frame: its kind, bytes that follow
DATA, ALIVE, BYE, FAILED = b"D", b"A", b"B", b"F"
BEATS = 6  # signs of life within the time after which one is missed
JOINING = 5  # times that, for processes that start at different moments
PARTING = 1.0  # seconds for a peer to hang up as well
GRACE = 10.0  # seconds to end by an exception, for a process whose peer is lost
MOST_GREETING = 1000  # bytes
CHUNK = 1 << 20
GO_ON = "run the same command with --resume once the processes can be started again; fewer will do"


@dataclass(frozen=True)
class Loss:
    """Why the group is no more. code: what this process' exit code is to be."""

    reason: str
    code: int = LOST

    def error(self) -> GroupError:
        if self.code == LOST:
            return LostPeerError(self.reason, expected="all processes, to the end", fix=GO_ON)
        return GroupError(self.reason, fix="mend what that process says")


@dataclass(eq=False)
class _Line:
    """To one peer. seen: when it last gave a sign of life, by the monotonic clock."""

    rank: int
    socket: socket.socket
    seen: float = field(default_factory=time.monotonic)
    sending: threading.Lock = field(default_factory=threading.Lock)
    received: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    has_ended: bool = False

    def send(self, kind: bytes, data: bytes = b"") -> None:
        with self.sending:
            self.socket.sendall(HEAD.pack(kind, len(data)))
            self.socket.sendall(data)

    def show_life(self) -> None:
        """Not while something is being sent, which is a sign as well."""
        if self.sending.acquire(blocking=False):
            try:
                self.socket.sendall(HEAD.pack(ALIVE, 0))
            finally:
                self.sending.release()

    def read_frame(self) -> tuple[bytes, bytes]:
        """Raises OSError where nothing comes any more."""
        kind, size = HEAD.unpack(self._read(HEAD.size))
        return kind, self._read(size)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(min(CHUNK, size - len(data)))
            if not piece:
                raise ConnectionResetError("it has gone")
            self.seen = time.monotonic()
            data += piece
        return bytes(data)


class Channel:
    """Open it with `connect`. timeout: seconds of silence after which a peer counts as lost."""

    def __init__(self, group: Group, lines: Sequence[_Line], timeout: float) -> None:
        """lines: of rank 0 to all others, by rank; of the others to rank 0."""
        self.group, self._lines, self._timeout = group, list(lines), timeout
        self._loss: Loss | None = None
        self._is_lost, self._is_closed, self._is_over = threading.Event(), threading.Event(), threading.Event()
        self._listeners = [threading.Thread(target=self._listen, args=(line,), daemon=True) for line in self._lines]
        for thread in (*self._listeners, threading.Thread(target=self._watch, daemon=True)):
            thread.start()

    @property
    def own_host(self) -> str:
        """This machine's address, as the others see it; a loopback address where rank 0 is on it as well."""
        hosts = [str(line.socket.getsockname()[0]) for line in self._lines]
        return next((host for host in hosts if not is_loopback(host)), hosts[0])

    def broadcast(self, data: bytes) -> bytes:
        """What rank 0 gave."""
        if self.group.rank:
            return self._receive(self._lines[0])
        for line in self._lines:
            self._send(line, data)
        return data

    def exchange(self, data: bytes, combine: Callable[[list[bytes]], bytes]) -> bytes:
        """What `combine` makes, on rank 0, of what each gave, by rank."""
        if self.group.rank:
            self._send(self._lines[0], data)
            return self._receive(self._lines[0])
        return self.broadcast(combine([data, *map(self._receive, self._lines)]))

    def check(self, wait: float = 0.0) -> None:
        """Raises the error of a group that is no more, if that shows within so many seconds."""
        if self._is_lost.wait(wait) and self._loss:
            raise self._loss.error()

    def close(self, failure: Loss | None = None) -> None:
        """failure: what the others are to hear; None if all is done."""
        self._is_closed.set()
        failure = self._loss or failure  # what was first
        told = (FAILED, _encode(failure)) if failure else (BYE, b"")
        for line in self._lines:
            with contextlib.suppress(OSError):
                if line.sending.acquire(timeout=1.0):
                    line.sending.release()
                    line.send(*told)
                line.socket.shutdown(socket.SHUT_WR)  # what was said still arrives
        for thread in () if failure else self._listeners:
            thread.join(PARTING)

    def let_go(self) -> None:
        """This process does something else from now on: it is not ended because of a loss, unless it is to end anyway
        and hangs, as a framework's farewell to its peers may.
        """
        self._is_over.set()
        if self._loss:
            is_ending = threading.Event()  # the thread is there by then: Python 3.12 starts none while it ends
            atexit.register(is_ending.set)
            _watch_over(self._loss, threading.Event(), is_ending)

    def _send(self, line: _Line, data: bytes) -> None:
        try:
            line.send(DATA, data)
        except OSError as error:
            self._lose(line, f"it cannot be reached: {error}")
        self.check()

    def _receive(self, line: _Line) -> bytes:
        data = line.received.get()
        if data is None:
            line.received.put(None)
            self.check(wait=GRACE)
            raise Loss(f"Process {line.rank} of {self.group.size} has ended before this one.").error()
        return data

    def _listen(self, line: _Line) -> None:
        try:
            while True:
                kind, data = line.read_frame()
                if kind == DATA:
                    line.received.put(data)
                elif kind == FAILED:
                    self._end(_decode(data))
                    break
                elif kind == BYE:
                    line.has_ended = True
                    break
        except OSError as error:
            self._lose(line, f"its connection was closed ({error})")
        line.received.put(None)
        self._is_closed.wait()
        line.socket.close()

    def _watch(self) -> None:
        while not self._is_closed.wait(self._timeout / BEATS) and not self._loss:
            for line in self._lines:
                if line.has_ended:
                    continue
                silent = time.monotonic() - line.seen
                if silent > self._timeout:
                    self._lose(line, f"it has been silent for {silent:.0f} s")
                    break
                with contextlib.suppress(OSError):  # who listens will notice
                    line.show_life()

    def _lose(self, line: _Line, how: str) -> None:
        if not self._is_closed.is_set() and not line.has_ended:
            self._end(Loss(f"Process {line.rank} of {self.group.size} is lost: {how}."))

    def _end(self, loss: Loss) -> None:
        """The group is no more: tell the others, wake who waits, and see that this process ends."""
        if self._loss or self._is_closed.is_set():
            return
        self._loss = loss
        print(f"multitl: {loss.reason}", file=sys.stderr, flush=True)  # JAX may end the process before it can
        self._is_lost.set()
        for line in self._lines:
            line.received.put(None)
        _watch_over(loss, self._is_over)
        self.close(loss)
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)  # who is sending to it stops to wait


def _watch_over(loss: Loss, is_over: threading.Event, begins: threading.Event | None = None) -> None:
    threading.Thread(target=_end_process, args=(loss, is_over, begins), daemon=True).start()


def _end_process(loss: Loss, is_over: threading.Event, begins: threading.Event | None) -> None:
    """A framework's collective waits for ever, or ends the process without a word."""
    if begins:
        begins.wait()
    if is_over.wait(GRACE):
        return
    with contextlib.suppress(Exception):
        print(f"multitl: {loss.error()}", file=sys.stderr, flush=True)
    os._exit(loss.code)


def _encode(loss: Loss) -> bytes:
    return json.dumps([loss.reason, loss.code]).encode()


def _decode(data: bytes) -> Loss:
    reason, code = json.loads(data)
    return Loss(reason, code)


def connect(group: Group, timeout: float) -> Channel:
    """Wait for all processes of a group of several. timeout: see `Channel`.

    Raises GroupError if the port is taken, or not everyone comes within `JOINING` times that.
    """
    deadline = time.monotonic() + JOINING * timeout
    lines = [_call(group, deadline)] if group.rank else _await_all(group, deadline)
    return Channel(group, lines, timeout)


def _await_all(group: Group, deadline: float) -> list[_Line]:
    lines: dict[int, _Line] = {}
    with _server(group) as server:
        while len(lines) < group.size - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                accepted, _ = server.accept()
            except TimeoutError as error:
                missing = [rank for rank in range(1, group.size) if rank not in lines]
                fault = _missing(group, missing)
                for line in lines.values():
                    with contextlib.suppress(OSError), line.socket:
                        line.send(FAILED, _encode(Loss(fault.problem, 2)))
                raise fault from error
            if greeted := _greet(group, accepted, lines, deadline):
                lines[greeted.rank] = greeted
        for line in lines.values():
            line.send(DATA)  # now all are here
    return [lines[rank] for rank in sorted(lines)]


def _server(group: Group) -> socket.socket:
    """Listens at the group's address; everywhere if that is a name of this machine that it does not know, or knows as
    a loopback address that other machines cannot reach, as Debian's /etc/hosts has it.
    """
    host, port = _host_and_port(group)
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if is_loopback(str(address[0])) and host != address[0] and not _is_local(host):
            return socket.create_server(("", port), backlog=group.size)
        try:
            return socket.create_server(address[:2], family=family, backlog=group.size)
        except OSError as error:
            if error.errno in _TAKEN:
                raise
            return socket.create_server(("", port), backlog=group.size)
    except OSError as error:
        raise GroupError(
            f"Nothing can listen at {group.address}: {error.strerror or error}.",
            expected="a port that is free, on the machine of rank 0",
            received=f"MASTER_ADDR={host} MASTER_PORT={port}",
            fix="give all processes another MASTER_PORT, or end the process that has it",
        ) from error


def _is_local(host: str) -> bool:
    """Whether it means this machine alone. In a pod "localhost" does not: Kubeflow's operator calls rank 0's own so."""
    return host == "localhost" and "KUBERNETES_SERVICE_HOST" not in os.environ


_TAKEN = (48, 98, 10048)  # EADDRINUSE of macOS, Linux, Windows


def _greet(group: Group, accepted: socket.socket, lines: dict[int, _Line], deadline: float) -> _Line | None:
    """Whoever comes, unless it is somebody else's: scanners knock at every port."""
    line = _Line(-1, accepted)
    try:
        accepted.settimeout(max(0.01, min(5.0, deadline - time.monotonic())))
        if line._read(len(MAGIC)) != MAGIC:
            raise OSError("no peer")
        _, size = HEAD.unpack(line._read(HEAD.size))
        rank, others = json.loads(line._read(min(size, MOST_GREETING)))
        if fault := _misfit(group, rank, others, lines):
            line.send(FAILED, _encode(Loss(fault, 2)))
            accepted.close()
            return None
    except (OSError, ValueError, TypeError):
        accepted.close()
        return None
    _keep_open(accepted)
    return _Line(rank, accepted)


def _misfit(group: Group, rank: int, size: int, lines: dict[int, _Line]) -> str:
    if size != group.size:
        return f"WORLD_SIZE is {group.size} for rank 0 and {size} for rank {rank}."
    return f"Two processes have RANK={rank}." if rank in lines or not 0 < rank < size else ""


def _call(group: Group, deadline: float) -> _Line:
    """Rank 0, again and again until it is there; it answers once all are."""
    while True:
        try:
            reached = socket.create_connection(_host_and_port(group), timeout=max(0.01, deadline - time.monotonic()))
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise _missing(group, [0]) from error
            time.sleep(0.1)
    reached.settimeout(max(0.01, 2 + deadline - time.monotonic()))
    line = _Line(0, reached)
    try:
        reached.sendall(MAGIC)
        line.send(DATA, json.dumps([group.rank, group.size]).encode())
        kind, data = line.read_frame()
    except OSError as error:
        reached.close()
        raise _missing(group, [0]) from error
    if kind == FAILED:
        reached.close()
        raise _decode(data).error()
    _keep_open(reached)
    return line


def _keep_open(connected: socket.socket) -> None:
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _host_and_port(group: Group) -> tuple[str, int]:
    host, _, port = group.address.rpartition(":")
    return host.strip("[]"), int(port)


def _missing(group: Group, ranks: Sequence[int]) -> GroupError:
    return GroupError(
        f"Not all processes of the run came together at {group.address}.",
        expected=f"{group.size} of them, with the same WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
        received=f"this one, with RANK={group.rank}; missing: RANK={','.join(map(str, ranks))}",
        fix="start them all, and see that their machines reach each other; MULTITL_PEER_TIMEOUT=SECONDS waits longer",
    )
