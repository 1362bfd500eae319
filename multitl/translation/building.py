"""What the graph translators share: values, op tables, and a builder that turns weights into Keras layers.

A translator walks the original's graph. Each node's value is an `Activation`, which depends on the image or on
weights that train, or a `Stored` tensor of the original's. A table says which function translates which op:

    ops = OpTable("torch")

    @ops("conv2d")
    def conv2d(build: Builder, x: Activation, weight: Value, ...) -> Activation: ...

Only stock Keras layers and `keras.ops` come out, so a translated model loads with plain Keras on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import ops as K  # noqa: N812  (the field's usual short name)

from multitl.contracts import Stage, TranslatedWeight, Translation
from multitl.errors import TranslationError
from multitl.models.initialisers import numpy_initialisers
from multitl.models.stages import stages_by_path, stages_by_stride
from multitl.translation.layouts import Axes, in_order, inverse, moves, plan_reshape

NORMALISATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)
Operand: TypeAlias = keras.KerasTensor | np.ndarray | float
BATCH = 1_000_003  # stands for the batch size in shapes: a prime, so its multiples are what depends on the batch


@dataclass(frozen=True, eq=False)
class Activation:
    """A symbolic Keras tensor, seen as the original sees it: its axis i lies at axis `axes[i]` of `tensor`.

    batch: the one axis of unknown size is `batch` times the batch size; windows are folded into it, for instance.
    """

    tensor: keras.KerasTensor
    axes: Axes
    batch: int = 1

    @property
    def rank(self) -> int:
        return len(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """In the original's order, with multiples of BATCH for what depends on the batch."""
        sizes = self.tensor.shape
        return tuple(BATCH * self.batch if sizes[axis] is None else sizes[axis] for axis in self.axes)

    def place(self, axis: int) -> int:
        """Where the original's axis (which may be negative) lies in the tensor."""
        return self.axes[axis % self.rank]

    def with_tensor(self, tensor: keras.KerasTensor) -> Activation:
        """The same axes around another tensor."""
        return replace(self, tensor=tensor)

    def arranged(self, axes: Sequence[int]) -> Activation:
        """The same values with the axes where `axes` says; data moves only if they are not there already."""
        axes = tuple(axes)
        if axes == self.axes:
            return self
        return replace(self, tensor=K.transpose(self.tensor, moves(self.axes, axes)), axes=axes)

    def in_order(self) -> Activation:
        """Every axis where the original has it."""
        return self.arranged(in_order(self.rank))

    def without(self, tensor: keras.KerasTensor, places: Iterable[int]) -> Activation:
        """Around `tensor`, which lacks the tensor axes `places`."""
        gone = set(places)
        kept = [place for place in self.axes if place not in gone]
        order = sorted(kept)
        return replace(self, tensor=tensor, axes=tuple(order.index(place) for place in kept))

    def with_new_axis(self, axis: int) -> Activation:
        """A new axis of size 1 as the original's axis `axis`; it lies after the first, so that channels stay last."""
        place = min(1, self.rank)
        kept = [old + (old >= place) for old in self.axes]
        return replace(self, tensor=K.expand_dims(self.tensor, place), axes=(*kept[:axis], place, *kept[axis:]))

    def with_rank(self, rank: int) -> Activation:
        """New axes of size 1 in front, as broadcasting adds them."""
        new = rank - self.rank
        if not new:
            return self
        tensor = K.expand_dims(self.tensor, in_order(new))
        return replace(self, tensor=tensor, axes=(*range(new), *(place + new for place in self.axes)))

    def reshaped(self, sizes: Sequence[int]) -> Activation:
        """As `torch.reshape`: `sizes` may hold one -1 and multiples of BATCH. What is the same for all images and is
        there only once, stays so.
        """
        if all(size % BATCH for size in self.shape):
            sizes = [size // BATCH if size % BATCH == 0 else size for size in sizes]
        wanted = complete_shape(sizes, math.prod(self.shape))
        if wanted == self.shape:
            return self
        before, after = plan_reshape(self.shape, self.axes, wanted)
        x = self.arranged(before)
        order = [wanted[axis] for axis in inverse(after)]
        batches = [size // BATCH for size in order if size % BATCH == 0]
        tensor = K.reshape(x.tensor, [-1 if size % BATCH == 0 else size for size in order])
        return Activation(tensor, after, batches[0] if batches else 1)


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor of the original's: of its state_dict if it has a `name`, else a constant. `trains`: it is a
    parameter.
    """

    array: np.ndarray
    name: str = ""
    trains: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def rank(self) -> int:
        return self.array.ndim


Value = Activation | Stored


class Part(NamedTuple):
    """How a stored tensor becomes a variable of a layer: reshaped to `split`, then transposed by `axes`."""

    variable: str
    stored: Stored
    split: tuple[int, ...]
    axes: Axes


def part(
    variable: str, stored: Stored, axes: Sequence[int] | None = None, split: Sequence[int] | None = None
) -> list[Part]:
    """One `Part` in a list, for `Builder.layer`; without `axes` and `split` the tensor is taken as it is."""
    split = tuple(split or stored.shape)
    return [Part(variable, stored, split, tuple(axes or in_order(len(split))))]


class OpTable:
    """Name of an op -> the function that translates it."""

    def __init__(self, name: str, *tables: OpTable) -> None:
        """tables: whose entries this one takes over."""
        self.name = name
        self._functions: dict[str, Callable[..., Any]] = {}
        for table in tables:
            for op, function in table._functions.items():
                self._add(op, function)

    def __call__(self, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function for some ops. A second registration raises ValueError."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            for name in names:
                self._add(name, function)
            return function

        return register

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def replaced(self, functions: Mapping[str, Callable[..., Any]]) -> OpTable:
        """A copy in which some ops are translated otherwise."""
        copy = OpTable(self.name, self)
        copy._functions |= functions
        return copy

    def _add(self, name: str, function: Callable[..., Any]) -> None:
        if name in self._functions:
            raise ValueError(f"{self.name}: the op {name} is registered already")
        self._functions[name] = function


class Unsupported(Exception):  # noqa: N818  (a request to look elsewhere, not an error a user meets)
    """Raised by an op's function for arguments it has no translation for; the walk adds the node and goes on."""


class UsedInTwoWays(Unsupported):
    """Raised for weights that no single layer can hold, since the original does different things with them.

    names: of the weights. Where `hold` gives them from the first use on, both ways of use are open.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"the weight {names[0]} used in two ways")
        self.names = tuple(names)


class Builder:
    """Makes layers for one graph, gives them the original's names, and remembers which weight went where."""

    def __init__(self, pixels: keras.KerasTensor) -> None:
        """pixels: the symbolic input of the model, (batch, ...)."""
        self.pixels = pixels
        self.path = ""  # of the module whose node is being translated: names the layers that have no weights
        self.weights: list[TranslatedWeight] = []
        self._paths: dict[str, str] = {}  # layers whose weights train -> the original's path, in order of creation
        self._names: dict[str, int] = {}  # of layers -> how many others were named after it
        self._layers: dict[Hashable, keras.layers.Layer] = {}
        self._owned: set[str] = set()  # weights that a layer of `_layers` holds
        self._held: dict[str, Activation] = {}
        self._attached: set[str] = set()  # layers that open no stage of their own

    def layer(
        self, make: Callable[[str], keras.layers.Layer], tensor: keras.KerasTensor, parts: Sequence[Part]
    ) -> keras.KerasTensor:
        """Call the layer that holds `parts` on `tensor`; made at its first use. make: name -> layer.

        A layer that the original uses twice is used twice. Raises UsedInTwoWays if the second use is of another kind.
        """
        key = tuple(part.stored.name for part in parts if part.stored.name)
        if key not in self._layers:
            self._insist_on_one(name for name in key if name in self._owned or name in self._held)
            layer = make(self.name(_owner(parts)))
            output = self._first_call(layer, tensor, parts)
            if key:
                self._layers[key] = layer
                self._owned |= set(key)
            return output
        layer = self._layers[key]
        again = make(layer.name)
        if layer.get_config() != again.get_config():
            raise UsedInTwoWays(key)
        return layer(tensor)

    def name(self, path: str = "") -> str:
        """A layer's name for a path of the original, or the module at hand: no other layer has it."""
        name = plain = layer_name(path or self.path)
        while name in self._names:
            self._names[plain] += 1
            name = f"{plain}_{self._names[plain]}"
        self._names[name] = 0
        return name

    def value(self, value: Value, axes: Sequence[int] | None = None) -> Activation:
        """Any value as an activation. axes: where the axes of one that is stored shall lie, by default in order."""
        return self.hold(value, axes) if isinstance(value, Stored) else value

    def hold(self, stored: Stored, axes: Sequence[int] | None = None) -> Activation:
        """A tensor that belongs to no layer (class token, layer scale) as the output of one: 1 @ kernel.

        `EinsumDense` is the stock layer that can do so, which lets models load without custom objects.
        """
        if stored.name in self._held:
            return self._held[stored.name].arranged(axes or in_order(stored.rank))
        self._insist_on_one(name for name in [stored.name] if name in self._owned)
        places = tuple(axes or in_order(stored.rank))
        order = inverse(places)
        sizes = [stored.shape[axis] for axis in order]
        inner = sizes[1:] if sizes and sizes[0] == 1 else sizes
        inner = inner or [1]
        letters = "cdefghijkl"[: len(inner)]
        path = stored.name or f"{self.path}.constant"
        parts = part("kernel", stored, order)
        layer = keras.layers.EinsumDense(f"ab,b{letters}->a{letters}", inner, name=self.name(path))
        tensor = self._first_call(layer, self._one(), parts)
        self._attached.add(layer.name)
        held = Activation(tensor if list(tensor.shape) == sizes else K.reshape(tensor, sizes), places)
        if stored.name:
            self._held[stored.name] = held
        return held

    def operand(self, value: Value, partner: Activation) -> Operand:
        """`value` so that it can be combined with `partner.tensor`, element by element."""
        if isinstance(value, Activation):
            return value.with_rank(partner.rank).arranged(partner.axes).tensor
        missing, places = partner.axes[: partner.rank - value.rank], partner.axes[partner.rank - value.rank :]
        if value.name:
            held = self.hold(value, _ranks(places))
            return K.expand_dims(held.tensor, sorted(missing)) if missing else held.tensor
        if value.array.size == 1:
            return value.array.item()
        array = value.array.reshape((1,) * len(missing) + value.shape).transpose(inverse(partner.axes))
        return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array

    def over_batch(self, x: Activation, axis: int = 0) -> Activation:
        """`x` repeated along an axis of size 1, once for each image of the batch."""
        first = (slice(None), *[0] * (len(self.pixels.shape) - 1))
        zeros = K.zeros_like(self.pixels[first])
        shape = [1] * x.rank
        shape[x.place(axis)] = -1
        return x.with_tensor(added(x.tensor, K.reshape(zeros, shape)))

    def repeated(self, x: Activation, counts: Sequence[int]) -> Activation:
        """Each axis so many times; for each image of the batch, an axis of size 1. Raises Unsupported."""
        repeats = [1] * x.rank
        for axis, count in enumerate(counts):
            if count % BATCH == 0:
                if count != BATCH or x.shape[axis] != 1:
                    raise Unsupported("a repetition by a multiple of the batch")
                x = self.over_batch(x, axis)
            else:
                repeats[x.place(axis)] = count
        return x.with_tensor(K.tile(x.tensor, repeats)) if max(repeats) > 1 else x

    def finish(self, outputs: Sequence[Activation], name: str, state_names: Iterable[str]) -> Translation:
        """The model from the input to `outputs`. state_names: every name of the original's state_dict."""
        tensors = [output.in_order().tensor for output in outputs]
        model = keras.Model(self.pixels, tensors[0] if len(tensors) == 1 else tensors, name=name)
        read = {weight.name for weight in self.weights}
        return Translation(
            model=model,
            weights=tuple(self.weights),
            stages=self._stages(model),
            unused=tuple(name for name in state_names if name not in read),
        )

    def _stages(self, model: keras.Model) -> tuple[Stage, ...]:
        """By the module tree; where TensorFlow's names show none, by the sizes of feature maps."""
        stages = stages_by_path(self._paths, self._attached)
        is_flat = 3 * len(stages) >= len(self._paths) and any("/" in weight.name for weight in self.weights)
        return stages_by_stride(model) if is_flat else stages

    def _insist_on_one(self, others: Iterable[str]) -> None:
        """others: weights that are asked for although another layer holds them. They would train apart."""
        if names := tuple(others):
            raise UsedInTwoWays(names)

    def _one(self) -> keras.KerasTensor:
        first = (slice(0, 1), slice(0, 1), *[0] * (len(self.pixels.shape) - 2))
        return K.ones_like(self.pixels[first])

    def _first_call(
        self, layer: keras.layers.Layer, tensor: keras.KerasTensor, parts: Sequence[Part]
    ) -> keras.KerasTensor:
        with numpy_initialisers(seed=None):
            output = layer(tensor)
        self._fill(layer, parts)
        return output

    def _fill(self, layer: keras.layers.Layer, parts: Sequence[Part]) -> None:
        variables = {variable.name: variable for variable in layer.weights}
        for one in parts:
            variable = variables[one.variable]
            moved = one.stored.array.reshape(one.split).transpose(one.axes)
            variable.assign(np.ascontiguousarray(moved.reshape(variable.shape)))
            if one.stored.name:
                self.weights.append(
                    TranslatedWeight(one.stored.name, one.stored.shape, layer.name, one.variable, one.split, one.axes)
                )
        if any(one.stored.trains for one in parts):
            self._paths[layer.name] = _owner(parts)
        else:
            layer.trainable = False
        if isinstance(layer, NORMALISATIONS):
            self._attached.add(layer.name)


def added(a: Operand, b: Operand) -> keras.KerasTensor:
    """a + b with broadcasting.

    Keras 3.15 on TensorFlow takes a second operand with a single axis longer than 1 for a bias, if the first one's last
    (or second) axis is as long: (1, 6, 6, 6) + (1, 6, 1, 1) goes wrong. So the second one here has several.
    """
    if np.shape(a) == np.shape(b) or () in (np.shape(a), np.shape(b)):
        return K.add(a, b)
    small, large = sorted((a, b), key=_long_axes)
    return K.add(small, large) if _long_axes(large) > 1 else K.subtract(small, K.negative(large))


def _long_axes(x: Operand) -> int:
    """Axes longer than 1 whatever the batch size."""
    return sum(size not in (1, None) for size in np.shape(x))


def layer_name(path: str) -> str:
    """A layer's name for a path of the original: Keras rejects "/", its PyTorch backend ".".

    No framework's paths hold a "-", so the path can be read back: "layer1.0.conv1" <-> "layer1-0-conv1".
    """
    return path.translate(str.maketrans("./:", "---")).strip("-") or "root"


def complete_shape(sizes: Sequence[int], count: int) -> tuple[int, ...]:
    """`sizes` with its -1, if any, replaced so that the product is `count`."""
    known = math.prod(size for size in sizes if size != -1)
    return tuple(count // known if size == -1 else size for size in sizes)


def refuse_graph(what: str, missing: Mapping[str, Sequence[str]]) -> TranslationError:
    """The error for a graph with ops that have no translation. missing: op -> names of its nodes."""
    listed = [
        f"{op} ({len(nodes)}): {', '.join(nodes[:3])}{', ...' * (len(nodes) > 3)}" for op, nodes in missing.items()
    ]
    return TranslationError(
        f"{what} cannot be translated: {len(missing)} of its operations have no translation yet.",
        expected="a network of operations that multitl knows",
        received="\n            ".join(listed),
        fix="choose another network, or report this list at the project's issue tracker",
        missing=tuple(missing),
    )


def _ranks(places: Sequence[int]) -> Axes:
    """Places with the gaps between them closed: (4, 0, 2) -> (2, 0, 1)."""
    return inverse(inverse(places))


def _owner(parts: Sequence[Part]) -> str:
    """The path of the module that owns the weights: "layer1.0.conv1" for "layer1.0.conv1.weight", or for
    "layer1/0/conv1/kernel" as TensorFlow has it.
    """
    name = next((one.stored.name for one in parts if one.stored.name), "")
    if "/" in name:
        return name.rpartition("/")[0].replace(".", "_").replace("/", ".")
    return name.removesuffix(".weight").removesuffix(".bias").removesuffix(".running_mean")
