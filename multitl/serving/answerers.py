"""The answerer of a folder: of a run under its backend, or of its artefact, see `artefacts.py`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multitl.adapters import load_backend
from multitl.errors import ServeError
from multitl.judging.opening import Run, load_run
from multitl.runs.cards import is_port
from multitl.runs.head_runs import has_heads, read_heads, run_of
from multitl.serving.answers import AT_ONCE, Answer, Answerer, Said
from multitl.serving.artefacts import answerer_of_artefact

if TYPE_CHECKING:
    import keras

RUNTIMES = ("keras", "onnx")


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
        return answerer_of_artefact(Path(folder))
    raise ServeError(
        f"There is no runtime {runtime!r}.", expected=" or ".join(RUNTIMES), received=runtime, fix="--runtime keras"
    )


def _of_run(folder: Path, backend: str | None) -> Answerer:
    if is_port(folder):
        raise ServeError(
            f"{folder} is an artefact, which needs no Keras.",
            expected="the folder of a finished run",
            received=str(folder),
            fix=f"multitl serve {folder} --runtime onnx" if (folder / "model.onnx").is_file() else "name the run",
        )
    names = list(read_heads(folder).kinds) if has_heads(folder) else []
    runs = {name: load_run(run_of(folder, name) if name else folder) for name in names or [""]}
    heads = {name: (run.card.recipe.labels, run.card.class_names) for name, run in runs.items()}
    adapter = load_backend(backend)

    @cache
    def load() -> Any:
        from multitl.judging.several_heads import load_heads

        return load_heads(folder) if names else runs[""]

    @cache
    def open_model() -> Answer:
        from multitl.models.inference import compile_forward, predict_padded

        run = load()
        forward = compile_forward(run.network, is_for_long=True)  # nobody is to wait for it later

        def answer(images: Sequence[np.ndarray]) -> list[Said]:
            return run.tell(predict_padded(forward, np.stack(images), AT_ONCE))

        return answer

    preprocess = next(iter(runs.values())).card.preprocess
    return Answerer(
        folder.resolve().name, f"Keras on {adapter.name}", heads, preprocess, open_model, adapter.fast_paths,
        lambda: _with_maps(open_model(), _maps_of(load().models if names else {"": load().model}, runs)),
    )  # fmt: skip


def _with_maps(tell: Answer, look: Answer) -> Answer:
    """All that is said without maps, and these: to the last digit what is said without."""

    def answer(images: Sequence[np.ndarray]) -> list[Said]:
        return [_joined(*one) for one in zip(tell(images), look(images), strict=True)]

    return answer


def _joined(said: Said, seen: Said) -> Said:
    """seen: with "maps", or of several heads each with its own."""
    if isinstance(seen.get("maps"), list):
        return said | {"maps": seen["maps"]}
    return {name: _joined(said[name], seen[name]) for name in said}


def _maps_of(models: Mapping[str, keras.Model], runs: Mapping[str, Run]) -> Answer:
    """Of each head by its name."""
    from multitl.explaining.explainers import explainer_of
    from multitl.judging.explanations import explain_batch, insist_on_map

    explainers = {name: insist_on_map(explainer_of(models[name], AT_ONCE), run) for name, run in runs.items()}

    def answer(images: Sequence[np.ndarray]) -> list[Said]:
        said = {name: list(explain_batch(run, explainers[name], images)) for name, run in runs.items()}
        return (
            said[""] if "" in said else [dict(zip(said, one, strict=True)) for one in zip(*said.values(), strict=True)]
        )

    return answer
