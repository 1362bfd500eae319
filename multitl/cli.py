"""The command line. Results go to stdout, progress and errors to stderr; --json puts nothing but JSON on stdout.

Exit codes: 0 done; 2 the input, the options or the machine are at fault, and the message says what to do; 130 Ctrl-C.
Nothing heavy is imported before a command needs it: `multitl --help` loads neither Keras nor NumPy.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import multitl
from multitl.adapters import BACKENDS, SOURCES, backbones
from multitl.contracts import SPLITS
from multitl.errors import BackboneError, MultitlError, nearest_names
from multitl.recipes import Recipe, read_options

FAULT, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
DEMO_FOLDER = "runs/demo"
METAVARS = {int: "N", float: "X", str: "TEXT"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Unexpected exceptions propagate: they are bugs, with a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parse(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
        return 0
    except MultitlError as error:
        print(f"multitl: {error}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        print(_how_to_resume(arguments), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `multitl backbones | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


class Parser(argparse.ArgumentParser):
    """argparse, but flags are never abbreviated (a new flag would break a script) and unknown ones get a suggestion."""

    def __init__(self, prog: str, description: str, usage: str | None = None) -> None:
        super().__init__(prog, usage, description, allow_abbrev=False, formatter_class=_wide_help)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with code 2, naming the first unknown argument and the flags closest to it."""
        first = next((argument for argument in unknown if argument.startswith("-")), unknown[0]).split("=")[0]
        nearest = nearest_names(first, self._option_string_actions, count=1) if first.startswith("-") else []
        self.error(f"unknown argument {first}" + "".join(f"; did you mean {flag}?" for flag in nearest))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the chosen command, and the function to call with them as `run`."""
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        options.parser.refuse(unknown)
    return options


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser("multitl", "Fine-tune a pretrained image backbone on JAX, TensorFlow or PyTorch.")
    parser.add_argument("--version", action="version", version=f"multitl {multitl.__version__}")
    parser.set_defaults(parser=parser, run=lambda options: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (run, add_options, operands) in COMMANDS.items():
        summary = (run.__doc__ or "").rstrip(".")
        usage = " ".join(["multitl", name, *operands.split(), "[options]"])
        command = commands.add_parser(
            name, help=summary, description=f"{summary}.", prog=f"multitl {name}", usage=usage
        )
        command.set_defaults(parser=command, run=run)
        add_options(command)
    return parser


def finetune(options: argparse.Namespace) -> None:
    """Train a classifier on labelled images; judge, save and report it."""
    _silence_frameworks()
    result = multitl.finetune(
        options.data, backend=options.backend, output=options.out, recipe=_recipe(options),
        overwrite=options.overwrite, resume=options.resume,
    )  # fmt: skip
    _print_result(result, options.data)


def evaluate(options: argparse.Namespace) -> None:
    """Judge a finished run on labelled images."""
    _silence_frameworks()
    metrics = multitl.evaluate(options.folder, options.data, backend=options.backend, split=options.split)
    if options.json:
        print(json.dumps(metrics, indent=2))
    else:
        from multitl.terminal import print_metrics

        print_metrics(metrics)


def predict(options: argparse.Namespace) -> None:
    """Classify image files with a finished run."""
    _silence_frameworks()
    predictions = multitl.predict(options.folder, options.images, backend=options.backend)
    if options.json:
        print(json.dumps([_likeliest(row, options.top) for row in predictions], indent=2))
    else:
        from multitl.terminal import print_predictions

        print_predictions(_likeliest(row, options.top or 1) for row in predictions)


def list_backbones(options: argparse.Namespace) -> None:
    """List the pretrained backbones."""
    infos = [info for source in SOURCES for info in backbones(source)]
    chosen = [info for info in infos if _matches(info.name, options.pattern)]
    if not chosen:
        raise BackboneError(
            f"No backbone matches {options.pattern!r}.",
            expected="part of a name, or a glob such as 'keras/ResNet*'",
            nearest=nearest_names(options.pattern, [info.name for info in infos]),
            fix="multitl backbones",
        )
    if options.json:
        print(json.dumps([dataclasses.asdict(info) for info in chosen], indent=2))
    else:
        from multitl.terminal import print_backbones

        print_backbones(chosen)


def demo(options: argparse.Namespace) -> None:
    """Try it: grade 2,624 photos of solar cells, all local."""
    from multitl.demo import LICENCE, RECIPE, write_labels

    _silence_frameworks()
    labels = write_labels(f"{options.out}-labels.csv")  # beside the run folder, which must start empty
    print(LICENCE, file=sys.stderr)
    result = multitl.finetune(
        labels, backend=options.backend, output=options.out, recipe=RECIPE,
        overwrite=options.overwrite, resume=options.resume,
    )  # fmt: skip
    _print_result(result, str(labels))


def doctor(options: argparse.Namespace) -> None:
    """Check this machine: backends, devices, known traps."""
    from multitl.doctor import examine

    diagnosis = examine()
    if options.json:
        print(json.dumps(dataclasses.asdict(diagnosis), indent=2))
    else:
        from multitl.terminal import print_diagnosis

        print_diagnosis(diagnosis)
    diagnosis.insist_on_a_backend()


def _finetune_options(parser: Parser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="folder class/images or train|validation|test/class/images, or a table"
    )
    _add_run_options(parser, "runs/<data>-<backbone>-<backend>")
    parser.add_argument("--recipe", metavar="FILE", help="TOML file of the options below, which override it")
    group = parser.add_argument_group("recipe options (also the keys of a recipe file, with _ for -)")
    for field in dataclasses.fields(Recipe):
        _add_recipe_flag(group, field)


def _add_recipe_flag(group: argparse._ArgumentGroup, field: dataclasses.Field) -> None:
    flag, kind, limits = "--" + field.name.replace("_", "-"), type(field.default), field.metadata
    text = f"{limits['help']} ({_range(limits['least'], limits['most'])}default: {field.default})".replace("%", "%%")
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    values = "{" + ",".join(limits["choices"]) + "}" if limits["choices"] else METAVARS[kind]
    group.add_argument(flag, type=kind, metavar=values, default=argparse.SUPPRESS, help=text)


def _evaluate_options(parser: Parser) -> None:
    _add_folder(parser)
    parser.add_argument("data", metavar="DATA", help="labelled images, as for finetune")
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="the part of DATA, where it has parts (default: test)"
    )
    _add_backend(parser)
    _add_json(parser)


def _predict_options(parser: Parser) -> None:
    _add_folder(parser)
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="image files, or folders of them")
    parser.add_argument(
        "--top", type=_positive, metavar="N", help="list the N likeliest classes (default: 1; with --json, all)"
    )
    _add_backend(parser)
    _add_json(parser)


def _backbones_options(parser: Parser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="", help="part of a name, or a glob")
    _add_json(parser)


def _demo_options(parser: Parser) -> None:
    _add_run_options(parser, DEMO_FOLDER)
    parser.set_defaults(out=DEMO_FOLDER)


def _add_run_options(parser: Parser, default_folder: str) -> None:
    _add_backend(parser)
    parser.add_argument("--out", metavar="DIR", help=f"the run folder to make (default: {default_folder})")
    parser.add_argument("--overwrite", action="store_true", help="start again if the run folder exists")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")


def _add_backend(parser: Parser) -> None:
    parser.add_argument(
        "--backend", metavar="{" + ",".join(BACKENDS) + "}", help="default: KERAS_BACKEND, or the first installed"
    )


def _add_folder(parser: Parser) -> None:
    parser.add_argument("folder", metavar="RUN", help="the folder of a finished run")


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMANDS = {
    "finetune": (finetune, _finetune_options, "DATA"),
    "evaluate": (evaluate, _evaluate_options, "RUN DATA"),
    "predict": (predict, _predict_options, "RUN IMAGES..."),
    "backbones": (list_backbones, _backbones_options, "[PATTERN]"),
    "demo": (demo, _demo_options, ""),
    "doctor": (doctor, _add_json, ""),
}


def _wide_help(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=32)


def _recipe(options: argparse.Namespace) -> Recipe:
    """Flags before the recipe file before the defaults."""
    names = {field.name for field in dataclasses.fields(Recipe)}
    flags = {name: value for name, value in vars(options).items() if name in names}
    values = read_options(options.recipe) if options.recipe else {}
    return Recipe.from_mapping(values | flags, where=options.recipe or "the command line")


def _print_result(result: multitl.Result, data: str) -> None:
    from multitl.terminal import print_result

    run = str(result.output)
    deeper = ["--recipe", f"{run}/recipe.toml", "--unfreeze", "last", "--out", f"{run}-unfrozen"]
    steps = {
        "train the last stage of the backbone as well": ["finetune", data, *deeper],
        "classify new images": ["predict", run, "IMAGES"],
        "judge on other labelled images": ["evaluate", run, "DATA"],
    }
    if Recipe.read(Path(run, "recipe.toml")).unfreeze != "none":
        del steps["train the last stage of the backbone as well"]
    print_result(result, {purpose: shlex.join(["multitl", *command]) for purpose, command in steps.items()})


def _likeliest(prediction: dict[str, Any], count: int | None) -> dict[str, Any]:
    """The prediction with its `count` (None: all) highest probabilities, highest first."""
    if "error" in prediction:
        return prediction
    ranked = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])
    return prediction | {"probabilities": dict(ranked[:count])}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return pattern in name or fnmatch.fnmatchcase(name, pattern)


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return ""
    return f"at least {least:g}, " if most is None else f"{least:g} to {most:g}, "


def _silence_frameworks() -> None:
    """Hide start-up chatter before a framework loads; TF_CPP_MIN_LOG_LEVEL=0 brings TensorFlow's back."""
    import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)  # "falling back to cpu": doctor says it better


def _how_to_resume(arguments: Iterable[str]) -> str:
    command = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
    if command[0] not in ("finetune", "demo"):
        return "Interrupted."
    return f"Interrupted. What is finished is kept; to go on: {shlex.join(['multitl', *command, '--resume'])}"
