"""Tables of classes that an option holds: what each class weighs in training, and what each mistake costs.

A person names a CSV file or writes a small table out. A recipe keeps the table itself, so that it means the same when
the file is gone or has changed: `recipes.combine` opens it, once.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from multitl.errors import RecipeError, nearest_names, shorten

PLAIN_WEIGHTS = ("none", "balanced")
COST_COLUMNS = ["true", "predicted", "cost"]
MOST = 1e6  # of a weight or a cost: beyond it float32 has no room for sums
MOST_CLASSES = 2000  # that a table of costs is made for: four million cells
WEIGHTS = "none, balanced, a table such as cat=2,dog=1, or a .csv file of the columns class,weight"
COSTS = "a .csv file of the columns true,predicted,cost; or a row for each true class, a column for each answer"

Costs = dict[tuple[str, str], float]  # (true class, answered class) -> cost; what is not there costs nothing


def is_file(text: str) -> bool:
    """Whether an option names a file and is no table itself."""
    return text.lower().endswith(".csv")


def weights_in(text: str) -> str:
    """What a file holds, as the option class_weights keeps it: "cat=2,dog=1". Raises RecipeError."""
    rows = _rows_of(text, "class_weights", WEIGHTS)
    if rows and [cell.strip().lower() for cell in rows[0]] == ["class", "weight"]:
        rows = rows[1:]
    if not rows or any(len(row) != 2 for row in rows):
        raise _bad("class_weights", "The file is no table of weights.", text, WEIGHTS)
    items = [f"{name}={weight.strip()}" for name, weight in rows]
    must_quote = any(item != item.strip() for item in items)
    line = _write([items], csv.QUOTE_ALL if must_quote else csv.QUOTE_MINIMAL).removesuffix("\n")
    parse_weights(line)
    return line


def check_weights(text: str) -> None:
    """Raises RecipeError for what class_weights cannot be; a file is not opened."""
    if text not in PLAIN_WEIGHTS and not is_file(text):
        parse_weights(text)


def parse_weights(text: str) -> dict[str, float]:
    """ "cat=2,dog=1" -> {"cat": 2.0, "dog": 1.0}, a line of CSV. Raises RecipeError."""
    rows = _rows_of(text, "class_weights", WEIGHTS, skipinitialspace=True)
    if len(rows) != 1 or not all("=" in item for item in rows[0]):
        nearest = nearest_names(text, PLAIN_WEIGHTS)
        raise _bad("class_weights", f"The option class_weights cannot be {text[:100]!r}.", text, WEIGHTS, nearest)
    weights: dict[str, float] = {}
    for item in rows[0]:
        name, _, number = item.rpartition("=")
        weight = _number(number)
        if not 0 < weight <= MOST:
            problem = f"{number.strip()!r} is no weight for the class {name!r}."
            raise _bad("class_weights", problem, item, f"a number above 0, at most {MOST:,.0f}")
        if name in weights:
            raise _bad("class_weights", f"The class {name!r} has two weights.", text, "one for each class")
        weights[name] = weight
    return weights


def weights_by_class(text: str, class_names: Sequence[str]) -> list[float]:
    """Of a table, in the order of the classes. Raises RecipeError unless it has each of them, and no other."""
    weights = parse_weights(text)
    _check_known("class_weights", weights, class_names)
    missing = [name for name in class_names if name not in weights]
    if missing:
        raise _bad(
            "class_weights", f"class_weights says nothing of {shorten(missing)}.", text,
            "a weight for each of " + shorten(class_names, most=20), nearest_names(missing[0], weights),
        )  # fmt: skip
    return [weights[name] for name in class_names]


def costs_in(text: str) -> str:
    """What a file holds, as the option costs keeps it: true,predicted,cost, a line each. Raises RecipeError."""
    rows = [[*pair, f"{cost:.12g}"] for pair, cost in parse_costs(text).items() if cost]
    return _write([COST_COLUMNS, *rows], csv.QUOTE_MINIMAL)


def check_costs(text: str) -> None:
    """Raises RecipeError for what costs cannot be; a file is not opened."""
    if text and not is_file(text):
        parse_costs(text)


def parse_costs(text: str) -> Costs:
    """Both forms of the table; at least one mistake costs something. Raises RecipeError."""
    rows = _rows_of(text, "costs", COSTS)
    if len(rows) < 2 or not all(len(row) == len(rows[0]) for row in rows):
        nearest = f"{text}.csv" if "\n" not in text else ""
        raise _bad("costs", "This is no table of costs.", text, COSTS, [nearest] if nearest else [])
    if [cell.strip().lower() for cell in rows[0]] == COST_COLUMNS:
        cells = [((true, predicted), cost) for true, predicted, cost in rows[1:]]
    else:
        cells = [((row[0], name), cost) for row in rows[1:] for name, cost in zip(rows[0][1:], row[1:], strict=True)]
    costs: Costs = {}
    for (true, predicted), cell in cells:
        cost = _number(cell) if cell.strip() else 0.0
        if not 0 <= cost <= MOST:
            problem = f"{cell!r} is no cost of answering {predicted!r} where {true!r} is true."
            raise _bad("costs", problem, cell, f"a number from 0 to {MOST:,.0f}")
        if (true, predicted) in costs:
            problem = f"Answering {predicted!r} where {true!r} is true has two costs."
            raise _bad("costs", problem, cell, "one for each pair of classes")
        costs[true, predicted] = cost
    return costs


def costs_by_class(text: str, class_names: Sequence[str]) -> Costs:
    """Of a table. Raises RecipeError for other classes, and for an answer that is always free: none other is given."""
    costs = parse_costs(text)
    _check_known("costs", dict.fromkeys(name for pair in costs for name in pair), class_names)
    paid = {predicted for (_, predicted), cost in costs.items() if cost}
    free = [name for name in class_names if name not in paid]
    if free:
        problem = f"By these costs to answer {shorten(free)} is always free, so that nothing else would be answered."
        raise _bad("costs", problem, shorten(free), "for each class at least one mistake that costs something")
    if len(class_names) > MOST_CLASSES:
        raise _bad("costs", "There are too many classes for costs.", str(len(class_names)), f"at most {MOST_CLASSES:,}")
    return costs


def check_classes(class_weights: str, costs: str, class_names: Sequence[str]) -> None:
    """Raises RecipeError for tables that do not fit these classes."""
    if class_weights not in PLAIN_WEIGHTS:
        weights_by_class(class_weights, class_names)
    if costs:
        costs_by_class(costs, class_names)


def _rows_of(text: str, option: str, expected: str, skipinitialspace: bool = False) -> list[list[str]]:
    """Rows that are not empty."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=skipinitialspace)
        return [row for row in reader if row]
    except csv.Error as error:
        raise _bad(option, f"The option {option} is no CSV: {error}.", text, expected) from error


def _write(rows: Iterable[Sequence[str]], quoting: int) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def _number(text: str) -> float:
    """nan for what is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _check_known(option: str, names: Iterable[str], class_names: Sequence[str]) -> None:
    known = set(class_names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _bad(
            option, f"{option} names classes that there are not: {shorten(unknown)}.", shorten(unknown),
            "only " + shorten(class_names, most=20), nearest_names(unknown[0], class_names),
        )  # fmt: skip


def _bad(option: str, problem: str, received: str, expected: str, nearest: Sequence[str] = ()) -> RecipeError:
    fix = "--class-weights cat=2,dog=1, or leave it out" if option == "class_weights" else "--costs costs.csv"
    return RecipeError(
        problem, expected=expected, received=f"{option}: {received[:200]}", nearest=list(nearest), fix=fix
    )
