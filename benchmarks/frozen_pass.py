"""The frozen pass on a CPU, by each backend and by onnxruntime: `python benchmarks/frozen_pass.py [ROUNDS]`.

Features of 32 images of 224 px, random weights, batch normalisation folded, both in one process and interleaved; one
process a backend and network, where PyTorch runs as a program from the first batch on (else from the sixteenth). Prints
Markdown: images/s (medians), the ratio of medians, and the largest difference of a feature over the largest feature.
Needs `pip install 'multitl[onnx]'`.
"""

from __future__ import annotations

import datetime
import os
import statistics
import subprocess
import sys
import time

import numpy as np
from startup import machine

NETWORKS = {
    "pypi/efficientnet_lite0": "default",
    "torchvision/mobilenet_v2": "none",
    "torchvision/resnet50": "none",
}
BATCH, SIZE = 32, 224


def main() -> None:
    if len(sys.argv) > 2:
        measure(sys.argv[2], int(sys.argv[1]))
        return
    rounds = sys.argv[1] if len(sys.argv) > 1 else "7"
    print(f"# The frozen pass on a CPU\n\n{machine()}; batch {BATCH}, {SIZE} px, {rounds} rounds, interleaved; ")
    print(f"{datetime.date.today()}. `python benchmarks/frozen_pass.py {rounds}`\n")
    print("| network | backend | its own, images/s | onnxruntime, images/s | ratio | difference |")
    print("|---|---|---:|---:|---:|---:|", flush=True)
    for network in NETWORKS:
        for backend in ("jax", "tensorflow", "torch"):
            environment = os.environ | {"KERAS_BACKEND": backend}
            subprocess.run([sys.executable, __file__, rounds, network], env=environment, check=True)


def measure(network: str, rounds: int) -> None:
    """In a process of one backend."""
    import keras

    from multitl.adapters import load_backend
    from multitl.models.inference import compile_forward
    from multitl.sources.pretrained import load_pretrained
    from multitl.system.heap import kept_heap
    from multitl.training.extractors import fast_extractor, open_session

    backend = load_backend()
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    with backend.fast_paths(), kept_heap():
        model = fast_extractor(load_pretrained(network, NETWORKS[network], SIZE), "avg")
        ways = {"own": compile_forward(model, is_for_long=True), "onnxruntime": open_session(model)}
        own, other = (keras.ops.convert_to_numpy(way(pixels)) for way in ways.values())
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                keras.ops.convert_to_numpy(way(pixels))
                seconds[name].append(time.perf_counter() - started)
    speeds = [BATCH / statistics.median(times) for times in seconds.values()]
    apart = np.abs(own - other).max() / np.abs(own).max()
    figures = f"{speeds[0]:.0f} | {speeds[1]:.0f} | {speeds[1] / speeds[0]:.2f} | {apart:.1e}"
    print(f"| {network} | {backend.name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
