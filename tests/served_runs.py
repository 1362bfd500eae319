"""A server in a thread of the tests' own process, asked over the network as anyone asks it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitl.serving.answers import Answerer
from multitl.serving.app import make_app
from multitl.serving.server import LOOPBACK, listen, make_server
from multitl.serving.worker import Worker

BOUNDARY = "----a-boundary"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def predict(self, body: bytes, query: str = "", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", "/predict" + query, body, {"content-type": "application/octet-stream"} | named)


def form(*parts: tuple[str, bytes], end: str = f"--{BOUNDARY}--\r\n") -> bytes:
    """parts: Content-Disposition without its first word, and content."""
    texts = [
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {how}\r\n\r\n".encode() + content + b"\r\n"
        for how, content in parts
    ]
    return b"".join(texts) + end.encode()


@contextmanager
def serving(answerer: Answerer, hosts: Collection[str] | None = LOOPBACK) -> Iterator[Served]:
    worker = Worker(answerer)
    worker.start(np.zeros(answerer.preprocess.shape, np.uint8))
    with listen("127.0.0.1", 0) as listening:
        server = make_server(make_app(answerer, worker, hosts))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Served(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
            worker.close()
