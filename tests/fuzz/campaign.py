"""Many mutants of one reader: counted by what became of them, and the failures kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .client import Files, Server, read_files, write_files
from .mutants import mutant, seeds
from .outcomes import BAD, KINDS, Outcome
from .readers import READERS, Reader

CORPUS = Path(__file__).resolve().parents[1] / "corpus"


@dataclass
class Failure:
    """The smallest mutant of its kind."""

    index: int
    outcome: Outcome
    files: Files

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))


@dataclass
class Tally:
    """What became of `mutants` of a reader. failures: by signature; `counts`: by kind."""

    reader: str
    mutants: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, Failure] = field(default_factory=dict)
    seconds: float = 0.0
    slowest: float = 0.0
    largest: float = 0.0

    def add(self, index: int, files: Files, outcome: Outcome) -> None:
        """Count one."""
        self.counts[outcome.kind] += 1
        self.slowest, self.largest = max(self.slowest, outcome.seconds), max(self.largest, outcome.megabytes)
        if outcome.is_failure:
            new = Failure(index, outcome, files)
            known = self.failures.setdefault(outcome.signature, new)
            self.failures[outcome.signature] = min(known, new, key=lambda one: one.size)

    @property
    def failed(self) -> int:
        return sum(self.counts[kind] for kind in BAD)


def run(reader: str, mutants: int, seed: int, jobs: int, advance: Callable[[int], None] = lambda count: None) -> Tally:
    """Try the mutants 0 to `mutants` - 1 of a seed, in `jobs` servers at once, with quick workers."""
    tally, start = Tally(reader, mutants), time.monotonic()

    def share(first: int) -> None:
        with start_server(READERS[reader], quick=True) as server:
            for index in range(first, mutants, jobs):
                files = mutant(reader, seed, index)
                tally.add(index, files, server.run(files))
                advance(sum(tally.counts.values()))

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(share, range(jobs)))
    tally.seconds = time.monotonic() - start
    return tally


def start_server(reader: Reader, *, quick: bool = False) -> Server:
    """The server of one of READERS. quick: see `Server`, for readers that start workers."""
    return Server(reader.function, reader.backend, reader.is_folder, quick and reader.has_workers)


def corpus(reader: str) -> list[tuple[str, Files]]:
    """Names and files of what once made a reader fail. Of a folder it holds the damaged files only."""
    folder = CORPUS / reader
    whole = dict(seeds(reader)[0][1]) if READERS[reader].is_folder else {}
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [(path.name, whole | read_files(path)) for path in paths]


def save(tally: Tally, seed: int, folder: Path) -> list[Path]:
    """A folder for each kind of failure: the files as `input`, and what happened as `reason.txt`."""
    saved = []
    for number, (signature, failure) in enumerate(sorted(tally.failures.items())):
        place = folder / tally.reader / f"{number:03}-{failure.outcome.kind}-{seed}-{failure.index}"
        write_files(failure.files, place / "input")
        reason = f"{signature}\nreader {tally.reader}, seed {seed}, index {failure.index}\n\n{failure.outcome.detail}\n"
        (place / "reason.txt").write_text(reason, encoding="utf-8")
        saved.append(place)
    return saved


def table(tallies: Sequence[Tally]) -> str:
    """As Markdown."""
    head = ["reader", "mutants", *KINDS, "seconds", "slowest, s", "largest, MB"]
    rows = [
        [one.reader, f"{one.mutants:,}", *(f"{one.counts[kind]:,}" for kind in KINDS), f"{one.seconds:,.0f}",
         f"{one.slowest:.1f}", f"{one.largest:,.0f}"]
        for one in tallies
    ]  # fmt: skip
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
