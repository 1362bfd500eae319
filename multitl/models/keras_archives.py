"""Writing .keras files: the same model gives the same bytes, whatever the time.

Keras dates the entries of its archive, which cannot hold a date before 1980: a clock that was reset would cost a
finished training. The format is Keras' own and written by Keras; it is packed again here, without what differs between
two writings of the same model: dates, and addresses in memory that serve as numbers of shared objects.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import keras

from multitl.system.scratch import temporary_folder

CONFIG, METADATA = "config.json", "metadata.json"
FIRST_DATE = 315_619_200  # 2 January 1980, after 1 January in every time zone
DATE = "1980-01-01@00:00:00"  # when a model was made, its card says
SHARED = "shared_object_id"


def write_keras_archive(model: keras.Model, path: str | Path) -> None:
    """`model.save(path)` for a path that ends in .keras. Needs room for it twice. Raises OSError."""
    final = Path(path)
    with temporary_folder(final.parent) as folder:
        source = _save(model, folder)
        with zipfile.ZipFile(final, "w") as archive:
            for part in sorted((part for part in source.iterdir() if part.is_file()), key=lambda part: part.name):
                _add(archive, part)


def _save(model: keras.Model, folder: Path) -> Path | zipfile.Path:
    """An archive, written in memory first: HDF5 itself may crash the process on a full disk. Or else a folder."""
    if time.time() >= FIRST_DATE:
        model.save(folder / "dated.keras")
        return zipfile.Path(folder / "dated.keras")
    model.save(folder / "parts", zipped=False)
    return folder / "parts"


def _add(archive: zipfile.ZipFile, part: Path | zipfile.Path) -> None:
    if part.name in (CONFIG, METADATA):
        archive.writestr(zipfile.ZipInfo(part.name), _without_chance(part.read_text(encoding="utf-8")))
        return
    with part.open("rb") as source, archive.open(zipfile.ZipInfo(part.name), "w", force_zip64=True) as target:
        shutil.copyfileobj(source, target, 2**20)


def _without_chance(text: str) -> str:
    """The same JSON with another date, and with shared objects counted from 0, in the order in which they come."""
    numbers: dict[int, int] = {}

    def renew(entry: dict[str, Any]) -> dict[str, Any]:
        if "date_saved" in entry:
            return entry | {"date_saved": DATE}
        return entry | {SHARED: numbers.setdefault(entry[SHARED], len(numbers))} if SHARED in entry else entry

    return json.dumps(json.loads(text, object_hook=renew))
