"""bench.html: one page that shows a race. It loads nothing and runs no script, like the report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multitl.bench.board import show_bytes, show_ratio, show_share, show_spread
from multitl.bench.jobs import MULTITL
from multitl.bench.notes import describe_method, machine_facts, warnings_of
from multitl.bench.results import Results
from multitl.bench.standings import PHASES, Contest, Standing, rank
from multitl.judging.axes import Scale, Tick, linear_axis
from multitl.judging.charts import LineChart, draw_lines
from multitl.judging.reporting import make_environment

WIDTH, LEFT, RIGHT, ROW, TOP = 560.0, 150.0, 470.0, 26.0, 8.0
SHOWN = {**dict.fromkeys(MULTITL, "ours"), "multitl": "ours", "textbook": "plain"}  # the others: native


@dataclass(frozen=True)
class Part:
    """A piece of a bar, and which of the colours it has."""

    x: float
    width: float
    kind: str


@dataclass(frozen=True)
class Bar:
    """whisker: from the lowest to the highest repetition, None for a single one."""

    name: str
    y: float
    parts: list[Part]
    whisker: tuple[float, float] | None
    label: str
    label_x: float


@dataclass(frozen=True)
class BarChart:
    title: str
    width: float
    height: float
    left: float
    right: float
    bottom: float
    ticks: list[Tick]
    bars: list[Bar]


def to_page(results: Results, command: str) -> str:
    """HTML. Text that came from a user or a framework is escaped by the template."""
    contests = rank(results.records)
    return make_environment().get_template("bench.html.j2").render(
        head=results.head, machine=machine_facts(results.head, results.records), command=command,
        warnings=warnings_of(results.head), notes=describe_method(results.head, results.records),
        contests=[_show(contest) for contest in contests],
    )  # fmt: skip


def _show(contest: Contest) -> dict[str, Any]:
    ranked = [standing for standing in contest.standings if standing.is_ranked]
    return {
        "contest": contest,
        "charts": [chart for chart in (_rates(ranked), _starts(ranked), _memory(ranked), _jobs(ranked)) if chart],
        "losses": draw_losses({s.contender: s.losses for s in ranked if s.losses}),
        "accuracies": draw_accuracies({s.contender: s.curve for s in ranked if s.curve}),
        "rows": [_cells(standing) for standing in contest.standings],
    }


def _cells(s: Standing) -> dict[str, Any]:
    return {
        "name": s.contender,
        "kind": SHOWN.get(s.contender, "native"),
        "is_ranked": s.is_ranked,
        "status": s.status,
        "note": s.note,
        "rate": show_spread(s.rate),
        "to_best": show_ratio(s.to_best),
        "to_native": show_ratio(s.to_native),
        "logits": show_share(s.verdict.logits if s.verdict else None),
        "losses": show_share(s.verdict.losses if s.verdict else None),
        "trainable": f"{s.verdict.trainable:,}" if s.verdict and s.verdict.trainable else "",
    }


def _rates(ranked: Sequence[Standing]) -> BarChart | None:
    rows = [(s, s.rate) for s in ranked if s.rate]
    bars = [
        (s.contender, [(r.median, SHOWN.get(s.contender, "native"))], (r.low, r.high) if r.count > 1 else None,
         f"{r.median:.3g}") for s, r in rows
    ]  # fmt: skip
    return draw_bars("Images a second", bars)


def _starts(ranked: Sequence[Standing]) -> BarChart | None:
    rows = sorted((s for s in ranked if s.seconds), key=lambda s: sum(s.seconds.values()))
    bars = [
        (s.contender, [(s.seconds[phase], phase) for phase in PHASES], None, f"{sum(s.seconds.values()):.1f} s")
        for s in rows
    ]
    return draw_bars("Seconds to the first step: import, load, compile", bars)


def _memory(ranked: Sequence[Standing]) -> BarChart | None:
    has_device = any(s.device_bytes for s in ranked)
    rows = [(s, s.device_bytes if has_device else s.host_bytes) for s in ranked]
    bars = [
        (s.contender, [(count / 1e9, SHOWN.get(s.contender, "native"))], None, show_bytes(count))
        for s, count in sorted(rows, key=lambda row: row[1]) if count
    ]  # fmt: skip
    return draw_bars(f"Peak memory of the {'device' if has_device else 'process'}, GB", bars)


def _jobs(ranked: Sequence[Standing]) -> BarChart | None:
    rows = sorted(((s, s.job) for s in ranked if s.job), key=lambda row: row[1].median)
    bars = [
        (s.contender, [(job.median, SHOWN.get(s.contender, "native"))], None, f"{job.median:.0f} s") for s, job in rows
    ]
    return draw_bars("Seconds of the whole job", bars)


def draw_bars(title: str, rows: Sequence[tuple[str, list[tuple[float, str]], tuple[float, float] | None, str]]):
    """Horizontal bars from zero. rows: name, (length, kind) of each part, lowest and highest, label.

    None without rows.
    """
    if not rows:
        return None
    ends = [max(sum(length for length, _ in parts), *(whisker or (0, 0))) for _, parts, whisker, _ in rows]
    low, high, ticks = linear_axis(ends, is_share=False)
    x = Scale(low, high, LEFT, RIGHT)
    bars = [_bar(row, TOP + ROW * number, x) for number, row in enumerate(rows)]
    bottom = TOP + ROW * len(rows)
    marks = [Tick(x(at), label) for at, label in ticks]
    return BarChart(title, WIDTH, bottom + 24, LEFT, RIGHT, bottom, marks, bars)


def _bar(row: tuple[str, list[tuple[float, str]], tuple[float, float] | None, str], y: float, x: Scale) -> Bar:
    name, lengths, whisker, label = row
    parts, at = [], 0.0
    for length, kind in lengths:
        parts.append(Part(x(at), round(max(x(at + length) - x(at), 0.5), 2), kind))
        at += length
    end = max(at, whisker[1]) if whisker else at
    return Bar(name, y, parts, (x(whisker[0]), x(whisker[1])) if whisker else None, label, x(end) + 8)


def draw_losses(series: dict[str, list[float]]) -> LineChart | None:
    """Losses of contenders over steps 1 ... n. None without any."""
    return draw_lines(
        {name: [(float(step), v) for step, v in enumerate(line, start=1)] for name, line in series.items()}
    )


def draw_accuracies(series: dict[str, list[list[float]]]) -> LineChart | None:
    """Validation accuracy over seconds since each process started. None without any."""
    return draw_lines({name: [(at, accuracy) for at, accuracy in curve] for name, curve in series.items()})
