"""What a person sees while they wait: progress bars with rate and time left, on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class RateColumn(ProgressColumn):
    """Steps a second, e.g. "41.3/s"."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f}/s" if speed else "-/s", style="progress.data.speed")


def console() -> Console:
    """Where messages for people go. Results go to stdout, so that they can be piped."""
    return Console(stderr=True, highlight=False)


def progress_bar() -> Progress:
    """A live bar: description, bar, done/total, rate, time left, and a free `note`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console(),
        refresh_per_second=4,
    )
