"""classify.py, preprocess.json and labels.txt: what it takes to use a model without multitl.

The program is put together, word by word, from modules that use nothing but NumPy, Pillow and the model's own runtime.
So what it does to a picture is what multitl does.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np

from multitl.contracts import Preprocess, Takes
from multitl.data import bands, geometry, resampling
from multitl.standalone import classify, decisions, runtimes
from multitl.system.writing import write_json, write_text


def write_program(
    folder: Path, runtime: str, preprocess: Preprocess, takes: Takes, labels: Sequence[str],
    thresholds: Sequence[float] = (), costs: np.ndarray | None = None,
) -> None:  # fmt: skip
    """The three files, into a folder that holds a model.

    runtime: the function of runtimes.py that opens it.  takes: how it wants its images.  labels.txt has a line for each
    class; a line break in a name becomes a space.  thresholds: where an image may have several labels, the probability
    from which each is given.  costs: see `decisions.decide`.
    """
    write_text(folder / "classify.py", program(runtime))
    how = asdict(preprocess) | {"takes": takes, "thresholds": list(thresholds) or None}
    how |= {"costs": None if costs is None else costs.tolist()}
    write_json(folder / "preprocess.json", how)
    write_text(folder / "labels.txt", "".join(f"{' '.join(label.splitlines())}\n" for label in labels))


def program(runtime: str) -> str:
    """The text of classify.py, for a model that this function of runtimes.py opens."""
    main, start = _body(classify).split("\n\nif __name__ ==")
    opening = inspect.getsource(getattr(runtimes, runtime)).replace(f"def {runtime}(", "def open_model(")
    parts_of = (decisions, bands, geometry, resampling)
    others = [text for module in parts_of for text in ("", _body(module))]
    parts = [main, "", opening, *others, f"\nif __name__ =={start}"]
    head = f'"""{inspect.getdoc(classify)}\n"""\n\nfrom __future__ import annotations\n\n'
    text = head + "\n".join([*_imports([classify, *parts_of]), "\n", *parts])
    return text.replace(": Preprocess", ": Any").replace(" -> Answer:", " -> Callable:")


def _imports(modules: Sequence[ModuleType]) -> list[str]:
    """The lines by which modules import what is not of multitl: Python's own before others'."""
    names: dict[str, set[str]] = {}
    for node in [node for module in modules for node in ast.parse(inspect.getsource(module)).body]:
        if isinstance(node, ast.Import):
            names |= {ast.unparse(node): set()}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith(("multitl", "__future__")):
            names.setdefault(f"from {node.module} import ", set()).update(alias.name for alias in node.names)
    lines = [line + ", ".join(sorted(found)) for line, found in names.items()]
    lines.sort(key=lambda line: (line.startswith("from"), line))
    own = {line: line.split()[1].partition(".")[0] in sys.stdlib_module_names for line in lines}
    return [*filter(own.get, lines), "", *(line for line in lines if not own[line])]


def _body(module: ModuleType) -> str:
    """All that follows a module's imports."""
    text = inspect.getsource(module)
    last = max(node.end_lineno or 0 for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom))
    return "\n".join(text.splitlines()[last:]).strip("\n") + "\n"
