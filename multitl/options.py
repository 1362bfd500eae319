"""An option of a run: a dataclass field that says what it means and what it may be, and notations of its value."""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from typing import Any

from multitl.contracts import MOST_CHANNELS
from multitl.errors import RecipeError, nearest_names

LOSSES = {"cross_entropy": 0.0, "focal": 2.0}  # and the exponent of each
MOST_GAMMA = 10
ALL = "all"  # channels


def option(default: Any, help: str, *, least: float | None = None, most: float | None = None, choices=()) -> Any:
    """A dataclass field that carries its own help text and valid range (both ends included)."""
    return dataclasses.field(default=default, metadata={"help": help, "least": least, "most": most, "choices": choices})


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises RecipeError for what the option cannot be."""
    kind, limits = type(field.default), field.metadata
    fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if fits and kind is str:
        fits = value.encode(errors="ignore").decode() == value  # False for a path's undecodable bytes: no TOML either
    if fits and limits["choices"]:
        fits = value in limits["choices"]
    if fits and limits["least"] is not None:
        fits = value >= limits["least"]  # False for nan
    if fits and limits["most"] is not None:
        fits = value <= limits["most"]
    if not fits:
        raise RecipeError(
            f"The option {field.name} cannot be {value!r}.",
            expected=_expected(field),
            received=f"{field.name} = {value!r}",
            nearest=nearest_names(str(value), limits["choices"]),
            fix=f"leave it out for the default, {field.default!r}",
        )


def _expected(field: dataclasses.Field) -> str:
    if choices := field.metadata["choices"]:
        return "one of " + ", ".join(choices)
    return ", ".join(filter(None, [type(field.default).__name__, range_of(field)]))


def range_of(field: dataclasses.Field) -> str:
    """ "0 to 4096", "at least 0", or nothing."""
    least, most = field.metadata["least"], field.metadata["most"]
    if least is None:
        return ""
    return f"at least {least:g}" if most is None else f"{least:g} to {most:g}"


def described(field: dataclasses.Field) -> str:
    """An option for `help(Recipe)`: name and default, then what it means and what it may be."""
    meaning = textwrap.fill(f"{field.metadata['help']} ({_expected(field)})", width=100)
    return textwrap.indent(f"{field.name} = {field.default!r}\n{textwrap.indent(meaning, '    ')}", "    ")


def parse_duration(text: str) -> float | None:
    """ "90s", "10m", "1.5h", or a number of seconds -> seconds; "none": None. Raises RecipeError."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= 10**7:
        raise RecipeError(
            f"The option budget cannot be {text!r}.",
            expected="a time such as 90s, 10m or 1.5h; or none, for no limit",
            received=f"budget = {text!r}",
            fix="--budget 10m",
        )
    return seconds


def parse_loss(text: str) -> float:
    """ "cross_entropy" -> 0.0, "focal" -> 2.0, "focal:3" -> 3.0: the exponent gamma. Raises RecipeError."""
    if text in LOSSES:
        return LOSSES[text]
    match = re.fullmatch(r"focal:(\d+(?:\.\d+)?)", text, re.ASCII)
    if not match or not 0 <= float(match[1]) <= MOST_GAMMA:
        raise RecipeError(
            f"The option loss cannot be {text!r}.",
            expected=f"cross_entropy, focal, or focal:GAMMA with a number from 0 to {MOST_GAMMA}",
            received=f"loss = {text!r}",
            nearest=nearest_names(text, LOSSES),
            fix="--loss focal",
        )
    return float(match[1])


def parse_range(text: str) -> tuple[float, float] | None:
    """ "0,4095" -> (0.0, 4095.0); "": None. Raises RecipeError."""
    if not text:
        return None
    number = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,2})?)\s*"
    match = re.fullmatch(f"{number},{number}", text, re.ASCII)
    if not match or not float(match[1]) < float(match[2]) < math.inf:
        raise RecipeError(
            f"The option range cannot be {text!r}.",
            expected="LOW,HIGH: two numbers, the lower one first",
            received=f"range = {text!r}",
            fix="--range 0,4095, or --range=-1,1 where the first is negative",
        )
    return float(match[1]), float(match[2])


def parse_channels(text: str) -> tuple[int, ...] | None:
    """ "4,3,2" -> (4, 3, 2); "all": (); "": None. Raises RecipeError."""
    if not text:
        return None
    number = r"\s*[1-9]\d{0,3}\s*"
    is_list = re.fullmatch(f"{number}(,{number})*", text, re.ASCII)
    if text != ALL and not (is_list and text.count(",") < MOST_CHANNELS):
        raise RecipeError(
            f"The option channels cannot be {text!r}.",
            expected=f"all, or R,G,B or any other list of up to {MOST_CHANNELS} numbers of channels, from 1 on",
            received=f"channels = {text!r}",
            fix="--channels 4,3,2, or --channels all",
        )
    return () if text == ALL else tuple(map(int, text.split(",")))
