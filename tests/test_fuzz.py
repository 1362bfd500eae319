"""Damaged and hostile files, many: nothing crashes, hangs, fills the memory, runs code or raises what is not ours.

`python -m tests.fuzz --mutants 20000` tries more. What made a reader fail once lies in corpus/READER and is tried
always.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz import campaign
from fuzz.client import Server
from fuzz.guard import hook_for
from fuzz.mutants import mutant, seeds
from fuzz.outcomes import BAD, Outcome
from fuzz.readers import READERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and measures memory as Linux tells it")
FEW = 20


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def server(reader: str) -> Iterator[Server]:
    with campaign.start_server(READERS[reader]) as server:
        yield server


def say(tally: campaign.Tally) -> str:
    return "\n\n".join(
        f"{one}: index {failure.index}\n{failure.outcome.detail}" for one, failure in tally.failures.items()
    )


def test_what_failed_once_does_not_fail_again(reader: str, server: Server):
    outcomes = {name: server.run(files) for name, files in campaign.corpus(reader)}
    assert {name: outcome for name, outcome in outcomes.items() if outcome.is_failure} == {}


def test_valid_files_are_read_and_hostile_ones_refused(reader: str, server: Server):
    for name, files in seeds(reader):
        outcome = server.run(files)
        assert outcome.kind == ("refused" if name.startswith("hostile") else "accepted"), (name, outcome.detail)


def test_a_few_mutants(reader: str, server: Server):
    tally = campaign.Tally(reader, FEW)
    for index in range(FEW):
        files = mutant(reader, 1, index)
        tally.add(index, files, server.run(files))
    assert tally.failed == 0, say(tally)
    assert tally.counts["refused"] > FEW / 10


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_mutants(reader: str):
    tally = campaign.run(reader, 2000, seed=0, jobs=1)
    assert tally.failed == 0, say(tally)


def test_a_mutant_is_the_same_every_time(reader: str):
    made = [mutant(reader, 0, index) for index in range(12)]
    assert made == [mutant(reader, 0, index) for index in range(12)]
    assert made != [mutant(reader, 1, index) for index in range(12)]
    assert all(files not in [dict(valid) for _, valid in seeds(reader)] for files in made[:1])


# The harness itself, on readers that do what none may


def outcome_of(planted: str, content: bytes = b"1 + 1") -> Outcome:
    with Server(f"fuzz.planted:{planted}") as server:
        return server.run({"file": content})


PLANTED = {
    "accepts": ("accepted", ""),
    "refuses": ("refused", "is not liked"),
    "raises": ("foreign", "KeyError"),
    "runs_text": ("violation", "compile: (b'1 + 1'"),
    "swallows_what_stops_it": ("violation", "compile: (b'found = 1'"),
    "unpickles": ("violation", "pickle.find_class"),
    "starts_program": ("violation", "subprocess.Popen: ['true']"),
    "starts_python": ("violation", "subprocess.Popen"),
    "starts_worker_that_opens_socket": ("violation", "socket.__new__"),
    "starts_shell": ("violation", "os.system"),
    "forks": ("violation", "os.fork"),
    "opens_socket": ("violation", "socket.__new__"),
    "writes_outside": ("violation", "opened for writing"),
    "writes_through_link": ("violation", "opened for writing"),
    "removes_outside": ("violation", "os.remove"),
    "writes_beside_natively": ("violation", "left in the working directory: ['left']"),
    "crashes": ("crash", "SIGSEGV"),
    "crashes_natively": ("crash", "planted.py"),
    "ends_early": ("crash", "exit code 3"),
    "claims_memory": ("memory", "MemoryError"),
    "claims_memory_and_hides_it": ("memory", "MemoryError"),
    "fills_memory": ("memory", "MB"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_harness_sees(planted: str):
    kind, said = PLANTED[planted]
    outcome = outcome_of(planted)
    assert (outcome.kind, said in outcome.detail) == (kind, True), outcome
    assert outcome.is_failure == (kind in BAD)


@pytest.mark.slow
@pytest.mark.parametrize("planted", ["loops", "waits"])
def test_harness_ends_what_does_not_end(planted: str):
    assert outcome_of(planted).kind == "hang"


def test_server_goes_on_after_a_crash():
    with Server("fuzz.planted:crashes") as server:
        assert [server.run({"file": b""}).kind for _ in range(3)] == ["crash"] * 3


def test_quick_workers_come_to_the_same():
    known = [*seeds("hdf5"), *campaign.corpus("hdf5"), ("empty.h5", {"empty.h5": b""})]
    found = []
    for quick in (True, False):
        with campaign.start_server(READERS["hdf5"], quick=quick) as server:
            found.append({name: server.run(files) for name, files in known})
    quickly, really = ({name: (one.kind, _end_of(one)) for name, one in outcomes.items()} for outcomes in found)
    assert quickly == really
    assert {kind for kind, _ in quickly.values()} == {"accepted", "refused"}


def _end_of(outcome: Outcome) -> list[str]:
    """What was said, without the path of a temporary file and its addresses."""
    return [line for line in outcome.detail.splitlines() if line.startswith("  received")]


def violation(event: str, *arguments: object) -> bool:
    found: list[str] = []
    hook_for("/tmp/mutant", found.append)(event, arguments)
    return bool(found)


@pytest.mark.parametrize(
    "command",
    [
        ["true"], "true", b"true", [], [sys.executable], [sys.executable, "-c", "-m", "multitl.x"],
        ["python3", "-m", "multitl.x"],
        [sys.executable, "-P", "-m", "http.server"], [sys.executable, "-I", "-m", "multitl.x"],
        [sys.executable, "-m", "multitl"],
    ],
)  # fmt: skip
def test_only_our_own_workers_may_be_started(command):
    assert violation("subprocess.Popen", sys.executable, command, None, None)
    assert not violation(
        "subprocess.Popen", sys.executable, [sys.executable, "-P", "-m", "multitl.any_worker", "x"], None, None
    )


def test_files_may_be_read_anywhere_and_written_in_the_folder(tmp_path: Path):
    assert not violation("open", "/etc/passwd", "r", os.O_RDONLY)
    assert not violation("open", "/tmp/mutant/a", "w", os.O_WRONLY | os.O_CREAT)
    assert violation("open", "/tmp/mutant/../a", "w", os.O_WRONLY | os.O_CREAT)
    assert violation("open", "/tmp/mutants/a", None, os.O_RDWR)
    assert violation("os.rename", "/tmp/mutant/a", "/tmp/b", -1, -1)
    assert not violation("os.rename", "/tmp/mutant/a", "/tmp/mutant/b", -1, -1)


def test_failures_are_kept_once_for_each_cause_with_the_smallest_file(tmp_path: Path):
    tally = campaign.Tally("pth", 3)
    for index, size in enumerate((9, 4, 7)):
        tally.add(index, {"a.pth": bytes(size)}, Outcome("foreign", f'  File "x.py", line 3, in f\nKeyError: {index}'))
    (place,) = campaign.save(tally, 0, tmp_path)
    assert (place / "input" / "a.pth").read_bytes() == bytes(4)
    assert "reader pth, seed 0, index 1" in (place / "reason.txt").read_text()
    assert "| pth | 3 | 0 | 0 | 0 | 0 | 0 | 3 | 0 | 0 |" in campaign.table([tally])
