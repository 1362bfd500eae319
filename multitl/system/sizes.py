"""Bytes for people."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB")


def show_bytes(count: float) -> str:
    """ "2.6 GB", "98 MB", "3.8 MB": two digits, or all of them before the point; "0 B"."""
    size, unit = float(count), UNITS[0]
    for unit in UNITS:
        if size < 999.5 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.{1 if size < 9.95 and unit != UNITS[0] else 0}f} {unit}"
