"""SIGKILL at any moment, again and again, of `multitl finetune` and `multitl port`:
`python benchmarks/kills.py BACKEND KILLS DATA [finetune|port]`.

DATA: a folder of labelled images.  KILLS: of each command.  Prints a Markdown table, a row a command.

Each command runs once undisturbed. Then it is started again and again and killed: once in each of KILLS equal parts of
the time that it took, in a random order. After a kill nothing that it started may be alive 5 seconds later. The next
start resumes (`port`: begins again); where it ends before its kill comes, its results are compared with those of the
undisturbed one, nothing temporary may be left in the run folder, beside it, in the cache or in TMPDIR, and the story
begins anew. The last start is left to end. A folder with a card is a finished run, whatever was going on: after each
kill `multitl predict` has to work with it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

BACKBONE = ("--backbone", "keras/MobileNet:alpha=0.25", "--weights", "none", "--image-size", "32")
TRAINING = ("--budget", "30m")  # in which all trials have room, on any machine: the plan is always the same
MARK = "MULTITL_KILLS"  # a variable by which a process and all that it starts are known
WEIGHTS = "model.weights.h5"  # in a .keras file
SECONDS = 5.0  # after which nothing may be alive


@dataclass
class Tally:
    """What became of one command. faults: sentences."""

    command: str
    seconds: float
    moments: list[float] = field(default_factory=list)
    ends: int = 0
    uses: int = 0
    lives: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Place:
    """A folder with everything in it: runs, cache, TMPDIR."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        variables = {"MULTITL_CACHE": str(folder / "cache"), "TMPDIR": str(self.temporary), MARK: self.mark}
        self.environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"} | variables

    def start(self, *arguments: str | Path) -> subprocess.Popen:
        """The command line, its words kept in a file."""
        with (self.folder / "said").open("wb") as said:
            command = [sys.executable, "-m", "multitl", *map(str, arguments)]
            return subprocess.Popen(command, env=self.environment, stdout=said, stderr=subprocess.STDOUT)

    def said(self, *, whole: bool = False) -> str:
        """What the last command wrote: its end."""
        return (self.folder / "said").read_text(encoding="utf-8", errors="replace")[0 if whole else -1000 :]

    def alive(self) -> list[int]:
        """The processes that were started here, and those that they started."""
        found, mark = [], f"{MARK}={self.mark}\0".encode()
        for file in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended meanwhile; a zombie has no environment
                found += [int(file.parent.name)] if mark in file.read_bytes() else []
        return found

    def left(self) -> list[str]:
        """Temporary files and locks, anywhere."""
        paths = [path for path in self.folder.rglob("*") if ".multitl" in path.name or path.name.endswith(".older")]
        return sorted(str(path.relative_to(self.folder)) for path in {*paths, *self.temporary.iterdir()})


