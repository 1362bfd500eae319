"""Where multitl keeps what it can compute again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from multitl.system.scratch import clear


def cache_folder() -> Path:
    """$MULTITL_CACHE, or the user's cache folder for multitl."""
    return Path(os.environ.get("MULTITL_CACHE") or platformdirs.user_cache_dir("multitl"))


def clear_cache() -> None:
    """Remove what killed processes left in it; what is of use stays."""
    folders = [cache_folder() / name for name in ("translations", "features")]
    for folder in folders + [store for store in folders[1].glob("*") if store.is_dir()]:
        clear(folder)
