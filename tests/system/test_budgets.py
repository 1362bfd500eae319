"""Threads together never hold more than the budget, each gets its turn, and what fails gives back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from multitl.system.budgets import Budget


class Count:
    """How much is held at once, counted by those who hold it."""

    def __init__(self) -> None:
        self.now = self.most = self.holders = self.most_holders = 0
        self._lock = threading.Lock()

    def hold(self, budget: Budget, amount: int) -> int:
        with budget.take(amount):
            with self._lock:
                self.now, self.holders = self.now + amount, self.holders + 1
                self.most, self.most_holders = max(self.most, self.now), max(self.most_holders, self.holders)
            threading.Event().wait(0.0005)
            with self._lock:
                self.now, self.holders = self.now - amount, self.holders - 1
        return amount


def test_never_more_than_the_budget_and_all_get_their_turn() -> None:
    budget, count = Budget(10), Count()
    amounts = [1 + index * 7 % 10 for index in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda amount: count.hold(budget, amount), amounts)) == amounts
    assert 5 < count.most <= 10


def test_what_is_larger_than_the_budget_goes_alone() -> None:
    budget, count = Budget(10), Count()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda amount: count.hold(budget, amount), [10**9, 1, 10**9, 2] * 10))
    alone = Count()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda amount: alone.hold(budget, amount), [10**9] * 20))
    assert alone.most_holders == 1


def test_small_ones_are_held_side_by_side() -> None:
    """All three must be inside at once for the barrier to open."""
    budget, barrier = Budget(3), threading.Barrier(3)

    def meet(_: int) -> bool:
        with budget.take(1):
            barrier.wait(10)
        return True

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(meet, range(3))) == [True] * 3


def test_a_large_one_waits_and_then_goes() -> None:
    budget, order = Budget(10), []
    with ThreadPoolExecutor(1) as pool:
        with budget.take(4):
            waiting = pool.submit(lambda: order.append("large") if enter(budget, 7) else None)
            assert not waiting.done()
            order.append("small")
        waiting.result(10)
    assert order == ["small", "large"]


def enter(budget: Budget, amount: int) -> bool:
    with budget.take(amount):
        return True


def test_an_exception_gives_back() -> None:
    budget = Budget(2)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), budget.take(2):
            raise ZeroDivisionError
    assert enter(budget, 2)
