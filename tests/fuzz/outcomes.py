"""What became of a mutant."""

from __future__ import annotations

import re
from dataclasses import dataclass

GOOD = ("accepted", "refused")
BAD = ("crash", "hang", "memory", "foreign", "violation")
KINDS = (*GOOD, *BAD)


@dataclass(frozen=True)
class Outcome:
    """kind: one of KINDS.  detail: an error's text, a traceback, or what was forbidden.  seconds: by the clock.

    megabytes: how far the process grew, or the largest process that it started.
    """

    kind: str
    detail: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def is_failure(self) -> bool:
        return self.kind in BAD

    @property
    def signature(self) -> str:
        """The same for failures of one cause, nearly always: where it happened, without numbers."""
        places = re.findall(r'File "[^"]*?([^/"]+)", line (\d+)', self.detail)
        last = self.detail.strip().rpartition("\n")[2] if self.kind == "foreign" else ""
        shown = [f"{file}:{line}" for file, line in (places[:2] if self.kind == "crash" else places[-2:])]
        return " ".join(
            [self.kind, *shown, re.sub(r"[^A-Za-z_. ]+", "#", last)[:60] or self.detail[: 60 * (not shown)]]
        )
