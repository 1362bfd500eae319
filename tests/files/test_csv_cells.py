"""No cell is a formula to a spreadsheet, and every text comes back."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.files.csv_cells import harmless, original, write_row

FIRST = st.sampled_from(["", "'", "''", "=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", '"', ";", ","])
TEXTS = st.builds(str.__add__, FIRST, st.text(max_size=8))
DANGEROUS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # OWASP, "CSV Injection"


@given(TEXTS)
def test_every_text_comes_back(text: str) -> None:
    assert original(harmless(text)) == text
    assert not harmless(text).startswith(DANGEROUS)


@given(TEXTS)
def test_a_text_that_was_never_marked_comes_back_too(text: str) -> None:
    """Files of older versions, unless a name begins with an apostrophe before one of the signs."""
    if not text.startswith("'"):
        assert original(text) == text
    assert original("'tis") == "'tis"


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_line_comes_back(cells: list[str]) -> None:
    file = io.StringIO(newline="")
    write_row(file, cells)
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert [original(cell) for cell in row] == cells


@pytest.mark.parametrize("separator", ";\t")
def test_a_formula_after_what_others_take_for_a_separator_is_inside_quotes(separator: str) -> None:
    file = io.StringIO(newline="")
    write_row(file, [f"a{separator}=cmd|' /C calc'!A0", 1.5])
    assert file.getvalue() == f'"a{separator}=cmd|\' /C calc\'!A0","1.5"\n'


def test_numbers_are_left_alone() -> None:
    file = io.StringIO()
    write_row(file, [-1.5, 1e-07, 3, "-1"])
    assert file.getvalue() == "-1.5,1e-07,3,'-1\n"
