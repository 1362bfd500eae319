"""What figures are worth beside those of no model at all, and of how few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sample_runs import make_run
from sklearn.metrics import f1_score

from multitl.cli.terminal import print_metrics, print_result
from multitl.contracts import Result
from multitl.judging.metrics import score
from multitl.judging.proportions import baselines, cautions
from multitl.judging.reporting import write_report
from multitl.runs.cards import read_metrics


def judgement(labels: list[int], predicted: list[int], names: str) -> dict:
    return score(np.array(labels), np.eye(len(names))[predicted], list(names), resamples=50)


def test_baselines_are_those_of_always_one_class_and_of_guessing():
    labels = [0] * 6 + [1] * 3 + [3]
    known = baselines(judgement(labels, labels, "abcd"))
    assert (known.majority, known.majority_accuracy, known.chance) == ("a", 0.6, 0.25)
    assert known.majority_f1_macro == pytest.approx(f1_score(labels, [0] * 10, average="macro"))


def test_chance_among_sixty_classes_is_not_passed_over():
    names = [f"class {number}" for number in range(60)]
    labels = np.arange(600) % 60
    figures = score(labels, np.eye(60)[np.random.default_rng(0).integers(0, 60, 600)], names, resamples=50)
    (caution,) = cautions(figures, "test")
    assert "is not clearly above that of" in caution and "1.7%" in caution


def test_the_most_frequent_class_is_beaten_or_not():
    labels = [0] * 900 + [1] * 100
    (caution,) = cautions(judgement(labels, [0] * 1000, "ab"), "validation")
    assert caution.startswith("The validation accuracy, 90.0%, is not clearly above that of always saying a, 90.0%")
    assert cautions(judgement(labels, labels, "ab"), "test") == []


def test_a_handful_of_images_cannot_tell_much():
    labels = [0, 1] * 4
    (caution,) = cautions(judgement(labels, labels, "ab"), "test")
    assert (
        caution == "8 test images cannot tell much: the accuracy on many more may lie anywhere from 68% to 100% (95 %)."
    )
    assert cautions(judgement(labels * 10, labels * 10, "ab"), "test") == []


def test_tables_and_report_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    run = make_run(tmp_path / "run", tmp_path, per_class=4)
    metrics = read_metrics(run)
    print_result(Result(run, metrics, ("dress",), run / "model.keras", run / "report.html"), {})
    out = capsys.readouterr().out
    assert "always dress" in out and "guessing" in out and "0.250" in out and "note: 16 test images cannot tell" in out
    print_metrics(metrics["test"])
    out = capsys.readouterr().out
    assert "accuracy of always dress" in out and "note: 16 images cannot tell much" in out
    page = write_report(run).read_text(encoding="utf-8")
    assert "About the figures.</strong> 16 test images cannot tell much" in page
    assert "whoever guesses, in 25.0%" in page
