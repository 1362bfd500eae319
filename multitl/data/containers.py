"""Files that hold many images: Parquet tables and tar archives (webdataset shards).

An image in one has an address like a file's in a folder, `photos.parquet/image/row-017` or `train-000.tar/cat/1.jpg`,
and is read where it lies. So whatever works by path works for it: hashes, stores, tables of paths, predictions.csv and
the pictures of a report, also in a later process.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from multitl.data import parquet_images, tars
from multitl.data.folders import own_files, own_images, subfolders
from multitl.errors import DataError

TAR, PARQUET = (".tar",), (".parquet", ".pq")
ENDING = re.compile(r"\.(?:tar|parquet|pq)(?=[/\\].)", re.IGNORECASE | re.DOTALL)


def split_address(path: str) -> tuple[str, str] | None:
    """The container and what is in it; None for an ordinary path."""
    for match in ENDING.finditer(path):  # a folder may be called so too
        with suppress(FileNotFoundError):
            return _seen(path[: match.end()]), path[match.end() + 1 :].replace("\\", "/")
    return None


@lru_cache(1024)
def _seen(container: str) -> str:
    """One that is there, or was: of a million images in it each would ask. Raises FileNotFoundError."""
    if not os.path.isfile(container):  # noqa: PTH113
        raise FileNotFoundError(container)
    return container


def read_address(container: str, member: str) -> bytes:
    """The bytes of an image. Raises OSError, and ValueError with a reason for people."""
    try:
        return (tars if _is_tar(container) else parquet_images).read_member(container, member)
    except KeyError as error:
        raise ValueError(f"there is no image {member} in {container}") from error
    except (OSError, ValueError):
        raise
    except Exception as error:  # pyarrow has errors of its own
        raise ValueError(str(error).partition("\n")[0]) from error


def group_of(path: str) -> tuple[str, int] | None:
    """What an image is read or fetched together with: a row group of a table, an archive; None for an ordinary file."""
    if not (address := split_address(path)):
        return None
    container, member = address
    return container, 0 if _is_tar(container) else parquet_images.group_of(container, member)


def holds(path: str) -> bool:
    """Whether a path is the address of an image that is there."""
    if not (address := split_address(path)):
        return False
    container, member = address
    try:
        return member in tars.index(container) if _is_tar(container) else parquet_images.holds(container, member)
    except Exception:  # damaged, or no pyarrow: told where it is read
        return False


def is_container(path: Path) -> bool:
    return path.suffix.lower() in (*TAR, *PARQUET) and path.is_file()


def shards_in(folder: Path) -> list[Path]:
    """The containers of a folder that holds them and neither classes nor images; by name."""
    shards = sorted(filter(is_container, own_files(folder)))
    return shards if shards and not subfolders(folder) and not own_images(folder) else []


def list_images_in(container: Path) -> list[str]:
    """The addresses of all images. Raises DataError."""
    try:
        return [f"{container}/{member}" for member in _members(str(container))]
    except ImportError as error:
        raise DataError(
            f"{container} needs the package pyarrow to be read.", expected="pyarrow",
            received="pyarrow is not installed", fix="pip install 'multitl[parquet]'",
        ) from error  # fmt: skip
    except Exception as error:
        raise DataError(
            f"{container} cannot be read.",
            expected="a tar archive that is not compressed, or a Parquet table",
            received=str(error).partition("\n")[0],
            fix="write or download it again",
        ) from error


def _members(container: str) -> list[str]:
    if _is_tar(container):
        return tars.pictures_in(container)
    from pyarrow import parquet

    column = parquet_images.picture_column(parquet.read_schema(container), "", ("image", "img"))
    return parquet_images.list_members(container, column) if column else []


def _is_tar(container: str) -> bool:
    return container.lower().endswith(TAR)
