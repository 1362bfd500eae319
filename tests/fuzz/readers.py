"""The readers that are fuzzed. Each function imports what one needs, and returns it: path -> anything, or an error.

Nothing here may start a thread, since the process forks afterwards: no operation of TensorFlow runs, none of JAX.
"""

from __future__ import annotations

import ast
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multitl.errors import MultitlError

Read = Callable[[Path], object]
FOLDER = Path(__file__).resolve().parent
SEEDS = FOLDER / "seeds"
KERAS_FILES = FOLDER.parent / "keras_files"


class Absent(MultitlError):  # noqa: N818  (as the readers call it)
    """What a reader treats as if it were not there, which is as good as refused."""


@dataclass(frozen=True)
class Reader:
    """backend: of Keras, in the server's process.  is_folder: whether a mutant is a folder of files.

    has_workers: whether it starts `multitl.files.hdf5_worker`.
    """

    name: str
    is_folder: bool = False
    backend: str = "torch"
    has_workers: bool = False

    @property
    def function(self) -> str:
        return f"fuzz.readers:{self.name}"


READERS = {
    reader.name: reader
    for reader in (
        Reader("pth"),
        Reader("safetensors", is_folder=True),
        Reader("hdf5", has_workers=True),
        Reader("keras", has_workers=True),
        Reader("savedmodel", is_folder=True, backend="tensorflow"),
        Reader("archive"),
        Reader("card", is_folder=True, backend="numpy"),
        Reader("checkpoint", is_folder=True, backend="numpy"),
        Reader("shard", backend="numpy"),
    )
}


def pth() -> Read:
    """Weights of torch.save."""
    return _state_dict()


def safetensors() -> Read:
    """A .safetensors file, or an index with the files that it names."""
    return _state_dict()


def _state_dict() -> Read:
    from multitl.files.state_dict_files import read_state_dict
    from multitl.translation.state_dicts import fit_shapes

    shapes = {"stem.weight": (4, 3, 3, 3), "stem.bias": (4,), "head.weight": (2, 4), "steps": ()}
    return lambda path: fit_shapes(read_state_dict(path), shapes)


def hdf5() -> Read:
    """Weights of Keras: every array is read."""
    from multitl.files.hdf5_files import open_weight_file

    def read(path: Path) -> None:
        with open_weight_file(path) as file:
            for layer in file.layers:
                for weight in layer.weights:
                    file.read(weight)

    return _tried(read, KERAS_FILES / "sequential.h5", KERAS_FILES / "sequential.keras")


def keras() -> Read:
    """Whole models of Keras: the description is read, the network built, the weights put in."""
    from multitl.sources import file

    paths = [path for path in KERAS_FILES.iterdir() if path.suffix in (".h5", ".keras")]
    return _tried(lambda path: file.load(str(path), "default", 0), *paths)


def savedmodel() -> Read:
    """A SavedModel: found, flattened, translated, and run, as far as it is harmless, beside that."""
    import tensorflow  # noqa: F401
    from multitl_tensorflow import graphdef, tfhub, verifying
    from multitl_tensorflow.saved_models import read_module

    def read(path: Path) -> None:
        module = read_module(path, "module")
        prepared = graphdef.prepare(module, 24 if graphdef.takes_any_size(module) else 0)
        preprocess = tfhub.preprocess(prepared.graph, *prepared.image_shape[:2])
        verifying.verify(prepared, graphdef.translate(prepared), preprocess, count=2)

    return read


def archive() -> Read:
    """A module's .tar.gz: unpacked into a temporary folder."""
    from multitl_tensorflow.archives import unpacked

    def read(path: Path) -> None:
        with unpacked(path) as folder:
            list(folder.iterdir())

    return _tried(read, *(SEEDS / "archive").iterdir())


def card() -> Read:
    """A run folder: opened, its report made, and the program written that loads its weights into PyTorch."""
    from multitl_torch.templates import HEADS, loader

    from multitl.contracts import Export
    from multitl.judging import reporting
    from multitl.judging.evaluation import load_run
    from multitl.recipes import Recipe
    from multitl.runs.cards import read_started
    from multitl.runs.folders import finished_result

    def write_loader(path: Path) -> None:
        run = load_run(path)
        about = run.card.backbone
        source, _, name = about.name.partition("/")
        export = Export(None, about.name, run.card.class_names, about.preprocess, "pixels", None, {})  # type: ignore[arg-type]
        if source in HEADS:
            _insist_on_constants(loader(export, source, name, {"num_classes": len(run.card.class_names)}))

    # its templates, which no mutant reaches, are compiled once and not by each of them
    reporting.make_environment = functools.cache(reporting.make_environment)  # type: ignore[assignment]
    read = _each(
        finished_result,
        read_started,
        lambda path: Recipe.read(path / "recipe.toml"),
        write_loader,
        reporting.write_report,
    )
    return _tried(read, *(SEEDS / "card").iterdir())


def checkpoint() -> Read:
    """The state of an interrupted run, in its folder."""
    from multitl.training.checkpoints import load_state

    return _tried(load_state, *(SEEDS / "checkpoint").iterdir())


def shard() -> Read:
    """Stored features; a damaged file of them counts as absent."""
    from multitl.training.feature_store import SUFFIX, FeatureStore

    def read(path: Path) -> None:
        store = FeatureStore({"for": "fuzzing"}, channels=8)
        store.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, store.folder / f"shard{SUFFIX}")
        known = [features for _, features in store.shards(on_disk=False)]
        if not known:
            raise Absent("Nothing was found in the shard.", fix="none")
        np.concatenate(known)

    return read


def _each(*functions: Read) -> Read:
    """All of several readers of one folder, also after one has refused it."""

    def read(path: Path) -> None:
        refusals = []
        for function in functions:
            try:
                function(path)
            except MultitlError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    return read


def _insist_on_constants(code: str) -> None:
    """Of generated code, whatever a card says, the statements are the template's, and what it fills in constants."""
    from multitl_torch import templates

    tree = compile(code, templates.__file__, "exec", ast.PyCF_ONLY_AST)
    kinds = [type(node).__name__ for node in tree.body]
    if kinds != ["Expr", "ImportFrom", "Import", "ImportFrom", *["Assign"] * 5, *["FunctionDef"] * 3]:
        raise RuntimeError(f"code from a card: {kinds}")
    for node in tree.body:
        if isinstance(node, ast.Assign):
            ast.literal_eval(node.value)


def _tried(read: Read, *valid: Path) -> Read:
    """A reader that has read good files already, and so has imported whatever it imports late."""
    with tempfile.TemporaryDirectory(prefix="multitl-fuzz-") as folder:
        os.environ["MULTITL_CACHE"] = folder
        for number, path in enumerate(valid):
            copied = Path(folder) / str(number) / path.name
            copied.parent.mkdir()
            shutil.copytree(path, copied) if path.is_dir() else shutil.copy(path, copied)
            read(copied)
    return read
