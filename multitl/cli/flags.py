"""The flags of each command. Those of a recipe are made from `Recipe`'s fields: name, help, range, choices, default."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import NoReturn

from multitl.adapters import BACKENDS
from multitl.cli.habits import flag_hint
from multitl.contracts import SPLITS
from multitl.options import range_of
from multitl.recipes import OF_FEATURES, Recipe, combine

DEMO_FOLDER = "runs/demo"
RESTARTS = 3
METAVARS = {int: "N", float: "X", str: "TEXT"}
NAMED_METAVARS = {
    "from_run": "RUN",
    "images": "DIR",
    "unlabelled": "DIR",
    "range": "LOW,HIGH",
    "channels": "R,G,B|all",
    "path_column": "COLUMN",
    "label_column": "COLUMN",
    "costs": "FILE",
    "relabel": "FILE",
    "class_weights": "{none,balanced,A=X,...,FILE}",
}
NAMED_FLAGS = {"from_run": "--from"}  # "from" is a word of Python, so it cannot be an option's name


class Parser(argparse.ArgumentParser):
    """argparse, but flags are never abbreviated (a new flag would break a script) and unknown ones get a suggestion."""

    def __init__(self, prog: str, description: str, usage: str | None = None) -> None:
        super().__init__(prog, usage, description, allow_abbrev=False, formatter_class=_wide_help)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with code 2, naming the first unknown argument and the flags closest to it."""
        first = next((argument for argument in unknown if argument.startswith("-")), unknown[0]).split("=")[0]
        hint = flag_hint(first, self._option_string_actions) if first.startswith("-") else ""
        self.error(f"unknown argument {first}{hint}")


def add_finetune_flags(parser: Parser) -> None:
    parser.add_argument(
        "data",
        type=path_flag,
        metavar="DATA",
        help="folder class/images or train|validation|test/class/images, a table, .tar shards, or a URL of one",
    )
    _add_run_flags(parser, "runs/<data>-<backbone>-<backend>")
    parser.add_argument(
        "--repeats",
        type=_positive,
        metavar="N",
        help="N runs, with the seeds from --seed on, in DIR/seed-K; their mean and spread in DIR/summary.json",
    )
    parser.add_argument(
        "--heads",
        default="",
        metavar="COLUMN=KIND,...",
        help="several heads on one backbone, each for a column of DATA: class, labels or number",
    )
    parser.add_argument(
        "--head-weights",
        default="",
        metavar="COLUMN=X,...",
        help="of the losses of heads that are trained together (default: 1 each), or learned",
    )
    parser.add_argument(
        "--log-to", default="", metavar="A,B", help="log each epoch to tensorboard (RUN/tensorboard), mlflow or wandb"
    )
    _add_worker_flags(parser.add_argument_group("several devices"))
    parser.add_argument(
        "--recipe", type=path_flag, metavar="FILE", help="TOML file of options, which those below override"
    )
    group = parser.add_argument_group("recipe options (also the keys of a recipe file, with _ for -)")
    for field in dataclasses.fields(Recipe):
        _add_recipe_flag(group, field)


def _add_worker_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--workers", type=int, metavar="N", help="N processes share the run, on GPUs one each; N divides --batch-size"
    )
    group.add_argument("--devices", default="", metavar="all", help="a worker for each GPU of this machine")
    group.add_argument(
        "--engine", default="", metavar="{local,ray}", help="who starts workers: this machine, or Ray (default: local)"
    )
    group.add_argument(
        "--address", default="", metavar="HOST:PORT", help="a cluster of Ray, or auto (default: RAY_ADDRESS, or none)"
    )
    group.add_argument(
        "--restarts",
        type=int,
        default=RESTARTS,
        metavar="N",
        help="how often lost workers are started again without a new checkpoint in between (default: %(default)s)",
    )


