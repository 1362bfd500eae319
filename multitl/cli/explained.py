"""How explanations look on a terminal: what is said of each image, where its picture lies, how exact the maps are."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multitl.cli.answers import answer_text
from multitl.judging.asked import EXPLANATIONS
from multitl.system.printing import printable, results, show, table


def print_explanations(rows: Sequence[Mapping[str, Any]], output: Path) -> None:
    """A line an image, the proof, the folder."""
    from multitl.judging.explanations import largest_error

    has_truth = any("true" in row for row in rows)
    grid = table("image", "predicted", *(["true"] if has_truth else []), "picture", prose=["predicted"])
    for row in rows:
        if "error" in row:
            grid.add_row(printable(row["path"]), f"unreadable: {row['error']}", style="red")
            continue
        truth = [printable(", ".join(row.get("true", ())))] if has_truth else []
        grid.add_row(printable(row["path"]), printable(answer_text(row)), *truth, printable(row["picture"]))
    show(grid)
    screen, error = results(), largest_error(rows)
    kind = next(one["kind"] for row in rows for one in row.get("maps", ()))
    proof = "" if error is None else f": each map sums to logit - bias, within {error:.1e} of the largest"
    screen.print(f"maps    {kind}{proof}", soft_wrap=True, highlight=False)
    screen.print(f"folder  {printable(output)}", soft_wrap=True)


def print_explanations_as_json(output: Path) -> None:
    """What lies in the folder."""
    sys.stdout.write((output / EXPLANATIONS).read_text(encoding="utf-8"))
