"""TF Hub's image families beside their originals on all three backends:
`python benchmarks/savedmodels.py FOLDER && python benchmarks/zoo_tfhub.py FOLDER > benchmarks/zoo_tfhub.md`.

Each SavedModel is translated under Keras' TensorFlow backend, compared with what TensorFlow itself makes of it
(`tf.saved_model.load`, run on the same images) and saved; a process under JAX and one under PyTorch load that file and
compare again. Rows are kept in FOLDER/rows.jsonl as they come; delete that file to begin anew.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo import BACKENDS, TOLERANCE, Row, compared, errors, kept_in, versions, worst


def translate(module: str, folder: str) -> Row:
    """Make model.keras and probes.npz in `folder`. Under TensorFlow."""
    from dataclasses import asdict

    import keras
    import numpy as np
    from multitl_tensorflow import graphdef, tfhub, verifying
    from multitl_tensorflow.saved_models import read_module

    from multitl.errors import MultitlError
    from multitl.translation.parity import compare, run

    keras.utils.clear_session()
    row: Row = json.loads(Path(module, "sample.json").read_text())
    try:
        started = time.perf_counter()
        prepared = graphdef.prepare(read_module(Path(module)))
        translation = graphdef.translate(prepared)
        row |= {"seconds": time.perf_counter() - started, "image_size": prepared.image_shape[0]}
        preprocess = tfhub.preprocess(prepared.graph, *prepared.image_shape[:2])
        row["range"] = round(255 * preprocess.scale[0])
        verifying.verify(prepared, translation, preprocess)
    except MultitlError as error:
        return row | {"refused": f"{error.problem} {error.received}"}
    images = verifying.probes(prepared, preprocess)
    outputs = original(module, images)
    read_by_graph = {one.name for one in prepared.graph.stored.values() if one.name}
    mapped = {one.name for one in translation.weights}
    row |= {"variables": len(read_by_graph), "mapped": len(mapped & read_by_graph), "weights": len(mapped)}
    row |= {"parameters": translation.model.count_params()}
    row["tensorflow"] = asdict(compare(outputs, run(translation.model, images)))
    translation.model.save(Path(folder, "model.keras"))
    np.savez(Path(folder, "probes.npz"), images=images, outputs=outputs)
    return row


def original(module: str, images: Any) -> Any:
    """What TensorFlow makes of the images: it executes the module as its format says."""
    import tensorflow as tf

    is_hub1 = (Path(module) / "tfhub_module.pb").exists()
    loaded = tf.saved_model.load(module, tags=[] if is_hub1 else None)
    if callable(loaded):
        return loaded(tf.constant(images), training=False).numpy()
    if hasattr(loaded, "serve"):
        return tf.nest.flatten(loaded.serve(tf.constant(images)))[0].numpy()
    signature = loaded.signatures["serving_default" if "serving_default" in loaded.signatures else "default"]
    (name,) = signature.structured_input_signature[1]
    (outputs,) = signature(**{name: tf.constant(images)}).values()
    return outputs.numpy()


def rows(modules: list[Path]) -> Iterator[Row]:
    """One after the other."""
    tasks = ((json.loads((module / "sample.json").read_text()), (str(module),)) for module in modules)
    return compared("tensorflow", translate, tasks)


def kept(folder: Path) -> list[Row]:
    """All rows, those of an earlier run included, by family."""
    names = [sample.parent.name for sample in sorted(folder.glob("*/sample.json"))]
    found = kept_in(folder / "rows.jsonl", names, lambda missing: rows([folder / name for name in missing]), line)
    return sorted(found.values(), key=lambda row: (row["family"], row["name"]))


def line(row: Row) -> str:
    """A row of the table."""
    start = f"| {row['family']} | {row['name'].removesuffix('-' + row['format'])} | {row['format']} "
    if "refused" in row:
        return f"{start}| | | | | | | | {row['refused']} |"
    variables = f"{row['mapped']} of {row['variables']}" if row["variables"] else f"none: {row['weights']} constants"
    return (
        f"{start}| {row['parameters'] / 1e6:.2f} | {row['image_size']} | 0 to {row['range']} | {variables} "
        f"| {errors(row)} | {row['seconds']:.1f} |"
    )


def table(found: list[Row]) -> str:
    """Markdown: the summary first."""
    translated = [row for row in found if "refused" not in row]
    close = [row for row in translated if worst(row) <= TOLERANCE]
    head = "| family | network | format | parameters, million | image | pixels | variables | "
    return "\n".join(
        [
            "# The zoo: TF Hub\n",
            f"{len(translated)} of {len(found)} SavedModels of {len({row['family'] for row in found})} families "
            f"translated, {len(close)} of them within {TOLERANCE:g} of their originals on "
            f"{', '.join(BACKENDS)}; the largest error is {max(map(worst, translated)):.1e}.\n",
            "Error: the largest difference of an output over the largest output, float32, random weights, evaluation "
            "mode; 4 images. The original is the SavedModel as TensorFlow loads and runs it. Variables: those that "
            "the graph reads, each in a place of its own in the Keras model.",
            f"Made by `python benchmarks/zoo_tfhub.py`, {datetime.date.today()}, {versions()}.\n",
            head + " | ".join(f"error, {one}" for one in BACKENDS) + " | translation, s |",
            "|---|---|---|---:|---:|---|---:|" + "---:|" * (len(BACKENDS) + 1),
            *map(line, found),
        ]
    )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(table(kept(Path(sys.argv[1]))))
