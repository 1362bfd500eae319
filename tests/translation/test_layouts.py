"""Layouts against numpy: where axes lie, weights both ways, and reshapes that move as little as can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.contracts import TranslatedWeight
from multitl.translation.layouts import channels_last, in_order, inverse, moves, plan_reshape, to_keras, to_original

permutations = st.integers(1, 5).flatmap(lambda rank: st.permutations(range(rank)))


def numbered(shape) -> np.ndarray:
    """An array in which no two elements are equal."""
    return np.arange(math.prod(shape)).reshape(shape)


def laid_out(array: np.ndarray, axes) -> np.ndarray:
    """The same values with axis i at axes[i]."""
    return np.moveaxis(array, range(array.ndim), axes)


def test_channels_last() -> None:
    assert channels_last(4) == (0, 3, 1, 2)
    assert channels_last(3) == (0, 2, 1)
    assert channels_last(5) == (0, 4, 1, 2, 3)
    assert laid_out(np.empty((2, 3, 4, 5)), channels_last(4)).shape == (2, 4, 5, 3)


@given(permutations)
def test_inverse_undoes_a_permutation(axes: list[int]) -> None:
    array = numbered([2 + axis for axis in range(len(axes))])
    np.testing.assert_array_equal(array.transpose(axes).transpose(inverse(axes)), array)
    assert inverse(inverse(axes)) == tuple(axes)


@given(permutations, st.randoms(use_true_random=False))
def test_moves_brings_every_axis_where_it_is_wanted(now: list[int], random) -> None:
    wanted = random.sample(now, len(now))
    array = numbered([2 + axis for axis in range(len(now))])
    moved = laid_out(array, now).transpose(moves(now, wanted))
    np.testing.assert_array_equal(moved, laid_out(array, wanted))
    assert moves(now, now) == in_order(len(now))


# --- weights ---

WEIGHTS = {
    "convolution": ((8, 3, 5, 1), (8, 3, 5, 1), (2, 3, 1, 0), (5, 1, 3, 8)),
    "depthwise, two filters a channel": ((6, 1, 3, 3), (3, 2, 3, 3), (2, 3, 0, 1), (3, 3, 3, 2)),
    "dense": ((4, 7), (4, 7), (1, 0), (7, 4)),
    "class token held by a layer": ((1, 1, 6), (1, 1, 6), (0, 1, 2), (1, 1, 6)),
    "scalar": ((), (), (), (1,)),
}


@pytest.mark.parametrize(("shape", "split", "axes", "variable"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_go_both_ways(shape, split, axes, variable) -> None:
    weight = TranslatedWeight("conv.weight", shape, "conv", "kernel", split, axes)
    original = np.random.default_rng(0).normal(size=shape).astype("float32")
    value = to_keras(original, weight, variable)
    assert value.shape == variable and value.flags.c_contiguous
    back = to_original(value, weight)
    assert back.dtype == original.dtype and back.shape == shape and back.flags.c_contiguous
    np.testing.assert_array_equal(back, original)


def test_a_convolution_kernel_lies_as_keras_wants_it() -> None:
    weight = TranslatedWeight("conv.weight", (8, 3, 5, 1), "conv", "kernel", (8, 3, 5, 1), (2, 3, 1, 0))
    original = numbered((8, 3, 5, 1))
    assert to_keras(original, weight, (5, 1, 3, 8))[4, 0, 2, 7] == original[7, 2, 4, 0]


def test_filters_of_a_depthwise_kernel_stay_with_their_channel() -> None:
    weight = TranslatedWeight("conv.weight", (6, 1, 3, 3), "conv", "kernel", (3, 2, 3, 3), (2, 3, 0, 1))
    original = numbered((6, 1, 3, 3))
    assert to_keras(original, weight, (3, 3, 3, 2))[1, 2, 2, 1] == original[2 * 2 + 1, 0, 1, 2]


@given(st.data())
def test_to_original_is_the_exact_inverse_of_to_keras(data: st.DataObject) -> None:
    split = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    axes = data.draw(st.permutations(range(len(split))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(split)))))  # the state_dict's shape merges neighbours of `split`
    merged = [math.prod(split[a:b]) for a, b in zip([0, *cuts], [*cuts, len(split)], strict=True)]
    shape = tuple(merged)
    bits = data.draw(st.binary(min_size=4 * math.prod(split), max_size=4 * math.prod(split)))
    original = np.frombuffer(bits, "uint32").reshape(shape)  # any bit pattern: NaNs and subnormal numbers as well
    weight = TranslatedWeight("w", shape, "layer", "kernel", tuple(split), tuple(axes))
    variable = [split[axis] for axis in axes]
    value = to_keras(original.view("float32"), weight, variable)
    np.testing.assert_array_equal(to_original(value, weight).view("uint32"), original)
    np.testing.assert_array_equal(value.view("uint32"), original.reshape(split).transpose(axes))


# --- reshapes ---


def reshape_by_plan(array: np.ndarray, axes, wanted) -> np.ndarray:
    """`array.reshape(wanted)`, computed where the axes lie at `axes`, and seen in the original's order again."""
    before, after = plan_reshape(array.shape, axes, wanted)
    tensor = laid_out(array, axes).transpose(moves(axes, before))
    assert sorted(after) == list(range(len(wanted)))
    return tensor.reshape([wanted[axis] for axis in inverse(after)]).transpose(after)


