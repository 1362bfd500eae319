"""Fingerprints of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from multitl.system.regular_files import MOST_MODEL, open_regular


def file_sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes. Raises OSError, also for what is no regular file and so might have no end."""
    with open_regular(path, MOST_MODEL) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
