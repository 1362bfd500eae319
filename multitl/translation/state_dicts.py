"""A PyTorch network's weights: from a file that whatever program wrote, to the network's own names, to a Keras model.

Training programs wrap a state_dict: they put it under a key of a checkpoint, put a prefix before every name, keep a
moving average of it beside it. `read_state_dict` undoes the first. The rest is left to `fit`, which knows the network's
own names: only by them can a wrapper's prefix "model." be told from a module that is called "model".
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multitl.contracts import TranslatedWeight
from multitl.errors import WeightsError
from multitl.files.safetensors_files import is_safetensors, read_safetensors_file
from multitl.files.torch_files import Tree, is_torch, read_torch_file
from multitl.system.regular_files import MOST_MODEL, open_regular, read_regular_text
from multitl.translation.layouts import to_keras, to_original

if TYPE_CHECKING:  # files are read without a framework
    import keras

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")  # looked for in a folder; a file may have any
_INDEX = ".index.json"  # of a checkpoint in several files
_MOST_INDEX, _MOST_PARTS = 2**25, 10_000  # bytes of an index, files that it names
_STANDARD = ("model.safetensors", "pytorch_model.bin")  # as the model hubs call it; of several files, the first
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network", "module", "weights")
_AVERAGE = re.compile(r"(?<![a-z])ema(?![a-z])", re.IGNORECASE)
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")  # the last two are a profiler's (thop)
_TRAINING = ("optimizer", "scheduler", "lr_scheduler", "scaler", "criterion", "loss", "loss_fn")
_SHOWN = 6
_LONGEST_NAME = 1000  # a name of a million dots must not take for ever


@dataclass(frozen=True, eq=False)
class StateDict:
    """Tensors by name. file: where they come from; of a checkpoint in several files, the index.

    note: what was chosen from the file or cut off from its names, for people; "" for nothing.
    """

    tensors: Mapping[str, np.ndarray]
    file: Path
    note: str = ""


# --- from a file ---


def read_state_dict(path: str | Path) -> StateDict:
    """Read the state_dict in a file of torch.save or safetensors, told apart by content, without running anything.

    path: such a file, the index of a checkpoint in several (model.safetensors.index.json), or a folder: the file that
    model hubs would take, or else the only one with one of SUFFIXES. Of a checkpoint, its moving average (EMA) is taken
    where it has one, as timm does (timm.models.load_state_dict, use_ema=True). Names are the file's own: see `fit`.

    Raises WeightsError for what is missing, damaged, unsafe or without a state_dict.
    """
    file = _choose(Path(path).expanduser())
    if file.name.endswith(_INDEX) and file.is_file():
        return StateDict(_read_parts(file), file)
    tensors, keys = _unwrap(_read(file), file)
    averages = [key for key in keys if _AVERAGE.search(key)]
    return StateDict(tensors, file, f"the moving average {averages[0]!r}" if averages else "")


def _choose(path: Path) -> Path:
    if not path.is_dir():
        return path
    standard = [f"{name}{end}" for name in _STANDARD for end in (_INDEX, "")]
    files = {file.name: file for file in _files(path) if file.name.lower().endswith((*SUFFIXES, _INDEX))}
    chosen = [files[name] for name in standard if name in files][:1] or list(files.values())
    if len(chosen) != 1:
        raise WeightsError(
            f"The folder {path} holds {len(files) or 'no'} files with weights.",
            expected=f"just one {', '.join(SUFFIXES)} file, or one called {' or '.join(_STANDARD)}",
            received=_some(list(files)) or "no such file",
            fix="give the path of the file",
        )
    return chosen[0]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise WeightsError(
            f"Cannot look into the folder {folder}.",
            expected="a folder that this user may read",
            received=str(error),
            fix="give the path of a file",
        ) from error


def _read(file: Path) -> Tree:
    beginning = _beginning(file)
    is_named_so = file.suffix.lower() == ".safetensors"  # which decides who complains of a file that is neither
    if is_safetensors(beginning) or (is_named_so and not is_torch(beginning)):
        return read_safetensors_file(file)
    return read_torch_file(file)


def _beginning(file: Path) -> bytes:
    with contextlib.suppress(OSError), open_regular(file, MOST_MODEL) as stream:
        return stream.read(32)  # whoever reads the file next says what is wrong
    return b""


def _unwrap(tree: Tree, file: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The state_dict in a checkpoint, and the keys that lead there."""
    for tensors, keys in _state_dicts(tree):
        return tensors, keys
    raise WeightsError(
        f"There is no state_dict in {file}.",
        expected=f"a dict from names to tensors, alone or under one of the keys {', '.join(_WRAPPERS)}",
        received=f"a dict with the keys {list(tree)!r}"[:200] if tree and isinstance(tree, dict) else "no dict",
        fix="torch.save(model.state_dict(), 'weights.pth')",
    )


