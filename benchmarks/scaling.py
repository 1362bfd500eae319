"""Several processes: `python benchmarks/scaling.py BACKEND [WORKERS] [BACKBONE] [UNFREEZE] [BATCH]`

WORKERS processes of one thread each on this machine (default 2), after one alone. BACKBONE is EfficientNet-Lite0,
UNFREEZE "last" and BATCH, the images of each process in a step, 8 unless given otherwise; pixels are drawn, nothing is
decoded. Of each number of processes a line of JSON: the median seconds of a training step and of a forward pass, the
processor's seconds in a step, the bytes of gradients that a step shares, images a second of all, and how that compares
with one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from multitl.adapters import load_backend
from multitl.distribution.group import Group, group_from_environment
from multitl.distribution.joining import joined

STEPS, WARM = 12, 2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
ONE_THREAD |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
WORKER = "--worker"


def work(backend: str, backbone: str, unfreeze: str, batch: int) -> dict[str, Any]:
    """In one process of a group: what it measures."""
    adapter = load_backend(backend)
    with joined(group_from_environment()) as peers:
        adapter.join(peers)
        import keras

        from multitl.models.freezing import FreezePolicy, apply_policy
        from multitl.models.inference import compile_forward
        from multitl.recipes import Recipe
        from multitl.sources.pretrained import load_pretrained
        from multitl.training.phases import compile_step

        with adapter.fast_paths():
            pretrained = load_pretrained(backbone, "none")
            apply_policy(FreezePolicy(unfreeze), pretrained.backbone, pretrained.stages)
            pooled = keras.layers.GlobalAveragePooling2D()(pretrained.backbone.output)
            model = keras.Model(pretrained.backbone.input, keras.layers.Dense(10)(pooled))
            step = compile_step(model, Recipe(), peers=peers)
            how = pretrained.preprocess
            pixels = np.random.default_rng(peers.rank).random((batch, how.height, how.width, 3), "float32")
            labels, weights = np.eye(10, dtype="float32")[np.arange(batch) % 10], np.ones(batch, "float32")

            def train() -> None:
                keras.ops.convert_to_numpy(step((pixels,), labels, weights, learning_rate=1e-3))

            forward = compile_forward(model)
            with step:
                seconds, processor = timed(train)
            looking, _ = timed(lambda: keras.ops.convert_to_numpy(forward(pixels)))
            shared = sum(4 * int(np.prod(one.shape)) for one in model.trainable_variables)
            times = [round(float(one), 4) for one in peers.mean([np.array([seconds, looking, processor])])[0]]
        return {
            "backend": backend, "workers": peers.size, "batch": batch * peers.size, "step_s": times[0],
            "forward_s": times[1], "processor_s": times[2], "gradient_bytes": shared,
            "images_per_s": round(batch * peers.size / times[0], 2),
            "frozen_images_per_s": round(batch * peers.size / times[1], 2),
        }  # fmt: skip


def timed(do: Callable[[], None]) -> tuple[float, float]:
    """Median seconds, and mean seconds of the processor, of one call."""
    taken, processor = [], 0.0
    for number in range(WARM + STEPS):
        started = time.perf_counter()
        if number == WARM:
            processor = time.process_time()
        do()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[WARM:]), (time.process_time() - processor) / STEPS


def measure(workers: int, arguments: list[str]) -> dict[str, Any]:
    """Start the processes and hear the first one."""
    own = [Group(rank, workers, "127.0.0.1:29577").environment() if workers > 1 else {} for rank in range(workers)]
    command = [sys.executable, __file__, WORKER, *arguments]
    started = [
        subprocess.Popen(command, env=os.environ | ONE_THREAD | one, stdout=subprocess.PIPE, text=True) for one in own
    ]
    told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit("a process failed")
    return json.loads(told[0].splitlines()[-1])


def main() -> None:
    if sys.argv[1] == WORKER:
        backend, backbone, unfreeze, batch = sys.argv[2:]
        print(json.dumps(work(backend, backbone, unfreeze, int(batch))), flush=True)
        return
    given = [*sys.argv[1:], *("", "2", "pypi/efficientnet_lite0", "last", "8")[len(sys.argv) - 1 :]]
    backend, workers, *rest = given
    alone = measure(1, [backend, *rest])
    for one in (alone, measure(int(workers), [backend, *rest])):
        print(json.dumps(one | {"times": round(one["images_per_s"] / alone["images_per_s"], 3)}), flush=True)


if __name__ == "__main__":
    main()
