"""One thread owns the model; whoever has an image queues for it, and what waits is computed in small batches."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from multitl.serving.answerers import AT_ONCE, Answer, Said


class Worker:
    """A thread that opens a model, answers, and ends with `close`."""

    def __init__(self, open_model: Callable[[], Answer]) -> None:
        self._open = open_model
        self._waiting: queue.SimpleQueue[tuple[np.ndarray, Future[Said]] | None] = queue.SimpleQueue()
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="multitl-model", daemon=True)

    def start(self, example: np.ndarray) -> None:
        """Returns once the model is there and has answered an example, pixels (height, width, channels): by then all is
        compiled. Raises what loading it does."""
        self._thread.start()
        self._opened.result()
        self.submit(example).result()

    def submit(self, pixels: np.ndarray) -> Future[Said]:
        """What is said of an image, uint8 (height, width, channels), once it is its turn."""
        future: Future[Said] = Future()
        self._waiting.put((pixels, future))
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
            answer = self._open()
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        while batch := self._next():
            try:
                said = answer([pixels for pixels, _ in batch])
            except Exception as error:  # whoever asked hears of it; the next may fare better
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), one in zip(batch, said, strict=True):
                    future.set_result(one)

    def _next(self) -> list[tuple[np.ndarray, Future[Said]]]:
        """The next image, and those that wait already, up to AT_ONCE; none at the end. A future that was given up is
        not computed."""
        batch: list[tuple[np.ndarray, Future[Said]]] = []
        while len(batch) < AT_ONCE:
            try:
                one = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if one is None:
                self._waiting.put(None)  # for the next time
                break
            if one[1].set_running_or_notify_cancel():
                batch.append(one)
        return batch
