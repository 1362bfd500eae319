"""Fill a backbone or a whole network from a weight file, all of it or not at all.

A layer finds its weights by place (as Keras itself loads each format), else by name, else inside a nested model; the
first way in which every shape fits is taken. Layers that only the file has, such as a classification head, are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import keras

from multitl.errors import BELOW, WeightsError, shorten
from multitl.files.hdf5_files import StoredLayer, StoredWeight, WeightFile, group_name, open_weight_file, refuse, sides
from multitl.models.freezing import leaf_layers

_SUFFIXES = (".h5", ".hdf5", ".keras")
_SHOWN = 8


@dataclass(frozen=True)
class _Pair:
    """A layer of the model with what the file holds for it, None for nothing."""

    layer: keras.layers.Layer
    variables: Sequence[keras.Variable]
    stored: StoredLayer | None

    @property
    def fits(self) -> bool:
        return self.stored is not None and _shapes(self.stored.weights) == _shapes(self.variables)

    def __str__(self) -> str:
        found = "nothing" if self.stored is None else _text(self.stored.weights)
        name = "" if self.stored is None or self.stored.name == self.layer.name else f" ({self.stored.name})"
        return f"{self.layer.name}: {found}{name} in the file, {_text(self.variables)} in the model"


def load_weights(model: keras.Model, path: str | Path) -> Path:
    """Fill every weight of a model from a legacy .h5, .weights.h5 or .keras file; what only the file has is left.

    path: a file, or a folder with exactly one file that fits.  Returns the file that was read.
    Raises WeightsError if it is missing, damaged, or made for another network; the model is then not to be used.
    """
    file_path = _choose(model, Path(path))
    with open_weight_file(file_path) as file:
        pairs = _align(model, file)
        misfits = [pair for pair in pairs if not pair.fits]
        if misfits:
            raise _does_not_fit(model, file_path, misfits, len(pairs))
        for pair in pairs:
            _fill(pair, file)
    for layer in leaf_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with copies of its weights
    return file_path


def fits(model: keras.Model, path: str | Path) -> bool:
    """Whether a file (or a file in this folder) has a matching array for every weight. Reads shapes only."""
    return first_that_fits([model], path) == 0


def first_that_fits(models: Iterable[keras.Model], path: str | Path) -> int | None:
    """The place of the first model that a file (or a file in this folder) fits, None if there is none.

    Models after it are not asked for, and a file is opened once, in the process that HDF5 needs.
    """
    with ExitStack() as stack:
        files = []
        for candidate in _candidates(Path(path)):
            with suppress(WeightsError):
                files.append(stack.enter_context(open_weight_file(candidate)))
        for place, model in enumerate(models):
            if any(all(pair.fits for pair in _align(model, file)) for file in files):
                return place
    return None


def other_classes(model: keras.Model, path: str | Path) -> int:
    """How many classes a file has (or the first in a folder), where nothing but their number differs from the model's;
    else 0. Reads shapes only.
    """
    for candidate in _candidates(Path(path)):
        with suppress(WeightsError), open_weight_file(candidate) as file:
            pairs = _align(model, file)
            misfits = [pair for pair in pairs if not pair.fits]
            if misfits == pairs[-1:] and (classes := _classes(misfits[0])):
                return classes
    return 0


def _classes(pair: _Pair) -> int:
    """The columns of a stored layer that has as many rows as the model's; 0 if it is another layer."""
    wanted, found = _shapes(pair.variables), _shapes(pair.stored.weights if pair.stored else ())
    ends = {shape[-1] for shape in found if shape}
    alike = [shape[:-1] for shape in found] == [shape[:-1] for shape in wanted]
    return ends.pop() if alike and len(ends) == 1 else 0


