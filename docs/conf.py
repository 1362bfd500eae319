"""Sphinx' settings of the documentation site; `docs/build_site.py` calls it. Which page stands where is NAVIGATION."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

from pygments.lexers.special import TextLexer

NAVIGATION: dict[str, Sequence[str]] = {  # caption -> pages, as paths from the repository's root without .md
    "Begin": ("docs/how-to/install", "docs/tutorial", "docs/faq"),
    "How-tos: data": tuple(f"docs/how-to/{name}" for name in (
        "own-table", "data-in-memory", "few-images", "imbalanced-classes", "several-labels", "predict-a-number",
        "several-heads", "mistakes-that-cost", "more-or-fewer-channels", "photos-of-another-camera",
        "wrong-labels")),
    "How-tos: results": tuple(f"docs/how-to/{name}" for name in (
        "what-it-looks-at", "unknown-images", "what-it-does-not-know", "compare-runs", "serve")),
    "How-tos: training": tuple(f"docs/how-to/{name}" for name in (
        "choose-a-backbone", "go-on", "resume", "log-epochs", "use-a-notebook", "use-a-gpu", "eight-gpus", "slurm",
        "kubernetes", "cloud")),
    "How-tos: between frameworks": tuple(f"docs/how-to/{name}" for name in (
        "keras-2-to-pytorch", "torchvision-to-jax", "on-a-phone", "onnx-service", "coming-from")),
    "Explanations": (*(f"docs/explanation/{name}" for name in (
        "how-it-works", "freezing-and-batch-norm", "features-once", "proofs", "choosing-a-budget", "safety")),
        "docs/scaling", "docs/architecture", "docs/fuzzing"),
    "Reference": (*(f"docs/reference/{name}" for name in (
        "command-line", "python", "data", "options", "run-folder", "sources", "formats", "every-command",
        "every-option", "every-name")), "docs/versions", "docs/licences"),
}  # fmt: skip

project = "multitl"
author = "multitl's authors"
project_copyright = author
release = importlib.metadata.version("multitl")

extensions = ["myst_parser"]
root_doc = "docs/index"
source_suffix = {".md": "markdown"}
exclude_patterns = ["README.md"]  # the front page is docs/index.md
nitpicky = True
smartquotes = False  # "auto" is what one types

myst_heading_anchors = 4  # links to headings as on GitHub
myst_enable_extensions = ["strikethrough"]

html_theme = "furo"
html_title = f"multitl {release}"
html_short_title = "multitl"
html_static_path: list[str] = []
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d5a96", "color-brand-content": "#1d5a96"},
    "dark_css_variables": {"color-brand-primary": "#6cb1ff", "color-brand-content": "#6cb1ff"},
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


ACCESSIBLE = {
    'role="heading">': 'role="heading" aria-level="2">',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}
FIGURES = re.compile("benchmarks/(?!README)")


def add_navigation(app: Any, docname: str, source: list[str]) -> None:
    """The sidebar, after the front page's own text: on GitHub a toctree would be noise."""
    if docname == root_doc:
        named = {name for names in NAVIGATION.values() for name in names}
        found = sorted(app.env.found_docs - named)
        pages = NAVIGATION | {
            "More how-tos": [name for name in found if name.startswith("docs/how-to/")],
            "Figures": ["docs/benchmarks", "benchmarks/README", *(name for name in found if FIGURES.match(name))],
            "The project": ["CHANGELOG", "CONTRIBUTING", "SECURITY", "AGENTS"],
        }
        for caption, names in pages.items():
            entries = "\n".join(f"/{name}" for name in names)
            if entries:
                source[0] += f"\n```{{toctree}}\n:hidden:\n:maxdepth: 1\n:caption: '{caption}'\n\n{entries}\n```\n"


def make_accessible(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """What axe finds in Sphinx's HTML: headings without a level, and what scrolls but takes no keys."""
    for name in ("body", "furo_navigation_tree"):
        text = str(context.get(name, ""))
        for old, new in ACCESSIBLE.items():
            text = text.replace(old, new)
        context[name] = text


def setup(app: Any) -> None:
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", add_navigation)
    app.connect("html-page-context", make_accessible, priority=900)  # after furo's own
