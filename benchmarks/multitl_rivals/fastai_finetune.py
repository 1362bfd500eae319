"""fastai's `fine_tune`, with its default rate and with `lr_find`'s: the better one on the validation images is judged.

Everything else is fastai's own: `aug_transforms`, batches of 64, `create_head`, a frozen first epoch, discriminative
rates, one cycle. Needs a Python that has fastai (`recipes.py --fastai-python`).
"""

from __future__ import annotations

import numpy as np
from multitl_torch.torchvision import import_torchvision
from torch import nn

from multitl_rivals.answering import Task, answer
from multitl_rivals.lite0 import CHANNELS, Lite0

import_torchvision()  # before fastai, which fails where torchvision's build does not fit torch's

from fastai.vision import all as fastai  # noqa: E402

SMALL = 1000  # training images
EPOCHS, EPOCHS_OF_LARGE = 20, 6
PIXELS = ([127 / 255] * 3, [128 / 255] * 3)  # mean and deviation of what Lite0 takes, of pixels in [0, 1]


def classify(task: Task) -> tuple[np.ndarray, str]:
    epochs = EPOCHS if len(task.train.labels) < SMALL else EPOCHS_OF_LARGE
    tried = {}
    for name in ("default", "lr_find"):
        fastai.set_seed(task.seed, reproducible=True)
        learner = open_learner(task)
        with learner.no_bar(), learner.no_logging():
            rate = 2e-3 if name == "default" else float(learner.lr_find(show_plot=False).valley)  # fine_tune's own
            learner.fine_tune(epochs, rate)
            loss, accuracy = learner.validate()
        tried[f"{name} {rate:.1e}"] = (-accuracy, loss, learner)
    best = min(tried, key=lambda name: tried[name][:2])
    learner = tried[best][2]
    with learner.no_bar(), learner.no_logging():
        items = range(len(task.train.labels) + len(task.validation.labels), len(items_of(task)[1]))
        probabilities, _ = learner.get_preds(dl=learner.dls.test_dl(items))
    return probabilities.numpy(), f"{best}, {epochs} epochs"


def items_of(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of all parts, one after another."""
    parts = (task.train, task.validation, task.test)
    return np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts])


def open_learner(task: Task) -> fastai.Learner:
    """As `vision_learner` makes one, for a network that it does not know."""
    pixels, labels = items_of(task)
    trained, known = len(task.train.labels), len(task.train.labels) + len(task.validation.labels)
    block = fastai.DataBlock(
        blocks=(fastai.ImageBlock, fastai.CategoryBlock(vocab=list(range(task.classes)))),
        get_x=lambda item: fastai.PILImage.create(pixels[item]),
        get_y=lambda item: int(labels[item]),
        splitter=fastai.IndexSplitter(list(range(trained, known))),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(*PIXELS)],
    )
    loaders = block.dataloaders(range(known), num_workers=0)
    model = nn.Sequential(Lite0(pixels.shape[1]), fastai.create_head(CHANNELS, task.classes))
    fastai.apply_init(model[1], nn.init.kaiming_normal_)
    learner = fastai.Learner(loaders, model, splitter=fastai.default_split, metrics=fastai.accuracy)
    learner.freeze()
    return learner


if __name__ == "__main__":
    answer(classify)
