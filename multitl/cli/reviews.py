"""What `review` and `drift` find, on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from multitl.cli.terminal import results, show, table
from multitl.system.printing import printable

if TYPE_CHECKING:
    from multitl.reviewing.drift import Drift
    from multitl.reviewing.reviewing import Review

SHOWN = 5  # of each kind
LONGEST = 120  # characters of a path


def print_review(review: Review, command: str) -> None:
    """The surest of each kind, how many there are, and how to go on."""
    screen, grid = results(), table("issue", "image", "label", "suggested", "score", right=["score"], prose=["image"])
    seen = dict.fromkeys(review.about["counts"], 0)
    for one in review.issues:
        seen[one["issue"]] += 1
        if seen[one["issue"]] <= SHOWN:
            label, suggested = printable(one["label"]), printable(one["suggested"])
            grid.add_row(one["issue"], _short(printable(one["path"])), label, suggested, f"{one['score']:.3f}")
    if review.issues:
        show(grid)
    counts = ", ".join(f"{count} {kind}" for kind, count in review.about["counts"].items())
    screen.print(f"found   {counts}", soft_wrap=True)
    screen.print(f"issues  {printable(review.table)}", soft_wrap=True)
    screen.print(f"page    {printable(review.page)}", soft_wrap=True)
    if review.issues:
        screen.print("\nWhat to try next", soft_wrap=True)
        screen.print("  write keep, remove or a class into its column verdict, then:", soft_wrap=True)
        screen.print(f"    {printable(command)}", soft_wrap=True)


def _short(path: str) -> str:
    """Without its middle where it is very long; the table has all of it."""
    return path if len(path) <= LONGEST else f"{path[: LONGEST // 3]} ... {path[-LONGEST // 2 :]}"


def print_drift(drift: Drift) -> None:
    """The verdict, the two figures behind it, and the images that are furthest away."""
    about, screen = drift.about(), results()
    grid = table("image", "distance", right=["distance"], prose=["image"])
    for one in about["rows"][:SHOWN]:
        if one["unknown"]:
            grid.add_row(_short(printable(one["path"])), f"{one['distance']:.3f}")
    if grid.row_count:
        show(grid)
    screen.print(_unknown(drift, about["false_alarms"]), soft_wrap=True)
    low, high = drift.area_interval
    screen.print(f"told apart  AUC {drift.area:.3f} [{low:.3f}, {high:.3f}], 0.5 is guessing", soft_wrap=True)
    if drift.known:
        screen.print(f"known   {drift.known:,} of them are images of the run", soft_wrap=True)
    screen.print(f"\n{drift.verdict}", soft_wrap=True)


def _unknown(drift: Drift, false_alarms: float) -> str:
    if drift.unknown is None or drift.unknown_interval is None:
        needed = math.ceil(1 / false_alarms)
        return f"unknown cannot be told by {drift.compared_with} images that the run was judged on: {needed} are needed"
    low, high = drift.unknown_interval
    share = f"{drift.unknown:.1%} of {drift.images:,} images [{low:.1%}, {high:.1%}]"
    return f"unknown {share}, where {false_alarms:.0%} of the run's own are"
