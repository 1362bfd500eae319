"""`multitl bench` from its options to its files; cli only parses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from multitl.bench.board import Board, print_standings
from multitl.bench.jobs import Record
from multitl.bench.markdown import HEADING, to_markdown
from multitl.bench.notes import warnings_of
from multitl.bench.options import Options
from multitl.bench.race import Race
from multitl.bench.results import Results, write_csv
from multitl.bench.standings import rank
from multitl.errors import RunError, shorten
from multitl.runs.locks import locked, run_lock
from multitl.system.writing import write_text

FILES = ("results.jsonl", "results.csv", "bench.html")


def bench(options: Options, folder: Path, *, markdown: str, command: str, overwrite: bool, resume: bool) -> Results:
    """Race, write, print. An interrupted race still leaves its page. Raises MultitlErrors before anything long,
    and RunError at the end if nothing was measured.
    """
    if markdown:
        _check_page(Path(markdown), overwrite=overwrite)
    with locked(run_lock(folder), folder), Board(options.budget) as board:
        race = Race(options, folder, board)
        race.claim(overwrite=overwrite, resume=resume)
        try:
            race.run()
        finally:
            if race.results.records:
                write_outputs(race.results, folder, markdown, command)
    records = race.results.records
    print_standings(rank(records), warnings_of(race.results.head))
    if not any(record.state == "done" and record.job.stage != "check" for record in records):
        raise _nothing_measured(records)
    return race.results


def _check_page(file: Path, *, overwrite: bool) -> None:
    """Raises RunError for what cannot become a page, or is somebody's text: told now, not after the race."""
    is_there = os.path.lexists(file)
    if not file.parent.is_dir() or (is_there and not file.is_file()):
        raise RunError(
            f"{file} cannot be written.",
            expected="the path of a Markdown file, in a folder that is there",
            received="something else than a file" if is_there else f"no folder {file.parent}",
            fix="choose another --markdown",
        )
    if is_there and not overwrite and not _begins(file).startswith(HEADING):
        raise RunError(
            f"{file} exists already.",
            expected="a new file, an older page of multitl bench, or permission",
            received=str(file),
            fix="choose another --markdown, or add --overwrite to replace it",
        )


def _begins(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as text:
        return text.read(len(HEADING))


def _nothing_measured(records: Sequence[Record]) -> RunError:
    reasons = dict.fromkeys(f"{r.job.cell.contender}: {r.state}{f' ({r.note})' if r.note else ''}" for r in records
                            if r.state != "done")  # fmt: skip
    return RunError(
        "Nothing was measured.",
        expected="at least one contender that is timed within the budget",
        received=shorten(reasons, between="; ") or "the budget ended when all had been checked",
        fix="a larger --budget (with --resume it goes on), fewer --backends, or a smaller --image-size",
    )


def write_outputs(results: Results, folder: Path, markdown: str, command: str) -> None:
    """Everything besides results.jsonl, which is there already."""
    from multitl.bench.page import to_page  # with all that draws charts: a folder that is taken is told before

    write_csv(folder / "results.csv", results.records)
    write_text(folder / "bench.html", to_page(results, command))
    if markdown:
        write_text(Path(markdown), to_markdown(results, command))
