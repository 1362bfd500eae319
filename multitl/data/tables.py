"""Data sets that are listed in a table: CSV, TSV or Parquet with the columns path, label and, if there, split."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, cast

from multitl.contracts import SPLITS, Labels
from multitl.data import parquet_images
from multitl.data.folders import is_image
from multitl.data.labels import (
    BITS,
    THOUSANDS,
    columns_of_bits,
    describe_columns,
    describe_labels,
    follows,
    labels_of_bits,
    parse_number,
    split_labels,
)
from multitl.data.listings import Listing, Record, check_exists, list_records
from multitl.data.places import find_places
from multitl.data.split_names import parse_split
from multitl.errors import DataError, nearest_names, shorten
from multitl.recipes import Recipe
from multitl.system.paths import expanded

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": (
        "path", "filepath", "file_path", "filename", "file_name", "file", "image_path", "img_path", "image", "img",
        "image_name", "image_id", "id",
    ),
    "label": ("label", "class", "class_name", "target", "category", "label_name", "labels"),
    "split": ("split", "subset", "partition", "set"),
}  # fmt: skip
NUMBERED = re.compile(rf"({'|'.join(COLUMNS['label'])})[ _-]?(\d+|[a-z])")  # label2, target_b
LONGEST = 2**24  # letters of a cell; a quote that nobody closed takes in all that follows
TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".pq")


@dataclass(frozen=True)
class Reading:
    """What a table does not say of itself. images: the folder that its paths are relative to, "" for its own.

    path_column, label_column: names, "" for one of COLUMNS; of several labels an image a,b,c for columns of 0 and 1.
    labels: how many an image has.  separator: between those of a cell, "" for the one that is seen there.
    skip_empty: rows without a class or number are left out.  judges: it is known what there is to be learned.
    """

    images: str = ""
    path_column: str = ""
    label_column: str = ""
    labels: Labels = "one"
    separator: str = ""
    skip_empty: bool = False
    judges: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Reading:
        labels = cast(Labels, recipe.labels)
        return cls(recipe.images, recipe.path_column, recipe.label_column, labels, recipe.label_separator)

    def as_trained(self, recipe: Recipe) -> Reading:
        """The same for a table to judge a run on: what it does not name is as the run was trained with."""
        trained = Reading.of(recipe)
        columns = self.path_column or trained.path_column, self.label_column or trained.label_column
        return replace(trained, images=self.images, path_column=columns[0], label_column=columns[1], judges=True)

    @property
    def listed(self) -> list[str]:
        """Several columns of labels, if that is what was asked for."""
        names = [name.strip() for name in self.label_column.split(",")]
        return names if self.labels == "several" and len(names) > 1 else []


AS_USUAL = Reading()


def check_one_class_each(folder: Path, reading: Reading) -> None:
    """Raise DataError where several labels an image, or numbers, are to be read from folders or an archive of them."""
    if reading.labels != "one":
        columns = {"several": "labels or columns of 0 and 1", "number": "numbers"}[reading.labels]
        raise DataError(
            f"{folder} is no table, and an image in it is of one class: that of its folder.",
            expected=f"for labels = {reading.labels} a table, CSV or Parquet, with a column of {columns}",
            received=f"a folder of images, labels = {reading.labels}",
            fix=f"give the table, and --images {folder}; or leave out --labels",
        )


def list_table(path: Path, reading: Reading = AS_USUAL) -> Listing:
    """List a CSV, TSV or Parquet file. Relative paths are relative to its folder. Raises DataError."""
    asked = [reading.path_column, reading.label_column, *reading.listed]
    is_text = path.suffix.lower() in TEXT_SUFFIXES
    table, has_images = (_read_text(path), False) if is_text else _read_parquet(path, asked)
    if reading.skip_empty:
        is_filled = [_text(cell) != "" for cell in _column(path, table, "label", reading.label_column)]
        table = {name: list(compress(cells, is_filled)) for name, cells in table.items()}
    raw_files = _column(path, table, "path", reading.path_column)
    if any(isinstance(value, bytes | dict | list) for value in raw_files):
        raise _bad_table(path, "holds no images and no paths", "bytes of images, or paths", "lists", "write the images")
    files = [_text(value) for value in raw_files]
    labels = _READ[reading.labels](path, table, reading)
    splits, notes = _splits(path, table, asked)
    _check_cells(path, files, splits)
    parsed = [parse_split(split) for split in splits] if splits else [None] * len(files)
    places, warnings = (files, ()) if has_images else _find_files(path, files, reading.images)
    rows = zip(places, labels, parsed, strict=True)
    listing = list_records(path, [Record(file, label, split) for file, label, split in rows])
    return replace(listing, warnings=(*warnings, *notes))


def _splits(
    path: Path, table: Mapping[str, list[Any]], asked: Sequence[str]
) -> tuple[list[str] | None, tuple[str, ...]]:
    """The parts of the images by name, None where the table has none; and what is to be known of that.

    A column that is called `set`, the last of COLUMNS, may be something else: with numbers alone it is left out.
    asked: columns that are something else.
    """
    found = _find({name: cells for name, cells in table.items() if name.strip() not in asked}, "split")
    if found is None:
        return None, ()
    cells = [_text(value) for value in found]
    is_named = any(name.strip().lower() in COLUMNS["split"][:-1] for name in table)
    if is_named or not cells or any(parse_number(cell) is None for cell in cells):
        return cells, ()
    return None, (f"The column {COLUMNS['split'][-1]} of {path.name} holds numbers, so it is not taken for parts.",)


def _classes(path: Path, table: Mapping[str, list[Any]], reading: Reading) -> list[str]:
    """One class an image. Raises DataError for what is something else."""
    labels = [_text(value) for value in _column(path, table, "label", reading.label_column)]
    _check_filled(path, "label", labels)
    if not reading.judges:  # a few rows may look like something else; classes that the run does not know are refused
        if not reading.label_column:
            _refuse_second_target(path, table, labels)
        _refuse(path, describe_labels(labels))
    return list(map(sys.intern, labels))  # one string a class, not one a row


def _label_sets(path: Path, table: Mapping[str, list[Any]], reading: Reading) -> list[tuple[str, ...]]:
    """The labels of each image, from columns of 0 and 1 or from one column."""
    texts = {name: [_text(cell) for cell in cells] for name, cells in table.items()}
    if listed := reading.listed:
        bits = {name: [_text(cell) for cell in _named(path, table, "label", name)] for name in listed}
        if wrong := [name for name, cells in bits.items() if not BITS.issuperset(map(str.lower, cells))]:
            held = shorten(sorted(set(bits[wrong[0]])))
            raise _bad_table(
                path, f"has other values than 0 and 1 in the column {wrong[0]}", "0 and 1", held, "mend them"
            )
        return labels_of_bits(bits)
    others: dict[str, Sequence[str]] = {name: cells for name, cells in texts.items() if not is_known(name)}
    if not reading.label_column and _find(table, "label") is None and (found := columns_of_bits(others)):
        return labels_of_bits(found)
    return split_labels(_column(path, table, "label", reading.label_column), reading.separator)


def _numbers(path: Path, table: Mapping[str, list[Any]], reading: Reading) -> list[float]:
    """A number for each image. Raises DataError for cells that are none."""
    cells = [_text(value) for value in _column(path, table, "label", reading.label_column)]
    numbers = [parse_number(cell) for cell in cells]
    if wrong := [f"row {row}: {cells[row - 1] or 'empty'}" for row, one in enumerate(numbers, start=1) if one is None]:
        raise _bad_table(
            path, f"has {len(wrong)} cells that are no numbers", "a number in every row, such as 12.5", shorten(wrong),
            "mend or delete these rows, or leave out --labels if they are classes,",
        )  # fmt: skip
    doubtful = [cell for cell in cells if "," in cell]
    if doubtful and all(map(THOUSANDS.fullmatch, doubtful)):
        raise _bad_table(
            path, "may mean thousands by its commas, or fractions", "1250 or 1.250", shorten(doubtful),
            "leave out the commas of thousands, and write a point before fractions",
        )  # fmt: skip
    return [number for number in numbers if number is not None]


_READ: Mapping[Labels, Callable[[Path, Mapping[str, list[Any]], Reading], Sequence[str | tuple[str, ...] | float]]] = {
    "one": _classes,
    "several": _label_sets,
    "number": _numbers,
}


def _find(table: Mapping[str, list[Any]], meaning: str) -> list[Any] | None:
    by_name = {name.strip().lower(): values for name, values in table.items()}
    return next((by_name[name] for name in COLUMNS[meaning] if name in by_name), None)


def _column(path: Path, table: Mapping[str, list[Any]], meaning: str, asked: str) -> list[Any]:
    """The column that was asked for, or else the first whose name is known."""
    values = _named(path, table, meaning, asked) if asked else _find(table, meaning)
    if values is None:
        if meaning == "label":
            _refuse(path, describe_columns({name: [_text(cell) for cell in cells] for name, cells in table.items()}))
        has_header = not any(is_image(Path(name)) for name in table)
        guess = f"--{meaning}-column {_guess(table, meaning)}, or " if has_header else ""
        raise _bad_table(
            path,
            f"has no column of the {meaning}s",
            f"a header with {meaning} (or {', '.join(COLUMNS[meaning][1:])})",
            ", ".join(table) or "no header",
            f"{guess}make path,label the first line",
        )
    return values


def _guess(table: Mapping[str, list[Any]], meaning: str) -> str:
    """Which column may be meant, NAME if none is likelier than others."""
    others = {name.strip(): cells for name, cells in table.items() if name.strip().lower() not in COLUMNS["path"]}
    likely = [name for name in others if NUMBERED.fullmatch(name.lower())]
    if meaning == "path":
        likely = [name for name, cells in others.items() if cells and is_image(Path(_text(cells[0])))]
    return next(iter(others)) if len(others) == 1 else (likely or ["NAME"])[0]


def _named(path: Path, table: Mapping[str, list[Any]], meaning: str, asked: str) -> list[Any]:
    by_name = {name.strip(): values for name, values in table.items()}
    if asked not in by_name:
        raise DataError(
            f"{path} has no column {asked!r}.",
            expected=f"the name of the column that holds the {meaning}s",
            received=", ".join(by_name) or "no header",
            nearest=nearest_names(asked, by_name),
            fix=f"--{meaning}-column NAME",
        )
    return by_name[asked]


def _refuse_second_target(path: Path, table: Mapping[str, list[Any]], labels: Sequence[str]) -> None:
    """Raise DataError for another column of labels, unless it follows from ours, as a family does from the species."""
    alike = {
        name.strip(): [_text(cell) for cell in cells]
        for name, cells in table.items()
        if cells and (name.strip().lower() in COLUMNS["label"] or NUMBERED.fullmatch(name.strip().lower()))
    }
    others = [name for name, cells in alike.items() if not follows(cells, labels)]
    if others:
        raise DataError(
            f"{path} looks like several targets: it has more than one column of labels.",
            expected="one class an image",
            received=", ".join(alike),
            fix="say which one is to be learned: " + " or ".join(f"--label-column {name}" for name in alike),
        )


def _refuse(path: Path, looks: tuple[str, str, str] | None) -> None:
    """Raise DataError for what labels.py describes."""
    if looks:
        what, shown, advice = looks
        raise DataError(f"{path} looks like {what}.", expected="one class an image", received=shown, fix=advice)


def _text(value: Any) -> str:
    """A cell as text; "" for a missing one. A whole number is written without a point."""
    if value is None or value != value:  # nan is not itself
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _check_filled(path: Path, name: str, cells: list[str]) -> None:
    if "" in cells:
        rows = [f"row {row}" for row, cell in enumerate(cells, start=1) if not cell]
        raise _bad_table(
            path, f"has {len(rows)} empty {name}s", f"a {name} in every row", shorten(rows), "fill or delete them"
        )


def _check_cells(path: Path, files: list[str], splits: list[str] | None) -> None:
    if not files:
        raise _bad_table(path, "has a header but no rows", "one row an image", "no rows", "add the images")
    _check_filled(path, "path", files)
    unknown = sorted({cell for cell in splits or () if parse_split(cell) is None})
    if unknown:
        received = shorten(repr(cell) for cell in unknown)
        expected = ", ".join(SPLITS) + " (or common spellings) in every row"
        raise _bad_table(path, "names splits that are not known", expected, received, "rename them")


def _find_files(path: Path, files: Sequence[str], images: str) -> tuple[Sequence[str], tuple[str, ...]]:
    """Where the files of a table are, and a warning if that is not where it says. Raises DataError if some are not."""
    folder = expanded(images) if images else path.parent
    if images:
        check_exists(folder, "the folder that the paths of a table are relative to")
    places = find_places(files, folder)
    if places.missing:
        others = shorten(f"--images {other}" for other in places.elsewhere)
        raise _bad_table(
            path,
            f"names {len(places.missing)} files that do not exist, of {len(files)}",
            f"paths that are absolute or relative to {folder}; also tried: / for \\, endings of images, folders below",
            shorten(places.missing),
            f"{others or '--images DIR'} if they lie there; or correct the paths, or delete these rows",
        )
    if places.elsewhere:
        return places.paths, (f"{path.name} names files that lie elsewhere: taken from {shorten(places.elsewhere)}.",)
    return places.paths, ()


def _bad_table(path: Path, problem: str, expected: str, received: str, fix: str) -> DataError:
    return DataError(f"{path} {problem}.", expected=expected, received=received, fix=f"{fix} in {path.name}")


def is_known(name: str) -> bool:
    """Whether a column of this name is taken for paths, labels or parts."""
    plain = name.strip().lower()
    return any(plain in names for names in COLUMNS.values()) or NUMBERED.fullmatch(plain) is not None


def _read_text(path: Path) -> dict[str, list[Any]]:
    """The columns of a text table by name; the separator is a comma, a semicolon or a tab, whatever the header has."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next((line for line in file if line.strip()), "")
            file.seek(0)
            separator = max(",;\t", key=header.count)
            with _long_cells():
                rows = [row for row in csv.reader(file, delimiter=separator) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad_table(
            path, "cannot be read", "UTF-8 text with a header", str(error), "save it as UTF-8 CSV"
        ) from error
    names = rows[0] if rows else []
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise _bad_table(path, "has columns of the same name", "names that differ", ", ".join(twice), "rename them")
    return {name: [row[index] if index < len(row) else "" for row in rows[1:]] for index, name in enumerate(names)}


@contextmanager
def _long_cells() -> Iterator[None]:
    """Meanwhile cells may be longer than csv's 128 KiB: polygons, embeddings, in columns that nobody asks for."""
    limit = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _read_parquet(path: Path, asked: Sequence[str]) -> tuple[dict[str, list[Any]], bool]:
    """The columns of a Parquet file that may be of use, by name; others are named but not read. And whether there are
    images in it, of which the addresses are given.

    asked: the columns of paths and labels, "" for any.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
        from pyarrow import types
    except ImportError as error:
        raise DataError(
            f"{path} needs the package pyarrow to be read.",
            expected="pyarrow, or the table as CSV",
            received="pyarrow is not installed",
            fix="pip install 'multitl[parquet]'",
        ) from error
    try:
        schema = parquet.read_schema(path)
        names = schema.names
        pictures = parquet_images.picture_column(schema, asked[0], COLUMNS["path"])
        if pictures:
            names = [name for name in names if name == asked[1] or name.strip().lower() not in COLUMNS["path"]]
            names = [name for name in names if name != pictures]
        wanted = [name for name in names if name.strip() in asked or is_known(name)]
        if not any(name.strip() in asked[1:] or name.strip().lower() in COLUMNS["label"] for name in names):  # one-hot?
            kinds = [schema.field(name).type for name in names]
            are_numbers = [types.is_boolean(it) or types.is_integer(it) or types.is_floating(it) for it in kinds]
            wanted += [name for name in compress(names, are_numbers) if name not in wanted]
        values = parquet.read_table(path, columns=wanted).to_pydict()
        for name, classes in parquet_images.class_names(schema).items():
            values |= {name: parquet_images.named(values[name], classes)} if name in values else {}
        addresses = parquet_images.list_members(str(path), pictures) if pictures else []
    except (OSError, arrow.ArrowException) as error:
        problem = str(error).partition("\n")[0]
        raise _bad_table(path, "cannot be read", "a Parquet file", problem, "write the table again") from error
    inside = {asked[0] or "path": [f"{path.absolute()}/{one}" for one in addresses]} if pictures else {}
    return inside | {name: values.get(name, []) for name in names}, bool(pictures)