class Story:
    """One command that is killed again and again; `whole` is what it makes undisturbed, `broken` what it makes so."""

    def __init__(self, place: Place, command: list[str], again: str, names: tuple[str, ...]) -> None:
        self.place, self.command, self.again, self.names = place, command, again, names
        self.whole, self.broken = place.folder / f"{command[0]}-whole", place.folder / f"{command[0]}-broken"
        started = time.perf_counter()
        process = place.start(*command, "--out", self.whole)
        if process.wait():
            raise RuntimeError(place.said())
        self.tally = Tally(command[0], time.perf_counter() - started)

    def run(self, kills: int) -> Tally:
        """All kills, then to the end."""
        draw = random.Random(0)
        moments = [self.tally.seconds * (part + draw.random()) / kills for part in range(kills)]
        draw.shuffle(moments)
        while moments:
            is_new = not self.broken.exists()
            if self.is_killed_after(moments[-1]):
                moments.pop()
            elif is_new:  # the machine is quicker now than it was undisturbed
                moments[-1] *= 0.8
        self.is_killed_after(None)
        return self.tally

    def is_killed_after(self, seconds: float | None) -> bool:
        """Whether it was killed; if it ended before, it was judged, and what it made is gone."""
        process = self.place.start(*self.command, "--out", self.broken, self.again)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.tally.moments.append(seconds or 0.0)
            self.tally.lives.append(self.seconds_alive())
            print(f"{self.command[0]}: killed after {seconds:.1f} s", file=sys.stderr)
            self.use()
            return True
        self.judge(code)
        shutil.rmtree(self.broken, ignore_errors=True)
        shutil.rmtree(self.place.folder / "cache", ignore_errors=True)
        return False

    def use(self) -> None:
        """What `finetune` has published by now."""
        if self.command[0] == "finetune" and (self.broken / "card.json").exists():
            image = next(path for path in sorted(Path(self.command[1]).rglob("*")) if path.suffix in (".jpg", ".png"))
            if self.place.start("predict", self.broken, image).wait():
                self.tally.faults.append(f"predict: {self.place.said()}")
            self.tally.uses += 1

    def seconds_alive(self) -> float:
        """How long anything lived on."""
        started = time.perf_counter()
        while alive := self.place.alive():
            if time.perf_counter() - started > SECONDS:
                self.tally.faults.append(f"{len(alive)} processes alive after {SECONDS:.0f} s")
                break
            time.sleep(0.02)
        return time.perf_counter() - started

    def judge(self, code: int) -> None:
        """Compare what an end left with what the undisturbed one did."""
        self.tally.ends += 1
        if code:
            self.tally.faults.append(f"exit code {code}: {self.place.said()}")
            return
        self.tally.faults += [f"left: {path}" for path in self.place.left()]
        whole, broken = ({str(path.relative_to(one)) for path in one.rglob("*")} for one in (self.whole, self.broken))
        is_log = lambda name: "tfevents" in name  # noqa: E731  (a file a process)
        self.tally.faults += [f"only in one: {name}" for name in sorted(whole ^ broken) if not is_log(name)]
        for name in self.names:
            if name in whole & broken and content(self.whole / name) != content(self.broken / name):
                self.tally.faults.append(f"{name} is another one")
        print(f"{self.command[0]}: ended", file=sys.stderr)


def content(file: Path) -> object:
    """What must be the same: all but times, dates and names of folders."""
    if file.suffix == ".keras":
        with zipfile.ZipFile(file) as archive:
            return hashlib.sha256(archive.read(WEIGHTS)).hexdigest()  # its config.json holds addresses of objects
    if file.name == "card.json":
        card = json.loads(file.read_text(encoding="utf-8"))
        return {name: card.get(name) for name in ("proof", "bytes", "gives", "class_names")}
    return file.read_bytes()


def row(tally: Tally) -> str:
    moments, lives = tally.moments, tally.lives
    faults = "; ".join(dict.fromkeys(tally.faults)) or "none"
    return (
        f"| `{tally.command}` | {tally.seconds:.1f} | {len(moments)} | {min(moments):.1f} to {max(moments):.1f} | "
        f"{max(lives):.2f} | {tally.uses} | {tally.ends} | {faults} |"
    )


def main(backend: str, kills: int, data: str, commands: list[str]) -> None:
    """Print the table, a row as soon as it is known."""
    print(f"# {kills} kills of each command on {backend}\n")
    print(f"Made by `python benchmarks/kills.py {backend} {kills} {data}`, {datetime.date.today()}.\n")
    print("| command | undisturbed, s | kills | after, s | longest life after, s | used then | ends judged | faults |")
    print("|---|---:|---:|---:|---:|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        place = Place(Path(folder), backend)
        run = place.folder / "run"
        finetune = ["finetune", data, *BACKBONE, *TRAINING]
        port = ["port", str(run), "--to", "keras"]
        if "finetune" in commands:
            files = ("metrics.json", "predictions.csv", "model.keras", "recipe.toml")
            print(row(Story(place, finetune, "--resume", files).run(kills)), flush=True)
        if "port" in commands:
            if place.start(*finetune, "--out", run).wait():
                raise RuntimeError(place.said())
            print(row(Story(place, port, "--overwrite", ("model.keras", "card.json")).run(kills)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:] or ["finetune", "port"])
