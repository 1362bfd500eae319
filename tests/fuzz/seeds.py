"""Write seeds/ anew, small valid files and hostile ones: `python -m tests.fuzz.seeds [READER ...]`, under TensorFlow.

They are kept, not made for each use: so a mutant is the same by (reader, seed, index) on every machine, and no test
waits for three frameworks. Whole models of Keras are those of tests/keras_files.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from .readers import SEEDS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # of sample_runs and saved_models


def pth(folder: Path) -> None:
    import torch

    random = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, generator=random)
    state = OrderedDict([("stem.weight", weight), ("stem.bias", torch.zeros(4)), ("head.weight", torch.ones(2, 4))])
    state["steps"] = torch.tensor(7)
    checkpoint = {
        "epoch": 3, "args": argparse.Namespace(lr=0.1, names=["a", "b"]), "state_dict": state, "best": -1.5,
        "model_ema": OrderedDict((f"module.{name}", tensor.clone()) for name, tensor in state.items()),
    }  # fmt: skip
    odd = {
        "stem.weight": weight.half().transpose(2, 3), "stem.bias": torch.zeros(4).bfloat16(),
        "head.weight": torch.nn.Parameter(weight[:, :2, 0, 0].T), "steps": torch.tensor(True),
    }  # fmt: skip
    for name, value in (("state", state), ("checkpoint", checkpoint), ("odd", odd)):
        for layout in ("zip", "legacy"):
            torch.save(value, folder / f"{name}_{layout}.pth", _use_new_zipfile_serialization=layout == "zip")
    for layout in ("zip", "legacy"):  # `left` is what the server would find
        value = {"stem.weight": _Call("touch left"), "steps": torch.tensor(7)}
        torch.save(value, folder / f"hostile_{layout}.pth", _use_new_zipfile_serialization=layout == "zip")


class _Call:
    """Unpickled, it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def safetensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    state = {
        "stem.weight": random.normal(size=(4, 3, 3, 3)).astype("f4"), "stem.bias": np.zeros(4, "f2"),
        "head.weight": np.ones((2, 4)), "steps": np.array(7),
    }  # fmt: skip
    for name in ("one", "parts"):
        (folder / name).mkdir()
    save_file(state, folder / "one" / "model.safetensors", metadata={"format": "pt"})
    (folder / "one" / "config.json").write_text("{}")
    names = list(state)
    places = {}
    for number, part in enumerate((names[:2], names[2:])):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        save_file({key: state[key] for key in part}, folder / "parts" / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 600}, "weight_map": places}
    (folder / "parts" / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def hdf5(folder: Path) -> None:
    import h5py
    import keras

    model = keras.Sequential([
        keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="conv"), keras.layers.BatchNormalization(name="bn"),
        keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="head"),
    ])  # fmt: skip
    model.save_weights(folder / "keras3.weights.h5")
    model.save(folder / "keras3.keras")
    with h5py.File(folder / "legacy.h5", "w") as file:
        _legacy(file, dtype=h5py.string_dtype())
    with h5py.File(folder / "packed.h5", "w", libver="latest") as file:
        _legacy(file.create_group("model_weights"), compression="gzip", chunks=(2,), shuffle=True, fletcher32=True)

    for write in (_unwritten, _compressed, _elsewhere, _in_circles, _of_parts, _of_texts):
        with h5py.File(folder / f"hostile{write.__name__}.h5", "w") as file:
            write(file.create_group("layers/conv/vars"))


def _unwritten(group) -> None:
    group.create_dataset("0", (2**33,), "f4", fillvalue=1.0)


def _compressed(group) -> None:
    dataset = group.create_dataset("0", (2**31,), "f4", chunks=(2**18,), compression="gzip", fillvalue=0)
    dataset[:1] = 1


def _elsewhere(group) -> None:
    import h5py

    group["0"] = h5py.ExternalLink("/etc/passwd", "/")
    group.create_dataset("1", (4,), "f4", external=[("/etc/passwd", 0, 16)])
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (4,))
    group.create_virtual_dataset("2", layout)


def _in_circles(group) -> None:
    import h5py

    group["deeper"] = group.parent
    group.parent["again"] = group.parent
    group["0"] = h5py.SoftLink("/layers/conv/vars/0")


def _of_parts(group) -> None:
    group.create_dataset("0", (4,), np.dtype([("a", "f4", (1000, 1000)), ("b", "S2000000000")]))


def _of_texts(group) -> None:
    import h5py

    group.create_dataset("0", data=np.array(["a", "b" * 9], object), dtype=h5py.string_dtype())
    group.create_dataset("1", (2,), h5py.ref_dtype)


