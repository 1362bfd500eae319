"""`multitl bench compare A B`: what changed between two races, contender by contender."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multitl.bench.estimates import Ratio, Spread, rate_of, ratio, spread
from multitl.bench.results import read_results
from multitl.bench.standings import rank
from multitl.errors import RunError


@dataclass(frozen=True)
class Change:
    """ratio: images/s of the second race over the first's."""

    contest: str
    contender: str
    before: Spread | None
    after: Spread | None
    ratio: Ratio | None

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return "only before" if self.before else "only after"
        if not self.ratio.is_clear:
            return "no clear change"
        return "faster" if self.ratio.value > 1 else "slower"


def compare(first: str | Path, second: str | Path) -> list[Change]:
    """Every contender that was timed in one of the races. Raises RunError for files that are no results, or where
    there is nothing to compare.
    """
    before, after = (_runs(path) for path in (first, second))
    changes = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key, []), after.get(key, [])
        found = ratio(new, old)
        changes.append(Change(*key, _spread(old), _spread(new), found))
    if not any(change.ratio for change in changes):
        raise RunError(
            "The two races have nothing in common.",
            expected="a backbone, task, batch size, dtype and contender that both measured",
            received=f"{len(before)} figures in {first}, {len(after)} in {second}",
            fix="run both with the same options",
        )
    return changes


def _runs(path: str | Path) -> dict[tuple[str, str], list[list[float]]]:
    """(contest, contender) -> images/s by repetition and window; a folder stands for its results.jsonl."""
    file = Path(path) / "results.jsonl" if Path(path).is_dir() else Path(path)
    contests = rank(read_results(file).records)
    return {(c.title, s.contender): [list(run) for run in s.runs] for c in contests for s in c.standings if s.runs}


def _spread(runs: list[list[float]]) -> Spread | None:
    return spread([rate_of(run) for run in runs])
