"""Writing .keras files: the same model gives the same bytes, whatever the time.

`model.save` dates the entries of its archive, which cannot hold a date before 1980: a clock that was reset would cost a
finished training. The format is Keras' own, written by Keras; only the packing is done here.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import keras

METADATA = "metadata.json"
DATE = "1980-01-01@00:00:00"  # the first that an archive can hold; when a model was made, its card says


def write_keras_archive(model: keras.Model, path: str | Path) -> None:
    """`model.save(path)` for a path that ends in .keras. Needs room for the weights twice. Raises OSError."""
    final = Path(path)
    with tempfile.TemporaryDirectory(prefix=f".{final.stem}-", suffix=final.suffix, dir=final.parent) as name:
        parts = Path(name) / "parts"
        model.save(parts, zipped=False)
        metadata = json.loads((parts / METADATA).read_text(encoding="utf-8"))
        (parts / METADATA).write_text(json.dumps(metadata | {"date_saved": DATE}), encoding="utf-8")
        with zipfile.ZipFile(final, "w") as archive:
            for part in sorted(parts.rglob("*")):
                _add(archive, part, part.relative_to(parts).as_posix())


def _add(archive: zipfile.ZipFile, part: Path, name: str) -> None:
    if part.is_dir():
        return
    entry = zipfile.ZipInfo(name)  # of 1980
    entry.file_size = part.stat().st_size  # from 4 GB on, it says so in another way
    with part.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, 2**20)
