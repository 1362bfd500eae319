"""Op tables: one function an op, merged and replaced; and errors that list every op that is missing."""

from __future__ import annotations

import pytest

from multitl.errors import TranslationError
from multitl.translation.op_tables import OpTable, refuse_graph


def test_an_op_table_finds_its_functions() -> None:
    ops = OpTable("test")

    @ops("relu", "relu6")
    def relu(build, x):
        return x

    assert ops["relu"] is ops["relu6"] is relu
    assert "relu" in ops and "gelu" not in ops
    assert list(ops) == ["relu", "relu6"]


def test_a_second_registration_raises() -> None:
    ops = OpTable("test")
    ops("relu")(abs)
    with pytest.raises(ValueError, match="test: the op relu is registered already"):
        ops("gelu", "relu")(abs)


def test_tables_are_merged_and_overlap_raises() -> None:
    first, second = OpTable("first"), OpTable("second")
    first("a")(abs)
    second("b")(max)
    both = OpTable("both", first, second)
    assert list(both) == ["a", "b"] and both["b"] is max
    both("c")(min)
    assert "c" not in first
    second("a")(min)
    with pytest.raises(ValueError, match="both: the op a"):
        OpTable("both", first, second)


def test_replacing_leaves_the_original_table_alone() -> None:
    ops = OpTable("test")
    ops("a")(abs)
    assert ops.replaced({"a": max})["a"] is max and ops["a"] is abs


def test_a_refusal_lists_every_op_with_its_nodes() -> None:
    error = refuse_graph("Net", {"cumsum": ["cumsum"], "sort": [f"sort_{i}" for i in range(5)]})
    assert isinstance(error, TranslationError)
    assert "Net cannot be translated: 2 of its operations" in str(error)
    assert "cumsum (1): cumsum\n" in str(error)
    assert "sort (5): sort_0, sort_1, sort_2, ..." in str(error)
    assert error.missing == ("cumsum", "sort")
