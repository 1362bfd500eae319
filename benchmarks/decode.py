"""How fast images become pixels: the first look (scan) and decode + resize, in images a second.

    python benchmarks/decode.py ../shared/data/clothing_tiny [FOLDER ...] --size 224

Every figure is the median of three passes after one that warms the disk cache. Nothing is kept in memory. The last
column is an epoch from the pixel store, as second and later ones of a run are, over decoding with bilinear resizing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

from multitl.contracts import Preprocess
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader
from multitl.data.scanning import scan
from multitl.system.threads import default_threads

MOST = 1000  # images decoded in a pass


def seconds(work: Callable[[], object], passes: int = 3) -> float:
    work()
    times = []
    for _ in range(passes):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def decode_all(examples, preprocess: Preprocess, store: PixelStore | None = None) -> None:
    reader = PixelReader(examples, preprocess, memory_limit=0, store=store)
    for _ in reader.batches([range(first, min(first + 32, len(examples))) for first in range(0, len(examples), 32)]):
        pass


def measure(folder: str, size: int) -> list[str]:
    def look():
        return scan(folder, seed=0, validation_fraction=0.2, test_fraction=0.2, max_unreadable=0.05)

    dataset = look()
    count, examples = len(dataset.examples), dataset.examples[:MOST]
    took = seconds(look)
    row = [folder.rstrip("/").rpartition("/")[2], str(count), f"{took:.2f} s", f"{count / took:.0f}/s"]
    for antialias in (True, False):
        for interpolation in ("bilinear", "bicubic"):
            how = Preprocess(size, size, shorter_side=size * 8 // 7, interpolation=interpolation, antialias=antialias)
            row.append(f"{len(examples) / seconds(lambda how=how: decode_all(examples, how)):.0f}/s")
    decoded, stored = epochs(examples, Preprocess(size, size, shorter_side=size * 8 // 7))
    return [*row, f"{len(examples) / stored:.0f}/s", f"{decoded / stored:.1f}"]


def epochs(examples, preprocess: Preprocess) -> tuple[float, float]:
    """Seconds of an epoch that decodes and of one from the store, in turn."""
    store, times = PixelStore(preprocess), {None: list[float](), "store": list[float]()}
    decode_all(examples, preprocess, store)
    for _ in range(5):
        for name, one in ((None, None), ("store", store)):
            started = time.perf_counter()
            decode_all(examples, preprocess, one)
            times[name].append(time.perf_counter() - started)
    return statistics.median(times[None]), statistics.median(times["store"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    print(f"{default_threads()} threads, {options.size} px")
    print(
        "| data | images | scan | scan | bilinear | bicubic | bilinear, no antialias | "
        "bicubic, no antialias | store | times |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as os.environ["MULTITL_CACHE"]:
        for folder in options.folders:
            print("| " + " | ".join(measure(folder, options.size)) + " |", flush=True)


if __name__ == "__main__":
    main()
