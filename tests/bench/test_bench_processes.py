"""A contender that crashes, hangs or is missing costs a record, not the race. Real processes."""

from __future__ import annotations

import dataclasses
import importlib.util
import time

import pytest
from sample_benches import job

from multitl.bench import processes
from multitl.bench.processes import missing_packages, pip_line, run_job
from multitl.system import threads


def test_a_crash_is_told_in_its_last_words():
    pytest.importorskip("jax")
    record = run_job(job("native-jax"), 120, is_last=False)  # its weights file does not exist
    assert record.state == "crashed"
    assert "weights.safetensors" in record.note


def test_a_hang_is_ended_in_time():
    started = time.monotonic()
    record = run_job(job("native-jax"), 0.05, is_last=False)
    assert time.monotonic() - started < 30
    assert (record.state, record.note) == ("hung", "no result within 0 s")


def test_the_end_of_the_budget_is_nobodys_fault():
    record = run_job(job("native-jax"), 0.05, is_last=True)
    assert (record.state, record.note) == ("out of time", "the budget ended")


def test_a_missing_framework_starts_no_process(monkeypatch: pytest.MonkeyPatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    monkeypatch.setattr(processes.children, "run", None)  # calling it would raise
    record = run_job(job("torch"), 60, is_last=False)
    assert (record.state, record.note) == ("not installed", "pip install 'multitl[torch]'")
    assert missing_packages("jax") == []


def test_the_pip_line_is_of_multitls_extras():
    assert pip_line(["torch", "torchvision"]) == "pip install 'multitl[torchvision]'"
    assert pip_line(["jax", "multitl_native"]) == "pip install 'multitl[jax]'"


def test_a_network_without_a_native_loop_is_told():
    pytest.importorskip("jax")
    other = job("native-jax")
    other = dataclasses.replace(other, cell=dataclasses.replace(other.cell, backbone="keras/MobileNet"))
    record = run_job(other, 120, is_last=False)
    assert record.state == "not available"
    assert "resnet50" in record.note


def test_every_contender_gets_the_same_threads():
    first, second = (processes.environment_for(job(name)) for name in ("jax", "native-torch"))
    assert {first[name] for name in threads.VARIABLES} == {"1"}
    assert {name: first[name] for name in threads.VARIABLES} == {name: second[name] for name in threads.VARIABLES}
    assert first["KERAS_BACKEND"] == "jax"
