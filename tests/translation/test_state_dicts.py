"""state_dicts.py against PyTorch itself: every way of wrapping a state_dict, what does not fit, and Keras models."""

from __future__ import annotations

import json
import os
import pickle
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from multitl.contracts import TranslatedWeight
from multitl.errors import WeightsError
from multitl.models.freezing import leaf_layers
from multitl.translation.state_dicts import StateDict, classes_in, extract, fill, fit, read_state_dict

CLASSES = 6
CLASSIFIER = ("head.1.weight", "head.1.bias")
UNUSED = ("norm.num_batches_tracked", "aux.weight")
VECTOR = {"split": (6,), "axes": (0,)}
WEIGHTS = (
    TranslatedWeight("conv.weight", (6, 3, 3, 3), "conv", "kernel", (6, 3, 3, 3), (2, 3, 1, 0)),
    TranslatedWeight("norm.weight", (6,), "norm", "gamma", **VECTOR),
    TranslatedWeight("norm.bias", (6,), "norm", "beta", **VECTOR),
    TranslatedWeight("norm.running_mean", (6,), "norm", "moving_mean", **VECTOR),
    TranslatedWeight("norm.running_var", (6,), "norm", "moving_variance", **VECTOR),
    TranslatedWeight("model.depth.weight", (12, 1, 3, 3), "depth", "kernel", (6, 2, 3, 3), (2, 3, 0, 1)),
    TranslatedWeight("head.1.weight", (6, 12), "head", "kernel", (6, 12), (1, 0)),
    TranslatedWeight("head.1.bias", (6,), "head", "bias", **VECTOR),
)
BODY = tuple(weight for weight in WEIGHTS if weight.name not in CLASSIFIER)


class Network(nn.Module):
    """Names that make prefixes difficult: a part is called "model"; and an auxiliary head that is not used."""

    def __init__(self, seed: int = 0, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6, eps=1e-3)
        self.model = nn.Sequential()
        self.model.depth = nn.Conv2d(6, 12, 3, groups=6, bias=False)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(12, classes))
        self.aux = nn.Linear(6, 2, bias=False)
        random = torch.Generator().manual_seed(seed)
        for tensor in self.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.1)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.model(self.norm(self.conv(x)).relu()).mean((2, 3)))


def twin() -> keras.Model:
    """`Network` in Keras, zeros for weights, its body a nested model."""
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    stem = layers.BatchNormalization(epsilon=1e-3, name="norm")
    body = keras.Sequential([layers.Conv2D(6, 3, use_bias=False, name="conv"), stem, layers.ReLU()], name="body")
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depth")(body(image))
    model = keras.Model(image, layers.Dense(CLASSES, name="head")(layers.GlobalAveragePooling2D()(x)), name="twin")
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    return model


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def prefixed(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def write(path: Path, value: Any) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(value, path)
    else:
        torch.save(value, path)
    return path


def read_fitting(path: Path, **names: Any) -> StateDict:
    return fit(read_state_dict(path), WEIGHTS, unused=UNUSED, **names)


def made(**tensors: np.ndarray) -> StateDict:
    """The network's own tensors with changes; None takes one away. Keywords have "__" for a dot."""
    changed = {**arrays(Network()), **{name.replace("__", "."): array for name, array in tensors.items()}}
    return StateDict({name: array for name, array in changed.items() if array is not None}, Path("made.pth"))


def assert_equal(found: Mapping[str, np.ndarray], module: nn.Module, names: set[str] | None = None) -> None:
    expected = arrays(module)
    assert set(found) == ({weight.name for weight in WEIGHTS} if names is None else names)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)


# --- every way of wrapping ---


