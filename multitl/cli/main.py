"""The command line. Results go to stdout, progress and errors to stderr; --json puts nothing but JSON on stdout.

Exit codes: 0 done; 2 the input, the options or the machine are at fault, and the message says what to do; 75 another
process of the run is lost, and --resume goes on; 130 Ctrl-C, 143 SIGTERM.
Nothing heavy is imported before a command needs it: `multitl --help` loads neither Keras nor NumPy.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

import multitl
from multitl.cli import flags
from multitl.cli.commands import COMMANDS, program
from multitl.cli.habits import command_hint
from multitl.errors import LOST, LostPeerError, MultitlError, full_disk, tells_full_disk
from multitl.system.interrupts import exit_code, requests_to_end

FAULT, PIPE_CLOSED = 2, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Unexpected exceptions propagate: they are bugs, with a traceback."""
    _mend_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parse(arguments)
    try:
        with _process_of_our_own(options) if argv is None else contextlib.nullcontext():
            options.run(options)
            sys.stdout.flush()
        return 0
    except MultitlError as error:
        print(f"multitl: {error}", file=sys.stderr)
        return LOST if isinstance(error, LostPeerError) else FAULT
    except KeyboardInterrupt as interrupt:
        with contextlib.suppress(OSError):  # the terminal may have been closed
            print(_how_to_resume(arguments), file=sys.stderr)
        return exit_code(interrupt)
    except BrokenPipeError:  # `multitl backbones | head`: the reader has seen enough
        _discard_output()
        return PIPE_CLOSED
    except OSError as error:
        if not tells_full_disk(error):
            raise
        _discard_output()
        print(f"multitl: {full_disk(error)}", file=sys.stderr)
        return FAULT


def _mend_streams() -> None:
    """Let every name be printed, escaped where the terminal has no such letter; a closed stream swallows all."""
    sys.stdout, sys.stderr = _mended(sys.stdout), _mended(sys.stderr)


def _mended(stream: TextIO | None) -> TextIO:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream or open(os.devnull, "w")  # noqa: PTH123  (as long as the process lives)


@contextlib.contextmanager
def _process_of_our_own(options: argparse.Namespace) -> Iterator[None]:
    """What only a command may do to its process; most of it only if it works with networks: others answer at once."""
    with requests_to_end():
        if "backend" not in vars(options) or vars(options).get("runtime") == "onnx":
            yield
            return
        from multitl.system.session import session

        with session(options.backend):
            yield


def _discard_output() -> None:
    """What is still in the buffer would raise again when Python flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the chosen command, the function to call with them as `run`, and all of it as `arguments`."""
    parser = build_parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        parser.error(f"unknown command {arguments[0]!r}{command_hint(arguments[0], COMMANDS)}")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        options.parser.refuse(unknown)
    options.arguments = list(arguments)
    return options


def build_parser() -> flags.Parser:
    """The parser of all commands."""
    parser = flags.Parser("multitl", "Fine-tune a pretrained image backbone on JAX, TensorFlow or PyTorch.")
    parser.add_argument("--version", action="version", version=f"multitl {multitl.__version__}")
    parser.set_defaults(parser=parser, run=lambda options: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (run, add_flags, operands) in COMMANDS.items():
        summary = (run.__doc__ or "").rstrip(".")
        usage = " ".join(["multitl", name, *operands.split(), "[options]"])
        command = commands.add_parser(
            name, help=summary, description=f"{summary}.", prog=f"multitl {name}", usage=usage
        )
        command.set_defaults(parser=command, run=run)
        add_flags(command)
    return parser


def _how_to_resume(arguments: Iterable[str]) -> str:
    command = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
    if command[0] not in ("finetune", "demo", "bench") or command[:2] == ["bench", "compare"]:
        return "Interrupted."
    return f"Interrupted. What is finished is kept; to go on: {shlex.join([program(), *command, '--resume'])}"
