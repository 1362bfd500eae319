"""So much of something at a time, whatever the number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """What threads may hold together: small amounts side by side, one larger than the whole budget alone.

    A thread must not take from the same budget twice, and of two budgets all threads take in the same order; then each
    gets its turn, because whoever holds something needs nothing more to go on.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Wait until there is room for `amount`; give it back at the end of the block, however that ends."""
        amount = min(amount, self.limit)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + amount <= self.limit)
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()
