"""The state_dict in a file that whatever program wrote, told apart by content, without running anything.

Training programs wrap a state_dict: they put it under a key of a checkpoint, and keep a moving average of it beside it.
That is undone here; the prefixes that they put before every name are left to `translation.state_dicts`, which knows the
network's own.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multitl.errors import WeightsError, shorten
from multitl.files.safetensors_files import is_safetensors, read_safetensors_file
from multitl.files.torch_files import Tree, is_torch, read_torch_file
from multitl.system.paths import expanded
from multitl.system.regular_files import MOST_MODEL, open_regular, read_regular_text

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")  # looked for in a folder; a file may have any
AVERAGE = re.compile(r"(?<![a-z])ema(?![a-z])", re.IGNORECASE)  # in the key or the names of a moving average
_INDEX = ".index.json"  # of a checkpoint in several files
_MOST_INDEX, _MOST_PARTS = 2**25, 10_000  # bytes of an index, files that it names
_STANDARD = ("model.safetensors", "pytorch_model.bin")  # as the model hubs call it; of several files, the first
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network", "module", "weights")


@dataclass(frozen=True, eq=False)
class StateDict:
    """Tensors by name. file: where they come from; of a checkpoint in several files, the index.

    note: what was chosen from the file or cut off from its names, for people; "" for nothing.
    """

    tensors: Mapping[str, np.ndarray]
    file: Path
    note: str = ""


def read_state_dict(path: str | Path) -> StateDict:
    """Read the state_dict in a file of torch.save or safetensors, told apart by content, without running anything.

    path: such a file, the index of a checkpoint in several (model.safetensors.index.json), or a folder: the file that
    model hubs would take, or else the only one with one of SUFFIXES. Of a checkpoint, its moving average (EMA) is taken
    where it has one, as timm does (timm.models.load_state_dict, use_ema=True). Names are the file's own: see
    `state_dicts.fit`.

    Raises WeightsError for what is missing, damaged, unsafe or without a state_dict.
    """
    file = _choose(expanded(path))
    if file.name.endswith(_INDEX) and file.is_file():
        return StateDict(_read_parts(file), file)
    tensors, keys = _unwrap(_read(file), file)
    averages = [key for key in keys if AVERAGE.search(key)]
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
            received=some(list(files)) or "no such file",
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
    averages = [key for key in tree if isinstance(key, str) and AVERAGE.search(key)]
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
        raise _bad_index(index, f"not in the files that it names: {some(missing)}")
    return {name: tensors[name] for name in places}


def _bad_index(index: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{index} is not the index of a checkpoint in several files.",
        expected='{"weight_map": {name of a tensor: file beside the index}}',
        received=found,
        fix="fetch the whole folder again",
    )


def some(names: Sequence[str]) -> str:
    """The first few names, for a message; a damaged or malicious file can have any."""
    return shorten([name[:200] if name.isprintable() else repr(name[:200]) for name in names], most=6)
