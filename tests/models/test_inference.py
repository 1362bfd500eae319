"""One batch shape, whatever the number of inputs; rows that sum to one."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from multitl.contracts import Example, Preprocess
from multitl.data.pixels import PixelReader
from multitl.models import one_class
from multitl.models.inference import (
    BATCH,
    compile_forward,
    index_batches,
    predict_padded,
    predict_pixels,
)
from multitl.system.hashes import file_sha256


class FirstPixel:
    """Gives back each image's first pixel; notes the shapes it was called with."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.shapes.append(pixels.shape)
        return pixels[:, 0, 0].astype("float32")


@pytest.mark.parametrize("count", [1, 31, 32, 33, 70])
def test_images_of_any_number_reach_the_model_in_one_shape(count: int, photo_folder: Path) -> None:
    paths = [str(path) for path in sorted(photo_folder.rglob("*.png"))]
    examples = [Example(path, 0, "test", file_sha256(path)) for path in (paths * 2)[:count]]
    reader, model, done = PixelReader(examples, Preprocess(8, 8, resize="squash")), FirstPixel(), []
    outputs = predict_pixels(model, reader, done.append)
    np.testing.assert_array_equal(outputs, reader.read(range(count))[:, 0, 0])
    assert set(model.shapes) == {(BATCH, 8, 8, 3)}
    assert sum(done) == count


@pytest.mark.every_backend
def test_padding_is_dropped() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    values = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    forward = compile_forward(model)
    assert predict_padded(forward, values).shape == (5, 3)
    expected = np.asarray(model.predict_on_batch(values))
    np.testing.assert_allclose(predict_padded(forward, values, 8), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_sum_to_one(dtype: str) -> None:
    outputs = np.random.default_rng(0).dirichlet(np.ones(50), 40).astype(dtype)
    rows = one_class.exact(outputs)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(axis=1, dtype="float64"), 1, atol=1e-6)


def test_index_batches_cover_everything_once() -> None:
    assert [list(batch) for batch in index_batches(range(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(index_batches([])) == []
