"""The ONNX artefact of a run under onnxruntime, without any framework."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct

from multitl.adapters import is_present
from multitl.contracts import CONTRIBUTIONS, FIRST_OUTPUT, STRANGENESS, VALUE
from multitl.errors import ServeError
from multitl.judging.conformal import plausible
from multitl.judging.judges import ClassJudge, Judge, LabelJudge, NumberJudge
from multitl.judging.map_rows import map_row, shown_places
from multitl.onnx_graphs.running import open_onnx
from multitl.porting.formats import SECOND
from multitl.runs.cards import Backbone, ClassName, PlausibleSets, Positive, Share, is_port, read_json_of
from multitl.runs.familiarity import tell
from multitl.runs.folders import beside
from multitl.runs.head_runs import refuse_heads
from multitl.serving.answers import Answer, Answerer, Said
from multitl.standalone.classify import as_taken


class _Port(Struct, frozen=True):
    format: Literal["onnx"]


class _Sums(Struct, frozen=True):
    """sum_error: of a map's sum, as a share of an image's largest logit - bias; the largest of the port's images."""

    sum_error: Positive


class _Proof(Struct, frozen=True):
    contributions: _Sums | None = None


class _Strangeness(Struct, frozen=True):
    """usual: see `Familiarity`."""

    usual: Annotated[tuple[float, ...], Meta(min_length=1, max_length=2**16)]

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.usual)) or list(self.usual) != sorted(self.usual):
            raise ValueError("numbers that do not rise")


class _Artefact(Struct, frozen=True):
    """What is needed of the card of an artefact."""

    port: _Port
    class_names: Annotated[tuple[ClassName, ...], Meta(min_length=1)]
    backbone: Backbone
    gives: dict[str, Any]
    proof: _Proof = _Proof()
    plausible: PlausibleSets | None = None
    strangeness: _Strangeness | None = None


class _How(Struct, frozen=True):
    """Likewise of preprocess.json."""

    takes: Literal["pixels", "normalised"]
    thresholds: tuple[Share, ...] | None = None
    costs: tuple[tuple[float, ...], ...] | None = None


def answerer_of_artefact(given: Path) -> Answerer:
    folder = given if is_port(given) else beside(given, "onnx")  # where `multitl port` puts it
    advice = f"multitl port {'RUN' if is_port(given) else given} --to onnx"
    refuse_heads(given)
    if not is_present("onnxruntime"):
        raise ServeError(
            "What computes an ONNX artefact is not installed.",
            expected="onnxruntime",
            received="no onnxruntime",
            fix="pip install 'multitl[onnx]'",
        )
    if not (folder / "model.onnx").is_file():
        raise ServeError(
            f"There is no ONNX artefact of {given}.",
            expected="a folder that multitl port --to onnx made" + ("" if folder == given else f", such as {folder}"),
            received=str(given),
            fix=advice,
        )
    card = read_json_of(folder / "card.json", _Artefact, "the card of an artefact in ONNX", advice)
    how = read_json_of(folder / "preprocess.json", _How, "how the artefact wants its images", advice)
    kind = "number" if VALUE in card.gives else "several" if how.thresholds else "one"
    sizes = {len(one) for one in (how.thresholds, how.costs) if one} | {len(row) for row in how.costs or ()}
    if sizes - {len(card.class_names)}:
        raise ServeError(
            f"The files in {folder} do not belong together.",
            expected=f"thresholds or costs of {len(card.class_names)} classes",
            received=f"of {', '.join(map(str, sorted(sizes)))}",
            fix=advice,
        )
    preprocess, judge = card.backbone.preprocess, _judge(kind, card.class_names, how)
    taken = SimpleNamespace(
        takes=how.takes, channel_order=preprocess.channel_order, scale=preprocess.scale, offset=preprocess.offset
    )

    opened = cache(lambda: open_onnx(str(folder / "model.onnx"), spins=False))

    def rows_of(images: Sequence[np.ndarray], outputs: list[str] | None) -> list[list[np.ndarray]]:
        return [[row[0] for row in opened()(as_taken(image[np.newaxis], taken), outputs)] for image in images]

    strangeness, further = [STRANGENESS] if card.strangeness else [], [name for name in SECOND if name in card.gives]

    def open_model() -> Answer:
        wanted = [FIRST_OUTPUT, *strangeness]
        try:
            ((first, *_),) = rows_of([np.zeros(preprocess.shape, np.uint8)], wanted)
            if first.shape != (len(card.class_names),):
                raise ValueError(f"outputs {first.shape} for {len(card.class_names)} classes")
        except Exception as error:  # whatever onnxruntime has for files that are damaged or of something else
            raise ServeError(
                f"The model in {folder} does not answer: {' '.join(str(error).split())[:300]}",
                expected="model.onnx and card.json as multitl port wrote them",
                received=type(error).__name__,
                fix=_made_again(folder, further),
            ) from error
        return lambda images: [_said(judge, card, _exact(kind, row), *more) for row, *more in rows_of(images, wanted)]

    def open_maps() -> Answer:
        wanted = [FIRST_OUTPUT, CONTRIBUTIONS, *strangeness]

        def answer(images: Sequence[np.ndarray]) -> list[Said]:
            return [
                _with_maps(judge, card, _exact(kind, row), maps, *more) for row, maps, *more in rows_of(images, wanted)
            ]

        return answer

    return Answerer(
        folder.resolve().name, "onnxruntime", {"": (kind, card.class_names)}, preprocess, open_model,
        open_maps=open_maps if CONTRIBUTIONS in card.gives else _no_maps(folder, further),
    )  # fmt: skip


