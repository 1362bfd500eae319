"""What is refused, in JSON: {"error": {"problem", "expected", "received", "fix"}}, as errors of multitl elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multitl.errors import MultitlError

MOST_BYTES = 32 * 2**20  # of a request: photos of telephones have 3 to 12 million
MOST_WAITING = 64  # requests under way at the same time: as many may hold a body of MOST_BYTES each
SECONDS = 30  # for a request's body to come


class Refusal(Exception):  # noqa: N818  (an answer, not a bug)
    """status: of HTTP."""

    def __init__(self, status: int, problem: str, *, fix: str, expected: str = "", received: str = "") -> None:
        super().__init__(problem)
        self.status = status
        details = {"problem": problem, "expected": expected, "received": received, "fix": fix}
        self.body: dict[str, Any] = {"error": {name: text for name, text in details.items() if text}}


def too_large(received: int | str) -> Refusal:
    expected, got = f"at most {MOST_BYTES:,} bytes", f"{received} bytes"
    return Refusal(413, "The request is too large.", expected=expected, received=got, fix="send a smaller image")


def busy() -> Refusal:
    return Refusal(
        503, "Too many images are waiting.", expected=f"at most {MOST_WAITING} requests at a time", fix="try again soon"
    )


def unreadable(reason: str, fix: str) -> Refusal:
    return Refusal(
        422,
        f"The image cannot be read: {reason}.",
        expected="one image: JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP, or what else multitl predict reads here",
        fix=fix or "send a file that an image viewer opens",
    )


def wrong_type(received: str) -> Refusal:
    return Refusal(
        415,
        "That is no way to send an image.",
        expected="its bytes as image/* or application/octet-stream, or multipart/form-data with one file",
        received=received[:100] or "no Content-Type",
        fix="curl --form image=@photo.jpg URL/predict",
    )


def bad_form(reason: str) -> Refusal:
    return Refusal(
        400,
        "The form cannot be read.",
        expected="multipart/form-data with one file in it",
        received=reason[:200],
        fix="curl --form image=@photo.jpg URL/predict",
    )


def bad_wish(name: str, received: str, known: Sequence[str]) -> Refusal:
    return Refusal(
        400,
        f"The parameter {name} cannot be that.",
        expected=", ".join(known),
        received=received[:100],
        fix=f"leave {name} out, or {name}={known[0]}",
    )


def without_maps(error: MultitlError) -> Refusal:
    """Nothing that is served says where it looks."""
    return Refusal(501, error.problem, expected=error.expected, received=error.received, fix=error.fix)


def late() -> Refusal:
    return Refusal(
        408, "The image did not come in time.", expected=f"all of it within {SECONDS} seconds", fix="send it again"
    )


def foreign(what: str, received: str, fix: str) -> Refusal:
    return Refusal(403, f"The request comes from elsewhere: its {what} is not this server's.",
                   received=received[:200], fix=fix)  # fmt: skip


def unknown(status: int, method: str, path: str) -> Refusal:
    known = "GET /, /health and /openapi.json; POST /predict"
    problem = "There is nothing here." if status == 404 else f"{method} is not what this is for."
    return Refusal(status, problem, expected=known, received=f"{method} {path}"[:200], fix="see /openapi.json")


def broken() -> Refusal:
    return Refusal(500, "The server failed at this; it goes on.", fix="see what it printed, and report it")
