"""The cut: stratified, seeded, blind to names and order, copies together."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from multitl.data.splits import cut_by_labels, cut_splits, draw_shots

BOTH = {"test": 0.2, "validation": 0.2}
contents = st.integers(0, 60).map(lambda number: f"{number:064x}")
classes = st.sampled_from(["a", "b", "c"])
images = st.lists(st.tuples(classes, contents), min_size=1, max_size=120)
sets = st.sets(classes).map(lambda some: tuple(sorted(some)))
labelled = st.lists(st.tuples(sets, contents), min_size=1, max_size=120)
fractions = st.sampled_from([BOTH, {"validation": 0.25}, {"test": 0.9, "validation": 0.9}, {}])


def many(label: str, count: int) -> list[tuple[str, str]]:
    return [(label, f"{label}{number}") for number in range(count)]


def test_shares_of_a_plain_case():
    cut, too_small = cut_splits(many("a", 100) + many("b", 50), BOTH, seed=0)
    assert Counter(cut[:100]) == {"test": 20, "validation": 16, "train": 64}
    assert Counter(cut[100:]) == {"test": 10, "validation": 8, "train": 32}
    assert too_small == []


def test_the_seed_matters_and_repeats():
    given_images = many("a", 100)
    first = cut_splits(given_images, BOTH, seed=1)
    assert first == cut_splits(given_images, BOTH, seed=1)
    assert first != cut_splits(given_images, BOTH, seed=2)


def test_small_classes():
    for count, expected in {1: {"train": 1}, 2: {"train": 2}, 3: {"train": 1, "test": 1, "validation": 1}}.items():
        cut, too_small = cut_splits(many("a", count), BOTH, seed=0)
        assert Counter(cut) == expected
        assert too_small == (["a"] if count < 3 else [])
    assert Counter(cut_splits(many("a", 2), {"validation": 0.2}, seed=0)[0]) == {"train": 1, "validation": 1}


def test_a_large_pile_of_copies_does_not_fill_a_judged_part():
    cut, _ = cut_splits([("a", "pile")] * 60 + many("a", 40), BOTH, seed=0)
    assert set(cut[:60]) == {"train"}
    assert Counter(cut)["test"] == 20


def test_an_image_with_two_labels_stays_in_train():
    doubtful = [("a", "x"), ("b", "x")]
    for seed in range(20):
        cut, _ = cut_splits(doubtful + many("a", 9) + many("b", 9), {"test": 0.9, "validation": 0.9}, seed)
        assert cut[:2] == ["train", "train"]


@given(images, fractions, st.integers(0, 5))
def test_what_always_holds(images, fractions, seed):
    cut, too_small = cut_splits(images, fractions, seed)
    assert len(cut) == len(images) and set(cut) <= {"train", *fractions}
    sides, parts = defaultdict(set), defaultdict(set)
    for (label, sha256), split in zip(images, cut, strict=True):
        sides[sha256].add(split)
        parts[label].add(split)
    assert all(len(side) == 1 for side in sides.values())  # copies together
    for label, found in parts.items():
        assert "train" in found
        assert found == {"train"} if label in too_small else found == {"train", *fractions}


@given(images, st.integers(0, 5), st.randoms())
def test_order_and_class_names_do_not_matter(images, seed, random):
    shuffled = random.sample(images, len(images))
    place = dict(zip(images, cut_splits(images, BOTH, seed)[0], strict=True))
    assert place == dict(zip(shuffled, cut_splits(shuffled, BOTH, seed)[0], strict=True))
    renamed = [(f"new {label}", sha256) for label, sha256 in images]
    assert cut_splits(renamed, BOTH, seed)[0] == cut_splits(images, BOTH, seed)[0]


@given(images, st.integers(1, 9), st.integers(0, 5))
def test_shots_are_different_images_of_each_class_and_the_fewer_a_part_of_the_more(images, shots, seed):
    is_drawn, fewer = draw_shots(images, shots, seed)
    drawn = [image for image, is_one in zip(images, is_drawn, strict=True) if is_one]
    assert len(drawn) == len(set(drawn))
    available = Counter(label for label, _ in set(images))
    assert Counter(label for label, _ in drawn) == {label: min(shots, count) for label, count in available.items()}
    assert fewer == sorted(label for label, count in available.items() if count < shots)
    assert set(drawn) <= {
        image for image, is_one in zip(images, draw_shots(images, shots + 1, seed)[0], strict=True) if is_one
    }
    backwards, _ = draw_shots(images[::-1], shots, seed)
    assert {image for image, is_one in zip(images[::-1], backwards, strict=True) if is_one} == set(drawn)


def test_the_seed_draws_the_shots():
    draws = {tuple(draw_shots(many("a", 50), 5, seed)[0]) for seed in range(5)}
    assert len(draws) == 5


@given(labelled, fractions, st.integers(0, 9))
def test_labels_that_share_images_are_cut_with_care(images, fractions, seed):
    """Every label in train; copies, and images whose labels contradict each other, on one side; whatever the order."""
    cut = cut_by_labels(images, fractions, seed)
    assert dict(zip(images[::-1], cut_by_labels(images[::-1], fractions, seed), strict=True)) == dict(
        zip(images, cut, strict=True)
    )
    sides = defaultdict(set)
    for (_, sha256), split in zip(images, cut, strict=True):
        sides[sha256].add(split)
    assert all(len(found) == 1 for found in sides.values())
    in_train = {label for (labels, _), split in zip(images, cut, strict=True) if split == "train" for label in labels}
    assert in_train == {label for labels, _ in images for label in labels}


def test_each_label_gets_its_share_of_each_split():
    """Three labels of different frequency: shares within two images of the ideal; images without labels too."""
    counts = {("rare", "some"): 4, ("rare",): 6, ("some",): 30, ("often", "some"): 20, ("often",): 100, (): 40}
    images = [(labels, f"{labels}{number}") for labels, count in counts.items() for number in range(count)]
    cut = cut_by_labels(images, BOTH, seed=0)
    for label, count in {"rare": 10, "some": 54, "often": 120}.items():
        found = Counter(split for (labels, _), split in zip(images, cut, strict=True) if label in labels)
        ideal = {"test": 0.2, "validation": 0.16, "train": 0.64}
        assert all(abs(found[split] - share * count) <= 2 for split, share in ideal.items()), (label, found)
    none = Counter(split for (labels, _), split in zip(images, cut, strict=True) if not labels)
    assert min(none.values()) >= 5 and len(none) == 3
    assert cut != cut_by_labels(images, BOTH, seed=1)
