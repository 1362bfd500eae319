"""Fine-tuning as an expert writes it in plain PyTorch: a linear probe first, then everything (LP-FT, Kumar et al.
2022, arXiv:2202.10054), by AdamW with warm-up, cosine, layer-wise decay and an average of the weights (EMA). Batch
normalisation keeps its statistics; pictures are mirrored and shifted. The validation images choose among the probe's
strengths and say whether fine-tuning helped.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from multitl_rivals.answering import Part, Task, answer
from multitl_rivals.lite0 import BATCH, CHANNELS, Lite0, as_images, compute_features

BATCH_TRAINED = 32
RATE = 1e-3  # of the last layers
DECAY_A_BLOCK = 0.8
WEIGHT_DECAY = 0.05
WARM_UP = 0.1  # of all steps
STEPS = 400  # at least, and EPOCHS at least
EPOCHS = 6
AVERAGED = 0.99
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


def classify(task: Task) -> tuple[np.ndarray, str]:
    torch.manual_seed(task.seed)
    size = task.train.pixels.shape[1]
    model = nn.Sequential(Lite0(size), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, task.classes))
    model = model.to(memory_format=torch.channels_last)
    probe(model, task)
    before = judge(model, task.validation)
    tuned = finetune(copy.deepcopy(model), task)
    after = judge(tuned, task.validation)
    best = tuned if after <= before else model
    return predict(best, task.test.pixels), f"validation loss {before:.3f} -> {after:.3f}"


def probe(model: nn.Sequential, task: Task) -> None:
    """Solve the last layer on frozen features; the validation images choose its strength."""
    train, validation = (compute_features(model[0], part.pixels) for part in (task.train, task.validation))
    fits = [LogisticRegression(C=strength, max_iter=1000).fit(train, task.train.labels) for strength in STRENGTHS]
    best = min(fits, key=lambda fit: log_loss(task.validation.labels, fit.predict_proba(validation)))
    kernel, bias = best.coef_, best.intercept_
    if task.classes == 2:  # scikit-learn keeps one row
        kernel, bias = np.concatenate([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        model[3].weight.copy_(torch.from_numpy(kernel))
        model[3].bias.copy_(torch.from_numpy(bias))


def finetune(model: nn.Sequential, task: Task) -> nn.Module:
    """Train everything; returns the averaged model."""
    batches = math.ceil(len(task.train.labels) / BATCH_TRAINED)
    steps = batches * max(EPOCHS, math.ceil(STEPS / batches))
    optimizer = torch.optim.AdamW(groups(model), RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, steps))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGED))
    model.eval()  # batch normalisation and dropout stay as they are; gradients flow all the same
    for pixels, labels in shuffled(task.train, steps, task.seed):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(augment(as_images(pixels))), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
    return average.module


def groups(model: nn.Sequential) -> list[dict]:
    """The parameters with their rates: smaller by DECAY_A_BLOCK a block from the head to the stem."""
    network = model[0].network
    stem = [*network._conv_stem.parameters(), *network._bn0.parameters()]
    last = [*network._conv_head.parameters(), *network._bn1.parameters()]
    layers = [stem, *(list(block.parameters()) for block in network._blocks), last, list(model[3].parameters())]
    rates = [RATE * DECAY_A_BLOCK ** (len(layers) - 1 - depth) for depth in range(len(layers))]
    return [
        {"params": [one for one in layer if (one.ndim > 1) == has_decay], "lr": rate, "weight_decay": decay}
        for layer, rate in zip(layers, rates, strict=True)
        for has_decay, decay in ((True, WEIGHT_DECAY), (False, 0.0))
    ]  # biases and batch normalisation are not decayed


def pace(step: int, steps: int) -> float:
    """The share of the peak rate at a step: up in a line, down by a cosine."""
    warm = WARM_UP * steps
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def shuffled(part: Part, steps: int, seed: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    random = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for _ in range(steps):
        if not len(order):
            order = random.permutation(len(part.labels))
        chosen, order = order[:BATCH_TRAINED], order[BATCH_TRAINED:]
        yield part.pixels[chosen], torch.from_numpy(part.labels[chosen])


def augment(images: torch.Tensor) -> torch.Tensor:
    """Half of the images mirrored; the batch shifted by up to a sixteenth of the side, its edge repeated."""
    mirrored = torch.rand(len(images)) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    size = images.shape[2]
    most = size // 16
    top, left = (int(torch.randint(0, 2 * most + 1, ())) for _ in range(2))
    padded = functional.pad(images, (most,) * 4, mode="replicate")
    return padded[:, :, top : top + size, left : left + size].contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict(model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes)."""
    model.eval()
    batches = (as_images(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH))
    return torch.cat([model(batch).softmax(1) for batch in batches]).numpy()


def judge(model: nn.Module, part: Part) -> float:
    """The mean cross-entropy."""
    return float(log_loss(part.labels, predict(model, part.pixels), labels=range(model[3].out_features)))


if __name__ == "__main__":
    answer(classify)
