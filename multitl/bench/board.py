"""What a person sees of a race: a live table on stderr while it runs; tables on stdout at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from multitl.bench.comparison import Change
from multitl.bench.estimates import Ratio, Spread
from multitl.bench.jobs import Job, Record
from multitl.bench.standings import Contest, Standing, rank
from multitl.system.messages import console
from multitl.system.printing import results, show, table

STAGES = {"check": "checking", "measure": "measuring", "job": "whole job of"}
RIGHT = ("images/s", "of the best", "of native", "import", "load", "compile", "memory", "device", "whole job")


class Board(AbstractContextManager):
    """The live table. Where stderr is no terminal, a line a process."""

    def __init__(self, budget: float) -> None:
        self._console, self._budget, self._started = console(), budget, time.monotonic()
        self._tables: list[Table] = []
        self._now = ""
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=2, transient=True)

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """What is being done now."""
        self._now = text
        if not self._console.is_terminal:
            self._console.print(text, markup=False)

    def start(self, job: Job, left: float) -> None:
        cell = job.cell
        turn = f", repetition {job.repetition + 1}" if job.stage == "measure" else ""
        where = f"{cell.task} of {cell.backbone}, batch {cell.batch_size}, {cell.dtype}"
        self.say(f"{STAGES[job.stage]} {cell.contender} at {where}{turn}; at most {left / 60:.1f} minutes left")

    def show(self, records: Sequence[Record]) -> None:
        if self._console.is_terminal:
            self._tables = [contest_table(contest) for contest in rank(records)]

    def _render(self) -> Group:
        spent = time.monotonic() - self._started
        done = min(1.0, spent / self._budget)
        bar = "━" * round(32 * done) + "╌" * (32 - round(32 * done))
        progress = f"{bar}  {spent / 60:.1f} of at most {self._budget / 60:.1f} minutes"
        return Group(*self._tables, Text(progress), Text(self._now))


def contest_table(contest: Contest) -> Table:
    """One contest, the best first."""
    columns = ["contender", "images/s", "of the best", "of native", "import", "load", "compile", "memory"]
    has_device = any(standing.device_bytes for standing in contest.standings)
    has_jobs = any(standing.job for standing in contest.standings)
    columns += (["device"] if has_device else []) + (["whole job", "accuracy"] if has_jobs else []) + [""]
    grid = table(*columns, right=RIGHT, prose=[""])
    grid.title, grid.title_justify = contest.title, "left"
    for standing in contest.standings:
        grid.add_row(*_row(standing, has_device=has_device, has_jobs=has_jobs))
    return grid


def _row(standing: Standing, *, has_device: bool, has_jobs: bool) -> list[str]:
    seconds = [f"{standing.seconds[name]:.1f} s" if standing.seconds else "" for name in ("import", "load", "compile")]
    remark = standing.note if standing.is_ranked else f"{standing.status}: {standing.note}".removesuffix(": ")
    job = f"{standing.job.median:.0f} s" if standing.job else ""
    accuracy = "" if standing.accuracy is None else f"{standing.accuracy:.1%}"
    return [
        standing.contender, show_spread(standing.rate), show_ratio(standing.to_best), show_ratio(standing.to_native),
        *seconds, show_bytes(standing.host_bytes), *([show_bytes(standing.device_bytes)] if has_device else []),
        *([job, accuracy] if has_jobs else []), remark,
    ]  # fmt: skip


def print_standings(contests: Sequence[Contest], warnings: Sequence[str]) -> None:
    """The final tables, after what makes them doubtful."""
    for warning in warnings:
        results().print(f"warning: {warning}")
    for contest in contests:
        show(contest_table(contest))


def print_changes(changes: Sequence[Change]) -> None:
    """What `compare` found."""
    grid = table(
        "contest", "contender", "before", "after", "after / before", "", right=["before", "after"], prose=["contest"]
    )
    for change in changes:
        grid.add_row(
            change.contest, change.contender, show_spread(change.before), show_spread(change.after),
            show_ratio(change.ratio), change.verdict,
        )  # fmt: skip
    show(grid)


def show_share(deviation: float | None) -> str:
    """ "1.2e-06"."""
    return "" if deviation is None else f"{deviation:.1e}"


def show_spread(spread: Spread | None) -> str:
    """ "4.71 (4.6–4.8)"."""
    if spread is None:
        return ""
    digits = 1 if spread.median >= 20 else 2
    ends = f" ({spread.low:.{digits}f}–{spread.high:.{digits}f})" if spread.count > 1 else ""
    return f"{spread.median:.{digits}f}{ends}"


def show_ratio(ratio: Ratio | None) -> str:
    """ "0.96 [0.91, 1.02]"."""
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else ""


def show_bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count else ""
