"""Which adapter reads what: one table, by the module and the name of the class, so that nothing is imported to look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multitl.contracts import SPLITS
from multitl.data.remote import local
from multitl.data.scanning import list_data
from multitl.data.split_names import parse_split
from multitl.data.tables import Reading
from multitl.errors import DataError
from multitl.given import arrays, frames, hugging_face, keras_datasets, torch_datasets
from multitl.given.pictures import ARRAYS
from multitl.given.rows import Read, Row, comes_from, labelled

TAKEN = (
    "a folder, a table, (images, labels), a list of (image, label), a DataFrame, a data set of Hugging Face, PyTorch "
    "or Keras, a tf.data.Dataset, or a dict of them by split"
)


@dataclass(frozen=True)
class Kind:
    """name: what a run of it is called after.  is_ordered: False where the order may be another next time."""

    name: str
    read: Read
    is_ordered: bool = True


def read_parts(given: Mapping[str, Any], reading: Reading) -> Iterator[Row]:
    """{"train": ..., "test": ...}, as Hugging Face's DatasetDict is; each part of any kind, also a folder or table."""
    for name, part in given.items():
        if (split := parse_split(str(name))) is None:
            raise DataError(
                f"{name!r} is not the name of a split.",
                expected=f"a dict of data by split: {', '.join(SPLITS)}",
                received=", ".join(map(str, given)),
                fix="leave the others out, or give a DataFrame if these are columns",
            )
        for row in kind_of(part).read(part, reading):
            if (own := row.cells.get("split", "")) and parse_split(own) != split:
                raise DataError(
                    f"The part {name!r} holds images of the split {own!r}.",
                    expected="data without splits, or of this one alone, for each part",
                    received=f"{own!r} of {row.name or row.image}"[:300],
                    fix="give the data without the dict, or the parts of them",
                )
            yield replace(row, cells={**row.cells, "split": split})


def read_path(given: Any, reading: Reading) -> Iterator[Row]:
    """A folder or table of images, as a part of others; alone such a path is taken as it is. Raises DataError."""
    for record in list_data(Path(local(given)), reading).records:
        yield labelled(record.path, record.label, reading, split=record.split)


KINDS: tuple[tuple[tuple[str, str], Kind], ...] = (
    (("pandas", "DataFrame"), Kind("frame", frames.read_pandas)),
    (("polars", "DataFrame"), Kind("frame", frames.read_polars)),
    (("pyarrow", "Table"), Kind("frame", frames.read_arrow)),
    (("datasets", "Dataset"), Kind("dataset", hugging_face.read_hugging_face)),
    (("torch", "Dataset"), Kind("dataset", torch_datasets.read_torch)),
    (("tensorflow", "DatasetV2"), Kind("dataset", keras_datasets.read_tf_data, is_ordered=False)),
    (("keras", "PyDataset"), Kind("dataset", keras_datasets.read_py_dataset, is_ordered=False)),
    *((one, Kind("arrays", arrays.read_array)) for one in ARRAYS),
    (("builtins", "tuple"), Kind("arrays", arrays.read_pair)),
    (("builtins", "list"), Kind("list", arrays.read_list)),
    (("builtins", "dict"), Kind("parts", read_parts)),
    (("builtins", "str"), Kind("path", read_path)),
    (("pathlib", "Path"), Kind("path", read_path)),
)
# what looks like data and is not read: in a class's order of bases these come first
REFUSED: tuple[tuple[tuple[str, str], str], ...] = (
    (("datasets", "IterableDataset"), "load it without streaming=True"),
    (("datasets", "IterableDatasetDict"), "load it without streaming=True"),
    (("torch", "IterableDataset"), "give a map-style Dataset, or the .tar files if it is made of webdataset shards"),
    (("torch", "DataLoader"), "give its dataset: loader.dataset"),
    (("polars", "LazyFrame"), "frame.collect()"),
)


def is_known(given: Any) -> bool:
    """Whether the tables say what to do with it."""
    return any(comes_from(given, package, name) for (package, name), _ in (*KINDS, *REFUSED))


def is_ordered(given: Any) -> bool:
    """Whether its order is the same next time; of a dict that of all its parts."""
    if isinstance(given, dict):
        return all(map(is_ordered, given.values()))
    return kind_of(given).is_ordered


def kind_of(given: Any) -> Kind:
    """Raises DataError for what no adapter reads."""
    advice = next((fix for (package, name), fix in REFUSED if comes_from(given, package, name)), "")
    kind = next((kind for (package, name), kind in KINDS if comes_from(given, package, name)), None)
    if advice or not kind:
        raise DataError(
            f"Data cannot be read out of a {type(given).__name__}.",
            expected=TAKEN,
            received=f"{type(given).__module__}.{type(given).__qualname__}",
            fix=advice or "save the images as files, CLASS/images, and give the folder",
        )
    return kind