def _said(judge: Judge, card: _Artefact, row: np.ndarray, strangeness: np.ndarray | None = None) -> Said:
    """row: (k,).  strangeness: (1,), if the artefact gives it."""
    said = judge.answer(row)
    if card.plausible:
        said["plausible"] = [card.class_names[place] for place in plausible(row, card.plausible.least)]
    if strangeness is not None and card.strangeness is not None:
        said |= tell(np.array(card.strangeness.usual), strangeness)[0]
    return said


def _with_maps(judge: Judge, card: _Artefact, row: np.ndarray, maps: np.ndarray, *strangeness: np.ndarray) -> Said:
    """row: (k,).  maps: (h, w, k), whose sums were proved when the artefact was made."""
    answer, names = _said(judge, card, row, *strangeness), card.class_names
    error = card.proof.contributions.sum_error if card.proof.contributions else None
    return answer | {
        "maps": [
            map_row(names[place], ["predicted"], float(row[place]), "exact", maps[..., place], error=error)
            for place in shown_places(names, answer)
        ]
    }


def _made_again(folder: Path, further: Iterable[str]) -> str:
    """The command. further: outputs beside the first."""
    run = Path(str(folder).removesuffix("-onnx"))
    again = f"{run} --to onnx" if run != folder and run.is_dir() else f"RUN --to onnx --out {folder}"
    return " ".join(["multitl port", again, *(SECOND[name] for name in further), "--overwrite"])


def _no_maps(folder: Path, further: Iterable[str]) -> ServeError:
    return ServeError(
        f"The artefact {folder} does not say where it looks.",
        expected=f'a second output "{CONTRIBUTIONS}"',
        received="an artefact that was made without --explain",
        fix=_made_again(folder, [CONTRIBUTIONS, *further]),
    )


def _judge(kind: str, names: tuple[str, ...], how: _How) -> Judge:
    if kind == "number":
        return NumberJudge(0.0, 0)
    if kind == "several":
        return LabelJudge(names, 0, how.thresholds or ())
    return ClassJudge(names, 0, None if how.costs is None else np.array(how.costs))


def _exact(kind: str, row: np.ndarray) -> np.ndarray:
    """As `Goal.exact` of each kind, which Keras is needed for."""
    if kind == "one":
        values = row.astype("float64")
        return (values / values.sum()).astype("float32")
    return row.astype("float32").clip(0, 1) if kind == "several" else row.astype("float32")
