"""What a person sees while they wait, on stderr: bars on a terminal; plain lines where the output goes to a file; below
a notebook's cell lines with bars, written anew in their place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from multitl.system.messages import console, is_heard
from multitl.system.notebooks import Display, Line, in_notebook

MINUTE = 60.0  # seconds: so often there is a line at least
FEW = 5  # steps of which each is a thing of its own: their rate says nothing
MOMENT = 1.0  # seconds: and at most so often, where epochs are short
BLINK = 0.25  # seconds: and so often a display is written anew at most


class RateColumn(ProgressColumn):
    """Steps a second, e.g. "41.3/s"."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(show_rate(speed) if speed else "-/s", style="progress.data.speed")


def progress_bar(*, is_shown: bool = True) -> Progress | PlainProgress:
    """A live bar: description, bar, done/total, rate, time left, and a free `note`; or the same in plain lines, or in a
    notebook. Nothing where the logger "multitl" tells warnings alone.
    """
    screen, is_shown = console(), is_shown and is_heard()
    if is_shown and in_notebook():
        return NotebookProgress(screen)
    if is_shown and not screen.is_interactive:
        return PlainProgress(screen)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=screen,
        refresh_per_second=4,
        redirect_stdout=False,  # it may go to a file while the bar is on the terminal
        disable=not is_shown,
    )


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """A bar without an end, for what nobody can count."""
    with progress_bar() as bar:
        bar.add_task(description, total=None, note="")
        yield


@dataclass
class Work:
    """What is being done. begun: how much was done when it was taken up.  said: how much, when a line last said so."""

    description: str
    total: float | None
    done: float
    begun: float
    note: str
    started: float
    said: float | None = None


class PlainProgress(AbstractContextManager):
    """The part of Rich's `Progress` that is used here, in lines: one when work is done, one with each note (an epoch),
    and one a minute, whatever happens.
    """

    def __init__(self, screen: Console) -> None:
        self.console, self._works, self._ended = screen, list[Work](), threading.Event()
        self._last_line = -MINUTE

    def __enter__(self) -> PlainProgress:
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._ended.set()
        self._say_the_rest()

    def add_task(self, description: str, *, total: float | None, completed: float = 0, note: str = "") -> TaskID:
        self._say_the_rest()
        self._works.append(Work(description.strip(), total, completed, completed, note, time.monotonic()))
        if note:
            self._say(self._works[-1])
        return TaskID(len(self._works) - 1)

    def advance(self, task: TaskID, advance: float = 1) -> None:
        self._works[task].done += advance

    def update(
        self, task: TaskID, *, total: float | None = None, completed: float | None = None, note: str | None = None
    ) -> None:
        work = self._works[task]
        work.total = work.total if total is None else total
        work.done = work.done if completed is None else completed
        if note is not None:
            work.note = note
            if time.monotonic() - self._last_line >= MOMENT:
                self._say(work)

    def _beat(self) -> None:
        while not self._ended.wait(MINUTE):
            if self._works:
                self._say(self._works[-1])

    def _say_the_rest(self) -> None:
        for work in self._works:
            if work.done > work.begun and work.said != work.done:
                self._say(work)

    def _say(self, work: Work) -> None:
        now = time.monotonic()
        work.said, self._last_line = work.done, now
        self.console.print(describe(work, now), markup=False, soft_wrap=True)


class NotebookProgress(PlainProgress):
    """The same in one display: a line a work, the last of which is written anew as it goes on.

    In the thread that calls, for a display belongs to that of the cell; so nothing moves during a long step.
    """

    def __init__(self, screen: Console) -> None:
        super().__init__(screen)
        self._display, self._ended_works = Display(), list[Line]()

    def __enter__(self) -> NotebookProgress:
        return self

    def __exit__(self, *reason: object) -> None:
        self._show()

    def add_task(self, description: str, *, total: float | None, completed: float = 0, note: str = "") -> TaskID:
        self._ended_works += [_line(work) for work in self._works[-1:]]
        task = super().add_task(description, total=total, completed=completed, note=note)
        self._show()
        return task

    def advance(self, task: TaskID, advance: float = 1) -> None:
        super().advance(task, advance)
        self._show_at_times()

    def update(
        self, task: TaskID, *, total: float | None = None, completed: float | None = None, note: str | None = None
    ) -> None:
        super().update(task, total=total, completed=completed, note=note)
        self._show_at_times()

    def _say(self, work: Work) -> None:
        """Displays are not written line by line."""

    def _show_at_times(self) -> None:
        if time.monotonic() - self._last_line >= BLINK:
            self._show()

    def _show(self) -> None:
        self._last_line = time.monotonic()
        self._display.show([*self._ended_works, *map(_line, self._works[-1:])])


def _line(work: Work) -> Line:
    share = min(work.done / work.total, 1.0) if work.total else None
    return Line(describe(work, time.monotonic()), share)


def describe(work: Work, now: float) -> str:
    """ "finetune 80/640, 2.1/s, 4 min left, loss 0.1230"."""
    of = f"/{work.total:,.0f}" if work.total is not None else ""
    count = f" {work.done:,.0f}{of}" if of or work.done else ""
    seconds, done = now - work.started, work.done - work.begun
    parts = [f"{work.description}{count}"]
    if work.total is not None and work.done >= work.total:
        parts.append(f"in {show_wait(seconds)}")
    elif done and seconds and not 0 < (work.total or 0) <= FEW:
        rate = done / seconds
        parts += [show_rate(rate), *([f"{show_wait((work.total - work.done) / rate)} left"] if work.total else [])]
    elif seconds >= MOMENT:
        parts.append(f"for {show_wait(seconds)}")
    return ", ".join([*parts, *([work.note] if work.note else [])])


def show_rate(speed: float) -> str:
    """ "41.3/s"."""
    return f"{speed:,.{0 if speed >= 100 else 1}f}/s"


def show_wait(seconds: float) -> str:
    """ "12 s", "4 min", "1 h 20 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
