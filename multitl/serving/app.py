"""The routes: a page for people, an endpoint for programs. What is refused is refused in JSON; nothing is logged.

A page of another site can make a browser ask a server on the loopback device. So a server there answers to its own
names only (DNS rebinding), and anywhere a request that a browser says comes from elsewhere is refused.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multitl.data.images import AT_ONCE as MOST_PIXELS
from multitl.data.images import UnreadableImage, decode_pixels
from multitl.judging.reporting import make_environment
from multitl.serving.answerers import Answerer
from multitl.serving.forms import read_image
from multitl.serving.openapi import describe
from multitl.serving.refusals import (
    MOST_BYTES,
    MOST_WAITING,
    SECONDS,
    Refusal,
    broken,
    busy,
    foreign,
    late,
    unknown,
    unreadable,
)
from multitl.serving.worker import Worker
from multitl.system.budgets import Budget
from multitl.version import __version__

HERE = Path(__file__).parent / "page"
KINDS = {"one": "classes", "several": "labels", "number": "a number"}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def make_app(answerer: Answerer, worker: Worker, hosts: Collection[str] | None) -> ASGIApp:
    """hosts: names that the server answers to, without a port; None for any."""
    routes = [
        Route("/predict", _Endpoint(answerer, worker).predict, methods=["POST"]),
        Route("/health", partial(_health, answerer, worker)),
        Route("/openapi.json", partial(_fixed, JSONResponse(describe(answerer)))),
        *(
            Route(path, partial(_fixed, Response(content, media_type=kind)))
            for path, (content, kind) in _page(answerer).items()
        ),
    ]
    handlers: Any = {Refusal: _refused, HTTPException: _unknown, Exception: _failed}
    return _Guarded(Starlette(routes=routes, exception_handlers=handlers), hosts)


class _Endpoint:
    def __init__(self, answerer: Answerer, worker: Worker) -> None:
        self._preprocess, self._worker = answerer.preprocess, worker
        self._budget, self._under_way = Budget(MOST_PIXELS), 0

    async def predict(self, request: Request) -> Response:
        """Whoever comes while MOST_WAITING are under way is sent away before a byte of the body is read."""
        if self._under_way >= MOST_WAITING:
            raise busy()
        self._under_way += 1
        request.app.state.under_way = self._under_way
        try:
            return await self._answer(request)
        finally:
            self._under_way -= 1
            request.app.state.under_way = self._under_way

    async def _answer(self, request: Request) -> Response:
        headers = request.headers
        body = read_image(headers.get("content-type", ""), headers.get("content-length", ""), request.stream())
        try:
            data = await asyncio.wait_for(body, SECONDS)
        except TimeoutError as error:
            raise late() from error
        began = time.perf_counter()
        pixels = await run_in_threadpool(self._decode, data)
        decoded = time.perf_counter()
        said = await asyncio.wrap_future(self._worker.submit(pixels))
        times = {"read": decoded - began, "model": time.perf_counter() - decoded}
        timing = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in times.items())
        return JSONResponse(_likeliest_first(said), headers={"server-timing": timing})

    def _decode(self, data: bytes) -> np.ndarray:
        """Pixels as the network takes them; the reader's own limits hold, and all threads together decode no more than
        the largest image that it allows."""
        try:
            if not data:
                raise UnreadableImage("empty: 0 bytes")
            return decode_pixels(data, self._preprocess, self._budget)
        except UnreadableImage as error:
            raise unreadable(str(error), error.fix) from error


def _likeliest_first(said: Mapping[str, Any]) -> dict[str, Any]:
    """As `multitl predict --json` has them."""
    ranked = dict(said)
    for name, value in said.items():
        if name == "probabilities":
            ranked[name] = dict(sorted(value.items(), key=lambda pair: -pair[1]))
        elif isinstance(value, Mapping):  # of one of several heads
            ranked[name] = _likeliest_first(value)
    return ranked


async def _health(answerer: Answerer, worker: Worker, request: Request) -> Response:
    about = {
        "status": "ok" if worker.is_alive else "failed",
        "model": answerer.name,
        "runtime": answerer.runtime,
        "multitl": __version__,
        "under_way": getattr(request.app.state, "under_way", 0),
    }
    return JSONResponse(about, status_code=200 if worker.is_alive else 503)


async def _fixed(response: Response, request: Request) -> Response:
    return response


def _page(answerer: Answerer) -> dict[str, tuple[str, str]]:
    """Path -> content and its type; the report's style, and what this page adds to it."""
    environment = make_environment()
    names = [names for _, names in answerer.heads.values()]
    kinds = [kind for kind, _ in answerer.heads.values()]
    page = environment.from_string((HERE / "page.html.j2").read_text(encoding="utf-8")).render(
        name=answerer.name, runtime=answerer.runtime, heads=list(answerer.heads), version=__version__,
        what=KINDS[kinds[0]] if len(kinds) == 1 else "heads", count=len(names[0]) if len(kinds) == 1 else len(kinds),
        is_number=kinds == ["number"], preprocess=answerer.preprocess, most_bytes=MOST_BYTES,
    )  # fmt: skip
    style = environment.get_template("report.css").render() + (HERE / "page.css").read_text(encoding="utf-8")
    return {
        "/": (page, "text/html"),
        "/page.css": (style, "text/css"),
        "/page.js": ((HERE / "page.js").read_text(encoding="utf-8"), "text/javascript"),
    }


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {"retry-after": "1"} if error.status == 503 else {}
    if error.status in (408, 413, 503):
        headers["connection"] = "close"  # what is still to come of the body is not read
    return JSONResponse(error.body, status_code=error.status, headers=headers)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = unknown(error.status_code, request.method, request.url.path)
    return JSONResponse(refusal.body, status_code=refusal.status, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(broken().body, status_code=500)


class _Guarded:
    """Looks at where a request comes from, and adds the headers of safety to each response."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                safe = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *safe]}
            await send(message)

        if refusal := self._foreign(Headers(scope=scope)):
            await JSONResponse(refusal.body, refusal.status)(scope, receive, send_safely)
            return
        try:
            await self._app(scope, receive, send_safely)
        except ClientDisconnect:
            pass
        except Exception:  # it has been answered; the traceback is for whoever runs the server, not for a client
            traceback.print_exc(file=sys.stderr)

    def _foreign(self, headers: Headers) -> Refusal | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self._hosts is not None and name.lower() not in self._hosts:
            return foreign("Host", host, "ask for it by http://localhost or http://127.0.0.1")
        if origin is not None and origin.partition("://")[2] != host:
            return foreign("Origin", origin, "use the page of this server, or a program in place of a browser")
        return None
