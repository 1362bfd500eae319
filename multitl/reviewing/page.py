"""review.html: the pictures that a person should look at. It loads nothing and runs no script, like a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multitl.contracts import Decoding
from multitl.judging.reporting import make_environment, picture_uri, shorten_path
from multitl.system.writing import write_text

PAGE = "review.html"
MOST = 12  # pictures of each kind
TITLES = {
    "copy across parts": (
        "Copies across parts",
        "The worst fault: the same picture is in two parts of the data, so that the figures of the one that judges are "
        "too good. Remove the one that is learned from.",
    ),
    "label": (
        "Labels that are likely wrong",
        "Models that have not seen the image hold its label for unlikely, by confident learning. Below each picture: "
        "what it is called, and what they say. Some are merely hard: look, and keep them.",
    ),
    "copy": (
        "Copies within a part",
        "The same picture twice, saved again, made smaller or cropped a little. It counts twice in what is learned, or "
        "in the figures.",
    ),
    "outlier": (
        "Unlike all others",
        "Far from every other image: another subject, a broken file, or something rare that should stay.",
    ),
}


def write_page(folder: Path, about: Mapping[str, Any], decoding: Decoding) -> None:
    """about: what review.json holds. Text in it is escaped; bytes of a name that are no UTF-8 become question marks."""
    kinds = [
        {
            "id": kind.replace(" ", "-"), "kind": kind, "title": title, "meaning": meaning,
            "count": about["counts"][kind],
            "issues": [_shown(one, about, decoding) for one in about["issues"] if one["issue"] == kind][:MOST],
        }
        for kind, (title, meaning) in TITLES.items()
    ]  # fmt: skip
    names = {"kinds": kinds, "data_name": Path(about["data"]).name, "run_name": Path(about["run"]).name}
    page = make_environment().get_template("review.html.j2").render({**about, **names})
    write_text(folder / PAGE, page.encode("utf-8", "replace").decode("utf-8"))


def _shown(one: Mapping[str, Any], about: Mapping[str, Any], decoding: Decoding) -> dict[str, Any]:
    pictures = [one] if one["other"] is None else [one, one["other"]]
    root = Path(about["data"])
    return {
        **one,
        "pictures": [
            {**image, "uri": picture_uri(image["path"], decoding), "path": shorten_path(image["path"], root)}
            for image in pictures
        ],
    }
