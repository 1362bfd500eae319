"""The routes: a page for people, an endpoint for programs. What is refused is refused in JSON; nothing is logged.

A page of another site can make a browser ask a server on the loopback device. So a server there answers to its own
names only (DNS rebinding), and anywhere a request that a browser says comes from elsewhere is refused.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Collection
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
from multitl.errors import MultitlError
from multitl.judging.reporting import make_environment
from multitl.serving.answers import Answerer, Said
from multitl.serving.forms import read_image
from multitl.serving.openapi import WISHES, describe
from multitl.serving.pictures import sent
from multitl.serving.refusals import (
    MOST_BYTES,
    MOST_WAITING,
    SECONDS,
    Refusal,
    bad_wish,
    broken,
    busy,
    foreign,
    late,
    unknown,
    unreadable,
    without_maps,
)
from multitl.serving.worker import Worker
from multitl.system.budgets import Budget
from multitl.version import __version__

HERE = Path(__file__).parent / "page"
KINDS = {"one": "classes", "several": "labels", "number": "a number"}
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
        self._answerer, self._worker = answerer, worker
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

    def _wish(self, request: Request) -> str:
        """One of WISHES."""
        wish = request.query_params.get("explain", WISHES[0])
        if wish not in WISHES:
            raise bad_wish("explain", wish, WISHES)
        if wish != WISHES[0] and isinstance(self._answerer.open_maps, MultitlError):
            raise without_maps(self._answerer.open_maps)
        return wish

    async def _answer(self, request: Request) -> Response:
        headers = request.headers
        body = read_image(headers.get("content-type", ""), headers.get("content-length", ""), request.stream())
        try:
            data = await asyncio.wait_for(body, SECONDS)
        except TimeoutError as error:
            raise late() from error
        wish = self._wish(request)  # now: who is refused while still sending may never read why
        began = time.perf_counter()
        pixels = await run_in_threadpool(self._decode, data)
        decoded = time.perf_counter()
        said = await self._ask(pixels, wish)
        times = {"read": decoded - began, "model": time.perf_counter() - decoded}
        timing = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in times.items())
        return JSONResponse(said, headers={"server-timing": timing})

    async def _ask(self, pixels: np.ndarray, wish: str) -> Said:
        """As it is sent."""
        has_maps = wish != WISHES[0]
        try:
            said = await asyncio.wrap_future(self._worker.submit(pixels, wants_maps=has_maps))
        except MultitlError as error:
            raise without_maps(error) from error
        drawn = pixels if wish == WISHES[2] else None

        def as_sent(one: Said) -> Said:
            return _likeliest_first(sent(one, drawn) if has_maps else one)

        if "" in self._answerer.heads:
            return await run_in_threadpool(as_sent, said)
        return {name: await run_in_threadpool(as_sent, one) for name, one in said.items()}

    def _decode(self, data: bytes) -> np.ndarray:
        """Pixels as the network takes them; the reader's own limits hold, and all threads together decode no more than
        the largest image that it allows."""
        try:
            if not data:
                raise UnreadableImage("empty: 0 bytes")
            return decode_pixels(data, self._answerer.preprocess, self._budget)
        except UnreadableImage as error:
            raise unreadable(str(error), error.fix) from error


def _likeliest_first(said: Said) -> Said:
    """As `multitl predict --json` has them."""
    if "probabilities" not in said:
        return said
    return said | {"probabilities": dict(sorted(said["probabilities"].items(), key=lambda pair: -pair[1]))}


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
    lack = answerer.open_maps if isinstance(answerer.open_maps, MultitlError) else None
    names = [names for _, names in answerer.heads.values()]
    kinds = [kind for kind, _ in answerer.heads.values()]
    page = environment.from_string((HERE / "page.html.j2").read_text(encoding="utf-8")).render(
        name=answerer.name, runtime=answerer.runtime, has_heads="" not in answerer.heads, version=__version__,
        what=KINDS[kinds[0]] if len(kinds) == 1 else "heads", count=len(names[0]) if len(kinds) == 1 else len(kinds),
        is_number=kinds == ["number"], preprocess=answerer.preprocess, most_bytes=MOST_BYTES, lack=lack,
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
    if error.status == 408:  # whoever else is still sending may end: uvicorn throws the rest away, and they read why
        headers["connection"] = "close"
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
