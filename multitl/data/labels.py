"""Labels of a table that are not one class an image: several at once, several columns of them, or numbers to predict.

Taken for classes they would train without a word. The names of classes are free all the same: they may be numbers, or
hold a comma. Where a user says that an image has several labels, or a number, they are read here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from multitl.errors import shorten

NUMBER = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)(e[-+]?\d+)?", re.IGNORECASE)
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")  # or fractions: nobody can tell
FRACTION = re.compile(r"[-+]?\d*[.,]\d*[1-9]\d*")
LARGEST = 1e30  # of numbers that are predicted
MOST_FRACTIONS = 20  # classes of such names that may well be classes
ONES = frozenset({"1", "1.0", "true"})
BITS = ONES | {"0", "0.0", "false"}
SHARED = 0.8  # of the parts of joined labels, those that stand in another label too


def describe_labels(labels: Sequence[str]) -> tuple[str, str, str] | None:
    """What labels look like that are not one class an image: what it is, what shows it, what to do. None: they are."""
    names = Counter(labels)
    if len(names) > MOST_FRACTIONS and all(NUMBER.fullmatch(name) for name in names):
        fractions = sorted(name for name in names if FRACTION.fullmatch(name))
        if 2 * len(fractions) > len(names):
            return (
                "a regression, numbers to be predicted, not classes",
                f"{len(names)} different numbers, such as {shorten(fractions, most=3)}",
                "predict them: --labels number; or group them, such as low, middle and high; if they are names of "
                "classes, write a letter before them",
            )
    joined = _joined(names)
    if joined:
        rows = sum(names[name] for name in joined)
        return (
            "several labels an image, not one class",
            f"{rows} rows such as {shorten(joined, most=3)}",
            "train several labels an image: --labels several; or keep one label in these rows; a combination that is a "
            "class, write as one: cat_dog",
        )
    return None


def describe_columns(table: Mapping[str, Sequence[str]]) -> tuple[str, str, str] | None:
    """The same for a table without a column of labels. table: column -> its cells."""
    bits = columns_of_bits(table)
    if not bits:
        return None
    shown = f"0 and 1 in {shorten(bits)}"
    if {len(labels) for labels in labels_of_bits(bits)} == {1}:
        first, *_, last = bits
        code = f"t['label'] = t.loc[:, {first!r}:{last!r}].idxmax(axis=1)"
        return "one column a class (one-hot), not one of labels", shown, f"write their names into one: {code} in pandas"
    advice = f"learn them all: --labels several; or choose one of them, as in --label-column {next(iter(bits))}"
    return "several labels an image, one column each", shown, advice


def columns_of_bits(table: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The columns of 0 and 1, or true and false, if there are two at least."""
    bits = {name.strip(): cells for name, cells in table.items() if cells and BITS.issuperset(map(str.lower, cells))}
    return bits if len(bits) > 1 else {}


def labels_of_bits(bits: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Of each row the names of the columns that say yes, sorted."""
    rows = zip(*bits.values(), strict=True)
    return [tuple(sorted(name for name, cell in zip(bits, row, strict=True) if cell.lower() in ONES)) for row in rows]


def split_labels(cells: Sequence[Any], separator: str) -> list[tuple[str, ...]]:
    """Of each cell the labels in it, sorted; of an empty one none. A cell may be a list.

    separator: between the labels of a cell of text, "" for the one that is found there.
    """
    texts = [_without_brackets(cell) for cell in cells if not isinstance(cell, list)]
    separator = separator or find_separator(texts)
    rows = (cell if isinstance(cell, list) else _without_brackets(cell).split(separator) for cell in cells)
    return [tuple(sorted({part for one in row if (part := str(one).strip(" \t'\""))})) for row in rows]


def find_separator(texts: Sequence[str]) -> str:
    """| or ; or a comma, the first that occurs; else a space where it is seen to stand between labels."""
    plain = (separator for separator in "|;," if any(separator in text for text in texts))
    return next(plain, " " if _joined_by(" ", dict.fromkeys(texts, 1)) else "|")


def _without_brackets(cell: Any) -> str:
    """ "['cat', 'dog']" -> "'cat', 'dog'"; what else there is as it is, "" for a missing cell."""
    text = "" if cell is None or cell != cell else str(cell).strip()  # nan is not itself
    return text[1:-1] if re.fullmatch(r"\[.*\]|\{.*\}", text) else text


def parse_number(cell: str) -> float | None:
    """A number that float32 holds, with a point or a comma before its fractions; None for anything else."""
    text = cell.strip()
    if not NUMBER.fullmatch(text):
        return None
    number = float(text.replace(",", "."))
    return number if abs(number) <= LARGEST else None


def follows(cells: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether a column says nothing that the labels do not: the family, where they are species."""
    return len(set(zip(labels, cells, strict=True))) == len(set(labels))


def _joined(names: Mapping[str, int]) -> list[str]:
    """Those that are made of several labels, "cat|dog"; none where that is how classes are called: "tench, fish"."""
    lists = sorted(name for name in names if re.fullmatch(r"\[.*\]|\{.*\}", name))
    if 2 * len(lists) > len(names):
        return lists
    return next((found for separator in "|;, " if (found := _joined_by(separator, names))), [])


def _is_grid(split: Sequence[Sequence[str]]) -> bool:
    """Apple|rust, Apple|healthy, Corn|rust, Corn|healthy: every kind of each factor with every one of the other."""
    if len({len(parts) for parts in split}) > 1:
        return False
    factors = [set(parts) for parts in zip(*split, strict=True)]
    return len(set().union(*factors)) == sum(map(len, factors)) and math.prod(map(len, factors)) == len(split)


def _joined_by(separator: str, names: Mapping[str, int]) -> list[str]:
    split = {name: [part.strip() for part in name.split(separator)] for name in names}
    joined = sorted(name for name, parts in split.items() if len(parts) > 1 and all(parts))
    often = Counter(part for parts in split.values() for part in set(parts))
    parts = {part for name in joined for part in split[name]}
    if separator in "|;":  # animal|cat, animal|dog: paths, each with an end of its own
        is_joined = any(often[one[-1]] > 1 for one in split.values())
        is_joined &= not _is_grid(list(split.values()))
    else:
        is_shared = sum(often[part] > 1 for part in parts) >= SHARED * len(parts)
        is_joined = bool(parts) and is_shared and len(often) < len(names)
    if separator == " ":  # red apple, green apple, red car: names of two words; labels come in ones, twos and threes
        is_joined &= 2 * len(often) <= len(names) and len({len(parts) for parts in split.values()}) > 2
    return joined if is_joined else []
