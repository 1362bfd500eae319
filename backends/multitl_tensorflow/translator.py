"""Modules of TF Hub, opened to be translated: satisfies `contracts.Translator`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from multitl.contracts import Job, Parity, Preprocess, Translation
from multitl.errors import TranslationError
from multitl.version import installed_versions
from multitl_tensorflow import graphdef, tfhub, verifying
from multitl_tensorflow.keras_exports import NOT_KERAS
from multitl_tensorflow.saved_models import read_module


@dataclass
class HubOriginal:
    """A SavedModel that turns images into features or logits: satisfies `contracts.Original`. Nothing of it runs but
    operations that are known.
    """

    prepared: graphdef.Translatable
    preprocess: Preprocess
    url: str
    class_names: tuple[str, ...] = field(default=())
    licence: str = "not stated by the module"
    missing_classifier: tuple[str, ...] = ()  # not known before the graph is looked at: see `sources.tfhub`

    @property
    def image_size(self) -> int:
        return self.preprocess.height

    def translate(self) -> Translation:
        """See `graphdef.translate`."""
        return graphdef.translate(self.prepared)

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Weights by the names of the module's variables."""
        self.prepared = graphdef.with_weights(self.prepared, tensors)

    def resampled(self, name: str, array: np.ndarray) -> None:
        """What a module counts positions by is not known by name."""

    def verify(self, translation: Translation) -> Parity:
        """See `verifying.verify`."""
        return verifying.verify(self.prepared, translation, self.preprocess)


def open_original(job: Job, classes: int) -> HubOriginal:
    """See `contracts.Translator`. A module's classifier has the classes that it has."""
    if classes:
        raise TranslationError(
            f"The classifier of {job.name} cannot be given {classes} classes.",
            expected="weights with the classes that the module has",
            received=f"weights of {classes} classes",
            fix="leave --weights out, or cut the classifier off: --head cut",
        )
    with tfhub.located(job.name) as folder:
        module = read_module(folder, job.name)
    export = module.export if job.content else NOT_KERAS  # of a handle, the hub's own conventions are known
    size = job.image_size or tfhub.default_size(job.name)
    prepared = graphdef.prepare(module, size if graphdef.takes_any_size(module) else job.image_size)
    if job.weights == "none":
        prepared = graphdef.with_weights(prepared, graphdef.random_weights(prepared))
    height, width, _ = prepared.image_shape
    return HubOriginal(prepared, tfhub.preprocess(prepared.graph, height, width, export), url=job.name)


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    return installed_versions(("tensorflow", "tensorflow-cpu", "tensorflow-hub"))
