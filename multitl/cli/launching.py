"""`finetune` with several workers: the same command line for each of them, and this process watches."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from multitl.adapters import check_backend, has_gpu
from multitl.distribution.devices import VISIBLE
from multitl.distribution.group import ALONE, OURS, group_from_environment
from multitl.errors import GroupError, nearest_names
from multitl.recipes import Recipe

if TYPE_CHECKING:
    from multitl.engines.watching import Team

ENGINES = ("local", "ray")
STARTS = ("engine", "devices", "address")  # options, beside --workers, that have workers started


def is_launcher(options: argparse.Namespace) -> bool:
    """Whether this process is to start workers; one that was started as a worker is not, whoever started it.

    Raises GroupError where somebody else started it, and it is told to start others all the same.
    """
    if OURS in os.environ:
        return False
    group, starts = group_from_environment(), [name for name in STARTS if getattr(options, name)]
    if group == ALONE and "RANK" not in os.environ:
        return options.workers is not None or bool(starts)
    if options.workers not in (None, group.size):
        raise GroupError(
            "The number of workers is not the one that this process was started with.",
            expected=f"--workers {group.size}, as WORLD_SIZE or Slurm say",
            received=f"--workers {options.workers}",
            fix="leave --workers out" + (", or unset RANK and WORLD_SIZE" if group == ALONE else ""),
        )
    if starts:
        raise GroupError(
            "This process was started as a worker already, so it starts none.",
            expected="no RANK, WORLD_SIZE or Slurm's variables of a step beside "
            + ", ".join(f"--{it}" for it in STARTS),
            received=f"RANK={group.rank} WORLD_SIZE={group.size} with {', '.join(f'--{name}' for name in starts)}",
            fix=f"leave {' and '.join(f'--{name}' for name in starts)} out, or "
            + ("unset RANK and WORLD_SIZE" if "RANK" in os.environ else "start it once: srun --ntasks=1"),
        )
    return False


def launch(options: argparse.Namespace, recipe: Recipe) -> None:
    """Check what can be known at once, then start the workers and see them through.

    Raises MultitlError that says what to mend, SystemExit with the exit code of a worker that has said it.
    """
    from multitl.engines import ray_engine
    from multitl.engines.this_machine import local_team

    _check(options, recipe)
    backend, run = _check_run(options, recipe)
    os.environ["KERAS_BACKEND"] = backend  # of all, whatever is the fastest where they are
    if options.engine == "ray":
        with ray_engine.connected(options.address, options.workers or 1):
            workers = options.workers or ray_engine.count_workers()
            _see_through(lambda arguments: ray_engine.ray_team(arguments, workers, run), workers, options, recipe, run)
        return
    gpus = _gpus(backend, options)
    workers = options.workers or len(gpus)
    _see_through(lambda arguments: local_team(arguments, workers, gpus), workers, options, recipe, run)


def _see_through(
    start: Callable[[list[str]], AbstractContextManager[Team]], workers: int, options: argparse.Namespace,
    recipe: Recipe, run: Path,
) -> None:  # fmt: skip
    from multitl.engines.watching import see_through

    _check_share(recipe, workers)
    again = lambda resumes: start(_arguments(options.arguments, resumes))  # noqa: E731
    see_through(again, run, options.restarts, resumes=options.resume)


def _arguments(typed: Sequence[str], resumes: bool) -> list[str]:
    """As typed; but whoever goes on resumes, whatever was asked for at first."""
    plain = [word for word in typed if word not in ("--overwrite", "--resume")]
    return [*plain, "--resume"] if resumes else list(typed)


def _check(options: argparse.Namespace, recipe: Recipe) -> None:
    """What the options say alone."""
    if options.engine and options.engine not in ENGINES:
        raise GroupError(
            f"Unknown engine {options.engine!r}.",
            expected=" or ".join(ENGINES),
            received=options.engine,
            nearest=nearest_names(options.engine, ENGINES),
            fix="--engine ray, or leave it out for processes of this machine",
        )
    if options.heads or options.head_weights or options.repeats:
        raise GroupError(
            "Several workers share a single run.",
            expected="neither --repeats nor --heads beside --workers",
            received=f"repeats = {options.repeats}, heads = {options.heads!r}",
            fix="leave --workers out, or start a run for each seed with --seed",
        )
    if options.workers is not None and options.workers < 1:
        raise GroupError(
            f"{options.workers} workers do nothing.",
            expected="a number of workers from 1 on",
            received=f"--workers {options.workers}",
            fix="--workers 2; without the option, one process does all",
        )
    if options.restarts < 0:
        raise GroupError(
            f"Lost workers cannot be started again {options.restarts} times.",
            expected="a number from 0 on",
            received=f"--restarts {options.restarts}",
            fix="--restarts 3",
        )
    if options.devices not in ("", "all"):
        raise GroupError(
            "--devices takes all devices of the machine, or is left out.",
            expected="--devices all",
            received=f"--devices {options.devices}",
            fix=f"--workers N for N of them; {VISIBLE}=0,2 says which",
        )
    if options.devices and (options.workers or options.engine == "ray"):
        raise GroupError(
            "--devices counts the workers itself.",
            expected="--devices all alone",
            received=f"--devices beside --workers or --engine {options.engine}".rstrip(),
            fix="leave --devices out",
        )
    if options.address and options.engine != "ray":
        raise GroupError(
            "Only a cluster of Ray has an address.",
            expected="--engine ray beside --address",
            received=f"--address {options.address}",
            fix="add --engine ray",
        )
    if options.engine == "local" and not (options.workers or options.devices):
        raise GroupError(
            "It is not said how many workers there are to be.",
            expected="--workers N, or --devices all",
            received="--engine local alone",
            fix="--workers 2",
        )
    if options.workers:
        _check_share(recipe, options.workers)


def _check_share(recipe: Recipe, workers: int) -> None:
    """Raises RecipeError for what so many cannot share."""
    from multitl.training.groups import check_group

    check_group(replace(ALONE, size=workers), recipe)


def _check_run(options: argparse.Namespace, recipe: Recipe) -> tuple[str, Path]:
    """The backend's name and the run's folder, once all was refused that a worker would refuse at once."""
    from multitl.training import asked, candidates

    backend, given = check_backend(options.backend), recipe
    asked.check_listeners(None, options.log_to)
    recipe = candidates.settle(given)
    data = asked.settle_data(options.data, recipe, candidates.named_in(recipe))
    run = asked.run_folder(data, options.out, given, backend)
    asked.check_finetune(data, backend, run, recipe, overwrite=options.overwrite, resume=options.resume)
    return backend, run


def _gpus(backend: str, options: argparse.Namespace) -> Sequence[str]:
    """What CUDA calls the GPUs that workers get, one each; none where the backend sees none."""
    devices = _devices(backend) if has_gpu() and shutil.which("nvidia-smi") else ()
    found = _names(devices)
    if devices == ("CPU",):
        os.environ[VISIBLE] = "-1"  # of the workers, too: they would count GPUs that the backend has no use for
    if options.devices and not found:
        raise GroupError(
            f"The backend {backend} sees no GPU here.",
            expected="at least one, for --devices all",
            received="the CPU",
            fix="multitl doctor says why; --workers 2 shares out the CPU's cores",
        )
    if found and (options.workers or 0) > len(found):
        raise GroupError(
            f"{options.workers} workers need a GPU each.",
            expected=f"at most {len(found)} workers: {backend} sees so many GPUs",
            received=f"--workers {options.workers}",
            fix=f"--workers {len(found)}; or CUDA_VISIBLE_DEVICES=-1 for the CPU",
        )
    return found


def _devices(backend: str) -> tuple[str, ...]:
    """What the framework itself finds, in a process of its own: this one must not hold their memory. () if it fails."""
    from multitl.doctor.probe import probe

    return probe(backend).devices


def _names(devices: Sequence[str]) -> list[str]:
    """What CUDA calls the GPUs among them."""
    count = 0 if devices in ((), ("CPU",)) else len(devices)
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return (named or [str(number) for number in range(count)])[:count]