def _choose(model: keras.Model, path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise WeightsError(
                f"There is no weights file {path}.",
                expected="default, none, or the path of a .h5, .weights.h5 or .keras file, or of a folder with one",
                received=str(path),
                fix="check the path after --weights",
            )
        return path
    found = {candidate: _misfit(model, candidate) for candidate in _candidates(path)}
    fitting = [candidate for candidate, misfit in found.items() if misfit is None]
    if len(fitting) == 1:
        return fitting[0]
    listed = [f"{candidate.name}: {misfit or 'fits'}" for candidate, misfit in found.items()]
    raise WeightsError(
        f"{len(fitting) or 'No'} files in {path} fit {model.name}.",
        expected="exactly one fitting " + ", ".join(_SUFFIXES) + " file",
        received=BELOW.join(listed[:_SHOWN]) or "no such file",
        fix=f"name the file: --weights {fitting[0] if fitting else path / 'FILE'}",
    )


def _candidates(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        return sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    except OSError as error:
        raise refuse(path, f"an unreadable folder ({error})") from error


def _misfit(model: keras.Model, path: Path) -> str | None:
    """Why a file cannot fill the model, in a few words; None if it can."""
    try:
        with open_weight_file(path) as file:
            pairs = _align(model, file)
    except WeightsError as error:
        return error.received
    misfits = [pair for pair in pairs if not pair.fits]
    return f"{len(misfits)} of {len(pairs)} layers differ, first {misfits[0]}" if misfits else None


def _does_not_fit(model: keras.Model, path: Path, misfits: Sequence[_Pair], count: int) -> WeightsError:
    fix = "choose the backbone (and its variant, after a colon) that the file was made for: multitl backbones"
    if len(model.output_shape) == 2 and all(pair.stored is None for pair in misfits):
        fix = "--head cut: the file has no classifier"
    return WeightsError(
        f"{path} does not fit {model.name}: {len(misfits)} of {count} layers differ.",
        expected="an array of the right shape for every weight of the network",
        received=shorten(map(str, misfits), _SHOWN, between=BELOW),
        fix=fix,
    )


def _fill(pair: _Pair, file: WeightFile) -> None:
    stored = pair.stored.weights if pair.stored else ()
    for variable, weight in zip(pair.variables, stored, strict=True):
        variable.assign(file.read(weight))


def _align(model: keras.Model, file: WeightFile) -> list[_Pair]:
    """The way of pairing with the fewest misfits; of equals, the first."""
    return min(_alignments(model, file), key=lambda pairs: sum(not pair.fits for pair in pairs))


def _alignments(model: keras.Model, file: WeightFile) -> Iterator[list[_Pair]]:
    leaves = [layer for layer in leaf_layers(model) if layer.weights]
    parts = {layer.name: _parts(layer) for layer in file.layers}
    if file.is_legacy:
        yield _in_order([layer for layer in model.layers if layer.weights], file.layers)
    else:
        yield from _by_place(model, file.layers)
    yield _by_name(leaves, [part for nested in parts.values() for part in nested])
    for nested in parts.values():
        if len(nested) > 1:
            yield _in_order(leaves, nested)


def _in_order(layers: Sequence[keras.layers.Layer], stored: Sequence[StoredLayer]) -> list[_Pair]:
    padded = [*stored, *[None] * len(layers)]
    return [_Pair(layer, _variables(layer), part) for layer, part in zip(layers, padded, strict=False)]


def _by_name(leaves: Sequence[keras.layers.Layer], stored: Sequence[StoredLayer]) -> list[_Pair]:
    """By the layer's name, or the last part of it where the file has it with its parents' names; ambiguous ones not."""
    keyed = [(key, part) for part in stored for key in {part.name, part.name.rpartition("/")[2]}]
    counts = Counter(key for key, _ in keyed)
    index = {key: part for key, part in keyed if counts[key] == 1}
    return [_Pair(layer, _variables(layer), index.get(layer.name)) for layer in leaves]


def _by_place(model: keras.Model, stored: Sequence[StoredLayer]) -> Iterator[list[_Pair]]:
    """By Keras 3's paths, at the top of the file or inside a model that wraps the backbone."""
    index = {part.path: part for part in stored}
    places = list(_places(model, ""))
    first = places[0][1] if places else ""
    roots = [path.removesuffix(first) for path in index if path == first or path.endswith(f"/{first}")]
    for root in sorted(roots, key=len):
        yield [_Pair(layer, _variables(layer), index.get(root + place)) for layer, place in places]


def _places(model: keras.Model, root: str) -> Iterator[tuple[keras.layers.Layer, str]]:
    """Each leaf layer with weights and its path in Keras 3's files: class names in snake case, counted."""
    counts: Counter[str] = Counter()
    for layer in model.layers:
        kind = group_name(type(layer).__name__)
        place = f"{root}layers/{kind}" + (f"_{counts[kind]}" if counts[kind] else "")
        counts[kind] += 1
        if isinstance(layer, keras.Model):
            yield from _places(layer, f"{place}/")
        elif layer.weights:
            yield layer, place


def _parts(layer: StoredLayer) -> list[StoredLayer]:
    """A nested model, stored as one group, taken apart by the weights' names: "backbone/conv1/kernel:0"."""
    parts: dict[str, list[StoredWeight]] = {}
    for weight in layer.weights:
        parts.setdefault(weight.name.rpartition("/")[0], []).append(weight)
    if len(parts) == 1:
        return [layer]
    return [StoredLayer(name or layer.name, layer.path, tuple(weights)) for name, weights in parts.items()]


def _variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """In the order in which every format has them: what can be trained first."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _shapes(weights: Iterable[StoredWeight | keras.Variable]) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in weights]


def _text(weights: Iterable[StoredWeight | keras.Variable]) -> str:
    return " + ".join(map(sides, _shapes(weights)))
