"""Records become standings: who did what, how fast, beside whom. Terminal, Markdown and page show these."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from multitl.bench.agreement import Verdict, judge
from multitl.bench.estimates import Ratio, Runs, Spread, rate_of, ratio, spread
from multitl.bench.jobs import OPPONENTS, PHASES, Cell, Record


@dataclass(frozen=True)
class Standing:
    """One contender in one contest.

    status: "ranked", "disagrees", or why there are no figures.  rate: images/s.  to_best: its rate over the best
    ranked contender's.  to_native: over the native loop of the same framework.  seconds: medians of PHASES.
    job: of whole jobs; accuracy: after the last epoch.  bytes are the most of any process that was timed.
    """

    contender: str
    status: str
    note: str
    rate: Spread | None
    runs: Runs
    to_best: Ratio | None
    to_native: Ratio | None
    seconds: dict[str, float]
    host_bytes: int
    device_bytes: int
    verdict: Verdict | None
    losses: list[float]
    job: Spread | None
    accuracy: float | None
    accuracy_seconds: Spread | None
    curve: list[list[float]]

    @property
    def is_ranked(self) -> bool:
        return self.status == "ranked"


@dataclass(frozen=True)
class Contest:
    """Standings, the best first, then those without a rank. gap: the largest difference between two loss curves, as a
    share of the highest loss; None without any.
    """

    cell: Cell
    standings: list[Standing]
    gap: float | None

    @property
    def title(self) -> str:
        cell = self.cell
        return f"{cell.backbone}, {cell.task}, batch {cell.batch_size}, {cell.dtype}"


def rank(records: Sequence[Record]) -> list[Contest]:
    """All contests, in the order in which they were first met."""
    by_contest: dict[Cell, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        by_contest[record.job.cell.contest][record.job.cell.contender].append(record)
    return [_contest(cell, dict(by_contender)) for cell, by_contender in by_contest.items()]


def _contest(cell: Cell, by_contender: dict[str, list[Record]]) -> Contest:
    checks = {name: r for name, records in by_contender.items() for r in records if r.job.stage == "check"}
    finished = {name: record for name, record in checks.items() if record.state == "done"}
    verdicts = judge(finished, cell.dtype)
    runs = {name: _runs(records) for name, records in by_contender.items()}
    fair = {name: runs[name] for name in runs if runs[name] and not _faults(verdicts.get(name))}
    best = max(fair, key=lambda name: statistics.median(map(rate_of, fair[name])), default=None)
    standings = []
    for name, records in by_contender.items():
        opponent = OPPONENTS.get(name)
        to_best = ratio(runs[name], fair[best]) if best and name in fair else None
        to_native = ratio(runs[name], fair[opponent]) if opponent in fair and name in fair else None
        standings.append(_standing(name, records, runs[name], verdicts.get(name), to_best, to_native))
    order = sorted(standings, key=lambda s: (not s.is_ranked, -s.rate.median if s.rate else _start_up(s)))
    return Contest(cell, order, _gap([s.losses for s in order if s.is_ranked and s.losses]))


def _standing(name: str, records: list[Record], runs: Runs, verdict: Verdict | None, to_best, to_native) -> Standing:
    measured = [record for record in records if record.state == "done" and record.job.stage != "check"]
    timed = [record for record in measured if record.job.stage == "measure"]
    jobs = [record for record in measured if record.job.stage == "job"]
    reached = [record.accuracy_seconds for record in jobs if record.accuracy_seconds]
    status, note = _status(records, measured, verdict)
    return Standing(
        name, status, note, spread([rate_of(run) for run in runs]), runs, to_best, to_native,
        seconds={phase: statistics.median(r.seconds[phase] for r in timed) for phase in PHASES} if timed else {},
        host_bytes=max((r.host_bytes for r in timed or measured), default=0),
        device_bytes=max((r.device_bytes for r in timed or measured), default=0),
        verdict=verdict,
        losses=next((r.losses for r in records if r.losses), []),
        job=spread([r.seconds["job"] for r in jobs]),
        accuracy=statistics.median(r.curve[-1][1] for r in jobs) if jobs else None,
        accuracy_seconds=spread(reached),
        curve=jobs[-1].curve if jobs else [],
    )  # fmt: skip


def _status(records: list[Record], measured: list[Record], verdict: Verdict | None) -> tuple[str, str]:
    failed = [record for record in records if record.state != "done"]
    notes = "; ".join(dict.fromkeys(record.note for record in [*failed, *measured] if record.note))
    if _faults(verdict):
        return "disagrees", f"not ranked: {', '.join(_faults(verdict))} differ" + (f"; {notes}" if notes else "")
    if measured:
        return "ranked", "; ".join(filter(None, [f"{len(failed)} of its runs failed" if failed else "", notes]))
    if failed:
        return failed[-1].state, notes
    return "out of time", "the budget was used up before it was measured"


def _runs(records: list[Record]) -> list[list[float]]:
    return [record.rates for record in records if record.window_seconds and record.job.stage == "measure"]


def _faults(verdict: Verdict | None) -> tuple[str, ...]:
    return verdict.faults if verdict else ()


def _start_up(standing: Standing) -> float:
    """Where nothing but the start was measured, the soonest ready is the best."""
    return sum(standing.seconds.values()) if standing.seconds else float("inf")


def _gap(curves: list[list[float]]) -> float | None:
    if not curves:
        return None
    highest = max(max(curve) for curve in curves)
    steps = zip(*curves, strict=False)
    return max(max(step) - min(step) for step in steps) / highest if highest > 0 else None
