"""What answers, whatever computes it. Images go in as pixels, what `multitl predict` says of them comes out.

Every image is computed in a batch of one shape, so what is said of it does not depend on whose images came at the same
time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitl.contracts import Preprocess
from multitl.errors import MultitlError, ServeError

AT_ONCE = 4  # images of a batch under Keras: one takes as long as four, so few

Said = dict[str, Any]
Answer = Callable[[Sequence[np.ndarray]], list[Said]]

NO_MAPS = ServeError("What is served does not say where it looks.", fix="serve a run, or its artefact in ONNX")


@dataclass(frozen=True, eq=False)
class Answerer:
    """name: of the folder.  runtime: for people.  heads: of each head by its name its kind ("one", "several", "number")
    and classes; of a run with one head the name is "".

    open: loads the model, in the thread that is to use it, and gives a function of at most AT_ONCE images, pixels uint8
    (height, width, channels) each, whose results are those of `multitl.predict` without the path.
    around: what has to hold for as long as it answers.
    open_maps: likewise, and results have "maps" as well, rows of `map_rows.map_row`; of several heads each has them. It
    may raise a MultitlError. Or why there are none.
    """

    name: str
    runtime: str
    heads: Mapping[str, tuple[str, tuple[str, ...]]]
    preprocess: Preprocess
    open: Callable[[], Answer]
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    open_maps: Callable[[], Answer] | MultitlError = NO_MAPS
