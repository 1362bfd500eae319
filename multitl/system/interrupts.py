"""Ctrl-C, and requests to end that count as one, between two calls into a framework: raised in the middle of a call, an
exception can crash the framework.

Python hands an exception to whatever happens to run: TensorFlow's C++ can die of it (one of sixteen presses did, on two
CPU cores), and destructors drop it without a word.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A press, `kill` and schedulers, a terminal that closes; not every platform has the last.
NUMBERS = tuple(number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP"))


class Stopped(KeyboardInterrupt):
    """Ctrl-C by another name. number: the signal's."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def exit_code(error: KeyboardInterrupt) -> int:
    """What shells and schedulers expect of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


@contextmanager
def requests_to_end() -> Iterator[None]:
    """During the block SIGTERM and SIGHUP raise `Stopped`, unless somebody has said what they do: `nohup` ignores one.

    For a process of our own, in its main thread.
    """
    numbers = [number for number in NUMBERS if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def take_back_signals() -> None:
    """Let signals call what Python says again: the notices of preemption that frameworks wait for swallow SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        for number in NUMBERS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """A Ctrl-C or request to end during the block takes effect at its end; a second one takes effect at once."""
    handlers = _handlers()
    if threading.current_thread() is not threading.main_thread() or not handlers:
        yield  # Python interrupts the main thread only; and who ignores Ctrl-C, goes on ignoring it
        return
    pressed: list[tuple[int, FrameType | None]] = []

    def press(number: int, frame: FrameType | None) -> None:
        if pressed:
            handlers[number](number, frame)
        pressed.append((number, frame))

    for number in handlers:
        signal.signal(number, press)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if pressed:
        number, frame = pressed[0]
        handlers[number](number, frame)


def _handlers() -> dict[int, Callable[[int, FrameType | None], object]]:
    """What the signals call; those that end the process, or are ignored, are left out."""
    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    return {number: handler for number, handler in handlers.items() if callable(handler)}


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
