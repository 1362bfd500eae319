"""Programs that multitl writes: a value in them is a literal, whatever it holds."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.porting.generated_code import fill, literal

TEMPLATE = '"""Not here: _a_."""\nX, Y = _a_, _b_  # nor here: _a_\ntext = "_a_"\n'


def test_a_value_takes_the_place_of_a_name_and_of_nothing_else():
    assert fill(TEMPLATE, {"_a_": "x", "_b_": [1.5, None, ("y",)]}) == (
        '"""Not here: _a_."""\nX, Y = \'x\', [1.5, None, (\'y\',)]  # nor here: _a_\ntext = "_a_"\n'
    )


@given(st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)))
def test_no_value_changes_the_program(value: object):
    tree = ast.parse(fill(TEMPLATE, {"_a_": value, "_b_": 1}))
    assert [type(one) for one in tree.body] == [ast.Expr, ast.Assign, ast.Assign]
    values = tree.body[1].value  # type: ignore[attr-defined]
    assert ast.literal_eval(values) == (value, 1)


def test_other_than_literals_are_refused():
    for value in (float("nan"), float("inf"), object(), len, {1: object}):
        with pytest.raises(ValueError):
            literal(value)
    with pytest.raises(ValueError, match="no place for _c_"):
        fill(TEMPLATE, {"_c_": 1})