def _add_recipe_flag(group: argparse._ActionsContainer, field: dataclasses.Field) -> None:
    flag = NAMED_FLAGS.get(field.name, "--" + field.name.replace("_", "-"))
    kind, limits = type(field.default), field.metadata
    values = ", ".join(filter(None, [range_of(field), f"default: {field.default}" if field.default != "" else ""]))
    text = (limits["help"] + (f" ({values})" if values else "")).replace("%", "%%")
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    plain = NAMED_METAVARS.get(field.name, METAVARS[kind])
    metavar = "{" + ",".join(limits["choices"]) + "}" if limits["choices"] else plain
    group.add_argument(flag, dest=field.name, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=text)


def add_evaluate_flags(parser: Parser) -> None:
    _add_folder(parser)
    parser.add_argument("data", type=path_flag, metavar="DATA", help="labelled images, as for finetune")
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="the part of DATA, where it has parts (default: test)"
    )
    _add_costs(parser)
    for field in dataclasses.fields(Recipe):
        if field.name in ("images", "path_column", "label_column"):
            _add_recipe_flag(parser, field)
            parser.set_defaults(**{field.name: field.default})
    parser.add_argument(
        "--max-unreadable", type=float, metavar="X",
        help="share of unreadable files above which they are an error (0 to 1; default: the run's own)",
    )  # fmt: skip
    add_backend_flag(parser)
    add_json_flag(parser)


def add_predict_flags(parser: Parser) -> None:
    _add_folder(parser)
    parser.add_argument("images", type=path_flag, metavar="IMAGES", nargs="+", help="image files, or folders of them")
    parser.add_argument(
        "--top",
        type=_positive,
        metavar="N",
        help="list the N likeliest classes (default: 1; with --json, --jsonl and --csv, all)",
    )
    _add_costs(parser)
    add_backend_flag(parser)
    forms = parser.add_mutually_exclusive_group()
    add_json_flag(forms)
    forms.add_argument("--jsonl", action="store_true", help="print an object of JSON a line, as they come")
    forms.add_argument("--csv", type=path_flag, metavar="FILE", help="write a table, line by line as they come")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")


def add_explain_flags(parser: Parser) -> None:
    _add_folder(parser)
    text = "image files, folders of them, or a table of paths and labels"
    parser.add_argument("images", type=path_flag, metavar="IMAGES", nargs="+", help=text)
    parser.add_argument("--classes", default="", metavar="A,B", help="show these too, beside what is predicted")
    text = "what all the images are (default: as their folders or the table say)"
    parser.add_argument("--true", default="", metavar="CLASS", help=text)
    parser.add_argument("--out", type=path_flag, metavar="DIR", help="the folder to make (default: RUN-explained)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier explanations")
    add_backend_flag(parser)
    add_json_flag(parser)


def add_backbones_flags(parser: Parser) -> None:
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="", help="part of a name, or a glob")
    add_json_flag(parser)


def add_translate_flags(parser: Parser) -> None:
    parser.add_argument("name", metavar="NETWORK", help="a name that multitl backbones lists, or file:PATH")
    add_backend_flag(parser)
    heads = "keep the original classifier, or cut it off (default: keep)"
    parser.add_argument("--head", choices=["keep", "cut"], default="keep", help=heads)
    parser.add_argument("--out", type=path_flag, metavar="DIR", help="the folder to make (default: runs/<network>)")
    parser.add_argument("--overwrite", action="store_true", help="start again if the folder exists")
    for field in dataclasses.fields(Recipe):
        if field.name in ("weights", "image_size", "preprocess"):
            _add_recipe_flag(parser, field)
            parser.set_defaults(**{field.name: field.default})


def add_port_flags(parser: Parser) -> None:
    parser.add_argument(
        "model", type=path_flag, metavar="MODEL", help="folder of a run, .keras or .h5 file, or NETWORK"
    )
    parser.add_argument("--to", required=True, metavar="FORMAT", help="one or several, a,b: see multitl ports")
    parser.add_argument(
        "--out",
        type=path_flag,
        metavar="DIR",
        help="the folder to make; of several formats, their parent (default: MODEL-FORMAT)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older port")
    parser.add_argument(
        "--images",
        type=path_flag,
        metavar="DATA",
        help="photos to compare on (default: those the run was judged on)",
    )
    parser.add_argument(
        "--calibration",
        type=path_flag,
        metavar="DATA",
        help="photos that 8-bit ranges suit (default: validation images)",
    )
    parser.add_argument(
        "--preprocess",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="take pixels, or what the backbone takes (default: --preprocess)",
    )
    parser.add_argument("--explain", action="store_true", help="of onnx, litert: also where it looks, by class")
    parser.add_argument("--unknown", action="store_true", help="of onnx, litert: also how strange an image is")
    add_backend_flag(parser)
    add_json_flag(parser)
    for field in dataclasses.fields(Recipe):
        if field.name in ("weights", "image_size"):
            _add_recipe_flag(parser, field)
            parser.set_defaults(**{field.name: field.default})


