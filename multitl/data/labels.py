"""Labels of a table that are not one class an image: several at once, several columns of them, or numbers to predict.

Taken for classes they would train without a word. The names of classes are free all the same: they may be numbers, or
hold a comma.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from multitl.errors import shorten

NUMBER = re.compile(r"[-+]?\d*[.,]?\d+(e[-+]?\d+)?", re.IGNORECASE)
FRACTION = re.compile(r"[-+]?\d*[.,]\d*[1-9]\d*")
MOST_FRACTIONS = 20  # classes of such names that may well be classes
BITS = frozenset({"0", "1", "0.0", "1.0", "true", "false"})
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
                "group them, such as low, middle and high; if they are names of classes, write a letter before them",
            )
    joined = _joined(names)
    if joined:
        rows = sum(names[name] for name in joined)
        return (
            "several labels an image, not one class",
            f"{rows} rows such as {shorten(joined, most=3)}",
            "keep one label in these rows, or leave them out; a combination that is a class, write as one: cat_dog",
        )
    return None


def describe_columns(table: Mapping[str, Sequence[str]]) -> tuple[str, str, str] | None:
    """The same for a table without a column of labels. table: column -> its cells."""
    bits = {name: cells for name, cells in table.items() if cells and BITS.issuperset(map(str.lower, cells))}
    if len(bits) < 2:
        return None
    shown = f"0 and 1 in {shorten(bits)}"
    ones = {sum(cell.lower() in ("1", "1.0", "true") for cell in row) for row in zip(*bits.values(), strict=True)}
    if ones == {1}:
        first, *_, last = bits
        code = f"t['label'] = t.loc[:, {first!r}:{last!r}].idxmax(axis=1)"
        return "one column a class (one-hot), not one of labels", shown, f"write their names into one: {code} in pandas"
    advice = f"choose one of them, as in --label-column {next(iter(bits))}; multitl learns one class an image"
    return "several labels an image, one column each", shown, advice


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
