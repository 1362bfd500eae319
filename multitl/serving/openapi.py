"""What the server says of itself to programs: OpenAPI 3.1, with the classes of the run that is served."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from multitl.contracts import VALUE
from multitl.errors import MultitlError
from multitl.serving.answers import Answerer
from multitl.serving.refusals import MOST_BYTES
from multitl.version import __version__

SHARE = {"type": "number", "minimum": 0, "maximum": 1}
WISHES = ("false", "true", "picture")  # values of the parameter explain
BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}
REFUSED = {
    "400": "a form, or a parameter, that cannot be read", "403": "from another site", "408": "it did not come in time",
    "413": f"more than {MOST_BYTES:,} bytes", "415": "another kind of body", "422": "no image that can be read",
    "500": "the server failed", "501": "what is served does not say where it looks", "503": "too many are waiting",
}  # fmt: skip


def describe(answerer: Answerer) -> dict[str, Any]:
    """openapi.json."""
    sizes = f"Of any size; it is brought to {answerer.preprocess.height} x {answerer.preprocess.width} pixels."
    image = {"type": "object", "required": ["image"], "properties": {"image": BINARY}}
    failed = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}}
    post = {
        "operationId": "predict",
        "summary": "Classify one image",
        "description": f"{sizes} Nothing of it is kept. Server-Timing says how long reading and computing took.",
        "parameters": [_explain(answerer)],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": image},
                "application/octet-stream": {"schema": {}},
                "image/*": {"schema": {}},
            },
        },
        "responses": {
            "200": _answer("what multitl predict says of it", "Answer"),
            **{status: {"description": why, **failed} for status, why in REFUSED.items()},
        },
    }
    health = {
        "operationId": "health",
        "summary": "Whether it can answer",
        "responses": {
            "200": _answer("it can", "Health"),
            "503": _answer("the thread of the model has ended", "Health"),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": answerer.name, "version": __version__, "description": f"multitl serve, {answerer.runtime}"},
        "paths": {"/predict": {"post": post}, "/health": {"get": health}},
        "components": {"schemas": {"Answer": _schema(answerer), "Map": _MAP, "Refusal": _REFUSAL, "Health": _HEALTH}},
    }


def _explain(answerer: Answerer) -> dict[str, Any]:
    lack = answerer.open_maps
    text = "Whether the answer has `maps`: where the network sees what it says; with `picture`, drawn as well."
    return {
        "name": "explain",
        "in": "query",
        "description": f"{text} Refused: {lack.problem}" if isinstance(lack, MultitlError) else text,
        "schema": {"type": "string", "enum": list(WISHES), "default": WISHES[0]},
    }


def _answer(text: str, schema: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _schema(answerer: Answerer) -> dict[str, Any]:
    """Of an answer; of several heads an answer of each by its name."""
    of_heads = {name: _of_kind(kind, classes) for name, (kind, classes) in answerer.heads.items()}
    return of_heads[""] if list(of_heads) == [""] else _object(of_heads)


def _of_kind(kind: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """What is told of an image only where a run knows it may be missing."""
    known = {"familiarity": SHARE, "unknown": {"type": "boolean"}, **_MAPS}
    if kind == "number":
        return _object({VALUE: _NUMBER}, known)
    one = {"type": "string", "enum": list(classes)}
    shares = _object(dict.fromkeys(classes, SHARE))
    if kind == "several":
        return _object({"predicted": {"type": "array", "items": one}, "probabilities": shares}, known)
    sets = {"plausible": {"type": "array", "items": one}}
    return _object({"predicted": one, "confidence": SHARE, "probabilities": shares}, sets | known)


def _object(needed: dict[str, Any], optional: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    return {
        "type": "object", "required": list(needed), "properties": {**needed, **optional},
        "additionalProperties": False,
    }  # fmt: skip


_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_MAYBE = {"type": ["number", "null"]}
_MAPS = {"maps": {"type": "array", "items": {"$ref": "#/components/schemas/Map"}}}
_MAP = _object(
    {
        "class": _TEXT,
        "shown_as": {"type": "array", "items": _TEXT},
        "kind": {
            "type": "string",
            "enum": ["exact", "gradient x activation"],
            "description": "exact: over all positions the map sums to logit - bias",
        },
        "map": {
            "type": "array",
            "items": {"type": "array", "items": _NUMBER},
            "description": "rows from the top, of what each position gives for the class; below 0 against it",
        },
        "logit": _MAYBE,
        "bias": _MAYBE,
        "error": _MAYBE | {
            "description": "of an exact map, how far its sum is from logit - bias, as a share of the image's "
            "largest one; of an artefact the most that was found when it was made"
        },
        "elsewhere": _NUMBER | {"description": "what tokens give that stand for no position"},
    },
    {"probability": SHARE, VALUE: _NUMBER, "picture": _TEXT | {"description": "data:image/jpeg;base64,..."}},
)  # fmt: skip
_REFUSAL = _object(
    {
        "error": {
            "type": "object",
            "required": ["problem", "fix"],
            "properties": dict.fromkeys(("problem", "expected", "received", "fix"), _TEXT),
            "additionalProperties": False,
        }
    }
)
_HEALTH = _object(
    {"status": {"type": "string", "enum": ["ok", "failed"]}, "model": _TEXT, "runtime": _TEXT, "multitl": _TEXT,
     "under_way": {"type": "integer", "minimum": 0}}
)  # fmt: skip
