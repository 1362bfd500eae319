"""choice.html: backbones side by side, the best first. It loads nothing and runs no script, like a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multitl.judging.merits import TITLES
from multitl.judging.reporting import BACKEND_TITLES, make_environment
from multitl.system.writing import write_text


def write_choice_page(path: Path, about: Mapping[str, Any]) -> None:
    """about: what choice.json holds. Text in it is escaped; bytes of a name that are no UTF-8 become question marks."""
    names: dict[str, Any] = {"title": TITLES[about["figure"]], "is_number": about["figure"] == "r2"}
    names |= {"data_name": Path(about["data"]).name, "backend_title": BACKEND_TITLES[about["backend"]]}
    page = make_environment().get_template("choice.html.j2").render({**about, **names})
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))
