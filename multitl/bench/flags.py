"""The flags of `multitl bench`, and the options they make."""

from __future__ import annotations

import argparse
from typing import NoReturn

from multitl.bench.jobs import DTYPES, MULTITL, NATIVE, PIPELINES, TASKS
from multitl.bench.options import DEFAULT_BACKBONE, SHORTEST, USUAL, Options
from multitl.errors import RecipeError

NETWORKS = "native loops know resnet18, resnet50, mobilenet_v2, efficientnet_b0 and vit_b_32 of torchvision"


def add_bench_flags(parser: argparse.ArgumentParser) -> None:
    """`multitl bench [options]`, and `multitl bench compare A B`: as words, so that a misspelt flag gets its hint."""
    _add_what(parser)
    _add_how(parser)
    parser.add_argument("--out", default="runs/bench", metavar="DIR", help="the folder to make (default: runs/bench)")
    parser.add_argument("--markdown", default="", metavar="FILE", help="write the results as Markdown, too")
    parser.add_argument("--overwrite", action="store_true", help="start again if the folder holds results")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted benchmark")
    parser.add_argument(
        "words", nargs="*", metavar="compare A B", help="no race: show what changed between two earlier ones, "
        "given by their folders or results.jsonl",
    )  # fmt: skip


def _add_what(parser: argparse.ArgumentParser) -> None:
    usual = Options  # its defaults; an instance would be checked, and open a source whenever the program starts
    parser.add_argument(
        "--backbone",
        type=_names,
        action="extend",
        metavar="A,B",
        help=f"repeatable (default: {DEFAULT_BACKBONE}); {NETWORKS}",
    )
    known = ",".join([*MULTITL, *NATIVE])
    parser.add_argument("--backends", type=_names, default=usual.contenders, metavar="A,B", help=f"{known} (default: "
                        f"all but {', '.join(sorted({*MULTITL, *NATIVE} - {*USUAL}))}); input has "
                        f"{','.join(PIPELINES)}")  # fmt: skip
    parser.add_argument(
        "--task", type=_names, default=usual.tasks, metavar="A,B", help=f"{','.join(TASKS)} (default: head,finetune)"
    )
    parser.add_argument(
        "--batch-size", type=_numbers, default=usual.batch_sizes, metavar="N,M", help="images a step (default: 16)"
    )
    parser.add_argument(
        "--dtype", type=_names, default=usual.dtypes, metavar="A,B", help=f"{','.join(DTYPES)} (default: float32)"
    )
    parser.add_argument(
        "--image-size", type=_number, default=0, metavar="N", help="side in pixels (default: the network's own)"
    )
    parser.add_argument(
        "--weights", default="none", metavar="FILE", help="default, none (random) or a file (default: none)"
    )
    parser.add_argument(
        "--data", default="", metavar="DATA", help="labelled images: head becomes the whole job; input needs them"
    )
    parser.add_argument("--epochs", type=_number, default=10, metavar="N", help="of the whole job (default: 10)")
    parser.add_argument(
        "--accuracy", type=float, default=0.0, metavar="X", help="when did a whole job reach this validation accuracy?"
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    usual = Options  # its defaults; an instance would be checked, and open a source whenever the program starts
    parser.add_argument(
        "--budget", type=float, default=usual.budget, metavar="SECONDS", help=f"for everything; at least {SHORTEST} "
        f"(default: {usual.budget:g})",
    )  # fmt: skip
    parser.add_argument(
        "--repetitions", type=_number, default=usual.repetitions, metavar="N", help="at most (default: 5)"
    )
    parser.add_argument(
        "--timeout", type=float, default=usual.timeout, metavar="SECONDS", help="a process that takes longer counts as "
        f"hung (default: {usual.timeout:g})",
    )  # fmt: skip
    parser.add_argument("--threads", type=_number, default=0, metavar="N", help="cores for each process (default: all)")


def compared(options: argparse.Namespace) -> tuple[str, str] | None:
    """The two results to compare, or None for a race. Exits as a usage error for other words."""
    if not options.words:
        return None
    if options.words[0] != "compare":
        options.parser.error(f"unexpected {options.words[0]!r}; options take several values as A,B")
    if len(options.words) != 3:
        options.parser.error("compare takes two results: multitl bench compare A B")
    if idle := [f"--{name}" for name in ("markdown", "overwrite", "resume") if getattr(options, name)]:
        options.parser.error(f"compare has no use for {', '.join(idle)}")
    return options.words[1], options.words[2]


def options_from(options: argparse.Namespace) -> Options:
    """Raises MultitlErrors for what cannot be raced."""
    from multitl.system.threads import default_threads

    for name in ("budget", "timeout", "accuracy"):
        if not 0 <= getattr(options, name) < float("inf"):
            _refuse(name, getattr(options, name))
    settings = Options(
        backbones=tuple(dict.fromkeys(options.backbone or [DEFAULT_BACKBONE])),
        contenders=options.backends, tasks=options.task, batch_sizes=options.batch_size, dtypes=options.dtype,
        image_size=options.image_size, weights=options.weights, data=options.data, epochs=options.epochs,
        accuracy=options.accuracy, budget=options.budget, repetitions=options.repetitions, timeout=options.timeout,
        threads=options.threads or default_threads(),
    )  # fmt: skip
    if settings.data:
        from multitl.data.scanning import check_for_training
        from multitl.recipes import Recipe

        check_for_training(settings.data, Recipe())
    return settings


def _refuse(name: str, value: float) -> NoReturn:
    raise RecipeError(
        f"The option {name} cannot be {value!r}.", expected="a number from 0 on", received=f"--{name} {value}",
        fix=f"leave --{name} out for the default",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    """ "a,b" -> ("a", "b"), each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_number(part.strip()) for part in text.split(",")))
