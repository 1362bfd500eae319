"""TensorFlow's input pipeline, tf.data over files, and Keras' `image_dataset_from_directory`, which is built on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from multitl.bench.jobs import Example, Job
from multitl_native.tensorflow_loop import describe

__all__ = ["describe", "read"]


def read(job: Job, examples: Sequence[Example]) -> Iterable[int]:
    for batch in (directory if job.cell.contender == "keras-directory" else files)(job, examples):
        yield len(batch)


def files(job: Job, examples: Sequence[Example]) -> tf.data.Dataset:
    """Decode, resize the shorter side, cut out the centre; in parallel, one batch ahead."""
    dataset = tf.data.Dataset.from_tensor_slices([example.path for example in examples])
    dataset = dataset.map(lambda path: decode(path, job.image_size), num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(job.cell.batch_size).prefetch(tf.data.AUTOTUNE)


def decode(path: tf.Tensor, size: int) -> tf.Tensor:
    image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    shape = tf.cast(tf.shape(image)[:2], "float32")
    shape = tf.cast(tf.round(shape * round(size * 256 / 224) / tf.reduce_min(shape)), "int32")
    image = tf.image.resize(image, shape, antialias=True)
    image = tf.image.resize_with_crop_or_pad(image, size, size)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), "uint8")


def directory(job: Job, examples: Sequence[Example]) -> tf.data.Dataset:
    """Keras takes a folder class/images, so it gets the one that holds the first example, and reads all of it."""
    import keras

    if not examples:
        raise LookupError("no examples")
    folder = Path(examples[0].path).parents[1]
    dataset = keras.utils.image_dataset_from_directory(
        folder, labels=None, shuffle=False, batch_size=job.cell.batch_size, image_size=(job.image_size,) * 2,
        crop_to_aspect_ratio=True, verbose=False,
    )  # fmt: skip
    return dataset.prefetch(tf.data.AUTOTUNE)