def averaged(module: nn.Module) -> nn.Module:
    """PyTorch's own moving average, as torchvision's training script keeps it: of the network in an earlier state."""
    average = AveragedModel(Network(seed=1), multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    average.update_parameters(Network(seed=1))  # the first one is taken as it is
    average.update_parameters(module)
    return average


def lightning(module: nn.Module) -> dict[str, torch.Tensor]:
    """A LightningModule's state_dict: the network as one part, beside a loss with weights."""
    task = nn.Module()
    task.model, task.criterion = module, nn.CrossEntropyLoss(weight=torch.ones(CLASSES))
    return task.state_dict()


def profiled(module: nn.Module) -> dict[str, torch.Tensor]:
    return module.state_dict() | {"total_ops": torch.ones(1), "conv.total_params": torch.ones(1, dtype=torch.float64)}


PLAIN = {  # dicts of tensors, which both formats can hold
    "plain": (lambda net: net.state_dict(), ""),
    "DataParallel": (lambda net: nn.DataParallel(net).state_dict(), "module."),
    "compiled": (lambda net: torch.compile(net).state_dict(), "_orig_mod."),
    "compiled, then parallel": (lambda net: nn.DataParallel(torch.compile(net)).state_dict(), "module._orig_mod."),
    "Lightning": (lightning, "model."),
    "Lightning, parallel": (lambda net: lightning(nn.DataParallel(net)), "model.module."),
    "net": (lambda net: prefixed("net.", net), "net."),
    "profiled": (profiled, ""),
    "no counters": (lambda net: {k: v for k, v in net.state_dict().items() if "batches" not in k}, ""),
    "optimizer beside": (lambda net: net.state_dict() | {"optimizer.conv.weight.exp_avg": torch.ones(2)}, ""),
    "part of an average": (lambda net: prefixed("model.", net) | {"ema.conv.weight": torch.ones(6, 3, 3, 3)}, "model."),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # torch.compile's own import
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("way", PLAIN)
def test_prefixes_and_leftovers(tmp_path: Path, way: str, suffix: str):
    wrap, prefix = PLAIN[way]
    state = read_fitting(write(tmp_path / f"weights{suffix}", wrap(Network())))
    assert_equal(state.tensors, Network())
    assert state.note == (f"the prefix '{prefix}' cut off its names" if prefix else "")


NESTED = {
    "state_dict": lambda net: {"state_dict": net.state_dict(), "epoch": 3, "best": [0.5, None]},
    "model": lambda net: {"model": nn.DataParallel(net).state_dict(), "optimizer": torch.optim.Adam(net.parameters())},
    "model_state_dict": lambda net: {"epoch": 3, "model_state_dict": net.state_dict()},
    "DeepSpeed": lambda net: {"module": net.state_dict(), "ds_version": "0.17"},
    "net": lambda net: {"net": prefixed("module.", net), "acc": 93.1},
    "Lightning": lambda net: {"state_dict": lightning(net), "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
    "twice": lambda net: {"state_dict": {"model": net.state_dict(), "loss": 0.1}, "args": Namespace(lr=0.1)},
    "no average": lambda net: {"state_dict": net.state_dict(), "state_dict_ema": None, "ema": {"decay": 0.9}},
    "a list": lambda net: {"ema": [net.state_dict()], "model": net.state_dict()},
}


@pytest.mark.parametrize("way", NESTED)
def test_nested_checkpoints(tmp_path: Path, way: str):
    tree = NESTED[way](Network())
    if "optimizer" in tree:
        tree["optimizer"] = tree["optimizer"].state_dict()
    state = read_fitting(write(tmp_path / "last.ckpt", tree))
    assert_equal(state.tensors, Network())
    assert "average" not in state.note


def test_the_average_of_torchvisions_training_script_is_taken(tmp_path: Path):
    net = Network()
    average = averaged(net)
    tree = {"model": net.state_dict(), "model_ema": average.state_dict(), "args": Namespace(lr=0.1), "epoch": 9}
    state = read_fitting(write(tmp_path / "checkpoint.pth", tree))
    assert_equal(state.tensors, average.module)
    assert not np.array_equal(state.tensors["conv.weight"], net.conv.weight.detach())
    assert state.note == "the moving average 'model_ema'; the prefix 'module.' cut off its names"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_average_among_the_same_names_is_taken(tmp_path: Path, suffix: str):
    tree = prefixed("model.", Network()) | prefixed("model_ema.module.", Network(seed=1))
    for tensors in (tree, dict(reversed(tree.items()))):
        state = read_fitting(write(tmp_path / f"weights{suffix}", tensors))
        assert_equal(state.tensors, Network(seed=1))
        assert state.note == "the prefix 'model_ema.module.' cut off its names"


def test_timms_own_checkpoints_are_read_as_timm_does(tmp_path: Path):
    """Written by timm's CheckpointSaver with a moving average; read by timm's load_state_dict."""
    from multitl_torch.torchvision import import_timm

    timm = import_timm()
    net, average = Network(), timm.utils.ModelEmaV3(Network(seed=1))
    average.update(net)
    saver = timm.utils.CheckpointSaver(
        nn.DataParallel(net), torch.optim.SGD(net.parameters(), 0.1), Namespace(model="x", lr=0.1),
        model_ema=average, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path),
    )  # fmt: skip
    saver.save_checkpoint(3, metric=0.5)
    expected = timm.models.load_state_dict(str(tmp_path / "last.pth.tar"), use_ema=True)
    state = read_state_dict(tmp_path / "last.pth.tar")
    assert list(state.tensors) == list(expected) and state.note == "the moving average 'state_dict_ema'"
    for name, array in state.tensors.items():
        np.testing.assert_array_equal(array, expected[name].numpy(), strict=True)
    assert_equal(read_fitting(tmp_path / "last.pth.tar").tensors, average.module)


def test_a_network_whose_names_all_begin_like_a_wrappers():
    names = ["model.conv.weight", "model.model.weight"]
    weights = [TranslatedWeight(name, (2,), "x", "y", (2,), (0,)) for name in names]
    tensors = {name: np.full(2, index, np.float32) for index, name in enumerate(names)}
    for prefix in ("", "module.", "model."):
        state = StateDict({prefix + name: array for name, array in tensors.items()}, Path("x"))
        found = fit(state, weights).tensors
        assert list(found) == names and all(np.array_equal(found[name], tensors[name]) for name in names)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype, suffix: str):
    net = Network().to(dtype)
    state = read_fitting(write(tmp_path / f"weights{suffix}", net.state_dict()))
    assert_equal(state.tensors, net.float())


# --- what does not fit ---


def test_what_differs_is_listed_with_names_and_counts():
    changes = {"norm__bias": None, "conv__weight": np.zeros((6, 1, 3, 3), "f4"), "conv__bias": np.zeros(6, "f4")}
    with pytest.raises(WeightsError) as caught:
        fit(made(**changes), WEIGHTS, unused=UNUSED, classifier=CLASSIFIER, network="torchvision/twin")
    assert caught.value.problem == "The weights in made.pth are not those of torchvision/twin: 3 differ."
    assert caught.value.expected == "the 6 weights of torchvision/twin"
    shapes = "conv.weight (6, 1, 3, 3) for (6, 3, 3, 3)"
    assert caught.value.received == f"missing: norm.bias; unexpected: conv.bias; of another shape: {shapes}"
    assert "--head" not in caught.value.fix


def test_a_file_of_another_network_shows_a_few_names_of_many(shared_weights: Path):
    with pytest.raises(WeightsError) as caught:
        read_fitting(shared_weights / "mobilenet_v2_features.pth")
    assert "missing: conv.weight, norm.weight, " in caught.value.received
    assert "and 2 more; unexpected: features.0.0.weight, " in caught.value.received


def test_a_teacher_beside_the_network_is_unexpected():
    both = {**prefixed("student.", Network()), **prefixed("teacher.", Network(seed=1))}
    state = StateDict({name: tensor.numpy() for name, tensor in both.items()}, Path("both.pth"))
    with pytest.raises(WeightsError, match=r"unexpected: (student|teacher)\.conv\.weight, .* and \d more"):
        fit(state, WEIGHTS, unused=UNUSED)


def test_names_of_a_hostile_file_cannot_write_to_the_terminal():
    state = StateDict(
        {**made().tensors, "\x1b[2J" + "x" * 10_000: np.zeros(1), "." * 5_000_000: np.zeros(1)}, Path("x")
    )
    with pytest.raises(WeightsError, match="unexpected") as caught:
        fit(state, WEIGHTS, unused=UNUSED)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 1500


@pytest.mark.parametrize("prefix", ["", "module."])
def test_another_number_of_classes(tmp_path: Path, prefix: str):
    path = write(tmp_path / "ten.pth", prefixed(prefix, Network(classes=10)))
    names = {weight.name for weight in BODY}
    assert_equal(read_fitting(path, classifier=CLASSIFIER).tensors, Network(classes=10), names)
    with pytest.raises(WeightsError) as caught:
        read_fitting(path, network="torchvision/twin")
    assert caught.value.problem == f"The file {path} has 10 classes, torchvision/twin has 6."
    assert "head.1.weight (10, 12) for (6, 12), head.1.bias (10,) for (6,)" in caught.value.received
    assert caught.value.fix.startswith("leave --head keep out")


def test_a_file_without_classifier(tmp_path: Path):
    body = {name: tensor for name, tensor in Network().state_dict().items() if name not in CLASSIFIER}
    path = write(tmp_path / "body.safetensors", body)
    assert_equal(read_fitting(path, classifier=CLASSIFIER).tensors, Network(), {weight.name for weight in BODY})
    with pytest.raises(WeightsError, match=r"missing: head\.1\.weight, head\.1\.bias\n(.|\n)*leave --head keep out"):
        read_fitting(path)


@pytest.mark.parametrize(
    "change",
    [
        {"head__1__weight": np.zeros((10, 12), "f4"), "head__1__bias": np.zeros(9, "f4")},
        {"head__1__weight": np.zeros((10, 13), "f4"), "head__1__bias": np.zeros(10, "f4")},
        {"head__1__weight": np.zeros((), "f4")},
        {"head__1__weight": np.zeros((10, 12), "f4"), "norm__bias": None},
    ],
)
def test_other_differences_are_not_taken_for_classes(change: dict):
    with pytest.raises(WeightsError, match=r"are not those of this network: \d differ"):
        fit(made(**change), WEIGHTS, unused=UNUSED)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused(value: float):
    state = made(norm__bias=np.full(6, value))
    with pytest.raises(WeightsError, match=r"not all finite(.|\n)*norm\.bias"):
        fit(state, WEIGHTS, unused=UNUSED)


def test_the_classes_of_a_file(tmp_path: Path):
    ten = read_state_dict(write(tmp_path / "ten.pth", prefixed("module.", Network(classes=10))))
    assert classes_in(ten, WEIGHTS, CLASSIFIER) == 10
    assert classes_in(made(), WEIGHTS, CLASSIFIER) == CLASSES
    assert classes_in(made(head__1__weight=None, head__1__bias=None), WEIGHTS, CLASSIFIER) is None
    assert classes_in(made(head__1__bias=np.zeros(3)), WEIGHTS, CLASSIFIER) is None
    assert classes_in(made(head__1__weight=None, head__1__bias=np.zeros(())), WEIGHTS, CLASSIFIER) is None


# --- files and folders ---


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "pytorch_model.bin", "x.PT", "model.pth.tar"])
def test_a_folder_with_one_file(tmp_path: Path, name: str):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "logs.pth").mkdir()
    write(tmp_path / name, Network().state_dict())
    state = read_state_dict(tmp_path)
    assert state.file == tmp_path / name
    np.testing.assert_array_equal(state.tensors["conv.weight"], arrays(Network())["conv.weight"])


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path: Path):
    for name, other in (("a.safetensors", "a.pth"), ("b.pth", "b.safetensors")):
        write(tmp_path / name, Network().state_dict()).rename(tmp_path / other)
        assert_equal(read_fitting(tmp_path / other).tensors, Network())