def moved_axes(sizes, axes, wanted) -> bool:
    return tuple(plan_reshape(sizes, axes, wanted)[0]) != tuple(axes)


@st.composite
def reshapes(draw) -> tuple[list[int], list[int], list[int]]:
    """Sizes, where the axes lie, and sizes with the same product, from factors that are merged in two ways."""
    factors = draw(st.lists(st.sampled_from([1, 2, 2, 3, 5]), min_size=1, max_size=6))

    def merged() -> list[int]:
        cuts = sorted(draw(st.sets(st.integers(1, len(factors) - 1)))) if len(factors) > 1 else []
        return [math.prod(factors[a:b]) for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True)]

    sizes = merged()
    return sizes, draw(st.permutations(range(len(sizes)))), merged()


@given(reshapes())
def test_a_planned_reshape_is_numpys(case) -> None:
    sizes, axes, wanted = case
    array = numbered(sizes)
    np.testing.assert_array_equal(reshape_by_plan(array, axes, wanted), array.reshape(wanted))


@given(reshapes())
def test_nothing_moves_where_all_axes_lie_in_order(case) -> None:
    sizes, _, wanted = case
    assert not moved_axes(sizes, in_order(len(sizes)), wanted)


STILL = {
    "channels of a flattened map": ((2, 8, 3, 5), channels_last(4), (2, 8, 15)),
    "tokens back to a map": ((2, 8, 15), (0, 2, 1), (2, 8, 3, 5)),
    "channels in groups": ((2, 8, 3, 5), channels_last(4), (2, 4, 2, 3, 5)),
    "groups to channels": ((2, 4, 2, 3, 5), (0, 3, 4, 1, 2), (2, 8, 3, 5)),
    "a pooled map": ((2, 8, 1, 1), channels_last(4), (2, 8)),
    "a vector to a map": ((2, 8), (0, 1), (2, 8, 1, 1)),
    "heads": ((2, 15, 12), (0, 1, 2), (2, 15, 3, 4)),
    "windows": ((2, 6, 10, 4), (0, 1, 2, 3), (2, 3, 2, 5, 2, 4)),
    "windows of a map that is channels-last": ((2, 4, 6, 10), channels_last(4), (2, 4, 3, 2, 5, 2)),
}


@pytest.mark.parametrize(("sizes", "axes", "wanted"), STILL.values(), ids=STILL)
def test_nothing_moves_where_merged_axes_lie_side_by_side(sizes, axes, wanted) -> None:
    array = numbered(sizes)
    assert not moved_axes(sizes, axes, wanted)
    np.testing.assert_array_equal(reshape_by_plan(array, axes, wanted), array.reshape(wanted))


@pytest.mark.parametrize(
    ("sizes", "axes", "wanted"),
    [
        ((2, 8, 3, 5), channels_last(4), (2, 120)),  # a map flattened in PyTorch's order, as VGG's
        ((2, 8, 3, 5), channels_last(4), (2, 24, 5)),
        ((2, 3, 4), (1, 0, 2), (6, 4)),
    ],
)
def test_data_moves_where_merged_axes_lie_apart(sizes, axes, wanted) -> None:
    array = numbered(sizes)
    assert moved_axes(sizes, axes, wanted)
    np.testing.assert_array_equal(reshape_by_plan(array, axes, wanted), array.reshape(wanted))


@given(reshapes())
def test_a_reshape_and_its_way_back_move_nothing_twice(case) -> None:
    """What a reshape leaves, the reshape back can take as it lies."""
    sizes, axes, wanted = case
    after = plan_reshape(sizes, axes, wanted)[1]
    assert not moved_axes(wanted, after, sizes)
