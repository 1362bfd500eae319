"""Map-style data sets of PyTorch: each item (image, label), or a dict of both, as torchvision's without transforms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multitl.data.tables import COLUMNS, Reading
from multitl.errors import DataError
from multitl.given.arrays import is_path
from multitl.given.pictures import as_bytes
from multitl.given.rows import Row, labelled

DEEPEST = 8  # subsets of subsets


def read_torch(given: Any, reading: Reading) -> Iterator[Row]:
    """given: a `torch.utils.data.Dataset` with a length. Its `.classes`, if it has them, name the labels."""
    count, names = _length(given), _class_names(given)
    if count:
        _check_same(given)
    for index in range(count):
        image, label = take_apart(given[index], f"Item {index} of the data set")
        yield Row(image) if label is None else labelled(image, label, reading, names=names)


def take_apart(item: Any, where: str) -> tuple[Any, Any]:
    """An image and its label, None without one. Raises DataError for other things than one or two."""
    if isinstance(item, Mapping):
        by_name = {str(name).lower(): value for name, value in item.items()}
        image, label = (next((by_name[one] for one in COLUMNS[of] if one in by_name), None) for of in ("path", "label"))
        item = (image, label)
    if not isinstance(item, tuple | list):
        return item, None
    if len(item) == 2 and item[0] is not None:
        return item[0], item[1]
    raise DataError(
        f"{where} is no image with a label.",
        expected="(image, label), or a dict with image and label",
        received=f"{len(item)} things: {', '.join(type(one).__name__ for one in item)}",
        fix="let it give these two",
    )


def _length(given: Any) -> int:
    try:
        return len(given)
    except (TypeError, NotImplementedError) as error:
        raise DataError(
            "The data set has no length.",
            expected="a map-style Dataset, with __len__ and __getitem__",
            received=type(given).__name__,
            fix="add __len__, or give the images as a list of (image, label)",
        ) from error


def _class_names(given: Any) -> Sequence[str]:
    """As torchvision has them; those of a Subset are its whole's."""
    for _ in range(DEEPEST):
        if names := getattr(given, "classes", None):
            return list(map(str, names))
        given = getattr(given, "dataset", None)
    return ()


def _check_same(given: Any) -> None:
    """Raises DataError if its first image is another one each time."""
    first, again = (take_apart(given[0], "Item 0 of the data set")[0] for _ in range(2))
    if not is_path(first) and as_bytes(first, "Item 0 of the data set") != as_bytes(again, "Item 0 of the data set"):
        raise DataError(
            "The data set gives other images each time.",
            expected="the same image for the same index, so that the run can be made again",
            received="two different images for index 0",
            fix="leave random transforms out: multitl augments by itself, --augment",
        )
