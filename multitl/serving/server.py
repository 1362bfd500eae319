"""`multitl serve`: opens what answers, then listens until it is told to stop."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING

import numpy as np

from multitl.errors import ServeError
from multitl.serving.answerers import answerer_of
from multitl.serving.answers import Answerer
from multitl.serving.worker import Worker
from multitl.system.addresses import is_loopback
from multitl.system.messages import say, warn

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

PACKAGES = ("starlette", "uvicorn", "python_multipart")
HOST, PORT = "127.0.0.1", 8000
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def serve(folder: str | os.PathLike[str], host: str, port: int, runtime: str, backend: str | None) -> None:
    """Answer requests until Ctrl-C or SIGTERM. Raises a MultitlError for what cannot be served, or listened on."""
    check_packages()
    listening = listen(host, port)
    with listening:
        answerer = answerer_of(folder, runtime, backend)
        with answerer.around():
            worker = Worker(answerer)
            worker.start(np.zeros(answerer.preprocess.shape, np.uint8))
            try:
                _run(answerer, worker, listening, host)
            finally:
                worker.close()


def check_packages() -> None:
    """Raises ServeError where the extra is not installed."""
    missing = [name for name in PACKAGES if not importlib.util.find_spec(name)]
    if missing:
        raise ServeError(
            "What multitl serves with is not installed.",
            expected=", ".join(PACKAGES),
            received=f"no {', no '.join(missing)}",
            fix="pip install 'multitl[serve]'",
        )


def names_of(host: str, address: str) -> frozenset[str] | None:
    """What a server that listens there may be called, without a port; None for anything.

    host: as the user has it.  address: of the socket. What only this machine can reach has names of its own, so that no
    page of another site reaches it by one that leads here.
    """
    if not is_loopback(address):
        return None
    return frozenset({*LOOPBACK, _in_url(address), host.lower()})


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound; port 0 takes a free one. Raises ServeError."""
    with contextlib.ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            if sys.platform != "win32":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except (OSError, OverflowError, UnicodeError) as error:
            raise ServeError(
                f"Cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}.",
                expected="an address of this machine and a free port",
                received=f"{host}:{port}",
                fix="choose others: --host 127.0.0.1 --port 8001; --port 0 takes a free one",
            ) from error
        stack.pop_all()
        return listening


def _run(answerer: Answerer, worker: Worker, listening: socket.socket, host: str) -> None:
    from multitl.serving.app import make_app

    address = listening.getsockname()
    listening.listen()  # whoever reads the address may come at once
    say(f"{answerer.name}, {answerer.runtime}: http://{_in_url(address[0])}:{address[1]}  (Ctrl-C ends it)")
    names = names_of(host, address[0])
    if names is None:
        warn(
            f"Whoever reaches this machine on port {address[1]} can use it: there is no password and no encryption. "
            "On a network that is not yours alone, let a proxy with both stand before it."
        )
    make_server(make_app(answerer, worker, names)).run(sockets=[listening])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Nothing of a request is logged, and no header is believed that a proxy could have written."""
    import uvicorn

    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it warns of what it raises as well
    return uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False, proxy_headers=False,
            timeout_keep_alive=15, timeout_graceful_shutdown=5,
        )
    )  # fmt: skip