def add_choose_flags(parser: Parser) -> None:
    parser.add_argument("data", type=path_flag, metavar="DATA", help="labelled images, as for finetune")
    names = (
        "names that multitl backbones lists, folders of runs, or file:PATH; NAME@FILE for weights of its own, "
        "NAME@96px for an image size of its own; auto: all whose weights are on this machine"
    )
    parser.add_argument("--backbones", required=True, metavar="A,B,...", help=names)
    add_backend_flag(parser)
    parser.add_argument("--out", type=path_flag, metavar="DIR", help="the folder to make (default: runs/choose-<data>)")
    parser.add_argument("--overwrite", action="store_true", help="start again if the folder exists")
    for field in dataclasses.fields(Recipe):
        if field.name in OF_FEATURES:
            _add_recipe_flag(parser, field)
    parser.set_defaults(recipe=None)


def add_review_flags(parser: Parser) -> None:
    _add_folder(parser)
    parser.add_argument(
        "--data", type=path_flag, metavar="DATA", help="where its images lie by now (default: where they were)"
    )
    parser.add_argument("--out", type=path_flag, metavar="DIR", help="the folder to make (default: RUN-review)")
    parser.add_argument("--overwrite", action="store_true", help="replace an older review, verdicts included")
    add_backend_flag(parser)
    add_json_flag(parser)


def add_drift_flags(parser: Parser) -> None:
    _add_folder(parser)
    parser.add_argument("images", type=path_flag, metavar="IMAGES", help="a folder of new images, which need no labels")
    parser.add_argument(
        "--data", type=path_flag, metavar="DATA", help="where the run's images lie by now (default: where they were)"
    )
    add_backend_flag(parser)
    add_json_flag(parser)


def add_demo_flags(parser: Parser) -> None:
    _add_run_flags(parser, DEMO_FOLDER)
    parser.set_defaults(out=DEMO_FOLDER)


def _add_run_flags(parser: Parser, default_folder: str) -> None:
    add_backend_flag(parser)
    parser.add_argument(
        "--out", type=path_flag, metavar="DIR", help=f"the run folder to make (default: {default_folder})"
    )
    parser.add_argument("--overwrite", action="store_true", help="start again if the run folder exists")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")


def add_backend_flag(parser: Parser) -> None:
    parser.add_argument(
        "--backend", metavar="{" + ",".join(BACKENDS) + "}", help="default: KERAS_BACKEND, or the fastest installed"
    )


def _add_costs(parser: Parser) -> None:
    text = "a .csv file of what mistakes cost, as for finetune (default: the run's own)"
    parser.add_argument("--costs", type=path_flag, metavar="FILE", help=text)


def _add_folder(parser: Parser) -> None:
    parser.add_argument("folder", type=path_flag, metavar="RUN", help="the folder of a finished run")


def add_cache_flags(parser: Parser) -> None:
    parser.add_argument(
        "--clear", nargs="+", metavar="KIND", help="remove these: features, given, images, pixels, translations"
    )
    add_json_flag(parser)


def add_json_flag(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def recipe_from(options: argparse.Namespace) -> Recipe:
    """Flags before the recipe file before the defaults."""
    names = {field.name for field in dataclasses.fields(Recipe)}
    return combine(options.recipe, {name: value for name, value in vars(options).items() if name in names})


def _wide_help(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=32)


def path_flag(text: str) -> str:
    """Not the empty text of an unset shell variable, which would be taken for the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def port_flag(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)
