"""Where multitl keeps what it can compute again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """$MULTITL_CACHE, or the user's cache folder for multitl."""
    return Path(os.environ.get("MULTITL_CACHE") or platformdirs.user_cache_dir("multitl"))
