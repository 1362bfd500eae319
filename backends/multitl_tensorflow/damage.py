"""How a SavedModel is refused: it may be anyone's, and what is in it need not hang together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from google.protobuf.message import DecodeError

from multitl.errors import MultitlError, WeightsError

DAMAGED = (  # what a mess leads to
    tf.errors.OpError, RuntimeError, ValueError, DecodeError, LookupError, TypeError, AttributeError, ArithmeticError,
    StopIteration,
)  # fmt: skip


@contextlib.contextmanager
def damage_refused(what: str) -> Iterator[None]:
    """While open, whatever a file leads to that does not hang together becomes a WeightsError."""
    try:
        yield
    except MultitlError:
        raise
    except DAMAGED as error:
        raise refuse(what, f"a graph that cannot be followed ({type(error).__name__}: {first_line(error)})") from error


def refuse(what: str, received: str) -> WeightsError:
    """The error for a file that is damaged or unsafe."""
    return WeightsError(
        f"{what} is damaged or unsafe; nothing of it was run.",
        expected="a SavedModel as TensorFlow writes it",
        received=received,
        fix="download the module again, from where its authors publish it",
    )


def first_line(error: Exception) -> str:
    """Of an error's text, 200 characters at most."""
    return str(error).strip().partition("\n")[0][:200]
