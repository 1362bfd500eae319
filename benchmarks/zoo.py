"""Every network of torchvision, or the smallest of every family of timm, beside its original on all three backends:
`python benchmarks/zoo.py torchvision|timm [NAME ...] > benchmarks/zoo_torchvision.md`.

Each network gets random weights that make it sensitive (multitl_torch/randomising.py), is translated under Keras' torch
backend, compared with the original on the same images and saved; a process under JAX and one under TensorFlow load that
file and compare again. Rows are kept in runs/zoo/SOURCE.jsonl as they come, so an interrupted run goes on where it was;
delete that file to begin anew.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

BACKENDS = ("torch", "jax", "tensorflow")  # of those that read, one that is not installed is left out
RESULTS = Path("runs/zoo")
SMALLEST = Path(__file__).with_name("timm_smallest.json")
NETWORKS_A_PROCESS = 8  # then a new one: what torch.export and XLA keep would add up
TOLERANCE = 1e-4
ROUNDING = 4  # as verifying.ROUNDING

Row = dict[str, Any]


class Worker:
    """One process at a time under one backend, which runs functions of this file."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._start()

    def __call__(self, function: Any, *arguments: Any) -> Any:
        """A future of the function's result. A process that died (of too little memory, say) is replaced."""
        try:
            return self._pool.submit(function, *arguments)
        except BrokenProcessPool:
            self._start()
            return self._pool.submit(function, *arguments)

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), _choose, (self.backend,), max_tasks_per_child=NETWORKS_A_PROCESS
        )


def _choose(backend: str) -> None:
    """Runs first in a new process: Keras is imported only afterwards, by the functions below."""
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    sys.setrecursionlimit(10_000)  # efficientnet_v2_l has more operations than Python has frames


def torchvision_networks() -> dict[str, int]:
    """Name -> the smallest image its graph is known to work at, or the only one."""
    from multitl.sources.torchvision import networks

    return {name: one.smallest or one.image_size for name, one in networks().items()}


def timm_networks() -> dict[str, int]:
    """The smallest network of each family, which `timm_smallest.py` found."""
    return {one["name"]: one["image_size"] for one in json.loads(SMALLEST.read_text(encoding="utf-8"))}


def translate(source: str, name: str, size: int, folder: str) -> Row:
    """Make model.keras and probes.npz in `folder`. Under torch."""
    import keras
    import numpy as np
    import torch
    from multitl_torch import verifying
    from multitl_torch.describe import is_current
    from multitl_torch.randomising import randomise
    from multitl_torch.translator import open_original

    from multitl.contracts import Job
    from multitl.errors import MultitlError
    from multitl.sources.torchvision import FOLDER
    from multitl.translation.descriptions import read_description
    from multitl.translation.parity import compare

    keras.utils.clear_session()  # operations are numbered from 0, as in the descriptions
    torch.manual_seed(0)
    row: Row = {"name": name}
    try:
        original = open_original(Job(source, name, "none", size, "keep"), classes=0)
        images = verifying.probes((3, original.image_size, original.image_size))
        randomise(original.module, verifying.as_torch(images))
        started = time.perf_counter()
        translation = original.translate()
        row |= {"seconds": time.perf_counter() - started, "image_size": original.image_size}
        row |= {"parameters": translation.model.count_params(), "torch": asdict(original.verify(translation))}
    except MultitlError as error:
        return row | {"refused": f"{error.problem} {error.received}"}
    outputs = verifying.outputs(original.module, images)
    if row["torch"]["max_rel"] > TOLERANCE:
        exact = verifying.outputs(original.module.double(), images.astype("float64"))
        row["float32"] = compare(exact, outputs).max_rel
    if source == "torchvision":
        row["described"] = is_current(read_description(FOLDER / f"{name}.json.xz"), translation)
    translation.model.save(Path(folder, "model.keras"))
    np.savez(Path(folder, "probes.npz"), images=images, outputs=outputs)
    return row


def read(folder: str) -> Row:
    """The parity of model.keras with probes.npz. Under any backend."""
    import keras
    import numpy as np

    from multitl.models.initialisers import numpy_initialisers
    from multitl.translation.parity import compare, run

    keras.utils.clear_session()
    with numpy_initialisers(seed=None):  # the same file, faster: no random values are drawn only to be overwritten
        model = keras.models.load_model(Path(folder, "model.keras"), compile=False, safe_mode=True)
    with np.load(Path(folder, "probes.npz")) as probes:
        return asdict(compare(probes["outputs"], run(model, probes["images"])))


