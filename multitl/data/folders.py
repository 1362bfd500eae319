"""What lies in a folder, going by names alone: sub-folders, images, and all files below. No file is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from multitl.errors import DataError

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".dcm", ".dicom", ".npy",
})  # fmt: skip
# pictures that cannot be decoded here are named in a warning; all else (notes, thumbnail databases) is passed over
OTHER_IMAGE_SUFFIXES = frozenset({
    ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".psd", ".tga", ".exr", ".hdr", ".eps", ".ico",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
})  # fmt: skip
SKIPPED_FOLDERS = frozenset({"__MACOSX", "@eaDir"})  # copies and thumbnails that macOS and Synology leave behind


def find_files(folder: Path) -> Iterator[Path]:
    """Every visible file below `folder`, in an order that only names decide; follows links, each folder once."""
    above = folder.resolve()
    yield from _walk(folder, {_identity(path) for path in (above, *above.parents)})


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def subfolders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def own_files(folder: Path) -> list[Path]:
    """Those that lie in the folder itself."""
    return [entry for entry in _visible(folder) if entry.is_file()]


def own_images(folder: Path) -> list[Path]:
    return list(filter(is_image, own_files(folder)))


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    for entry in _visible(folder):
        if not entry.is_dir():
            yield entry
        elif (identity := _identity(entry)) not in seen:  # a link to a folder above would never end
            seen.add(identity)
            yield from _walk(entry, seen)


def _visible(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
        for entry in entries[:1]:
            entry.lstat()  # a folder may let its names be read and nothing more
    except OSError as error:
        raise DataError(
            f"Cannot look into {folder}: {error.strerror or error}.",
            expected="a folder that this user may read",
            received=str(folder),
            fix=f"chmod +rx {folder}, or remove it",
        ) from error
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in SKIPPED_FOLDERS]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
