"""Artefacts opened by JAX alone. See `contracts.Runtime`."""

from __future__ import annotations

from pathlib import Path

import jax.export
import numpy as np

from multitl.contracts import Answer


def open_stablehlo(folder: Path) -> Answer:
    """By jax.export.deserialize, compiled for each number of images."""
    call = jax.jit(jax.export.deserialize((folder / "model.jax").read_bytes()).call)
    return lambda images: np.asarray(call(images))


def open_params(folder: Path) -> Answer:
    """The parameters restored by Orbax, in the function beside them."""
    import orbax.checkpoint

    params = orbax.checkpoint.StandardCheckpointer().restore((folder / "params").resolve())
    call = jax.jit(jax.export.deserialize((folder / "apply.jax").read_bytes()).call)
    return lambda images: np.asarray(call(params, images))
