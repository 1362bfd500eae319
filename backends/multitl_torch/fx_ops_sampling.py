"""Samples of a map at places that are computed, as spatial transformers take them.

A sample is a weighted mean of rows and of columns, so it is a product with two matrices of weights, one row a place.
That takes no gathering, and height * width products for each place: meant for small maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import torch
from keras import ops as K  # noqa: N812
from torch.nn import functional as F  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.layouts import channels_last
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation, Value

ops = OpTable("sampling")

BILINEAR, NEAREST, BICUBIC = range(3)
ZEROS, BORDER, REFLECTION = range(3)
SHARPNESS = -0.75  # of PyTorch's cubic kernel


@ops("grid_sampler")
def grid_sampler(
    build: Builder, x: Activation, grid: Value, mode: int, padding: int, align_corners: bool
) -> Activation:
    """x: (n, c, h, w), grid: (n, rows, columns, 2), from -1 to 1 across the map, x first -> (n, c, rows, columns)."""
    if mode == BICUBIC and padding != ZEROS:
        raise Unsupported("bicubic samples with borders")
    x, grid = x.arranged(channels_last(4)), build.value(grid).in_order()
    grid = build.over_batch(grid) if grid.shape[0] == 1 else grid
    rows, columns = (
        _weights(_places(grid.tensor[..., number], length, padding, align_corners), length, mode)
        for number, length in ((1, x.shape[2]), (0, x.shape[3]))
    )
    return x.with_tensor(K.einsum("bhwc,bpqh,bpqw->bpqc", x.tensor, rows, columns))


def _places(along: keras.KerasTensor, length: int, padding: int, align_corners: bool) -> keras.KerasTensor:
    """From -1 to 1 -> places on an axis, 0 being the middle of the first pixel; none outside, if there is a border."""
    last = length - 1
    span = last if align_corners else length
    places = K.add(K.multiply(along, span / 2), last / 2)
    if padding == REFLECTION and span:
        low = 0.0 if align_corners else -0.5
        turns = K.abs(K.subtract(places, low))
        turns = K.subtract(turns, K.multiply(K.floor(K.divide(turns, 2 * span)), 2.0 * span))
        places = K.add(K.subtract(span, K.abs(K.subtract(turns, span))), low)
    return places if padding == ZEROS else K.clip(places, 0.0, float(last))


def _weights(places: keras.KerasTensor, length: int, mode: int) -> keras.KerasTensor:
    """How much of each pixel of an axis a sample takes: (..., length)."""
    if mode == NEAREST:
        places = K.round(places)
    pixels = np.arange(length, dtype="float32")
    away = K.abs(K.subtract(K.expand_dims(places, -1), pixels))
    return _cubic(away) if mode == BICUBIC else K.relu(K.subtract(1.0, away))


def _cubic(away: keras.KerasTensor) -> keras.KerasTensor:
    """The cubic convolution kernel, 0 from 2 pixels on."""
    a, near, far = SHARPNESS, K.minimum(away, 1.0), K.clip(away, 1.0, 2.0)
    inner = ((a + 2) * near - (a + 3)) * near * near + 1
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return inner + outer


@ops("affine_grid_generator")
def affine_grid(build: Builder, theta: Value, size: Sequence[int], align_corners: bool) -> Activation:
    """theta: (n, 2, 3) -> the grid (n, h, w, 2) whose places it has moved. size: (n, c, h, w)."""
    matrices = build.value(theta)
    names = "".join("njk"[axis] for axis in np.argsort(matrices.axes))
    same = F.affine_grid(torch.eye(2, 3)[None], [1, 1, *size[2:]], align_corners)[0]
    places = torch.cat([same, torch.ones(*same.shape[:2], 1)], -1).numpy()
    return Activation(K.einsum(f"{names},pqk->npqj", matrices.tensor, places), (0, 1, 2, 3), matrices.batch)
