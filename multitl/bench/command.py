"""`multitl bench` from its options to its files; cli only parses."""

from __future__ import annotations

from pathlib import Path

from multitl.bench.board import Board, print_standings
from multitl.bench.markdown import to_markdown
from multitl.bench.options import Options
from multitl.bench.page import to_page
from multitl.bench.race import Race
from multitl.bench.results import Results, write_csv
from multitl.bench.standings import rank
from multitl.data.scanning import check_for_training
from multitl.recipes import Recipe
from multitl.runs.locks import locked, run_lock
from multitl.system.writing import write_text

FILES = ("results.jsonl", "results.csv", "bench.html")


def bench(options: Options, folder: Path, *, markdown: str, command: str, overwrite: bool, resume: bool) -> Results:
    """Race, write, print. An interrupted race still leaves its page. Raises MultitlErrors before anything long."""
    if options.data:
        check_for_training(options.data, Recipe())
    with locked(run_lock(folder), folder), Board(options.budget) as board:
        race = Race(options, folder, board)
        race.claim(overwrite=overwrite, resume=resume)
        try:
            race.run()
        finally:
            if race.results.records:
                write_outputs(race.results, folder, markdown, command)
    print_standings(rank(race.results.records))
    return race.results


def write_outputs(results: Results, folder: Path, markdown: str, command: str) -> None:
    """Everything besides results.jsonl, which is there already."""
    write_csv(folder / "results.csv", results.records)
    write_text(folder / "bench.html", to_page(results, command))
    if markdown:
        write_text(Path(markdown), to_markdown(results, command))
