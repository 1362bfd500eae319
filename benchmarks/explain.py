"""Heatmaps of a run on its test images, beside Grad-CAM's: how fast the class is lost when pixels go, the best first.

Deletion (Petsiuk et al. 2018, arXiv:1806.07421): pixels take the image's mean colour, those first that a map thinks
most of; the area below the curve of the class' probability is small where a map is right. Grad-CAM (Selvaraju et al.
2017, arXiv:1610.02391) is written out below: channels weighed by their mean gradient, and what is negative cut off.
Occlusion: the fall of the logit when the square of each position takes the mean colour, and how a map correlates with
that. Of kind exact, how far sums are from logit - bias. Run it from the top of a checkout.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import spearmanr

from multitl.adapters import load_backend
from multitl.judging.opening import Run, load_run
from multitl.judging.predictions import read_predictions

STEPS = 20  # of deletion, each of as many pixels
RESAMPLES = 2000
BATCH = 32


def main() -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a finished run whose images are still there")
    parser.add_argument("--images", type=int, default=500, help="at most so many, drawn at random")
    parser.add_argument("--occluded", type=int, default=20, help="of these, images that are occluded")
    options = parser.parse_args()
    backend = load_backend()
    with backend.fast_paths(), backend.full_precision():
        measure(load_run(options.run), options.images, options.occluded)


def measure(run: Run, count: int, occluded: int) -> None:
    """Of a run of classes."""
    from multitl.explaining.explainers import explainer_of

    explainer, paths = explainer_of(run.model), test_images(run, count)
    assert explainer is not None, "a network without a map of features"
    areas: dict[str, list[float]] = {"multitl": [], "Grad-CAM": [], "at random": []}
    errors, agreements, seen = list[float](), dict[str, list[float]](), 0
    gradient = gradient_at_map(explainer)
    for pixels in read_batches(run, paths):
        look = explainer.look(pixels)
        classes = look.outputs.argmax(axis=1)
        heatmaps = explainer.explain(look, classes)
        errors += [one.error for one in heatmaps if one.error is not None]
        maps = {"multitl": [one.values for one in heatmaps], "Grad-CAM": grad_cam(gradient, pixels, classes)}
        maps["at random"] = [np.random.default_rng(0).normal(size=one.values.shape) for one in heatmaps]
        for name, values in maps.items():
            for image, place, one in zip(pixels, classes, values, strict=True):
                areas[name].append(deletion_area(explainer, image, int(place), one))
        for number in range(min(len(pixels), max(0, occluded - seen))):
            falls = occlusion(explainer, pixels[number], int(classes[number]), heatmaps[number].values.shape)
            for name, values in maps.items():
                agreements.setdefault(name, []).append(spearmanr(values[number].ravel(), falls.ravel()).statistic)
        seen += len(pixels)
    show(run, explainer.kind, areas, errors, agreements)


def test_images(run: Run, count: int) -> list[str]:
    known = read_predictions(run.folder / "predictions.csv")
    paths = (known.of("test") if "test" in known.splits else known.of("validation")).paths
    order = np.sort(np.random.default_rng(0).permutation(len(paths))[:count])
    return [paths[index] for index in order]


def read_batches(run: Run, paths: list[str]) -> Iterator[np.ndarray]:
    from multitl.data.pixels import read_files

    for first in range(0, len(paths), BATCH):
        yield np.stack(list(read_files(paths[first : first + BATCH], run.card.preprocess)))


def gradient_at_map(explainer):
    """pixels, classes -> the last map (n, h, w, c), and the gradients of the classes' logits by it."""
    import keras

    one = explainer.anatomy
    trunk = keras.Model(one.pixels, one.feature_map)
    feature_map = keras.Input(one.feature_map.shape[1:])
    slope = load_backend().make_gradient(keras.Model(feature_map, one.logits_of(feature_map)))

    def run(pixels: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = trunk.predict(pixels, batch_size=BATCH, verbose=0)
        weights = np.eye(one.outputs.shape[-1], dtype="float32")[classes]
        return maps, keras.ops.convert_to_numpy(slope(maps, weights))

    return run


def grad_cam(gradient, pixels: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
    from multitl.explaining.explainers import as_grid

    maps, gradients = gradient(pixels, classes)
    places = tuple(range(1, maps.ndim - 1))
    weighed = (maps * gradients.mean(axis=places, keepdims=True)).sum(axis=-1)
    return [as_grid(np.maximum(one, 0), pixels.shape[1] / pixels.shape[2]) for one in weighed]


def deletion_area(explainer, image: np.ndarray, place: int, values: np.ndarray) -> float:
    """Of the probability of a class, from the whole image to the mean colour alone, in [0, 1]."""
    height, width = image.shape[:2]
    large = np.asarray(Image.fromarray(values.astype("float32")).resize((width, height), Image.Resampling.BILINEAR))
    ties = np.random.default_rng(0).permutation(large.size)
    order = ties[np.argsort(-large.ravel()[ties], kind="stable")]
    mean = image.reshape(-1, image.shape[2]).mean(axis=0).round().astype("uint8")
    steps = np.repeat(image[None], STEPS + 1, axis=0).reshape(STEPS + 1, -1, image.shape[2])
    for step in range(1, STEPS + 1):
        steps[step, order[: round(step / STEPS * len(order))]] = mean
    curve = explainer.look(steps.reshape(-1, *image.shape)).outputs[:, place]
    return float(np.trapezoid(curve, dx=1 / STEPS))


def occlusion(explainer, image: np.ndarray, place: int, shape: tuple[int, int]) -> np.ndarray:
    """What a class' logit loses without each position's square."""
    mean = image.reshape(-1, image.shape[2]).mean(axis=0).round().astype("uint8")
    rows, columns = (
        np.linspace(0, size, n + 1).round().astype(int) for size, n in zip(image.shape, shape, strict=False)
    )
    images = [image]
    for row in range(shape[0]):
        for column in range(shape[1]):
            images.append(image.copy())
            images[-1][rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = mean
    batches = [np.stack(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
    logits = np.concatenate([explainer.look(batch).logits[:, place] for batch in batches])
    return (logits[0] - logits[1:]).reshape(shape)


def show(run: Run, kind: str, areas: dict, errors: list[float], agreements: dict) -> None:
    count = len(areas["multitl"])
    print(f"{run.card.backbone.name}, {count} images, maps of kind {kind}, {run.card.backend.name}'s run\n")
    print("| maps | deletion area | less than Grad-CAM's | correlation with occlusion |\n|---|---|---|---|")
    random = np.random.default_rng(0)
    draws = random.integers(0, count, (RESAMPLES, count))
    for name, values in areas.items():
        gain = np.array(areas["Grad-CAM"]) - np.array(values)
        low, high = np.percentile(gain[draws].mean(axis=1), [2.5, 97.5])
        agreement = f"{np.nanmean(agreements[name]):.3f}" if name in agreements else ""
        print(f"| {name} | {np.mean(values):.4f} | {gain.mean():.4f} [{low:.4f}, {high:.4f}] | {agreement} |")
    if errors:
        print(f"\nSums of maps: within {max(errors):.1e} of logit - bias, as a share of the image's largest.")


if __name__ == "__main__":
    main()
