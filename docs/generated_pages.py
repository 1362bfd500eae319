"""Pages of the reference that are written from the code: every command with its flags, option and public name."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from typing import Any

import multitl
from multitl.cli.commands import COMMANDS
from multitl.cli.main import build_parser
from multitl.options import range_of
from multitl.recipes import Recipe


def pages() -> dict[str, str]:
    """Name of the page -> its Markdown. Raises ValueError for a public name without a docstring."""
    return {"every-command": every_command(), "every-option": every_option(), "every-name": every_name()}


def every_command() -> str:
    parser = build_parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    intro = "What `multitl COMMAND --help` says. What the commands are for: [command line](command-line.md)."
    sections = [_command(name, commands[name]) for name in COMMANDS]
    return "\n\n".join(["# Every command and flag", intro, *sections]) + "\n"


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    usage = parser.format_usage().removeprefix("usage: ").strip()
    parts = [f"## {name}", escape(parser.description or ""), f"```text\n{usage}\n```"]
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if one.dest != "help"]
        if actions and not (group.title or "").startswith("recipe options"):
            parts.append(table(["", ""], [[_flag(action), _help(action)] for action in actions]))
    if any((group.title or "").startswith("recipe options") for group in parser._action_groups):
        parts.append("And [every option](every-option.md), as a flag with `-` for `_`.")
    return "\n\n".join(parts)


def _flag(action: argparse.Action) -> str:
    metavar = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "")
    value = f" {metavar if isinstance(metavar, str) else ' '.join(metavar)}" if metavar and action.nargs != 0 else ""
    return code(", ".join(action.option_strings) + value if action.option_strings else value.strip() or action.dest)


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return escape(text)


def every_option() -> str:
    rows = [[code(field.name), f"{escape(field.metadata['help'])}. {_values(field)}"]
            for field in dataclasses.fields(Recipe)]  # fmt: skip
    intro = (
        "Keys of a recipe file, keywords of `multitl.finetune`, and flags with `-` for `_`. What they do together: "
        "[options](options.md), [how it works](../explanation/how-it-works.md)."
    )
    return f"# Every option\n\n{intro}\n\n{table(['option', 'meaning'], rows)}\n"


def _values(field: dataclasses.Field) -> str:
    """What it may be, and what it is by itself."""
    choices = ", ".join(map(code, field.metadata["choices"]))
    return f"*{choices or range_of(field) or type(field.default).__name__}; default {code(repr(field.default))}*"


def every_name() -> str:
    public = [name for name in multitl.__all__ if name != "__version__"]
    kinds = {name: getattr(multitl, name) for name in public}
    functions = [name for name, value in kinds.items() if inspect.isfunction(value)]
    errors = [name for name, value in kinds.items() if inspect.isclass(value) and issubclass(value, Exception)]
    others = [name for name in public if name not in functions and name not in errors]
    parts = ["# Every public name", "`multitl.NAME`, from the docstrings. How they are used: [from Python](python.md)."]
    for title, names in {"Functions": functions, "Classes": others, "Errors": errors}.items():
        parts += [f"## {title}", *(_entry(name, kinds[name]) for name in names)]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, value: Any) -> str:
    doc = inspect.getdoc(value) if value.__doc__ else None
    if not doc:
        raise ValueError(f"multitl.{name} has no docstring")
    if name == "Recipe":
        doc = "The options of one run; construction checks every value. All of them: [every option](every-option.md)."
    else:
        doc = _listed(escape(doc), list(inspect.signature(value).parameters) if callable(value) else [])
    shown = f"```python\n{name}{_signature(value)}\n```" if inspect.isfunction(value) else ""
    return "\n\n".join(filter(None, [f"### {name}", shown, doc]))


def _listed(doc: str, arguments: list[str]) -> str:
    """A docstring whose "name: what it is" of each argument is an item of a list."""
    one = "|".join(re.escape(escape(name)) for name in arguments) or "(?!)"
    listed = re.sub(rf"(?:^|  )((?:{one})(?:(?:, | / )(?:{one}))*): ", r"\n- **\1**: ", doc, flags=re.MULTILINE)
    return re.sub(r"\n(?=(?:Returns|Raises) )", "\n\n", listed)


def _signature(function: Any) -> str:
    """A line for each parameter, as in the source."""
    signature = inspect.signature(function)
    inside = "".join(f"    {line},\n" for line in _parameters(signature))
    returns = signature.return_annotation
    return f"(\n{inside})" + ("" if returns is inspect.Signature.empty else f" -> {returns}")


def _parameters(signature: inspect.Signature) -> list[str]:
    lines, is_named = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not is_named:
            lines.append("*")
        is_named = is_named or parameter.kind is inspect.Parameter.KEYWORD_ONLY
        lines.append(re.sub(r": '([^']*)'", r": \1", str(parameter)))
    return lines


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    return f"`{text}`"


def escape(text: str) -> str:
    """Plain text with `code` in backticks, as Markdown that shows the same."""
    halves = re.split(r"(`[^`]+`)", text)
    plain = [re.sub(r"([*_<>\[\]#])", r"\\\1", half) if index % 2 == 0 else half for index, half in enumerate(halves)]
    return "".join(plain)
