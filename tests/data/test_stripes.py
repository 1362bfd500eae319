"""Workers share the images of a data set: each is read by one, and what is read together by as few as can be."""

from __future__ import annotations

from itertools import pairwise

import pytest

from multitl.data.stripes import stripe


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("count", [0, 5, 12, 100])
def test_each_image_is_one_workers(count: int, size: int) -> None:
    stripes = [stripe([f"{index}.png" for index in range(count)], rank, size) for rank in range(size)]
    assert [index for one in stripes for index in one] == list(range(count))
    assert max(map(len, stripes)) - min(map(len, stripes)) <= 1


@pytest.mark.parametrize(("rows", "whole"), [(10, True), (24, True), (100, False)])
def test_row_groups_stay_whole_where_the_shares_stay_even(tmp_path, rows: int, whole: bool) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "photos.parquet"
    parquet.write_table(pyarrow.table({"image": [b"x"] * 100}), path, row_group_size=rows)
    stripes = [stripe([f"{path}/image/row-{row:02}" for row in range(100)], rank, 4) for rank in range(4)]
    assert [index for one in stripes for index in one] == list(range(100))
    assert all(20 <= len(one) <= 30 for one in stripes)
    assert all(start.stop % rows == 0 for start, _ in pairwise(stripes)) == whole