def rows(source: str, networks: Iterable[tuple[str, int]]) -> Iterator[Row]:
    """Of networks and the sizes of their images."""
    tasks = (({"name": name}, (source, name, size)) for name, size in networks)
    return compared("torch", translate, tasks)


def compared(backend: str, translate: Callable[..., Row], tasks: Iterable[tuple[Row, tuple]]) -> Iterator[Row]:
    """What `translate(*arguments, folder)` makes under one backend, and what the others then read from that folder.

    One after the other: ViT-H needs 18 GB, and nothing else shall run while the translation's time is taken.
    tasks: what is known before, and the arguments.
    """
    readers = {one: Worker(one) for one in BACKENDS if one != backend and find_spec(one)}
    translator = Worker(backend)
    for known, arguments in tasks:
        folder = tempfile.mkdtemp(prefix="multitl-zoo-")
        try:
            row = translator(translate, *arguments, folder).result()
            if "refused" not in row:
                row |= {one: reader(read, folder).result() for one, reader in readers.items()}
        except Exception as error:  # a crash is a row of its own: the rest of the zoo is still worth seeing
            row = known | {"refused": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        yield row


def kept(source: str, networks: dict[str, int]) -> list[Row]:
    """All rows, those of an earlier run included, in the networks' order."""
    path = RESULTS / f"{source}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = kept_in(path, networks, lambda missing: rows(source, [(name, networks[name]) for name in missing]), line)
    return [found[name] for name in networks]


def kept_in(
    path: Path, names: Iterable[str], rows: Callable[[list[str]], Iterator[Row]], line: Callable[[Row], str]
) -> dict[str, Row]:
    """Rows by name: those in a file, and those made now of what it lacks, which are added to it as they come."""
    found = {row["name"]: row for row in map(json.loads, path.read_text().splitlines())} if path.is_file() else {}
    with path.open("a", encoding="utf-8") as file:
        for row in rows([name for name in names if name not in found]):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(line(row), file=sys.stderr, flush=True)
            found[row["name"]] = row
    return found


def worst(row: Row) -> float:
    """The largest error on any backend that it was tried on."""
    return max(row[backend]["max_rel"] for backend in BACKENDS if backend in row)


def errors(row: Row) -> str:
    """A cell for each backend, empty where it was not tried."""
    return " | ".join(f"{row[backend]['max_rel']:.1e}" if backend in row else "" for backend in BACKENDS)


def line(row: Row) -> str:
    """A row of the table."""
    if "refused" in row:
        return f"| {row['name']} | | | | | | | {row['refused']} |"
    own = f"{row['float32']:.1e}" if "float32" in row else ""
    million, seconds = f"{row['parameters'] / 1e6:.2f}", f"{row['seconds']:.1f}"
    return f"| {row['name']} | {million} | {row['image_size']} | {errors(row)} | {own} | {seconds} |"


def table(source: str, found: list[Row]) -> str:
    """Markdown: the summary first."""
    translated = [row for row in found if "refused" not in row]
    close = [row for row in translated if worst(row) <= TOLERANCE]
    limited = [row for row in translated if TOLERANCE < worst(row) <= ROUNDING * row.get("float32", 0)]
    head = "| network | parameters, million | image | " + " | ".join(f"error, {one}" for one in BACKENDS)
    return "\n".join(
        [
            f"# The zoo: {source}\n",
            f"{len(translated)} of {len(found)} networks translated, {len(close)} within {TOLERANCE:g} of their "
            f"originals on every backend that they were tried on. In {len(limited)} others float32 is the limit: "
            f"PyTorch's own result is as far (within a factor of {ROUNDING}) from its result in float64.\n",
            "Error: the largest difference of an output over the largest output, float32, random weights, evaluation "
            "mode; 4 images. Each was translated under torch; JAX and TensorFlow loaded its .keras file.",
            f"Made by `python benchmarks/zoo.py {source}`, {datetime.date.today()}, {versions()}.\n",
            f"{head} | float32 itself | translation, s |",
            "|---|---:|---:|" + "---:|" * (len(BACKENDS) + 2),
            *map(line, found),
        ]
    )


def versions() -> str:
    """Of everything that takes part."""
    from importlib import metadata

    installed = {one.name.lower().replace("_", "-"): one.version for one in metadata.distributions()}
    names = ("keras", "jax", "tensorflow", "tensorflow-cpu", "torch", "torchvision", "timm")
    return ", ".join(f"{name} {installed[name]}" for name in names if name in installed)


def main() -> None:
    source, names = sys.argv[1], sys.argv[2:]
    networks = {"torchvision": torchvision_networks, "timm": timm_networks}[source]()
    print(table(source, kept(source, {name: networks[name] for name in names or networks})))


if __name__ == "__main__":
    main()
