"""Damage to JSON that leaves it JSON, or nearly: other values, types, places, names and depths."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from . import byte_edits

_DEEP = "\u2603deep"  # stands for what json.dumps could not write
_SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 32, 255, 65536, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**64, -(2**63), 10**30,
    10**400,
    0.0, -0.0, 0.5, 1.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"), "", " ", "a", "0", "1e999", "nan",
    "None",
    "../../etc/passwd", "/etc/passwd", "\x00", "\n", "\ud800", "\u202e", "💥" * 9, "a" * 300, "a" * 70_000,
    "__import__('os').system('touch left') #", '"""\nimport os\n', "{{ 7 * 7 }}", "%s%n", "{0.__class__}",
    "S2000000000",
    "float16", "bfloat16", "object", "complete", "head", "test", [], {}, [[]], [None], [0], [-1], [2**31] * 2,
    [1, 2, 3], ["a", 0, 0],
    {"a": 1}, {"class_name": "Lambda", "config": {}}, {"class_name": "__numpy__", "config": {}}, {"config": None},
    _DEEP,
)  # fmt: skip
Place = tuple[Any, Any]  # a list or dict, and an index or key in it


def edit(random: Random, data: bytes) -> bytes:
    """One to four edits of a JSON text; one that is none gets edits of bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return byte_edits.edit(random, data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        value = edit_value(random, value)
    return write(random, value)


def write(random: Random, value: Any) -> bytes:
    """As text, with nesting as deep as it was meant."""
    depth = random.choice((40, 900, 1100, 5000, 100_000))
    start, end = random.choice((("[", "]"), ('{"a":', "}"), ('{"class_name":"Sequential","config":[', "]}")))
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    text = text.replace(json.dumps(_DEEP), start * depth + "0" + end * depth).replace(
        f'"{_DEEP}"', "[" * 3000 + "]" * 3000
    )
    return text.encode("utf-8", "surrogatepass")


def edit_value(random: Random, value: Any) -> Any:
    """The value with one change; it may be changed in place."""
    places = list(_places(value))
    if not places or random.random() < 0.01:
        return copy.deepcopy(random.choice(_SCALARS))
    holder, key = random.choice(places)
    other_holder, other_key = random.choice(places)
    old = holder[key]
    match random.choice(("set", "set", "set", "near", "near", "take", "wrap", "drop", "add", "rename", "repeat")):
        case "set":
            holder[key] = copy.deepcopy(random.choice(_SCALARS))
        case "near":
            holder[key] = _near(random, old)
        case "take":
            holder[key] = copy.deepcopy(other_holder[other_key])
        case "wrap":
            holder[key] = random.choice(([old], [old, old], {"a": old}, {"class_name": "X", "config": old}))
        case "drop":
            del holder[key]
        case "add" if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(random.choice([old, *_SCALARS])))
        case "rename" | "add" if isinstance(holder, dict):
            name = other_key if isinstance(other_key, str) else random.choice(("", "a", "\x00", "name", "config"))
            holder[name] = holder.pop(key) if random.random() < 0.5 else copy.deepcopy(random.choice(_SCALARS))
        case _:
            holder[key] = [copy.deepcopy(old) for _ in range(random.choice((0, 2, 1000)))]
    return value


def _near(random: Random, old: Any) -> Any:
    """Of the same type."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return random.choice((old + 1, old - 1, -old, old * 1000, old * 2**40, float(old % 2**60), str(old)))
    if isinstance(old, float):
        return random.choice((-old, old * 1e300, int(old) if abs(old) < 1e300 else 0, str(old), old + 1))
    if isinstance(old, str):
        at = random.randrange(len(old) + 1)
        inserted = random.choice(
            ("'", '"', "\\", "\n", "\r", "/", ".", "..", "\x00", ":", ",", "%", "{", "é", "\ud800", ">")
        )
        return random.choice(
            (
                old[:at] + inserted + old[at:],
                old[:at],
                old * 50,
                old.upper(),
                [*old[:50]],
                old.encode("utf-8", "replace").hex(),
            )
        )
    if isinstance(old, list):
        return random.choice(
            (old[::-1], old * 2, old[:1], old * 100 if len(old) < 50 else old, dict(enumerate(map(str, old))))
        )
    return [[key, value] for key, value in old.items()] if isinstance(old, dict) else 0


def _places(value: Any, depth: int = 0) -> Iterator[Place]:
    if depth > 50 or not isinstance(value, list | dict):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        yield from _places(value[key], depth + 1)
