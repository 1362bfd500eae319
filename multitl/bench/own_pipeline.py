"""multitl's input pipeline as a contender: `PixelReader`. Satisfies `jobs.Pipeline`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import PIL

from multitl.bench.jobs import Job
from multitl.contracts import Example, Preprocess
from multitl.data.pixels import PixelReader
from multitl.version import __version__


def describe() -> tuple[dict[str, str], list[str]]:
    return {"multitl": __version__, "pillow": PIL.__version__}, ["CPU"]


def read(job: Job, examples: Sequence[Example]) -> Iterable[int]:
    """Nothing is kept in memory: every file is decoded."""
    preprocess = Preprocess(job.image_size, job.image_size, shorter_side=round(job.image_size * 256 / 224))
    reader = PixelReader(examples, preprocess, memory_limit=0, threads=job.threads)
    size = job.cell.batch_size
    orders = (range(start, min(start + size, len(examples))) for start in range(0, len(examples), size))
    return (len(pixels) for pixels in reader.batches(orders))
