"""The clock of a worker: what it times, and what it leaves out."""

from __future__ import annotations

import dataclasses
import time

from sample_benches import job

from multitl.bench.pictures import synthetic_labels, synthetic_pixels
from multitl.bench.worker import Feed


def test_steps_come_in_windows_and_the_first_ones_do_not_count():
    asked = dataclasses.replace(job("jax"), steps=3, warmup=2, window=2)
    waited = list[int]()
    feed = Feed(lambda number: number, asked, wait=lambda: waited.append(1))
    given, started = [], time.perf_counter()
    for number in feed:
        given.append(number)
        time.sleep(0.2 if number == 0 else 0.02)
    elapsed = time.perf_counter() - started
    assert given == list(range(1 + 2 + 3 * 2))
    assert len(feed) == len(given)
    assert feed.first > 0.2
    assert len(feed.window_seconds) == 3
    assert min(feed.window_seconds) >= 2 * 0.02
    assert sum(feed.window_seconds) <= elapsed - feed.first - 2 * 0.02  # neither the first step nor those that warm up
    assert len(waited) == len(feed.ticks) == 6  # the device is done whenever the clock is read


def test_without_warm_up_every_step_but_the_first_counts():
    feed = Feed(lambda number: number, dataclasses.replace(job("jax"), steps=4, warmup=0, window=1), lambda: None)
    assert list(feed) == [0, 1, 2, 3, 4]
    assert len(feed.window_seconds) == 4


def test_pictures_are_the_same_for_everybody_and_differ_from_one_another():
    pixels = synthetic_pixels(3, 20, seed=1)
    assert pixels.shape == (3, 20, 20, 3)
    assert pixels.dtype == "uint8"
    assert (pixels == synthetic_pixels(3, 20, seed=1)).all()
    assert abs(pixels[0].astype(int) - pixels[1]).mean() > 20
    assert set(synthetic_labels(100, 5, seed=0)) == set(range(5))
    assert synthetic_labels(4, 5, seed=0).dtype == "int64"
