"""Python that multitl writes for people to run: a template of ours, and values as literals in it.

A template is valid Python itself. A value takes the place of a whole name in it, so it can never reach a comment, a
string or a docstring; and what takes the place is the value's `repr`, once that has been read back as an equal literal.
So whatever a value holds, the program computes what the template says.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from typing import Any


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with a literal in the place of each name of `values`.

    Raises ValueError for a value that is no literal (an object, nan), or a name that the template does not have.
    """
    literals = {name: literal(value) for name, value in values.items()}
    lines = template.splitlines(keepends=True)
    places = [token for token in tokenize.generate_tokens(io.StringIO(template).readline) if token.string in literals]
    if missing := literals.keys() - {token.string for token in places}:
        raise ValueError(f"the template has no place for {', '.join(sorted(missing))}")
    for token in reversed(places):  # from the end, so that columns stay right
        (row, first), (_, last) = token.start, token.end
        line = lines[row - 1]
        lines[row - 1] = line[:first] + literals[token.string] + line[last:]
    return "".join(lines)


def literal(value: Any) -> str:
    """A Python literal that gives an equal value back. Raises ValueError where there is none."""
    text = repr(value)
    try:
        is_literal = ast.literal_eval(text) == value
    except (SyntaxError, ValueError):
        is_literal = False
    if not is_literal:
        raise ValueError(f"{text[:80]} is no literal")
    return text