def _state_dicts(tree: Tree) -> Iterator[tuple[dict[str, np.ndarray], tuple[str, ...]]]:
    """Every state_dict below known keys, the best one first."""
    if not isinstance(tree, dict):
        return
    if tree and all(isinstance(name, str) and isinstance(value, np.ndarray) for name, value in tree.items()):
        yield tree, ()
    averages = [key for key in tree if isinstance(key, str) and _AVERAGE.search(key)]
    for key in (*averages, *(key for key in _WRAPPERS if key in tree)):
        for tensors, keys in _state_dicts(tree[key]):
            yield tensors, (key, *keys)


def _read_parts(index: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint in several files, which lie beside their index."""
    try:
        places = json.loads(read_regular_text(index, _MOST_INDEX))["weight_map"]
        parts = sorted(set(places.values()))
        if not parts or any(Path(part).name != part for part in parts) or len(parts) > _MOST_PARTS:
            raise ValueError("a weight_map that does not name files beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad_index(index, f"{type(error).__name__}: {error}") from error
    tensors: dict[str, np.ndarray] = {}
    for part in parts:
        tensors |= _unwrap(_read(index.parent / part), index.parent / part)[0]
    if missing := [name for name in places if name not in tensors]:
        raise _bad_index(index, f"not in the files that it names: {_some(missing)}")
    return {name: tensors[name] for name in places}


def _bad_index(index: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{index} is not the index of a checkpoint in several files.",
        expected='{"weight_map": {name of a tensor: file beside the index}}',
        received=found,
        fix="fetch the whole folder again",
    )


# --- to the network's names ---


def fit(
    state: StateDict,
    weights: Iterable[TranslatedWeight],
    *,
    unused: Collection[str] = (),
    classifier: Collection[str] = (),
    network: str = "this network",
) -> StateDict:
    """The tensors of `weights` under the network's own names, in float32. Names and shapes decide, nothing is guessed.

    unused: names of the original's state_dict that its graph never reads.  classifier: names of weights whose place a
    new head takes, so that they may be missing or of other classes and are left out; empty if the head is kept.
    network: its name, for messages.

    Raises WeightsError with the names that are missing, unexpected or of another shape.
    """
    return fit_shapes(
        state, {weight.name: weight.shape for weight in weights}, unused=unused, classifier=classifier, network=network
    )


def fit_shapes(
    state: StateDict,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    unused: Collection[str] = (),
    classifier: Collection[str] = (),
    network: str = "this network",
) -> StateDict:
    """As `fit`, for a network that is known by the names and shapes of its weights."""
    known = {*shapes, *unused, *classifier}
    prefix = _prefix(state.tensors, known)
    named = _without(prefix, state.tensors)
    wanted = {name: shape for name, shape in shapes.items() if name not in classifier}
    misshaped = [name for name, shape in wanted.items() if name in named and named[name].shape != shape]
    differences = {
        "missing": [name for name in wanted if name not in named],
        "unexpected": [name for name in state.tensors if not _is_expected(name, prefix, known)],
        "of another shape": [f"{name} {named[name].shape} for {wanted[name]}" for name in misshaped],
    }
    if any(differences.values()):
        pairs = [(named[name].shape, wanted[name]) for name in misshaped]
        raise _misfit(state.file, network, differences, len(wanted), None if classifier else pairs)
    tensors = {name: _float32(named[name]) for name in wanted}
    _check_finite(tensors, state.file)
    notes = [state.note, f"the prefix {prefix!r} cut off its names" if prefix else ""]
    return StateDict(tensors, state.file, "; ".join(filter(None, notes)))


def classes_in(state: StateDict, weights: Iterable[TranslatedWeight], classifier: Collection[str]) -> int | None:
    """How many classes the classifier in the file has: the rows of its tensors. None if it has none, or no one number.

    weights, classifier: as for `fit`, of a network of the same architecture; its own number of classes does not matter.
    """
    names = {*(weight.name for weight in weights), *classifier}
    named = _without(_prefix(state.tensors, names), state.tensors)
    rows = {named[name].shape[:1] for name in classifier if name in named}
    return rows.pop()[0] if len(rows) == 1 and () not in rows else None


def _prefix(names: Iterable[str], known: Collection[str]) -> str:
    """What stands before the network's names in the file: the beginning with which most of them are there.

    Of equals a moving average's, which is another copy of all of them, then the shortest.
    """
    votes = Counter(prefix for name in names for prefix in _prefixes(name, known))
    return max(votes, key=lambda prefix: (votes[prefix], bool(_AVERAGE.search(prefix)), -len(prefix)), default="")


def _prefixes(name: str, known: Collection[str]) -> list[str]:
    """The beginnings of a name, "" and those that end in a dot, after which a known name follows."""
    if len(name) > _LONGEST_NAME:
        return []
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
    return [name[:start] for start in starts if name[start:] in known]


def _without(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors whose names have the prefix, by the rest of their names."""
    return {name[len(prefix) :]: array for name, array in tensors.items() if name.startswith(prefix)}


def _is_expected(name: str, prefix: str, known: Collection[str]) -> bool:
    """Whether a name of the file is the network's, or of what training programs keep beside it.

    Those are counters, the state of optimizer and loss, and a moving average, or the weights beside a moving average.
    """
    prefixes = _prefixes(name, known)
    if prefix in prefixes or name.rpartition(".")[2] in _COUNTERS or name.partition(".")[0] in _TRAINING:
        return True
    return any(_AVERAGE.search(other) or _AVERAGE.search(prefix) for other in prefixes)


def _other_classes(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[int, int] | None:
    """(classes of the file, of the network), if the shapes (found, wanted) differ in their rows alone and all alike.

    A layer inside the network cannot differ so: the columns of the next one would differ too.
    """
    rows = {(found[:1], wanted[:1]) for found, wanted in pairs}
    if len(rows) != 1 or any(found[1:] != wanted[1:] or not found for found, wanted in pairs):
        return None
    ((found,), (wanted,)) = rows.pop()
    return found, wanted


def _misfit(
    file: Path,
    network: str,
    differences: Mapping[str, Sequence[str]],
    count: int,
    pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]] | None,
) -> WeightsError:
    """count: of the weights that are wanted.  pairs: shapes (found, wanted), None if the classifier is not wanted."""
    problem = f"The weights in {file} are not those of {network}: {sum(map(len, differences.values()))} differ."
    fix = "--weights default, or another --backbone, or the file of this one"
    if pairs is not None and not differences["unexpected"]:
        classes = None if differences["missing"] else _other_classes(pairs)
        problem = f"The file {file} has {classes[0]} classes, {network} has {classes[1]}." if classes else problem
        fix = f"leave --head keep out, if only the classifier differs: a new one takes its place; or {fix}"
    return WeightsError(
        problem,
        expected=f"the {count} weights of {network}",
        received="; ".join(f"{kind}: {_some(names)}" for kind, names in differences.items() if names),
        fix=fix,
    )


