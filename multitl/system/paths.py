"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """With ~ as a home. A home of nobody stays as it is, and is found missing like any other path: never raises."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (pathlib's raises)
