"""A training step beside Keras' own and beside the bare framework: `python benchmarks/steps.py [ROUNDS]`.

MobileNet 0.25 at 96 px, batch 32, Adam, batch normalisation frozen: so small that what surrounds the computation shows.
"keras": `train_on_batch`, which copies state in and out and waits for the loss. "multitl": the step of `multitl
finetune`. "bare": the same compiled function on arrays that lie on the device already; on PyTorch, which compiles
nothing here, the same network in plain PyTorch, channels last, with fused Adam. Interleaved, LEG steps each; one
process a backend. Prints Markdown: milliseconds a step (medians) and ratios of medians.
"""

from __future__ import annotations

import datetime
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from startup import machine

LEG, SIZE, BATCH, CLASSES = 20, 96, 32, 10
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = np.eye(CLASSES, dtype="float32")[np.arange(BATCH) % CLASSES]
WEIGHTS = np.ones(BATCH, "float32")
RATE = 1e-4


def main() -> None:
    rounds = sys.argv[1] if len(sys.argv) > 1 else "15"
    if "KERAS_BACKEND" in os.environ:
        measure(int(rounds))
        return
    print(
        f"# Training steps\n\n{machine()}; MobileNet 0.25, {SIZE} px, batch {BATCH}; {rounds} rounds of {LEG} steps, "
    )
    print(f"interleaved; {datetime.date.today()}. `python benchmarks/steps.py`\n")
    print("| backend | keras, ms | multitl, ms | bare, ms | keras / multitl | multitl / bare |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    for backend in ("jax", "tensorflow", "torch"):
        subprocess.run([sys.executable, __file__, rounds], env=os.environ | {"KERAS_BACKEND": backend}, check=True)


def measure(rounds: int) -> None:
    from multitl.adapters import load_backend
    from multitl.system.heap import kept_heap

    backend = load_backend()
    backend.make_deterministic(0)
    with backend.fast_paths(), kept_heap():
        legs = {"keras": keras_leg(), "multitl": multitl_leg(), "bare": BARE[backend.name]()}
        for leg in legs.values():
            leg()
        seconds: dict[str, list[float]] = {name: [] for name in legs}
        for _ in range(rounds):
            for name, leg in legs.items():
                started = time.perf_counter()
                leg()
                backend.synchronize()
                seconds[name].append((time.perf_counter() - started) / LEG * 1000)
    keras, ours, bare = (statistics.median(times) for times in seconds.values())
    print(
        f"| {backend.name} | {keras:.1f} | {ours:.1f} | {bare:.1f} | {keras / ours:.2f} | {ours / bare:.2f} |",
        flush=True,
    )


def network():
    """pixels -> logits of a new head, everything but batch normalisation trained.

    Weights by He (arXiv:1502.01852), lest numbers shrink from layer to layer until arithmetic with them is slow.
    """
    import keras

    from multitl.models.freezing import FreezePolicy, apply_policy
    from multitl.models.heads import build_extractor, build_head
    from multitl.recipes import Recipe
    from multitl.sources.pretrained import load_pretrained

    pretrained = load_pretrained("keras/MobileNet:alpha=0.25", "none", SIZE)
    for layer in pretrained.backbone.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            fan_in = math.prod(layer.kernel.shape[: 2 if isinstance(layer, keras.layers.DepthwiseConv2D) else 3])
            layer.kernel.assign(RANDOM.normal(0, math.sqrt(2 / fan_in), layer.kernel.shape))
    apply_policy(FreezePolicy("all"), pretrained.backbone, pretrained.stages)
    extractor = build_extractor(pretrained, "avg")
    head = build_head(np.ones((1, extractor.output_shape[-1])), CLASSES, Recipe())
    return keras.Model(extractor.input, head(extractor.output))


def keras_leg() -> Callable[[], None]:
    from multitl.recipes import Recipe
    from multitl.training.phases import compile_model

    model = network()
    compile_model(model, Recipe(), RATE)

    def leg() -> None:
        for _ in range(LEG):
            model.train_on_batch(PIXELS, LABELS, sample_weight=WEIGHTS)

    return leg


def multitl_leg() -> Callable[[], None]:
    from multitl.recipes import Recipe
    from multitl.training.phases import compile_step

    step = compile_step(network(), Recipe())

    def leg() -> None:
        with step:
            for _ in range(LEG):
                step((PIXELS,), LABELS, WEIGHTS, learning_rate=RATE)

    return leg


def bare_jax() -> Callable[[], None]:
    import jax

    from multitl.recipes import Recipe
    from multitl.training.phases import compile_step

    with compile_step(network(), Recipe()) as step:
        run, constants = step._run, step._constants
        kept = [step._state]
    pixels, *others = (jax.device_put(array) for array in (PIXELS, LABELS, WEIGHTS, np.float32(RATE)))

    def leg() -> None:
        for _ in range(LEG):
            kept[0], _ = run(kept[0], constants, (pixels,), *others)

    return leg


def bare_tensorflow() -> Callable[[], None]:
    import tensorflow as tf

    from multitl.recipes import Recipe
    from multitl.training.phases import compile_step

    step = compile_step(network(), Recipe())
    pixels, *others = (tf.constant(array) for array in (PIXELS, LABELS, WEIGHTS, np.float32(RATE)))
    run = step._run.get_concrete_function((pixels,), *others)

    def leg() -> None:
        for _ in range(LEG):
            run((pixels,), *others)

    return leg


def bare_torch() -> Callable[[], None]:
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, stride: int, groups: int, size: int) -> list[nn.Module]:
        margin = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []  # as Keras' network has it
        padding = 0 if margin else size // 2
        convolution = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
        return [*margin, convolution, nn.BatchNorm2d(outputs, eps=1e-3).eval().requires_grad_(False), nn.ReLU6()]

    layers = block(3, 8, 2, 1, 3)
    channels = 8
    for width, stride in zip(
        (16, 32, 32, 64, 64, *[128] * 6, 256, 256), (1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1), strict=True
    ):
        layers += [*block(channels, channels, stride, channels, 3), *block(channels, width, 1, 1, 1)]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=RATE, fused=True)
    pixels = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    labels = torch.from_numpy(LABELS)

    def leg() -> None:
        for _ in range(LEG):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pixels.float() / 127.5 - 1), labels).backward()
            optimizer.step()

    return leg


BARE = {"jax": bare_jax, "tensorflow": bare_tensorflow, "torch": bare_torch}

if __name__ == "__main__":
    main()