def _legacy(root, dtype=None, **options) -> None:
    """dtype: of names, for strings of any length."""
    layers = {"conv": {"conv/kernel:0": (3, 3, 1, 2), "conv/bias:0": (2,)}, "head": {"head/kernel:0": (4,)}}
    root.attrs.create("layer_names", np.array([*layers], "S" if dtype is None else object), dtype=dtype)
    root.attrs["keras_version"], root.attrs["backend"] = "2.13.1", "tensorflow"
    for layer, weights in layers.items():
        group = root.create_group(layer)
        group.attrs.create("weight_names", np.array([*weights], "S" if dtype is None else object), dtype=dtype)
        for name, shape in weights.items():
            given = options if len(shape) == 1 else {}
            group.create_dataset(name, data=np.arange(np.prod(shape), dtype="f4").reshape(shape), **given)


def savedmodel(folder: Path) -> None:
    import saved_models
    import tensorflow as tf

    network = saved_models.Network()
    saved_models.write_reusable(network, folder / "reusable")
    saved_models.write_frozen(network, folder / "frozen")
    saved_models.write_hub1(folder / "hub1")
    spec = tf.TensorSpec((None, 24, 24, 3), name="images")
    for name, function in _hostile().items():
        saved_models.write_function(function, folder / name, spec)
    for path in [*folder.rglob("assets"), *folder.rglob("fingerprint.pb")]:
        path.rmdir() if path.is_dir() else path.unlink()


def _hostile() -> dict:
    """Functions of images that read or write files, or run Python; `left` is what the server would find."""
    import tensorflow as tf

    def features(images, text):
        return tf.reduce_mean(images, [1, 2]) + tf.cast(tf.strings.length(text), tf.float32)

    def write(images):
        with tf.control_dependencies([tf.io.write_file("left", "x")]):
            return tf.reduce_mean(images, [1, 2])

    return {
        "hostile_read": lambda images: features(images, tf.io.read_file("/etc/passwd")),
        "hostile_match": lambda images: features(images, tf.io.matching_files("/etc/*")[0]),
        "hostile_write": write,
        "hostile_numpy": lambda images: tf.numpy_function(lambda one: one, [images], tf.float32),
        "hostile_python": lambda images: tf.py_function(lambda one: one, [images], tf.float32),
    }


def archive(folder: Path) -> None:
    content = {"saved_model.pb": b"graph" * 20, "variables/variables.index": b"index", "assets/words.txt": b"a\nb\n"}
    for name, mode in (
        ("flat.tar.gz", "w:gz"),
        ("nested.tar.gz", "w:gz"),
        ("plain.tar", "w"),
        ("small.tar.xz", "w:xz"),
    ):
        with tarfile.open(folder / name, mode, format=tarfile.PAX_FORMAT) as file:
            for path, data in content.items():
                info = tarfile.TarInfo(f"module/{path}" if name.startswith("nested") else path)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))


def card(folder: Path) -> None:
    from sample_runs import make_run

    from multitl.system.writing import write_json

    for name, backbone in (("pypi", "pypi/efficientnet_lite0"), ("torchvision", "torchvision/resnet18")):
        make_run(folder / name, Path("/data/clothes"), ["hat", "shoe's"], per_class=3, phases=[("head", 2)])
        place = folder / name / "card.json"
        described = json.loads(place.read_text())
        described["backbone"] |= {"name": backbone}
        write_json(place, described)
        write_json(folder / name / "run.json", {"backend": "jax", "fingerprint": "c0ffee" * 10})


def checkpoint(folder: Path) -> None:
    from multitl.training.checkpoints import TrainingState, save_state

    def arrays(seed: int) -> list:
        random = np.random.default_rng(seed)
        return [random.normal(size=shape).astype("f4") for shape in ((4, 2), (2,), ())] + [np.array([seed], "i8")]

    figures = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
    rows = [{"phase": "head", "trial": 0, "step": 1, **dict.fromkeys(figures, 0.5)}]
    first = TrainingState(step=1, rows=rows, variables=arrays(3))
    state = TrainingState(
        phase="finetune", step=1, best_loss=0.25, waited=1, rows=rows, warnings=["It diverged."],
        variables=arrays(0), optimizer=arrays(1), best=arrays(2),
    )  # fmt: skip
    for name, states in (("finetune", [first, state]), ("first", [first])):
        (folder / name).mkdir()
        for one in states:  # the one before is kept
            save_state(folder / name, one)


def shard(folder: Path) -> None:
    from multitl.training.feature_store import FeatureStore

    with tempfile.TemporaryDirectory() as cache:
        os.environ["MULTITL_CACHE"] = cache
        store = FeatureStore({"for": "fuzzing"}, channels=8)
        store.add([f"{i:064x}" for i in range(5)], np.random.default_rng(0).normal(size=(5, 8)).astype("f4"))
        (path,) = store.folder.iterdir()
        shutil.copy(path, folder / "five.safetensors")


WRITERS = (pth, safetensors, hdf5, savedmodel, archive, card, checkpoint, shard)


def main(names: list[str]) -> None:
    """names: of readers; of all if there is none."""
    for write in (one for one in WRITERS if not names or one.__name__ in names):
        folder = SEEDS / write.__name__
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