def test_a_model_hubs_folder(tmp_path: Path):
    """Two copies of the weights and a trainer's files: what the hub itself would load is taken."""
    write(tmp_path / "model.safetensors", Network().state_dict())
    write(tmp_path / "pytorch_model.bin", Network(seed=1).state_dict())
    write(tmp_path / "optimizer.pt", {"state": {}})
    assert_equal(read_fitting(tmp_path).tensors, Network())
    (tmp_path / "model.safetensors").unlink()
    assert_equal(read_fitting(tmp_path).tensors, Network(seed=1))


def test_folders_that_leave_a_choice_or_none(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"holds no files(.|\n)*no such file"):
        read_state_dict(tmp_path)
    for name in ("a.pth", "b.safetensors"):
        write(tmp_path / name, Network().state_dict())
    with pytest.raises(WeightsError, match=r"holds 2 files(.|\n)*a\.pth, b\.safetensors"):
        read_state_dict(tmp_path)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A checkpoint in two files with its index, as Hugging Face writes it."""
    tensors = list(Network().state_dict().items())
    places = {}
    for number, some in enumerate([dict(tensors[:4]), dict(tensors[4:])], 1):
        name = f"model-{number:05}-of-00002.safetensors"
        write(tmp_path / name, some)
        places |= dict.fromkeys(some, name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return tmp_path


def test_a_checkpoint_in_several_files(parts: Path):
    index = parts / "model.safetensors.index.json"
    for path in (parts, index):
        assert read_state_dict(path).file == index
        assert_equal(read_fitting(path).tensors, Network())
    (parts / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors cannot be read.*no such file"):
        read_state_dict(parts)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError|JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'weight_map'"),
        ('{"weight_map": []}', "AttributeError"),
        ('{"weight_map": {}}', "does not name files beside it"),
        ('{"weight_map": {"a": 1}}', "TypeError"),
        ('{"weight_map": {"a": []}}', "TypeError"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "does not name files beside it"),
        ('{"weight_map": {"a": "../x.pth"}}', "does not name files beside it"),
        ('{"weight_map": {"a": ".."}}', "it is a folder"),
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "not in the files that it names: a"),
    ],
)
def test_bad_indices(parts: Path, index: str, message: str):
    (parts / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(parts)


class Evil:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.system, ("touch evil",)


def test_files_that_are_no_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    cases: list[tuple[Any, str]] = [
        ([torch.ones(1)], "no state_dict(.|\n)*no dict"),
        ({}, "no state_dict(.|\n)*no dict"),
        ({"epoch": 3}, r"no state_dict(.|\n)*\['epoch'\]"),
        ({"a": torch.ones(1), "b": 2}, "no state_dict"),
        ({1: torch.ones(1)}, "no state_dict"),
        ({"state_dict": Evil()}, "can run code"),
        ({"model": nn.Linear(1, 1)}, "can run code"),
    ]
    for tree, message in cases:
        torch.save(tree, "file.pth")
        with pytest.raises(WeightsError, match=message):
            read_state_dict("file.pth")
    Path("file.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError, match=r"not one that torch\.save wrote"):
        read_state_dict("file.pth")
    with pytest.raises(WeightsError, match="no such file"):
        read_state_dict("none.safetensors")
    assert not Path("evil").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    for name in ("pipe.pth", "pipe.safetensors", "pipe.index.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(WeightsError, match="cannot be read"):
            read_state_dict(tmp_path / name)


# --- real files ---


@pytest.mark.parametrize(
    ("file", "name", "classifier"),
    [
        ("squeezenet1_1.pth", "squeezenet1_1", ()),
        ("mobilenet_v2_features.pth", "mobilenet_v2", ("classifier.1.weight", "classifier.1.bias")),
    ],
)
def test_real_files_fit_torchvisions_networks(shared_weights: Path, file: str, name: str, classifier: tuple[str, ...]):
    from multitl_torch.torchvision import import_torchvision

    expected = import_torchvision().models.get_model(name).state_dict()
    weights = [TranslatedWeight(key, tuple(tensor.shape), "", "", (), ()) for key, tensor in expected.items()]
    counters = [weight.name for weight in weights if weight.name.endswith("num_batches_tracked")]
    wanted = [weight for weight in weights if weight.name not in counters]
    state = read_state_dict(shared_weights / file)
    found = fit(state, wanted, unused=counters, classifier=classifier, network=name).tensors
    theirs = torch.load(shared_weights / file, weights_only=True)
    assert found.keys() == expected.keys() - {*counters, *classifier}
    for key, array in found.items():
        np.testing.assert_array_equal(array, theirs[key].numpy(), strict=True)
    if classifier:
        with pytest.raises(WeightsError, match="missing: classifier"):
            fit(state, wanted, unused=counters, network=name)


# --- Keras models ---


@pytest.mark.every_backend
def test_a_filled_model_computes_what_the_original_does(tmp_path: Path):
    net, model = Network(), twin()
    path = write(tmp_path / "weights.safetensors", prefixed("module.", net))
    fill(model, WEIGHTS, read_fitting(path).tensors)
    image = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    with torch.no_grad():
        expected = net(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
    assert np.ptp(expected, axis=0).min() > 0.1
    np.testing.assert_allclose(model.predict(image, verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.every_backend
def test_what_is_filled_in_comes_out_bit_by_bit_as_copies():
    net, model = Network(), twin()
    fill(model, WEIGHTS, arrays(net))
    tensors = extract(model, WEIGHTS)
    for variable in model.weights:
        variable.assign(np.ones(variable.shape, "float32"))
    assert_equal(tensors, net)
    other = Network(seed=1)
    missing, unexpected = other.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}, strict=False)
    assert (missing, unexpected) == (["aux.weight"], [])  # PyTorch lets counters be missing
    torch.testing.assert_close(other(torch.ones(1, 3, 8, 8)), net(torch.ones(1, 3, 8, 8)), rtol=0, atol=0)


def test_all_of_a_model_is_filled_or_nothing():
    model, tensors = twin(), arrays(Network())
    nowhere = TranslatedWeight("aux.weight", (2, 6), "aux", "kernel", (2, 6), (1, 0))
    larger = TranslatedWeight("head.1.bias", (7,), "head", "bias", (7,), (0,))
    scalar = TranslatedWeight("scale", (), "head", "bias", (), ())
    for weights, given, message in [
        (WEIGHTS, tensors | {"head.1.bias": np.ones(7)}, r"1 of 8 tensors for twin(.|\n)*head\.1\.bias"),
        (WEIGHTS, {k: v for k, v in tensors.items() if k not in CLASSIFIER}, r"2 of 8 tensors"),
        ((*WEIGHTS, nowhere), tensors, r"does not hold 1 of 9 weights(.|\n)*aux/kernel"),
        ((*WEIGHTS, larger), tensors | {"head.1.bias": np.ones(7)}, "head/bias"),
        ((*WEIGHTS, scalar), tensors, "head/bias"),
    ]:
        with pytest.raises(WeightsError, match=message):
            fill(model, weights, given)
        assert not any(np.any(keras.ops.convert_to_numpy(variable)) for variable in model.weights)
    with pytest.raises(WeightsError, match="aux/kernel"):
        extract(model, [nowhere])


def test_a_variable_that_is_not_the_only_one_of_its_name_is_refused():
    query = keras.Input((3, 8))
    model = keras.Model(query, keras.layers.MultiHeadAttention(2, 4, name="attention")(query, query))
    weight = TranslatedWeight("query.weight", (8, 8), "attention", "kernel", (8, 8), (1, 0))
    with pytest.raises(WeightsError, match="none, or several, for attention/kernel"):
        fill(model, [weight], {"query.weight": np.ones((8, 8), "f4")})


def test_a_tensor_that_two_layers_share_must_stay_one():
    image = keras.Input((4,))
    x = keras.layers.Dense(4, use_bias=False, name="first")(image)
    model = keras.Model(image, keras.layers.Dense(4, use_bias=False, name="second")(x), name="tied")
    weights = [TranslatedWeight("w", (4, 4), layer, "kernel", (4, 4), (1, 0)) for layer in ("first", "second")]
    tensor = np.arange(16, dtype="f4").reshape(4, 4)
    fill(model, weights, {"w": tensor})
    np.testing.assert_array_equal(extract(model, weights)["w"], tensor)
    next(layer for layer in leaf_layers(model) if layer.name == "second").kernel.assign(np.ones((4, 4)))
    with pytest.raises(WeightsError, match=r"w is one tensor in the original(.|\n)*second/kernel"):
        extract(model, weights)
