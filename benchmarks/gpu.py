"""Everything that can only be seen on a GPU, by one command: `python benchmarks/gpu.py [--out DIR] [--quick]`.

For a machine with PyTorch and JAX, TensorFlow if it is there, and this project with Keras carried in; nothing is
downloaded. In under nine minutes it writes DIR/RESULTS-gpu.md, and DIR/gpu.log with what every process said:

- checks, on each backend: a translated ResNet-18 beside the original, without TF32; frozen weights, bit by bit; the
  first steps on augmented images beside the other backends'; 16 bits end finite; nothing comes to the host in a leg,
  by the framework's own guard.
- speed: `multitl bench`, beside the native loops, with its intervals.
- a whole job from files, twice: where its seconds go, and how much of them the GPU is idle.

--quick: small networks and few images, in two minutes on a CPU; for trying this script.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
NETWORK, SIZE, STEPS = "torchvision/resnet18", 64, 5
BACKENDS = [name for name in ("jax", "torch", "tensorflow") if find_spec(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check:
        print(json.dumps(check(options.check)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "gpu.log").open("w") as log:
        sections = [heading(), checks(log), speed(options, log), whole_jobs(options, log)]
    (options.out / "RESULTS-gpu.md").write_text("\n".join(sections), encoding="utf-8")
    print("\n".join(sections))


def heading() -> str:
    from startup import machine

    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    gpu = subprocess.run(asked, capture_output=True, text=True).stdout.strip() if shutil.which(asked[0]) else "no GPU"
    return f"# On a GPU\n\n{machine()}; {gpu}; {datetime.date.today()}. `python benchmarks/gpu.py`\n"


def run(log: Any, *command: str, seconds: float, **environment: str) -> str:
    """What a process prints; nothing if it fails, or takes too long."""
    print("$", *command, environment, file=log, flush=True)
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "benchmarks")))}
    try:
        done = subprocess.run(
            [sys.executable, *command], env=variables | environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        print(f"more than {seconds:g} s: {error.stderr!r}", file=log, flush=True)
        return ""
    print(done.stdout, done.stderr, f"exit {done.returncode}", sep="\n", file=log, flush=True)
    return done.stdout if done.returncode == 0 else ""


def checks(log: Any) -> str:
    """A row a check, a column a backend."""
    columns = {}
    for backend in BACKENDS:
        out = run(log, __file__, "--check", backend, seconds=120, KERAS_BACKEND=backend)
        columns[backend] = json.loads(out.splitlines()[-1]) if out else {}
    losses = [column["augmented"] for column in columns.values() if "augmented" in column]
    for column in columns.values():
        if "augmented" in column:
            apart = max(float(np.abs(np.array(column["augmented"]) / one - 1).max()) for one in losses)
            column["augmented"] = f"{apart:.1e} from the others"
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [
        f"| {name} | " + " | ".join(str(column.get(name, "-")) for column in columns.values()) + " |" for name in names
    ]
    return "\n".join(["## Checks\n", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", *rows, ""])


def check(name: str) -> dict[str, Any]:
    """In a process of one backend."""
    import keras

    from multitl.adapters import load_backend
    from multitl.models.freezing import FreezePolicy, apply_policy, frozen_variables
    from multitl.models.heads import build_extractor, build_head
    from multitl.recipes import Recipe
    from multitl.sources.pretrained import load_pretrained
    from multitl.training.checkpoints import read_variables

    backend = load_backend(name)
    backend.make_deterministic(0)
    found: dict[str, Any] = {"device": ", ".join(backend.devices())}
    pixels = np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)
    with backend.fast_paths():
        with backend.full_precision():
            found["from the original"] = beside_the_original(pixels)
        for precision in ("float32", "mixed"):
            keras.config.set_dtype_policy(backend.mixed_precision() if precision == "mixed" else "float32")
            keras.utils.set_random_seed(0)
            pretrained = load_pretrained(NETWORK, "none", SIZE)
            apply_policy(FreezePolicy("last"), pretrained.backbone, pretrained.stages)
            extractor = build_extractor(pretrained, "avg")
            head = build_head(np.ones((1, extractor.output_shape[-1])), 3, Recipe())
            head.set_weights([np.zeros(weight.shape) for weight in head.get_weights()])
            model = keras.Model(extractor.input, head(extractor.output))
            before = read_variables(frozen_variables(model))
            with backend.full_precision():
                losses, transfers = train(model, pixels)
            if precision == "mixed":
                found["16 bits"] = "finite" if np.isfinite(losses).all() else f"losses {losses}"
            else:
                pairs = zip(before, read_variables(frozen_variables(model)), strict=True)
                found["frozen"] = "equal" if all((one == other).all() for one, other in pairs) else "MOVED"
                found |= {"augmented": losses, "transfers in a leg": transfers}
    return found


def beside_the_original(pixels: np.ndarray) -> str:
    """The largest difference of an output of a translated network, over the largest output."""
    if not find_spec("torchvision"):
        return "no torchvision here"
    import torch
    from multitl_torch.torchvision import import_torchvision

    import multitl

    torch.manual_seed(0)
    original = import_torchvision().models.resnet18().eval()
    x = torch.from_numpy(pixels.astype("float32") / 255).permute(0, 3, 1, 2)
    model = multitl.from_torch(original, x[:2])
    with torch.no_grad():
        expected = original(x).numpy()
    import keras

    given = keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(pixels.astype("float32") / 255)))
    return f"{np.abs(given - expected).max() / np.abs(expected).max():.1e}"


def train(model: Any, pixels: np.ndarray) -> tuple[list[float], str]:
    """Losses of some steps on images that are warped, and whether the framework's guard let them pass."""
    import keras

    from multitl.data.augmentation import application, changes_of, draw
    from multitl.recipes import Recipe
    from multitl.training.phases import compile_step

    step = compile_step(model, Recipe(optimizer="sgd"), application("strong"))
    labels, weights = np.eye(3, dtype="float32")[np.arange(len(pixels)) % 3], np.ones(len(pixels), "float32")
    given = [(pixels, changes_of("strong", draw(0, epoch, range(len(pixels))), SIZE, SIZE)) for epoch in range(STEPS)]
    with step:
        told = [step(given[0], labels, weights, learning_rate=1e-3)]  # compiled, and tuned
    transfers = "none"
    try:
        with step, guarded():
            told += [step(inputs, labels, weights, learning_rate=1e-3) for inputs in given[1:]]
    except Exception as error:
        transfers = f"{type(error).__name__}: {error}".splitlines()[0][:80]
    return [float(keras.ops.convert_to_numpy(figures)[0]) for figures in told], transfers


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Where the framework can tell, what comes to the host raises."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        with jax.transfer_guard_device_to_host("disallow_explicit"):
            yield
    elif keras.backend.backend() == "torch":
        import torch

        if not torch.cuda.is_available():
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    else:
        yield


