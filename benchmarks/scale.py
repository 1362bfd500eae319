"""What very many images cost beside the network: `python benchmarks/scale.py features FOLDER`, `parquet` or `images`.

`features` draws a million features 2,048 wide into a store (8 GB in FOLDER), opens it as a run does, chooses the
penalty on a sample and fits a head to all.
`parquet` writes a million distinct tiny PNGs into a table of row groups of 2,000 (73 MB) and looks at it as a run does.
`images` writes files, PNGs of 48 pixels a side (--count 100000 takes 400 MB), looks at them and takes epochs of pixels
at 96: the first decodes, the others come from the pixel store (28 KB an image). What it holds then is printed, too.
Each is measured in a process of its own, whose peak memory and seconds are printed. --count and --channels make less
of them; what is in FOLDER stays, and is used again.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

CLASSES, TRAITS = 10, 100
ROWS = 2000  # of a row group
SHARD = 256


def make_features(folder: Path, count: int, channels: int) -> None:
    """Non-negative, as pooled ones are, with a spectrum that falls; one label in ten is wrong."""
    from multitl.training.feature_store import FeatureStore

    need = 4 * count * channels
    if shutil.disk_usage(folder).free < 2 * need:
        raise SystemExit(f"{folder} has no room for {need / 1e9:.1f} GB: give a smaller --count")
    store, labels = FeatureStore({"benchmark": count}, channels), labels_of(count)
    random = np.random.default_rng(0)
    mix = (random.normal(size=(TRAITS, channels)) * np.arange(1, TRAITS + 1)[:, None] ** -0.5).astype("float32")
    means = 0.6 * random.normal(size=(CLASSES, TRAITS)).astype("float32")
    for first in range(0, count, SHARD):
        some = labels[first : first + SHARD]
        traits = means[some] + random.standard_normal((len(some), TRAITS), "float32")
        noise = random.standard_normal((len(some), channels), "float32")
        values = np.maximum(0.3 * (traits @ mix) + 0.2 * noise + 0.3, 0)
        store.add([hash_of(index) for index in range(first, first + len(some))], values)


def labels_of(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(CLASSES, size=count)


def hash_of(index: int) -> str:
    return f"{index:064x}"


def solve_features(count: int, channels: int, l2: float) -> None:
    from multitl.contracts import Example
    from multitl.recipes import Recipe
    from multitl.training.feature_store import FeatureStore, compute_features
    from multitl.training.head_choice import choose_head
    from multitl.training.solved_head import Task

    stand("imports")
    examples = [Example(f"{index}.png", 0, "train", hash_of(index)) for index in range(count)]
    values = compute_features(refuse, examples, None, FeatureStore({"benchmark": count}, channels)).values
    stand("store opened and checked")
    random = np.random.default_rng(2)
    noisy = np.where(random.random(count) < 0.1, random.integers(CLASSES, size=count), labels_of(count))
    task = Task([values], np.eye(CLASSES, dtype="float32")[noisy], np.ones(count, "float32"))
    head = choose_head(task, Recipe(head="linear", l2=l2))
    stand(f"head chosen and solved: penalty {head.penalty:g}, gradient {head.solution.gradient:.1e}")


def refuse():
    raise SystemExit("features are missing: remove the folder")


def make_parquet(path: Path, count: int) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema, random = arrow.schema([("image", picture), ("label", arrow.string())]), np.random.default_rng(0)
    with parquet.ParquetWriter(path, schema) as writer:
        for first in range(0, count, ROWS):
            rows = range(first, min(first + ROWS, count))
            pixels = random.integers(0, 256, (len(rows), 4, 4, 3), "uint8")
            pixels[:, 0, :2] = (
                np.arange(first, rows.stop, dtype="<u8").view("uint8").reshape(-1, 8)[:, :6].reshape(-1, 2, 3)
            )
            images = [{"bytes": png(one), "path": f"{row}.png"} for row, one in zip(rows, pixels, strict=True)]
            writer.write_table(arrow.table([images, [f"class{row % CLASSES}" for row in rows]], schema=schema))


def png(pixels: np.ndarray) -> bytes:
    """Written by hand: Pillow takes ten times as long."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 1)) + chunk(b"IEND", b"")


def look_at_parquet(path: Path) -> None:
    from multitl.data.scanning import scan

    stand("imports")
    dataset = scan(path, seed=0, validation_fraction=0.1, test_fraction=0.2, max_unreadable=0.01)
    stand(f"{len(dataset.examples):,} images looked at")


def make_images(folder: Path, count: int) -> None:
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        (folder / f"class{number % CLASSES}" / f"{number}.png").write_bytes(
            png(random.integers(0, 256, (48, 48, 3), "uint8") // 16 * 16)
        )


def take_epochs(folder: Path, epochs: int = 4) -> None:
    """Pixels in batches of 32, in another order in each epoch."""
    from multitl.contracts import Preprocess
    from multitl.data.pixel_store import PixelStore
    from multitl.data.pixels import PixelReader
    from multitl.data.scanning import scan

    stand("imports")
    dataset = scan(folder, seed=0, validation_fraction=0.1, test_fraction=0.2, max_unreadable=0.01)
    stand(f"{len(dataset.examples):,} images looked at")
    preprocess = Preprocess(96, 96, shorter_side=96)
    reader = PixelReader(dataset.examples, preprocess, store=PixelStore(preprocess))
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(reader))
        for pixels in reader.batches(order[first : first + 32] for first in range(0, len(order), 32)):
            assert pixels.dtype == np.uint8
        stand(f"epoch {epoch + 1}{', decoded' if not epoch else ''}: {resident():.2f} GB held")


def resident() -> float:
    """GB of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def stand(what: str) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {what} | {time.perf_counter() - BEGAN:.0f} | {time.process_time():.0f} | {peak:.2f} |", flush=True)


BEGAN = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("features", "parquet", "images", "solve", "look", "epochs"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--channels", type=int, default=2048, help="of a feature")
    parser.add_argument("--l2", type=float, default=0.0, help="the penalty; 0 has it chosen on a sample")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    os.environ["MULTITL_CACHE"] = str(asked.folder / "cache")
    table, made = asked.folder / f"{asked.count}.parquet", asked.folder / f"{asked.count}-{asked.channels}.made"
    photos = asked.folder / f"{asked.count}-photos"
    if asked.what == "solve":
        return solve_features(asked.count, asked.channels, asked.l2)
    if asked.what == "look":
        return look_at_parquet(table)
    if asked.what == "epochs":
        return take_epochs(photos)
    if asked.what == "features" and not made.exists():
        make_features(asked.folder, asked.count, asked.channels)
        made.touch()
    if asked.what == "parquet" and not table.exists():
        make_parquet(table, asked.count)
    if asked.what == "images" and not photos.with_suffix(".made").exists():
        make_images(photos, asked.count)
        photos.with_suffix(".made").touch()
    print("| step | seconds until then | of CPU | peak GB |\n|---|---|---|---|", flush=True)
    then = {"features": "solve", "parquet": "look", "images": "epochs"}[asked.what]
    command = [sys.executable, __file__, then, *sys.argv[2:]]
    raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
