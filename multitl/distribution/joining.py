"""The way into a group, and out of it, whatever happens."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

from multitl.contracts import Peers
from multitl.distribution.channel import Loss, connect
from multitl.distribution.devices import take_device
from multitl.distribution.group import Group
from multitl.distribution.peers import ALONE_PEERS, Several
from multitl.errors import GroupError, LostPeerError, MultitlError
from multitl.system.messages import LOGGER

TIMEOUT = "MULTITL_PEER_TIMEOUT"
SECONDS = 60.0
HINDSIGHT = 3.0  # seconds: a collective fails before it is known that a peer is lost


def peer_timeout() -> float:
    """Seconds of silence after which a process counts as lost. Raises GroupError for what is no such number."""
    text = os.environ.get(TIMEOUT) or str(SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.5 <= seconds <= 86400:
        raise GroupError(
            f"{TIMEOUT} cannot be {text!r}.",
            expected="seconds, from 0.5 to 86400",
            received=text,
            fix=f"unset {TIMEOUT}, which is then {SECONDS:g}",
        )
    return seconds


@contextmanager
def joined(group: Group) -> Iterator[Peers]:
    """The peers of this process, once all of them are here; only rank 0 speaks meanwhile.

    What ends the block here ends it for all: an error of the input with exit code 2, anything else as a lost peer.
    Raises GroupError for those that do not come, and LostPeerError once one is lost.
    """
    if group.size == 1:
        yield ALONE_PEERS
        return
    take_device(group)
    peers = Several(connect(group, peer_timeout()))
    before = LOGGER.level
    if group.rank:
        LOGGER.setLevel(logging.CRITICAL)
    try:
        yield peers
        peers.leave()
    except BaseException as error:
        if not isinstance(error, MultitlError | KeyboardInterrupt):
            peers.check(HINDSIGHT)
        peers.leave(_failure(group, error))
        raise
    finally:
        peers.let_go()
        LOGGER.setLevel(before)


def _failure(group: Group, error: BaseException) -> Loss:
    what = f"Process {group.rank} of {group.size} ended: {type(error).__name__}: {error}".partition("\n")[0]
    is_of_the_input = isinstance(error, MultitlError) and not isinstance(error, LostPeerError)
    return Loss(what, 2) if is_of_the_input else Loss(what)
