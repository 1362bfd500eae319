"""Ctrl-C waits for a framework's call to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from multitl import interrupts


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """Whatever the shell that started the tests said about it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_one_press_takes_effect_at_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.held_back():
        press()
        done.append("the rest of the block")
    assert done
    with pytest.raises(KeyboardInterrupt):
        press()  # as before, outside


def test_two_presses_take_effect_at_once():
    with pytest.raises(KeyboardInterrupt), interrupts.held_back():
        press()
        press()
        pytest.fail("went on")


def test_an_error_of_the_block_comes_first():
    with pytest.raises(ValueError, match="of its own"), interrupts.held_back():
        press()
        raise ValueError("of its own")


def test_an_ignored_ctrl_c_stays_ignored_and_other_threads_are_left_alone():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.held_back():
        press()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = []

    def elsewhere() -> None:
        with interrupts.held_back():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
