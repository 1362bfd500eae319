"""torchvision's ResNet-50, translated, beside PyTorch's own:
`python benchmarks/translated.py [STEPS] [BATCH] > benchmarks/translated.md`.

One process a contender, which all live at once; they take turns, one step each, so that the machine's slow moments
meet all of them. Images of 224 pixels, from NumPy and back to it: inference, and a training step of the whole network
(SGD with momentum, batch normalisation in training). Also how long a translation takes, and its load from the cache
afterwards. A framework that is not installed is left out; a GPU is used where the framework sees one.
"""

from __future__ import annotations

import datetime
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec

SIZE, CLASSES = 224, 1000
NATIVE = "native torch"
CONTENDERS = [NATIVE, *(one for one in ("torch", "tensorflow", "jax") if find_spec(one))]
WARM_UP = 2  # steps of each kind, the first of which compiles


def main() -> None:
    from startup import machine

    given = [int(one) for one in sys.argv[1:]]
    steps, batch = (*given, *(9, 16)[len(given) :])
    print(f"# A translated ResNet-50 beside PyTorch's own\n\n{machine()}{gpu()}; {datetime.date.today()}.\n")
    translation, load = translation_seconds()
    print(f"Translated in {translation:.1f} s (process, imports and parity gate included), loaded from the cache in")
    print(f"{load:.1f} s, under JAX.\n")
    print(f"Batch {batch}, {SIZE} px, float32; medians of {steps} steps, interleaved; in brackets fastest to slowest.")
    print("The ratio is native PyTorch's (channels_last) time over the contender's: more is faster.\n")
    print("| | inference, ms | ratio | training step, ms | ratio |\n|---|---:|---:|---:|---:|")
    times = measure(steps, batch)
    for contender in CONTENDERS:
        cells = [cell(times[contender][kind], times[NATIVE][kind]) for kind in ("predict", "train")]
        print(f"| {contender} | {' | '.join(cells)} |")


def gpu() -> str:
    """Its name after a comma, or nothing."""
    if not shutil.which("nvidia-smi"):
        return ""
    found = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return f", {found.stdout.splitlines()[0]}" if found.returncode == 0 and found.stdout else ""


def cell(seconds: list[float], native: list[float]) -> str:
    """Median, range and ratio."""
    median, fastest, slowest = (1000 * f(seconds) for f in (statistics.median, min, max))
    return f"{median:.1f} ({fastest:.1f} to {slowest:.1f}) | {1000 * statistics.median(native) / median:.2f}"


def translation_seconds() -> tuple[float, float]:
    """Of `multitl.translation.store.translated`, with an empty cache and with a full one."""
    code = (
        "import time; from multitl.contracts import Job; from multitl.translation.store import translated\n"
        "start = time.perf_counter(); translated(Job('torchvision', 'resnet50', 'none', 0, 'keep'))\n"
        "print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"KERAS_BACKEND": "jax", "MULTITL_CACHE": folder}
        runs = [subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) for _ in range(2)]
    return float(runs[0].split()[-1]), float(runs[1].split()[-1])


def measure(steps: int, batch: int) -> dict[str, dict[str, list[float]]]:
    """Contender -> kind of step -> seconds of each."""
    workers = {contender: start(contender, batch) for contender in CONTENDERS}
    times = {contender: {"predict": [], "train": []} for contender in CONTENDERS}
    for kind in ("predict", "train"):
        for step in range(WARM_UP + steps):
            for contender, worker in workers.items():
                seconds = ask(worker, kind)
                if step >= WARM_UP:
                    times[contender][kind].append(seconds)
    for worker in workers.values():
        worker.communicate("")
    return times


def start(contender: str, batch: int) -> subprocess.Popen:
    """A process that takes steps when it is told to."""
    backend = contender.split()[-1]
    sharing = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    environment = os.environ | sharing | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "serve", contender, str(batch)]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def ask(worker: subprocess.Popen, kind: str) -> float:
    """Seconds of one step."""
    worker.stdin.write(f"{kind}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def serve(contender: str, batch: int) -> None:
    """Answer each line "predict" or "train" with the seconds that such a step takes."""
    import numpy as np

    images = np.random.default_rng(0).normal(size=(batch, SIZE, SIZE, 3)).astype("float32")
    labels = np.arange(batch) % CLASSES
    steps = (native_torch if contender == NATIVE else translated)(images, labels)
    for line in sys.stdin:
        started = time.perf_counter()
        steps[line.strip()]()
        print(time.perf_counter() - started, flush=True)


def translated(images, labels) -> dict[str, Callable[[], object]]:
    """The steps of the Keras model, as multitl's own loop runs them."""
    import keras
    import numpy as np

    from multitl.adapters import load_backend
    from multitl.sources.pretrained import load_pretrained

    load_backend().fast_paths().__enter__()  # open for the life of this process
    model = load_pretrained("torchvision/resnet50", "none", head="keep").backbone
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), loss)
    targets = np.eye(CLASSES, dtype="float32")[labels]
    return {
        "predict": lambda: model.predict_on_batch(images),
        "train": lambda: float(model.train_on_batch(images, targets)),
    }


def native_torch(images, labels) -> dict[str, Callable[[], object]]:
    """The steps of torchvision's own module, in channels_last: PyTorch's faster layout on a CPU."""
    import torch
    from multitl_torch.torchvision import import_torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = import_torchvision().models.resnet50(num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), 1e-6, momentum=0.9)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def predict() -> object:
        with torch.inference_mode():
            return module.eval()(x.to(device)).cpu().numpy()

    def train() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module.train()(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        return loss.item()

    return {"predict": predict, "train": train}


if __name__ == "__main__":
    serve(sys.argv[2], int(sys.argv[3])) if sys.argv[1:2] == ["serve"] else main()
