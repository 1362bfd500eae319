"""docs/scaling.md: its figures are those of the formula that it states."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import pytest
import scaling

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")

if keras.config.backend() != "jax":
    pytest.skip("no framework is asked here", allow_module_level=True)


def test_a_ring_of_two_sends_everything_once():
    assert scaling.all_reduce_seconds(100, 2, 50.0, 0.25) == pytest.approx(100 / 50 + 2 * 0.25)
    assert scaling.all_reduce_seconds(100, 1, 50.0, 0.25) == 0


def test_the_page_says_what_the_model_says():
    assert scaling.OVERHEAD in PAGE
    rows = re.findall(r"^\| (.+?): \d+ ms, \d+ MB \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
    assert len(rows) >= len(scaling.NETWORKS)
    for step, network, shares in rows:
        if step in scaling.STEPS_ELSEWHERE:
            told = [scaling.efficiency(*scaling.STEPS_ELSEWHERE[step], count, *scaling.NETWORKS[network])
                    for count in scaling.WORKERS]  # fmt: skip
            assert [float(share) for share in shares.split(" | ")] == pytest.approx(told, abs=0.006)
