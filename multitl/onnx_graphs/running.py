"""An ONNX model as onnxruntime computes it on the CPU. Loads neither Keras nor `onnx`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from multitl.system.threads import default_threads

Graph = Callable[[np.ndarray, Sequence[str] | None], list[np.ndarray]]


def open_onnx(graph: str | bytes, *, spins: bool = True) -> Graph:
    """A function of a model's only input, and the names of outputs, to these; None for all. On all cores.

    graph: a file's path, or its bytes.  spins: threads keep their core while they wait, as onnxruntime prefers.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    options.log_severity_level = 3  # errors, which are raised as well
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return lambda inputs, outputs: session.run(outputs and list(outputs), {name: inputs})


def run_onnx(graph: str | bytes, *, spins: bool = True, output: str = "") -> Callable[[np.ndarray], np.ndarray]:
    """A function from a model's only input to its first output, or to that of this name. See `open_onnx`."""
    run = open_onnx(graph, spins=spins)
    return lambda inputs: run(inputs, [output] if output else None)[0]
