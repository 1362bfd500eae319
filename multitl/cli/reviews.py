"""What `review` finds, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multitl.cli.terminal import results, show, table
from multitl.system.printing import printable

if TYPE_CHECKING:
    from multitl.reviewing.reviewing import Review

SHOWN = 5  # of each kind


def print_review(review: Review, command: str) -> None:
    """The surest of each kind, how many there are, and how to go on."""
    screen, grid = results(), table("issue", "image", "label", "suggested", "score", right=["score"], prose=["image"])
    seen = dict.fromkeys(review.about["counts"], 0)
    for one in review.issues:
        seen[one["issue"]] += 1
        if seen[one["issue"]] <= SHOWN:
            label, suggested = printable(one["label"]), printable(one["suggested"])
            grid.add_row(one["issue"], printable(one["path"]), label, suggested, f"{one['score']:.3f}")
    if review.issues:
        show(grid)
    counts = ", ".join(f"{count} {kind}" for kind, count in review.about["counts"].items())
    screen.print(f"found   {counts}", soft_wrap=True)
    screen.print(f"issues  {printable(review.table)}", soft_wrap=True)
    if review.issues:
        screen.print("\nWhat to try next", soft_wrap=True)
        screen.print("  write keep, remove or a class into its column verdict, then:", soft_wrap=True)
        screen.print(f"    {printable(command)}", soft_wrap=True)
