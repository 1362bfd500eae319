"""Every network of keras.applications and of torchvision as ONNX of our own writing, in onnxruntime, beside the Keras
model: `KERAS_BACKEND=torch python benchmarks/zoo_onnx.py keras torchvision > benchmarks/zoo_onnx.md`.

A source more is keras-classifiers: the networks of keras.applications with their classifiers of 1000 classes kept.
Weights are random, and so is what Keras begins with zeros or ones. Images have the smallest size that a network is
known to work at; one image, and two. Names after the sources choose networks: `zoo_onnx.py keras ResNet50`. Rows are
kept in runs/zoo/onnx-SOURCE.jsonl as they come, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import datetime
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import onnxruntime
from zoo import RESULTS, kept_in

from multitl.models.freezing import leaf_layers
from multitl.models.preprocessing import normalise
from multitl.onnx_graphs.writing import OPSET, onnx_model, save_onnx
from multitl.sources import keras_catalogue, torchvision
from multitl.system.threads import default_threads

TOLERANCE = 1e-5  # of the largest output
DEEP = 1000  # operations
OFFSETS = ("beta", "bias", "moving_mean", "mean", "alpha")

Row = dict[str, Any]


def networks(source: str) -> dict[str, Callable[[], tuple[keras.Model, np.ndarray]]]:
    """Name -> a function that builds the network, and makes two images as it takes them."""
    if source in ("keras", "keras-classifiers"):
        classes = 0 if source == "keras" else 1000
        return {
            one.full_name.replace("keras", source): lambda one=one: _of_keras(one, classes)
            for one in keras_catalogue.ARCHITECTURES
        }
    return {f"torchvision/{name}": lambda name=name: _of_torchvision(name) for name in torchvision.networks()}


def _of_keras(one: keras_catalogue.Architecture, classes: int) -> tuple[keras.Model, np.ndarray]:
    from multitl.sources.keras_networks import build

    size = max(one.family.minimum, 32)
    return build(one, size, seed=0, classes=classes), normalise(pixels(size), one.preprocess(size))


def _of_torchvision(name: str) -> tuple[keras.Model, np.ndarray]:
    from multitl.translation.descriptions import build, read_description

    listed = torchvision.networks()[name]
    size = listed.smallest or listed.image_size
    description = read_description(torchvision.FOLDER / f"{name}.json.xz")
    return build(description, size, seed=0).model, normalise(pixels(size), listed.default.preprocess)


def pixels(size: int) -> np.ndarray:
    """Two images of noise, coarse and fine, (2, size, size, 3) uint8."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 200, (2, -(-size // 8), -(-size // 8), 3))
    wide = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]
    return (wide + random.integers(0, 56, wide.shape)).astype("uint8")


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Random values for what Keras begins with zeros or ones: a swapped or forgotten one would go unnoticed.

    Variances are a little above what would keep values as large as they are from layer to layer, of the deepest
    networks a little more: where values grow, rounding decides what such a network answers.
    """
    random, calm = np.random.default_rng(seed), 1.2 if len(model.operations) > DEEP else 1.0
    for layer in leaf_layers(model):
        for variable in layer.weights:
            kind = variable.path.rpartition("/")[2]
            if kind in ("gamma", "scale"):
                variable.assign(random.uniform(0.5, 1.5, variable.shape))
            elif kind in ("moving_variance", "variance"):
                variable.assign(random.uniform(0.65, 1.8, variable.shape) * calm)
            elif kind in OFFSETS:
                variable.assign(random.normal(0, 0.1, variable.shape))
    return model


def compared(name: str, make: Callable[[], tuple[keras.Model, np.ndarray]]) -> Row:
    """One network: the largest difference over the largest output, and what the graph is made of."""
    keras.utils.clear_session()
    gc.collect()
    model, images = make()
    wanted = [np.asarray(randomise(model).predict_on_batch(images[:count])) for count in (1, 2)]
    spread = float(np.abs(wanted[1][0] - wanted[1][1]).max() / np.abs(wanted[1]).max())
    started = time.perf_counter()
    written = onnx_model(model)
    row = {"name": name, "image": images.shape[1], "million": model.count_params() / 1e6}
    row |= {"seconds": time.perf_counter() - started, "nodes": len(written.graph.node)}
    row |= {"spread": spread, "transposes": Counter(node.op_type for node in written.graph.node)["Transpose"]}
    with TemporaryDirectory() as folder:
        save_onnx(written, Path(folder, "model.onnx"))
        del written, model
        answers = _answers(Path(folder, "model.onnx"), images)
    pairs = zip(answers, wanted, strict=True)
    row["error"] = max(float(np.abs(found - one).max() / np.abs(one).max()) for found, one in pairs)
    return row


def _answers(path: Path, images: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return [session.run(None, {name: images[:count]})[0] for count in (1, 2)]


def kept(source: str, names: list[str]) -> list[Row]:
    """Of all networks of a source, or of those that are named; rows of an earlier run included."""
    makes = networks(source)
    wanted = [name for name in makes if not names or name.partition("/")[2] in names]
    RESULTS.mkdir(parents=True, exist_ok=True)

    def rows(missing: list[str]) -> Iterator[Row]:
        return (compared(name, makes[name]) for name in missing)

    found = kept_in(RESULTS / f"onnx-{source}.jsonl", wanted, rows, line)
    return [found[name] for name in wanted]


def line(row: Row) -> str:
    """A row of the table."""
    return (
        f"| {row['name']} | {row['million']:.2f} | {row['image']} | {row['error']:.1e} | {row['spread']:.1g} | "
        f"{row['nodes']} | {row['transposes']} | {row['seconds']:.1f} |"
    )


def table(found: list[Row]) -> str:
    """Markdown: the summary first."""
    close = [row for row in found if row["error"] <= TOLERANCE]
    worst = max(found, key=lambda row: row["error"])
    return "\n".join(
        [
            "# The zoo as ONNX\n",
            f"{len(close)} of {len(found)} networks are within {TOLERANCE:g} of the Keras model; the largest error is "
            f"{worst['error']:.1e} ({worst['name']}).\n",
            "Error: the largest difference of an output over the largest output, float32, random weights, for one "
            f"image and for two; spread: that between the two images, likewise. ONNX opset {OPSET}, written in the "
            "seconds of the last column; what moves data from one order of axes to another is counted as transposes.",
            f"Made by `python benchmarks/zoo_onnx.py`, {datetime.date.today()}: Keras {keras.__version__} on "
            f"{keras.config.backend()}, onnxruntime {onnxruntime.__version__}.\n",
            "| network | parameters, million | image | error | spread | nodes | transposes | written in, s |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            *map(line, found),
        ]
    )


def main(arguments: list[str]) -> None:
    """Sources and names of networks."""
    sys.setrecursionlimit(10_000)  # efficientnet_v2_l has more operations than Python has frames
    chosen = [one for one in arguments if one in ("keras", "keras-classifiers", "torchvision")]
    names = [one for one in arguments if one not in chosen]
    print(table([row for source in chosen for row in kept(source, names)]))


if __name__ == "__main__":
    main(sys.argv[1:])
