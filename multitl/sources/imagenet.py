"""The names of ImageNet's 1000 classes, in the order in which all networks trained on it answer."""

from __future__ import annotations

import functools
import json
from pathlib import Path

FILE = Path(__file__).parent / "imagenet_classes.json"  # torchvision's spelling; multitl_torch.describe writes it


@functools.cache
def class_names(count: int) -> tuple[str, ...]:
    """ImageNet's names for a network of 1000 classes; none for a network of any other number."""
    names = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(names) if len(names) == count else ()
