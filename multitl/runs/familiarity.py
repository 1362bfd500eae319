"""RUN/familiarity.safetensors: how like the training images an image is, for one that belongs to none of the classes.

Two scores, each as deviations from what the run's own validation images have: the energy of the logits (Liu et al.
2020, arXiv:2010.03759), which says that no class answers, and the cosine to the nearest of a few prototypes of each
class (as of all training images in Sun et al. 2022, arXiv:2204.06507), which says that the features lie elsewhere. One
sees what the other misses: with ten pairs of ten classes of clothes kept out of training, the area under the ROC curve
is 0.852 and 0.812 on average, of their sum 0.856, of the confidence 0.824 (benchmarks/unknown.md). The weaker the
energy, the more the sum gains.

Like everything in a run's folder it may have been made by anyone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multitl.errors import RunError
from multitl.files.sealed_arrays import cannot_read, read_sealed, write_sealed

FAMILIARITY = "familiarity.safetensors"
FALSE_ALARMS = 0.05  # share of images of the usual kind that are called unknown


class Usual(NamedTuple):
    """Of a score over images of the usual kind."""

    mean: float
    deviation: float

    def standardised(self, scores: Any) -> Any:
        """Of an array, or of a symbolic tensor."""
        return (scores - self.mean) / self.deviation


@dataclass(frozen=True, eq=False)
class Familiarity:
    """centre: (channels,), the mean of the training images' features.  prototypes: (m, channels), directions from it.

    energy: of the logits; deviation 0 where they say nothing of it.  distance: 1 less the cosine.  usual: (n,), rising:
    the strangeness of images of the usual kind.
    """

    centre: np.ndarray
    prototypes: np.ndarray
    energy: Usual
    distance: Usual
    usual: np.ndarray

    def tell(self, strangeness: np.ndarray) -> list[dict[str, Any]]:
        """What is said of images (n,), see `multitl.predict`."""
        return tell(self.usual, strangeness)

    def unknown_above(self) -> float | None:
        """See `unknown_above`."""
        return unknown_above(self.usual)


_NAMES = tuple(Familiarity.__dataclass_fields__)


def unknown_above(usual: np.ndarray) -> float | None:
    """The score above which an image is unknown; None where there are too few usual images to say so.

    usual: (n,), rising. Of further images of the usual kind a share of at most FALSE_ALARMS is expected above it.
    """
    most = math.ceil(FALSE_ALARMS * (len(usual) + 1)) - 2  # usual images that may be as strange
    return float(usual[-1 - most]) if most >= 0 else None


def share_as_strange(usual: np.ndarray, strangeness: np.ndarray) -> np.ndarray:
    """Of images of the usual kind the share (n,) that is as strange as this or stranger, in (0, 1].

    It is a conformal p-value (Vovk et al. 2005): of further images of the usual kind a share of at most p has p or
    less, however the score is distributed. Nearly: the score is standardised by the same images.
    """
    below = np.searchsorted(usual, strangeness, side="left")
    return (len(usual) - below + 1) / (len(usual) + 1)


def tell(usual: np.ndarray, strangeness: np.ndarray) -> list[dict[str, Any]]:
    """See `Familiarity.tell`. usual: (m,), rising."""
    shares = share_as_strange(usual, strangeness)
    return [{"familiarity": float(share), "unknown": bool(share < FALSE_ALARMS)} for share in shares]


def write_familiarity(folder: Path, familiarity: Familiarity) -> None:
    write_sealed(folder / FAMILIARITY, {name: np.asarray(getattr(familiarity, name)) for name in _NAMES}, b"")


def read_familiarity(folder: Path, channels: int) -> Familiarity:
    """Of a network whose head takes so many features. Raises RunError for a damaged file, or none."""
    path = folder / FAMILIARITY
    try:
        arrays, _ = read_sealed(path)
        return _checked(arrays, channels)
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:  # DamagedError is a ValueError
        raise RunError(
            f"{path} is damaged.",
            expected=f"what training wrote, for {channels:,} features",
            received=str(error)[:200],
            fix="multitl finetune with --resume makes the files of the run again; without the file, predict says "
            "nothing of the unknown",
        ) from error
    except (OSError, MemoryError) as error:
        raise cannot_read(str(path), error, "and try again") from error


def _checked(arrays: Mapping[str, np.ndarray], channels: int) -> Familiarity:
    """Raises KeyError and ValueError."""
    centre, prototypes, energy, distance, usual = found = [arrays[name] for name in _NAMES]
    shapes = centre.shape, prototypes.shape[1:], energy.shape, distance.shape, usual.shape[1:]
    if shapes != ((channels,), (channels,), (2,), (2,), ()) or not len(prototypes):
        raise ValueError(f"arrays of shapes {', '.join(str(one.shape) for one in found)}")
    if not all(one.dtype.kind == "f" and np.isfinite(one).all() for one in found):
        raise ValueError("values that are no finite numbers")
    if (np.diff(usual) < 0).any() or energy[1] < 0 or distance[1] <= 0:
        raise ValueError("values out of order")
    return Familiarity(
        centre.astype("float32"),
        prototypes.astype("float32"),
        _usual(energy),
        _usual(distance),
        usual.astype("float64"),
    )


def _usual(values: np.ndarray) -> Usual:
    return Usual(float(values[0]), float(values[1]))
