"""Where translated networks lie in the cache, and which of them are there. Loads no framework."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from multitl.adapters import folder_name
from multitl.contracts import Job
from multitl.errors import RunError
from multitl.runs.cards import read_entry_card
from multitl.system.cache import cache_folder
from multitl.system.hashes import file_sha256
from multitl.system.paths import expanded
from multitl.version import __version__

KIND = "translations"


def entry_folder(job: Job) -> Path:
    """Where a job's network lies, or will; its name depends on all that the translation depends on."""
    values = asdict(job) | {"weights": _weights_key(job.weights), "multitl": __version__}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / KIND / f"{job.source}-{folder_name(job.name)[:60]}-{digest}"


def official_entries(source: str) -> Iterator[Job]:
    """What networks of a source are there with official weights."""
    for folder in sorted((cache_folder() / KIND).glob(f"{source}-*")):
        try:
            job = read_entry_card(folder).job
        except RunError:  # damaged: it is made again when it is asked for
            continue
        if job and job.weights == "default" and entry_folder(job) == folder:
            yield job


def _weights_key(weights: str) -> str:
    path = expanded(weights)
    if weights in ("default", "none"):
        return weights
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return hashlib.sha256(
            "".join(f"{file.name}{file_sha256(file)}" for file in files).encode("utf-8", "surrogateescape")
        ).hexdigest()
    return file_sha256(path)
