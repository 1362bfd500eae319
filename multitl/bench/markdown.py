"""RESULTS.md: the same standings as plain text for a repository."""

from __future__ import annotations

from collections.abc import Sequence

from multitl.bench.board import show_bytes, show_ratio, show_share, show_spread
from multitl.bench.notes import describe_method, machine_facts, warnings_of
from multitl.bench.results import Results
from multitl.bench.standings import Standing, rank

HEADING = "# Benchmark\n\nMade by"  # by which a page is known
COLUMNS = (
    "contender", "images/s", "of the best", "of its framework's native loop", "import s", "load s", "compile s",
    "host memory", "device memory", "logits differ", "losses differ", "remark",
)  # fmt: skip
JOB_COLUMNS = ("contender", "whole job, s", "to the accuracy asked for, s", "accuracy", "remark")


def to_markdown(results: Results, command: str) -> str:
    """A document that names the machine and how it was measured."""
    lines = [f"{HEADING} `{command}`.", ""]
    lines += [f"**{warning}**\n" for warning in warnings_of(results.head)]
    lines += [f"- {label}: {text}" for label, text in machine_facts(results.head, results.records).items()]
    for contest in rank(results.records):
        lines += ["", f"## {contest.title}", "", *_table(COLUMNS, [_row(s) for s in contest.standings])]
        if contest.gap is not None:
            lines += ["", f"Loss curves of the ranked lie within {contest.gap:.1e} of the highest loss of each other."]
        if jobs := [standing for standing in contest.standings if standing.job]:
            lines += ["", *_table(JOB_COLUMNS, [_job_row(standing) for standing in sorted(jobs, key=_job_seconds)])]
    lines += ["", "## How it was measured", ""]
    lines += [f"- {note}" for note in describe_method(results.head, results.records)]
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: list[list[str]]) -> list[str]:
    kept = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in rows)]
    lines = [[columns[i] for i in kept], ["---" for _ in kept], *([row[i] for i in kept] for row in rows)]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def _row(s: Standing) -> list[str]:
    seconds = [f"{s.seconds[name]:.1f}" if s.seconds else "" for name in ("import", "load", "compile")]
    differences = [show_share(s.verdict.logits), show_share(s.verdict.losses)] if s.verdict else ["", ""]
    remark = s.note if s.is_ranked else f"**{s.status}** {s.note}"
    return [
        s.contender, show_spread(s.rate), show_ratio(s.to_best), show_ratio(s.to_native), *seconds,
        show_bytes(s.host_bytes), show_bytes(s.device_bytes), *differences, remark,
    ]  # fmt: skip


def _job_row(s: Standing) -> list[str]:
    accuracy = "" if s.accuracy is None else f"{s.accuracy:.3f}"
    return [s.contender, show_spread(s.job), show_spread(s.accuracy_seconds), accuracy, s.note]


def _job_seconds(s: Standing) -> float:
    return s.job.median if s.job else 0.0
