"""The builder, which turns the weights of a graph into Keras layers; what all graph translators share.

A translator walks the original's graph. Each node's value is an `Activation` or a `Stored` tensor (values.py); a table
says which function translates which op (op_tables.py), and that function gets a `Builder` and the values.

Only stock Keras layers and `keras.ops` come out, so a translated model loads with plain Keras on every backend.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import keras
import numpy as np
from keras import ops as K  # noqa: N812  (the field's usual short name)

from multitl.contracts import Stage, TranslatedWeight, Translation
from multitl.models.initialisers import numpy_initialisers
from multitl.models.stages import stages_by_path, stages_by_stride
from multitl.translation.layouts import Axes, in_order, inverse
from multitl.translation.op_tables import Unsupported
from multitl.translation.values import BATCH, Activation, Operand, Part, Stored, Value, added, part

NORMALISATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


class UsedInTwoWays(Unsupported):
    """Raised for weights that no single layer can hold, since the original does different things with them.

    names: of the weights. Where `hold` gives them from the first use on, both ways of use are open.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"the weight {names[0]} used in two ways")
        self.names = tuple(names)


class Builder:
    """Makes layers for one graph, gives them the original's names, and remembers which weight went where."""

    def __init__(self, pixels: keras.KerasTensor, *others: keras.KerasTensor) -> None:
        """pixels: the symbolic input of the model, (batch, ...).  others: further inputs."""
        self.pixels, self.others = pixels, others
        self.path = ""  # of the module whose node is being translated: names the layers that have no weights
        self.weights: list[TranslatedWeight] = []
        self._paths: dict[str, str] = {}  # layers whose weights train -> the original's path, in order of creation
        self._names = {tensor.name: 0 for tensor in (pixels, *others)}  # of layers -> how many are named after it
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
        inputs = [self.pixels, *self.others] if self.others else self.pixels
        model = keras.Model(inputs, tensors[0] if len(tensors) == 1 else tensors, name=name)
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
        ones = K.ones_like(self.pixels[first])
        return K.cast(ones, keras.config.floatx()) if "int" in ones.dtype else ones

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
            self._paths[layer.name] = _owner(parts) or self.path
        else:
            layer.trainable = False
        if isinstance(layer, NORMALISATIONS):
            self._attached.add(layer.name)


def layer_name(path: str) -> str:
    """A layer's name for a path of the original: Keras rejects "/", its PyTorch backend ".".

    No framework's paths hold a "-", so the path can be read back: "layer1.0.conv1" <-> "layer1-0-conv1".
    """
    return path.translate(str.maketrans("./:", "---")).strip("-") or "root"


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