def _some(names: Sequence[str]) -> str:
    """The first few names; a damaged or malicious file can have any."""
    shown = [name[:200] if name.isprintable() else repr(name[:200]) for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _float32(array: np.ndarray) -> np.ndarray:
    """Half and double precision as float32; integers stay."""
    with np.errstate(over="ignore"):  # the caller looks for infinities
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _check_finite(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    if broken := [name for name, array in tensors.items() if not np.isfinite(array).all()]:
        raise WeightsError(
            f"The weights in {file} are not all finite numbers in float32.",
            expected="numbers",
            received=f"NaN or infinity in {_some(broken)}",
            fix="take a checkpoint from before the training diverged",
        )


# --- to a Keras model, and back ---


def fill(model: keras.Model, weights: Sequence[TranslatedWeight], tensors: Mapping[str, np.ndarray]) -> None:
    """Set the variable of every weight to the original's tensor of its name, all of them or none.

    Raises WeightsError if one has no tensor of its shape or no variable of its size in the model.
    """
    variables = _variables(model, weights)
    wrong = [w.name for w in weights if w.name not in tensors or tensors[w.name].shape != w.shape]
    if wrong:
        raise WeightsError(
            f"{len(wrong)} of {len(weights)} tensors for {model.name} are missing or of another shape.",
            expected=f"a tensor of the original's shape for each of its {len(weights)} weights",
            received=_some(wrong),
            fix="give weights and tensors of the same network",
        )
    for weight, variable in zip(weights, variables, strict=True):
        variable.assign(to_keras(tensors[weight.name], weight, variable.shape))


def extract(model: keras.Model, weights: Sequence[TranslatedWeight]) -> dict[str, np.ndarray]:
    """The inverse of `fill`, bit by bit: the model's weights as tensors of the original, by name. Copies.

    Raises WeightsError if a weight has no variable of its size in the model, or two of different values.
    """
    import keras

    tensors: dict[str, np.ndarray] = {}
    for weight, variable in zip(weights, _variables(model, weights), strict=True):
        array = np.array(to_original(keras.ops.convert_to_numpy(variable.value), weight))
        if weight.name in tensors and not np.array_equal(tensors[weight.name], array):
            raise WeightsError(
                f"{weight.name} is one tensor in the original, and its copies in {model.name} have come to differ.",
                expected="equal values",
                received=f"{weight.layer}/{weight.variable} differs",
                fix="freeze the layers that share this weight",
            )
        tensors[weight.name] = array
    return tensors


def _variables(model: keras.Model, weights: Sequence[TranslatedWeight]) -> list[keras.Variable]:
    """The variable of each weight."""
    from multitl.models.freezing import leaf_layers

    places: dict[tuple[str, str], list[keras.Variable]] = defaultdict(list)
    for layer in dict.fromkeys(leaf_layers(model)):
        for variable in layer.weights:
            places[layer.name, variable.name].append(variable)
    found = [[v for v in places[w.layer, w.variable] if math.prod(v.shape) == math.prod(w.shape)] for w in weights]
    lost = [f"{w.layer}/{w.variable}" for w, variables in zip(weights, found, strict=True) if len(variables) != 1]
    if lost:
        raise WeightsError(
            f"The model {model.name} does not hold {len(lost)} of {len(weights)} weights of the original.",
            expected="one variable of the same size for each weight",
            received=f"none, or several, for {_some(lost)}",
            fix="translate the network again",
        )
    return [variables[0] for variables in found]
