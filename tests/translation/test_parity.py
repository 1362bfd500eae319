"""Figures of parity by hand, the gate's verdicts, and what probes look like."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multitl.contracts import Parity
from multitl.errors import TranslationError
from multitl.translation.parity import (
    MAX_REL,
    MAX_SPREAD,
    compare,
    describe,
    insist,
    is_close,
    probe_images,
    run,
    side_by_side,
)

ORIGINAL = np.array([[1.0, 2.0, 10.0], [1.0, 4.0, 9.5]], "float32")  # largest output 10, largest spread 2
EXACT = Parity(0.0, 0.0, 0.0, 1.0, 2)


def test_figures_by_hand():
    translated = ORIGINAL + np.array([[0, 0.25, 0], [0, 0, 0]], "float32")
    parity = compare(ORIGINAL, translated)
    assert parity == Parity(max_abs=0.25, max_rel=0.025, max_spread=0.125, top1=1.0, inputs=2)


def test_of_a_single_input_there_is_no_spread():
    parity = compare(np.array([[-8.0, 4.0]]), np.array([[-8.0, 4.0001]]))
    assert parity.max_spread == parity.max_rel == pytest.approx(0.0001 / 8) and is_close(parity)
    assert not is_close(compare(np.array([[-8.0, 4.0]]), np.array([[-8.0, 4.1]])))


def test_negative_outputs_count_by_their_size():
    assert compare(-ORIGINAL, -ORIGINAL - 1).max_rel == 0.1


def test_top1_counts_inputs_with_another_best_class():
    translated = ORIGINAL.copy()
    translated[1, 0] = 99
    assert compare(ORIGINAL, translated).top1 == 0.5


def test_equal_outputs_are_exact_even_if_all_are_zero():
    assert compare(np.zeros((2, 3)), np.zeros((2, 3))) == EXACT
    assert compare(ORIGINAL, ORIGINAL) == EXACT


def test_feature_maps_are_compared_over_all_axes():
    maps = np.arange(24.0).reshape(2, 2, 2, 3)
    other = maps.copy()
    other[1, 1, 0, 2] += 2.4
    parity = compare(maps, other)
    assert parity.max_rel == pytest.approx(2.4 / 23) and parity.max_spread == pytest.approx(2.4 / 12)


def test_another_shape_is_refused():
    with pytest.raises(TranslationError, match="another shape"):
        compare(ORIGINAL, ORIGINAL[:, :2])


@pytest.mark.parametrize(
    ("parity", "verdict"),
    [
        (EXACT, True),
        (Parity(1.0, MAX_REL, MAX_SPREAD, 0.0, 4), True),
        (Parity(1.0, 1.01 * MAX_REL, 0.0, 1.0, 4), False),
        (Parity(1.0, 0.0, 1.01 * MAX_SPREAD, 1.0, 4), False),
    ],
)
def test_the_gate_goes_by_both_bounds(parity: Parity, verdict: bool):
    assert is_close(parity) is verdict


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_never_passes(bad: float):
    with np.errstate(invalid="ignore"):
        assert not is_close(compare(ORIGINAL, np.full_like(ORIGINAL, bad)))
        assert not is_close(compare(np.full_like(ORIGINAL, bad), ORIGINAL))


def test_outputs_that_ignore_the_input_never_pass_with_an_error():
    constant = np.ones((2, 3))
    assert not is_close(compare(constant, constant + 1e-9))


def test_insist_returns_what_passes_and_gives_figures_of_what_does_not():
    assert insist(EXACT, "ResNet") is EXACT
    with pytest.raises(TranslationError) as caught:
        insist(compare(ORIGINAL, ORIGINAL + 0.25), "ResNet", "first seen at layer1")
    assert "ResNet" in caught.value.problem
    assert "2.5e-02 of the largest output, 1.2e-01 of the spread" in str(caught.value)
    assert "first seen at layer1" in str(caught.value)


def test_describe_says_how_many_agree():
    assert "same best class for 50% of 4 inputs" in describe(Parity(1.0, 1.0, 1.0, 0.5, 4))


def test_probes_are_the_same_for_a_seed_and_standardised():
    images = probe_images((40, 48, 3), count=3, seed=1)
    assert images.shape == (3, 40, 48, 3) and images.dtype == np.float32
    assert np.array_equal(images, probe_images((40, 48, 3), count=3, seed=1))
    assert not np.array_equal(images, probe_images((40, 48, 3), count=3, seed=2))
    assert np.allclose(images.mean((1, 2)), 0, atol=1e-6)
    assert np.allclose(images.std((1, 2)), 1, atol=1e-5)


def test_probes_are_smooth_and_differ_from_each_other():
    first, second = probe_images((64, 64, 3), count=2)
    neighbours = np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1]
    assert 0.7 < neighbours < 0.95  # white noise has 0, a photo about 0.9
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.5


@pytest.mark.parametrize("shape", [(16,), (10, 16), (4, 6, 8, 2)])
def test_probes_of_other_ranks(shape: tuple[int, ...]):
    images = probe_images(shape, count=2)
    assert images.shape == (2, *shape)
    assert images.std() == pytest.approx(1, abs=0.05)


def test_several_outputs_lie_side_by_side():
    maps, logits = np.ones((2, 2, 2, 3)), np.zeros((2, 5))
    assert side_by_side([logits]) is logits
    assert side_by_side([maps, logits]).shape == (2, 17)


@pytest.mark.every_backend
def test_run_evaluates():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dropout(0.5)(inputs), inputs * 2])
    images = probe_images((4,), count=2)
    assert np.array_equal(run(model, images), np.hstack([images, images * 2]))
