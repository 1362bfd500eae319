"""One thread owns the model; whoever has an image queues for it, and what waits is computed in small batches."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from multitl.errors import MultitlError
from multitl.serving.answers import AT_ONCE, Answer, Answerer, Said


@dataclass(frozen=True, eq=False)
class _Asked:
    """pixels: uint8 (height, width, channels)."""

    pixels: np.ndarray
    wants_maps: bool
    future: Future[Said]


class Worker:
    """A thread that opens a model, answers, and ends with `close`. What shows where it looks is opened when that is
    first asked for: it compiles a program of its own."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._maps: Answer | MultitlError | None = None
        self._waiting: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="multitl-model", daemon=True)

    def start(self, example: np.ndarray) -> None:
        """Returns once the model is there and has answered an example, pixels (height, width, channels): by then all is
        compiled. Raises what loading it does."""
        self._thread.start()
        self._opened.result()
        self.submit(example).result()

    def submit(self, pixels: np.ndarray, *, wants_maps: bool = False) -> Future[Said]:
        """What is said of an image, uint8 (height, width, channels), once it is its turn."""
        future: Future[Said] = Future()
        self._waiting.put(_Asked(pixels, wants_maps, future))
        return future

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """What waits already is answered first."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            answer = self._answerer.open()
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        while batch := self._next():
            _give(answer, [one for one in batch if not one.wants_maps])
            _give(self._with_maps, [one for one in batch if one.wants_maps])

    def _with_maps(self, images: Sequence[np.ndarray]) -> list[Said]:
        if self._maps is None:
            self._maps = self._open_maps()
        if isinstance(self._maps, MultitlError):
            raise self._maps.with_traceback(None)  # it would grow with every image
        return self._maps(images)

    def _open_maps(self) -> Answer | MultitlError:
        if isinstance(self._answerer.open_maps, MultitlError):
            return self._answerer.open_maps
        try:
            return self._answerer.open_maps()
        except MultitlError as error:
            return error

    def _next(self) -> list[_Asked]:
        """The next image, and those that wait already, up to AT_ONCE; none at the end. A future that was given up is
        not computed."""
        batch: list[_Asked] = []
        while len(batch) < AT_ONCE:
            try:
                one = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if one is None:
                self._waiting.put(None)  # for the next time
                break
            if one.future.set_running_or_notify_cancel():
                batch.append(one)
        return batch


def _give(answer: Answer, batch: list[_Asked]) -> None:
    if not batch:
        return
    try:
        said = answer([one.pixels for one in batch])
    except Exception as error:  # whoever asked hears of it; the next may fare better
        for one in batch:
            one.future.set_exception(error)
    else:
        for one, found in zip(batch, said, strict=True):
            one.future.set_result(found)
