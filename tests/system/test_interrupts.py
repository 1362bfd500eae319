"""Ctrl-C and its like wait for a framework's call to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from multitl.system import interrupts

USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}


@pytest.fixture(autouse=True)
def signals_do_what_they_usually_do() -> Iterator[None]:
    """Whatever started the tests said about them: nohup and a shell's background jobs ignore some."""
    before = {number: signal.signal(number, handler) for number, handler in USUAL.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def end(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_requests_to_end_interrupt_as_ctrl_c_does(number: int, code: int):
    with pytest.raises(KeyboardInterrupt) as caught, interrupts.requests_to_end():
        end(number)
        pytest.fail("went on")
    assert interrupts.exit_code(caught.value) == code
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_request_to_end_waits_for_the_call_and_a_second_one_does_not(first: int, second: int):
    done = []
    with interrupts.requests_to_end():
        with pytest.raises(interrupts.Stopped), interrupts.held_back():
            end(first)
            done.append("the rest of the block")
        with pytest.raises(KeyboardInterrupt), interrupts.held_back():
            end(first)
            end(second)
            pytest.fail("went on")
    assert done


def test_what_somebody_else_has_said_stays():
    """nohup ignores SIGHUP; a user's program may have a use for SIGTERM."""
    heard = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    with interrupts.requests_to_end(), interrupts.held_back():
        end(signal.SIGHUP)
        end(signal.SIGTERM)
        assert heard == []
    assert heard == [1] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
