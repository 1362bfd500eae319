"""The documentation site: `python docs/build_site.py [FOLDER]`, which `make docs` calls; by default build/docs.

Pages are the Markdown files of the repository, as GitHub shows them; commands, options and Python names are written
from the code. A broken link, a page without a place in the sidebar, or a public name without a docstring ends it with
an error. The site loads nothing from elsewhere.

Why Sphinx with MyST and furo: Material for MkDocs ends on 2027-05-05 (release notes of its 9.8.1, November 2026), and
its successor Zensical is at 0.0.x. Sphinx, MyST and furo are maintained, resolve every link and heading, and bring
their styles and scripts along.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import generated_pages

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("docs", "benchmarks")
TO_FRONT = (
    '<!doctype html><meta charset="utf-8"><title>multitl</title><meta http-equiv="refresh" content="0; url=docs/">\n'
)


def main() -> int:
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "docs")
    with tempfile.TemporaryDirectory() as folder:
        stage(source := Path(folder, "source"))
        options = ["--fail-on-warning", "--keep-going", "--quiet", "--fresh-env", "-d", f"{folder}/doctrees"]
        command = [sys.executable, "-m", "sphinx", *options, "-c", str(ROOT / "docs"), str(source), str(site)]
        code = subprocess.run(command).returncode
    if code == 0:
        (site / "index.html").write_text(TO_FRONT, encoding="utf-8")
        print(f"file://{site.resolve()}/docs/index.html")
    return code


def stage(folder: Path) -> None:
    """A copy of what the site is made from, with the pages that are written from the code and the files linked to."""
    pages = [*ROOT.glob("*.md"), *(path for name in COPIED for path in (ROOT / name).rglob("*") if path.is_file())]
    for path in pages:
        _copy(path, folder)
    for path in pages:
        for target in re.findall(r"\]\(([^)\s#]+)", path.read_text(encoding="utf-8")) if path.suffix == ".md" else ():
            if "://" not in target and (linked := (path.parent / target).resolve()).is_file():
                _copy(linked, folder)
    for name, text in generated_pages.pages().items():
        (folder / "docs" / "reference" / f"{name}.md").write_text(text, encoding="utf-8")


def _copy(path: Path, folder: Path) -> None:
    copy = folder / path.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, copy)


if __name__ == "__main__":
    sys.exit(main())
