"""Whole networks beside their originals on all three backends: one here, all of them behind the marker `slow`.

`benchmarks/zoo.py` does the work in processes of its own and writes the tables that are committed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from multitl.sources import torchvision

for package in ("torchvision", "timm", "jax", "tensorflow"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}", allow_module_level=True)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = "shufflenet_v2_x0_5"


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """benchmarks/zoo.py, importable by its workers too, with nothing of earlier runs."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.chdir(tmp_path)
    import zoo

    return zoo


def wrong(zoo: ModuleType, row: dict) -> bool:
    """Whether a network is farther from its original than float32 explains."""
    return "refused" in row or zoo.worst(row) > max(zoo.TOLERANCE, zoo.ROUNDING * row.get("float32", 0))


def test_a_network_agrees_on_every_backend(zoo: ModuleType):
    (row,) = zoo.rows("torchvision", [(SMALL, zoo.torchvision_networks()[SMALL])])
    assert row["name"] == SMALL and not wrong(zoo, row), row
    assert row["described"], "describe it anew"


@pytest.mark.slow
def test_what_cannot_be_translated_is_a_row(zoo: ModuleType, capsys: pytest.CaptureFixture[str]):
    (row,) = zoo.kept("timm", {"no_such_network": 64})
    assert "no_such_network" in row["refused"]
    assert "0 of 1 networks translated" in zoo.table("timm", [row])
    assert zoo.kept("timm", {"no_such_network": 64}) == [row], "the second time it comes from the file"
    assert len(Path("runs/zoo/timm.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_backbones_features_are_what_timm_gives_the_classifier(zoo: ModuleType):
    """Kept, cut off, and a table of both; and of a network without one nothing is cut off."""
    import zoo_heads

    row = zoo_heads.both("test_resnet.r160_in1k")
    assert (row["has_classifier"], row["features"]) == (True, 96)
    assert row["keep"] <= zoo.TOLERANCE and row["cut"] <= zoo.TOLERANCE
    skipped = {"name": "vit_7b", "parameters": 7e9, "skipped": "more than 300 million parameters"}
    table = zoo_heads.table({"Two of all": [row, skipped]})
    assert "1 of 1 translated (100%), 1 too large" in table and "1 give them within" in table


@pytest.mark.slow
def test_nearly_all_tags_of_timm_translate_and_their_features_are_timms(zoo: ModuleType):
    import zoo_heads

    zoo_heads.FILE.parent.mkdir(parents=True)
    for title, names in zoo_heads.chosen().items():
        found = zoo_heads.kept_in(zoo_heads.FILE, names, zoo_heads.rows, zoo_heads.line)
        tried = [found[name] for name in names if "skipped" not in found[name]]
        translated = [row for row in tried if "refused" not in row]
        assert len(translated) >= 0.95 * len(tried), title
        other = [row["name"] for row in translated if row.get("cut", 0) > 10 * zoo.TOLERANCE]
        assert len(other) <= 0.05 * len(tried), f"features that timm normalises in its classifier only: {other}"


@pytest.mark.slow
def test_all_of_torchvision(zoo: ModuleType):
    rows = zoo.kept("torchvision", zoo.torchvision_networks())
    assert len(rows) == len(torchvision.networks()) == 80
    assert [row for row in rows if wrong(zoo, row)] == []
    assert [row["name"] for row in rows if not row["described"]] == [], "describe these anew"


@pytest.mark.slow
def test_nearly_all_of_timm(zoo: ModuleType):
    """The rest is refused, or a little beyond the tolerance on a backend that the gate did not see."""
    rows = zoo.kept("timm", zoo.timm_networks())
    assert len(rows) > 90 and len([row for row in rows if wrong(zoo, row)]) <= len(rows) / 10
    assert [row for row in rows if "refused" not in row and zoo.worst(row) > 10 * zoo.TOLERANCE] == []
