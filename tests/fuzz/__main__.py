"""`python -m tests.fuzz`: try mutants of files on the readers. Exit code 1 if one failed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import campaign
from .readers import READERS


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; all of them if none")
    parser.add_argument("--mutants", type=int, default=2000, help="for each reader (2000)")
    parser.add_argument("--seed", type=int, default=0, help="other mutants for another (0)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (one a core)")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="a folder to keep them in")
    parser.add_argument("--table", type=Path, help="a Markdown file for the figures")
    options = parser.parse_args(arguments)
    if unknown := set(options.readers) - READERS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    tallies = []
    for reader in options.readers or READERS:
        tally = campaign.run(reader, options.mutants, options.seed, options.jobs, _shower(reader, options.mutants))
        tallies.append(tally)
        print(file=sys.stderr)
        for place in campaign.save(tally, options.seed, options.failures):
            print(f"{place}: {place.joinpath('reason.txt').read_text(encoding='utf-8').partition(chr(10))[0]}")
        if options.table:
            options.table.write_text(campaign.table(tallies), encoding="utf-8")
    print(campaign.table(tallies), end="")
    return int(any(tally.failed for tally in tallies))


def _shower(reader: str, mutants: int):
    def show(done: int) -> None:
        if done % 50 == 0 or done == mutants:
            print(f"\r{reader} {done:,} of {mutants:,}", end="", file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
