"""state_dicts.py against PyTorch itself: every way of wrapping a state_dict, and what does not fit."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from twin_networks import (
    BODY,
    CLASSES,
    CLASSIFIER,
    UNUSED,
    WEIGHTS,
    Network,
    assert_equal,
    made,
    prefixed,
    read_fitting,
    write,
)

from multitl.contracts import TranslatedWeight
from multitl.errors import WeightsError
from multitl.files.state_dict_files import StateDict, read_state_dict
from multitl.translation.state_dicts import classes_in, fit

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


# --- a head that is cut off anyway ---


def with_head(names: dict[str, tuple[int, ...]], prefix: str = "") -> StateDict:
    """The twin's file with other tensors in the place of its classifier."""
    body = {prefix + name: array for name, array in made().tensors.items() if name not in CLASSIFIER}
    return StateDict(body | {name: np.ones(shape) for name, shape in names.items()}, Path("own.pth"))


@pytest.mark.parametrize(
    ("state", "left_out"),
    [
        (with_head({"head.1.weight": (9, 12), "head.1.bias": (9,)}), "head.1.bias, head.1.weight"),
        (with_head({"head.0.weight": (5, 12), "head.3.1.weight": (9, 5)}), "head.0.weight, head.3.1.weight"),
        (with_head({"new_head.weight": (9, 12)}), "new_head.weight"),
        (with_head({"classifier.weight": (9, 12)}, prefix="backbone."), "classifier.weight"),
    ],
)
def test_a_head_that_does_not_fit_is_left_out_where_it_is_cut_off_and_said(state: StateDict, left_out: str):
    found = fit(state, WEIGHTS, unused=UNUSED, classifier=CLASSIFIER)
    assert_equal(found.tensors, Network(), {weight.name for weight in BODY})
    assert found.note.endswith(f"its head, which does not fit, left out: {left_out}")
    with pytest.raises(WeightsError):
        fit(state, WEIGHTS, unused=UNUSED)


def test_more_layers_or_a_second_copy_are_no_head():
    for name, shape in (("model.depth.1.weight", (3,)), ("norm.1.weight", (6,)), ("extra", (6,))):
        with pytest.raises(WeightsError, match=f"unexpected: {name}"):
            fit(with_head({name: shape}), WEIGHTS, unused=UNUSED, classifier=CLASSIFIER)
    second = {f"teacher.{weight.name}": weight.shape for weight in BODY}
    with pytest.raises(WeightsError, match=r"unexpected: (student|teacher)\.conv"):
        fit(with_head(second, prefix="student."), WEIGHTS, unused=UNUSED, classifier=CLASSIFIER)


def test_a_head_that_fits_is_not_worth_a_word():
    assert fit(made(), WEIGHTS, unused=UNUSED, classifier=CLASSIFIER).note == ""
