"""Commands of finished runs that no framework is needed for at once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import multitl
from multitl.cli.flags import Parser, add_backend_flag, add_json_flag, path_flag, port_flag


def compare(options: argparse.Namespace) -> None:
    """Put finished runs beside each other: which is better, and is it luck."""
    from multitl.judging.comparison_page import PAGE, default_folder

    place = options.out or default_folder(options.folders)
    found = multitl.compare(options.folders, output=place, overwrite=options.overwrite)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _print_comparison(found, Path(place, PAGE))


def add_compare_flags(parser: Parser) -> None:
    parser.add_argument(
        "folders", type=path_flag, metavar="RUN", nargs="+", help="folders of finished runs of the same classes"
    )
    folder = "the folder to make, with compare.html and compare.json (default: runs/compare-<run>-<run>)"
    parser.add_argument("--out", type=path_flag, metavar="DIR", help=folder)
    parser.add_argument("--overwrite", action="store_true", help="compare again if the folder exists")
    add_json_flag(parser)


def serve(options: argparse.Namespace) -> None:
    """Serve a finished run on this machine: a page to try it on, an endpoint for programs."""
    from multitl.serving.server import serve

    serve(options.folder, options.host, options.port, options.runtime, options.backend)


def add_serve_flags(parser: Parser) -> None:
    what = "the folder of a finished run; of its ONNX artefact with --runtime onnx"
    parser.add_argument("folder", type=path_flag, metavar="RUN", help=what)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: %(default)s, this machine alone)",
    )
    parser.add_argument("--port", type=port_flag, default=8000, metavar="N", help="0 for a free one (default: 8000)")
    parser.add_argument(
        "--runtime", default="keras", metavar="{keras,onnx}",
        help="what computes: Keras on --backend, or onnxruntime, without a framework (default: keras)",
    )  # fmt: skip
    add_backend_flag(parser)


def _print_comparison(found: Mapping[str, Any], page: Path) -> None:
    """Figures of each run, then by how much each pair differs."""
    from multitl.cli.terminal import FIGURES, with_interval
    from multitl.system.printing import printable, results, show, table

    names = list(found["runs"][0]["figures"])
    titles = [FIGURES[name] for name in names]
    grid = table("run", "images", *titles, right=["images"])
    for run in found["runs"]:
        cells = (_cell(name, run["figures"][name], "value", with_interval) for name in names)
        grid.add_row(f"{run['letter']} {printable(run['name'])}", str(run["images"]), *cells)
    show(grid)
    print()
    grid = table("difference", "images", *titles, "p", right=["images"])
    for pair in found["pairs"]:
        cells = (_cell(name, pair["differences"].get(name), "difference", with_interval) for name in names)
        images = str(pair["images"])
        grid.add_row(f"{pair['second']} - {pair['first']}", images, *cells, f"{pair['p_adjusted']:.3g}")
    show(grid)
    results().print(f"page  {printable(page)}", soft_wrap=True)


def _cell(name: str, figure: Mapping[str, Any] | None, key: str, with_interval: Any) -> str:
    return with_interval({name: figure[key], f"{name}_ci": figure["interval"]}, name) if figure else "-"
