"""The mutants of each reader, by (seed, index): which valid file is taken, and what is done to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from random import Random

from . import (
    bundle_edits,
    byte_edits,
    hdf5_edits,
    json_edits,
    pickle_edits,
    protobuf_edits,
    sealed_edits,
    tar_edits,
    text_edits,
    zip_edits,
)
from .client import read_files
from .readers import KERAS_FILES, SEEDS

Files = Mapping[str, bytes]
EditFile = Callable[[Random, str, bytes, Sequence[bytes]], bytes]  # of a file: its name, content, and that of others


@lru_cache(maxsize=16)
def seeds(reader: str) -> tuple[tuple[str, Files], ...]:
    """Names and files of a reader's seeds."""
    paths = [path for path in KERAS_FILES.iterdir() if path.suffix in (".h5", ".keras")] if reader == "keras" else []
    return tuple((path.name, read_files(path)) for path in sorted(paths or SEEDS.joinpath(reader).iterdir()))


def mutant(reader: str, seed: int, index: int) -> Files:
    """A damaged file, or folder of files with one or two damaged."""
    random = Random(f"{reader}/{seed}/{index}")
    known = seeds(reader)
    files = dict(random.choice(known)[1])
    name = random.choice(_favoured(files))
    others = [other[name] for _, other in known if name in other and other[name] != files[name]]
    others = others or [content for _, other in known for content in other.values() if len(other) == 1]
    files[name] = EDITS[reader](random, name, files[name], others)
    return files


def _favoured(files: Files) -> list[str]:
    """The names of the files, those more often in which there is more to understand."""
    weights = {"card.json": 8, "metrics.json": 3, "saved_model.pb": 6, "variables/variables.index": 2}
    return [name for name in sorted(files) for _ in range(weights.get(name, 1))]


def pth(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    if not data.startswith(b"PK"):
        start = data.find(b"\x80\x02}")  # the first of the pickles that may differ
        edited = (
            pickle_edits.edit(random, data[start:]) if random.random() < 0.6 else byte_edits.edit(random, data[start:])
        )
        return byte_edits.edit(random, data, others) if random.random() < 0.3 else data[:start] + edited
    if random.random() < 0.2:
        return byte_edits.edit(random, data, others)
    return zip_edits.edit(random, data, others, _pth_member)


def _pth_member(random: Random, name: str, data: bytes) -> bytes:
    return pickle_edits.edit(random, data) if name.endswith(".pkl") else byte_edits.edit(random, data)


def safetensors(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    if name.endswith(".json"):
        return json_edits.edit(random, data)
    return sealed_edits.edit_header(random, data, others)


def hdf5(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    if not data.startswith(b"PK"):
        return hdf5_edits.edit(random, data, others)
    return zip_edits.edit(random, data, others, _keras_member)


def keras(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    if data.startswith(b"PK"):
        return zip_edits.edit(random, data, others, _keras_member)
    return hdf5_edits.edit_config(random, data) if random.random() < 0.6 else hdf5_edits.edit(random, data, others)


def _keras_member(random: Random, name: str, data: bytes) -> bytes:
    return json_edits.edit(random, data) if name.endswith(".json") else hdf5_edits.edit(random, data)


def savedmodel(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    if name.endswith(".index"):
        return bundle_edits.edit(random, data)
    return protobuf_edits.edit(random, data) if name.endswith(".pb") else byte_edits.edit(random, data, others)


def archive(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    return byte_edits.edit(random, data, others) if random.random() < 0.1 else tar_edits.edit(random, data)


def card(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    if random.random() < 0.1:
        return byte_edits.edit(random, data, others)
    return json_edits.edit(random, data) if name.endswith(".json") else text_edits.edit(random, data)


def sealed(random: Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    return sealed_edits.edit(random, data, others)


EDITS: Mapping[str, EditFile] = {
    "pth": pth, "safetensors": safetensors, "hdf5": hdf5, "keras": keras, "savedmodel": savedmodel, "archive": archive,
    "card": card, "checkpoint": sealed, "shard": sealed,
}  # fmt: skip
