"""TensorFlow's checkpoints, read in Python: what TensorFlow reads, and nothing that is damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import saved_models
import tensorflow as tf
from fuzz import bundle_edits
from multitl_tensorflow.bundles import Bundle, DamagedBundle
from multitl_tensorflow.checksums import crc32c

VALUES = {
    "half": tf.constant([[1.5, -2.0]], tf.float16),
    "brain": tf.constant([1.0, 3.0, 65536.0], tf.bfloat16),
    "single": tf.reshape(tf.range(5000.0), (50, 100)),
    "double": tf.constant(0.1, tf.float64),
    "whole": tf.constant([-(2**62)], tf.int64),
    "byte": tf.zeros((0, 3), tf.uint8),
    "truth": tf.constant([True, False]),
}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "variables"
    tf.train.Checkpoint(**{name: tf.Variable(value) for name, value in VALUES.items()}).write(str(path))
    return path


def agrees_with_tensorflow(prefix: Path) -> None:
    theirs, ours = tf.train.load_checkpoint(str(prefix)), Bundle(prefix)
    assert ours.shapes == theirs.get_variable_to_shape_map()
    for key in ours.shapes:
        mine, expected = ours.read(key), theirs.get_tensor(key)
        assert type(mine) is type(expected) or isinstance(expected, np.generic | bool | int | float)
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(expected), strict=isinstance(mine, np.ndarray))


def test_every_type_is_read_as_tensorflow_reads_it(prefix: Path) -> None:
    agrees_with_tensorflow(prefix)


def test_both_formats_of_modules_are_read_as_tensorflow_reads_them(tmp_path: Path) -> None:
    agrees_with_tensorflow(saved_models.write_hub1(tmp_path / "1") / "variables" / "variables")
    agrees_with_tensorflow(
        saved_models.write_reusable(saved_models.Network(), tmp_path / "2") / "variables" / "variables"
    )


def test_an_index_of_several_blocks(tmp_path: Path) -> None:
    """A block has 256 kB at most."""
    prefix = tmp_path / "variables"
    held = {f"{'name' * 50}{number}": tf.Variable(float(number)) for number in range(2000)}
    tf.train.Checkpoint(**held).write(str(prefix))
    assert prefix.with_name("variables.index").stat().st_size > 2**15
    agrees_with_tensorflow(prefix)


def test_values_in_several_files(tmp_path: Path) -> None:
    prefix = tmp_path / "variables"
    for number in range(2):
        tf.raw_ops.SaveV2(
            prefix=f"{tmp_path}/part-{number}", tensor_names=[f"value{number}"], shape_and_slices=[""],
            tensors=[tf.fill((3,), float(number))],
        )  # fmt: skip
    parts = [f"{tmp_path}/part-{number}" for number in range(2)]
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix))
    assert len(list(tmp_path.glob("variables.data-*-of-00002"))) == 2
    agrees_with_tensorflow(prefix)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 63, 64, 65, 4097, 70_001])
def test_checksums_of_any_length(size: int) -> None:
    data = Random(size).randbytes(size)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0x82F63B78 * (register & 1)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_checksums_are_those_of_the_standard() -> None:
    """https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4"""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


def damaged(prefix: Path, folder: Path, ending: str, content: bytes) -> Path:
    shutil.copytree(prefix.parent, folder)
    (folder / f"variables{ending}").write_bytes(content)
    return folder / "variables"


def read_all(prefix: Path) -> dict[str, np.ndarray | bytes]:
    bundle = Bundle(prefix)
    return {key: bundle.read(key) for key in bundle.shapes}


def test_damaged_numbers_are_refused(prefix: Path, tmp_path: Path) -> None:
    ending = ".data-00000-of-00001"
    whole = prefix.with_name(f"variables{ending}").read_bytes()
    for at in (0, len(whole) // 2, len(whole) - 1):
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(DamagedBundle, match="checksum"):
            read_all(damaged(prefix, tmp_path / f"flipped{at}", ending, flipped))
        with pytest.raises(DamagedBundle, match="in files of"):
            read_all(damaged(prefix, tmp_path / f"cut{at}", ending, whole[:at]))


def test_a_missing_file_is_an_error(prefix: Path, tmp_path: Path) -> None:
    place = damaged(prefix, tmp_path / "copy", ".data-00000-of-00001", b"")
    os.remove(place.with_name("variables.data-00000-of-00001"))  # noqa: PTH107
    with pytest.raises(DamagedBundle):
        read_all(place)
    with pytest.raises(OSError, match="No such file"):
        Bundle(tmp_path / "nothing")


def test_a_damaged_index_with_right_checksums_is_refused_or_does_not_matter(prefix: Path, tmp_path: Path) -> None:
    """TensorFlow's own reader aborts the process at 1 in 30 of these."""
    index, refused = prefix.with_name("variables.index"), 0
    whole, place = index.read_bytes(), damaged(prefix, tmp_path / "copy", ".index", b"")
    for seed in range(400):
        place.with_name("variables.index").write_bytes(bundle_edits.edit(Random(seed), whole))
        try:
            assert all(isinstance(value, np.ndarray | bytes) for value in read_all(place).values())
        except DamagedBundle:
            refused += 1
    assert refused > 200