def speed(options: argparse.Namespace, log: Any) -> str:
    """`multitl bench` on the networks that its native loops know."""
    networks, batch, budget = ("resnet50,efficientnet_b0,vit_b_32", "64", 240)
    if options.quick:
        networks, batch, budget = "resnet18", "4", 60
    contenders = [
        *BACKENDS,
        *(f"native-{name}" for name in ("jax", "torch") if name in BACKENDS),
        "native-torch-compile",
    ]
    page = options.out / "bench.md"
    run(
        log, "-m", "multitl", "bench", "--backbone", ",".join(f"torchvision/{one}" for one in networks.split(",")),
        "--backends", ",".join(contenders), "--task", "finetune,predict", "--batch-size", batch,
        "--dtype", "float32" if options.quick else "float32,bfloat16", "--budget", str(budget), "--repetitions", "3",
        "--out", str(options.out / "bench"), "--overwrite", "--markdown", str(page), seconds=budget + 120,
    )  # fmt: skip
    return page.read_text(encoding="utf-8") if page.is_file() else "## Speed\n\nSee gpu.log: there are no results.\n"


def whole_jobs(options: argparse.Namespace, log: Any) -> str:
    """Seconds of two runs on the same files: the second finds their pixels and features."""
    data = make_photos(options.out / "photos", 100 if options.quick else 2000)
    shutil.rmtree(options.out / "cache", ignore_errors=True)
    rows = []
    for backend in BACKENDS:
        for seed in "01":
            folder = options.out / f"job-{backend}-{seed}"
            with idle_share() as idle:
                run(
                    log, "-m", "multitl", "finetune", str(data), "--backbone", NETWORK, "--weights", "none",
                    "--steps", "20" if options.quick else "300", "--budget", "none", "--seed", seed, "--out",
                    str(folder), "--overwrite", seconds=120, KERAS_BACKEND=backend,
                    MULTITL_CACHE=str(options.out / "cache"),
                )  # fmt: skip
            card = json.loads((folder / "card.json").read_text()) if (folder / "card.json").is_file() else {}
            parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in card.get("seconds", {}).items())
            rows.append(f"| {backend} | {'first' if seed == '0' else 'second'} | {parts or '-'} | {idle()} |")
    head = (
        "## A whole job from files\n\n| backend | run | seconds | GPU idle, of the whole process |\n|---|---|---|---|"
    )
    return "\n".join([head, *rows, ""])


def make_photos(folder: Path, count: int) -> Path:
    """JPEG files of 400 x 500 pixels, of three classes by their colour."""
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / "abc"[number % 3] / f"{number}.jpg"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = random.integers(0, 200, (10, 8, 3)) + 40 * np.eye(3, dtype=int)[number % 3]
            Image.fromarray(coarse.clip(0, 255).astype("uint8")).resize((400, 500)).save(path)
    return folder


@contextlib.contextmanager
def idle_share() -> Iterator[Any]:
    """A function that tells, afterwards, which share of the time the GPU had nothing to do."""
    busy: list[float] = []
    over = threading.Event()

    def watch() -> None:
        asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not over.is_set():
            busy.append(float(subprocess.run(asked, capture_output=True, text=True).stdout.split()[0]))
            time.sleep(0.2)

    if shutil.which("nvidia-smi"):
        threading.Thread(target=watch, daemon=True).start()
    yield lambda: f"{1 - sum(busy) / len(busy) / 100:.0%}" if busy else "-"
    over.set()


if __name__ == "__main__":
    main()
