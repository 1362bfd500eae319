from __future__ import annotations

import csv
import importlib.util
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

import multitl
from multitl.cli import demo
from multitl.cli import main as cli
from multitl.contracts import Result
from multitl.errors import DataError
from multitl.judging.metrics import score


def install(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Pretend that elpv_dataset lies in `folder`, or is missing."""
    spec = ModuleSpec("elpv_dataset", None, is_package=True) if folder else None
    if spec and spec.submodule_search_locations is not None:
        spec.submodule_search_locations.append(str(folder))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_real_package_has_the_published_counts(tmp_path: Path):
    rows = read(demo.write_labels(tmp_path / "labels.csv"))
    assert Counter(row["label"] for row in rows) == {
        "functional": 1508,
        "possibly_defective": 295,
        "probably_defective": 106,
        "defective": 715,
    }
    assert all(Path(row["path"]).is_absolute() and Path(row["path"]).is_file() for row in rows)


def test_paths_with_commas_and_quotes_survive(monkeypatch, tmp_path: Path):
    package = tmp_path / 'odd, "place"'
    (package / "data").mkdir(parents=True)
    (package / "data" / "labels.csv").write_text("images/1.png  0.6666666666666666  poly\n\nimages/2.png 0.0 mono\n")
    install(monkeypatch, package)
    rows = read(demo.write_labels(tmp_path / "labels.csv"))
    assert [row["label"] for row in rows] == ["probably_defective", "functional"]
    assert rows[0]["path"] == str(package / "data" / "images/1.png")


@pytest.mark.parametrize("is_empty", [False, True], ids=["missing", "damaged"])
def test_missing_package_gives_the_pip_line(monkeypatch, tmp_path: Path, is_empty: bool):
    install(monkeypatch, tmp_path if is_empty else None)
    with pytest.raises(DataError) as caught:
        demo.write_labels(tmp_path / "labels.csv")
    assert caught.value.fix == "pip install 'multitl[demo]'"


def test_command_trains_on_the_labels_and_states_the_licence(monkeypatch, capsys, tmp_path: Path):
    calls, run = [], tmp_path / "demo"

    def finetune(data, **options):
        calls.append((data, options))
        run.mkdir()
        (run / "recipe.toml").write_text(options["recipe"].to_toml())
        judged = score(np.array([0, 1]), np.eye(2), demo.GRADES[:2], resamples=1)
        return Result(run, {"test": None, "validation": judged}, demo.GRADES, run / "model.keras", run / "report.html")

    monkeypatch.setattr(multitl, "finetune", finetune)
    assert cli.main(["demo", "--out", str(run), "--backend", "jax"]) == 0
    out, err = capsys.readouterr()
    [(data, options)] = calls
    assert len(read(data)) == 2624
    assert data.parent == run.parent
    assert options["recipe"].backbone == "pypi/efficientnet_lite0" and options["recipe"].unfreeze == "none"
    assert err.count("CC BY-NC-SA 4.0") == 1
    assert str(run / "report.html") in out and "multitl predict" in out
