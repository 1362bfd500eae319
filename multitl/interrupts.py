"""Ctrl-C between two calls into a framework, never in the middle of one: raised there, it can crash the framework.

Python hands an exception to whatever happens to run: TensorFlow's C++ can die of it (one of sixteen presses did, on two
CPU cores), and destructors drop it without a word.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back() -> Iterator[None]:
    """A Ctrl-C during the block takes effect at its end; a second one takes effect at once."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # Python interrupts the main thread only; and who ignores Ctrl-C, goes on ignoring it
        return
    pressed: list[FrameType | None] = []

    def press(number: int, frame: FrameType | None) -> None:
        if pressed:
            handler(number, frame)
        pressed.append(frame)

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if pressed:
        handler(signal.SIGINT, pressed[0])
