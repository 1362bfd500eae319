"""What answers: a run under its backend, or its ONNX artefact under onnxruntime, without any framework.

Images go in as pixels, what `multitl predict` says of them comes out. Every image is computed in a batch of one shape,
so what is said of it does not depend on whose images came at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct

from multitl.adapters import load_backend
from multitl.contracts import VALUE, Preprocess
from multitl.errors import ServeError
from multitl.judging.judges import ClassJudge, Judge, LabelJudge, NumberJudge
from multitl.judging.opening import load_run
from multitl.onnx_graphs.running import run_onnx
from multitl.runs.cards import Backbone, ClassName, Share, is_port, read_json_of
from multitl.runs.head_runs import has_heads, read_heads, run_of
from multitl.standalone.classify import as_taken

RUNTIMES = ("keras", "onnx")
AT_ONCE = 4  # images of a batch under Keras: one takes as long as four, so few

Said = dict[str, Any]
Answer = Callable[[Sequence[np.ndarray]], list[Said]]


@dataclass(frozen=True, eq=False)
class Answerer:
    """name: of the folder.  runtime: for people.  heads: of each head by its name its kind ("one", "several", "number")
    and classes; of a run with one head the name is "".

    open: loads the model, in the thread that is to use it, and gives a function of at most AT_ONCE images, pixels uint8
    (height, width, channels) each, whose results are those of `multitl.predict` without the path.
    around: what has to hold for as long as it answers.
    """

    name: str
    runtime: str
    heads: Mapping[str, tuple[str, tuple[str, ...]]]
    preprocess: Preprocess
    open: Callable[[], Answer]
    around: Callable[[], AbstractContextManager[None]] = nullcontext


class _Port(Struct, frozen=True):
    format: Literal["onnx"]


class _Artefact(Struct, frozen=True):
    """What is needed of the card of an artefact."""

    port: _Port
    class_names: Annotated[tuple[ClassName, ...], Meta(min_length=1)]
    backbone: Backbone
    gives: dict[str, Any]


class _How(Struct, frozen=True):
    """Likewise of preprocess.json."""

    takes: Literal["pixels", "normalised"]
    thresholds: tuple[Share, ...] | None = None
    costs: tuple[tuple[float, ...], ...] | None = None


def answerer_of(folder: str | os.PathLike[str], runtime: str, backend: str | None) -> Answerer:
    """Raises a MultitlError for a folder that cannot be served, before a framework loads if names tell."""
    if runtime == "keras":
        return _of_run(Path(folder), backend)
    if runtime == "onnx" and backend:
        raise ServeError(
            "An artefact is computed by onnxruntime, not by a backend.",
            expected="no --backend beside --runtime onnx",
            received=f"--backend {backend}",
            fix="leave --backend out",
        )
    if runtime == "onnx":
        return _of_artefact(Path(folder))
    raise ServeError(
        f"There is no runtime {runtime!r}.", expected=" or ".join(RUNTIMES), received=runtime, fix="--runtime keras"
    )


def _of_run(folder: Path, backend: str | None) -> Answerer:
    if is_port(folder):
        raise ServeError(
            f"{folder} is an artefact, which needs no Keras.",
            expected="the folder of a finished run",
            received=str(folder),
            fix=f"multitl serve {folder} --runtime onnx",
        )
    names = list(read_heads(folder).kinds) if has_heads(folder) else []
    runs = {name: load_run(run_of(folder, name) if name else folder) for name in names or [""]}
    heads = {name: (run.card.recipe.labels, run.card.class_names) for name, run in runs.items()}
    adapter = load_backend(backend)

    def open_model() -> Answer:
        from multitl.judging.several_heads import load_heads
        from multitl.models.inference import compile_forward, predict_padded

        run = load_heads(folder) if names else runs[""]
        forward = compile_forward(run.network)

        def answer(images: Sequence[np.ndarray]) -> list[Said]:
            return run.tell(predict_padded(forward, np.stack(images), AT_ONCE))

        return answer

    preprocess = next(iter(runs.values())).card.preprocess
    return Answerer(
        folder.resolve().name, f"Keras on {adapter.name}", heads, preprocess, open_model, adapter.fast_paths
    )


def _of_artefact(given: Path) -> Answerer:
    folder = given if is_port(given) else Path(f"{given}-onnx")  # where `multitl port` puts it
    advice = f"multitl port {given} --to onnx"
    if not (folder / "model.onnx").is_file():
        raise ServeError(
            f"There is no ONNX artefact of {given}.",
            expected=f"a folder that multitl port --to onnx made, such as {folder}",
            received=str(given),
            fix=advice,
        )
    card = read_json_of(folder / "card.json", _Artefact, "the card of an artefact in ONNX", advice)
    how = read_json_of(folder / "preprocess.json", _How, "how the artefact wants its images", advice)
    kind = "number" if VALUE in card.gives else "several" if how.thresholds else "one"
    if how.thresholds and len(how.thresholds) != len(card.class_names):
        raise ServeError(
            f"The files in {folder} do not belong together.",
            expected=f"{len(card.class_names)} thresholds",
            received=str(len(how.thresholds)),
            fix=advice,
        )
    preprocess, judge = card.backbone.preprocess, _judge(kind, card.class_names, how)
    taken = SimpleNamespace(
        takes=how.takes, channel_order=preprocess.channel_order, scale=preprocess.scale, offset=preprocess.offset
    )

    def open_model() -> Answer:
        run = run_onnx(str(folder / "model.onnx"), spins=False)

        def answer(images: Sequence[np.ndarray]) -> list[Said]:
            rows = [run(as_taken(image[np.newaxis], taken))[0] for image in images]
            return [judge.answer(_exact(kind, row)) for row in rows]

        return answer

    return Answerer(folder.resolve().name, "onnxruntime", {"": (kind, card.class_names)}, preprocess, open_model)


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
