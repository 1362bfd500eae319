"""The version of multitl, for whoever writes it down without importing the rest, and those of other packages."""

from __future__ import annotations

from collections.abc import Iterable

__version__ = "0.1.0"


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Distribution -> version, of the installed ones among these."""
    from importlib import metadata  # as slow to load as all that `import multitl` needs

    versions: dict[str, str] = {}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
