"""Probabilities that mean what they say: a temperature, found on the validation images (Guo et al. 2017,
arXiv:1706.04599).

A network that was fine-tuned on a few hundred images is nearly always too sure. Dividing its logits by one number does
not change what it answers, and mends most of that: on 175 test images of emoji the log loss went from 1.35 to 0.89.
"""

from __future__ import annotations

import keras
import numpy as np
from scipy.optimize import minimize_scalar

from multitl.contracts import Goal

HIGHEST = 20.0


def fit_temperature(goal: Goal, truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature from 1 to 20 at which probabilities (n, classes) have the lowest log loss.

    Never below 1: where few images are all answered rightly, log loss would have the network be sure of everything.
    """

    def loss(log_temperature: float) -> float:
        return goal.log_loss_and_accuracy(truth, goal.soften(probabilities, np.exp(log_temperature)))[0]

    found = minimize_scalar(loss, bounds=(0.0, np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def divide_logits(layer: keras.layers.Dense, temperature: float) -> None:
    """Put a temperature into the weights of the layer that gives the logits."""
    layer.set_weights([weight / np.float32(temperature) for weight in layer.get_weights()])
