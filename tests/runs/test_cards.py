"""Cards are input that may be anyone's: what is read of one, what is refused, and that nothing of one ever runs."""

from __future__ import annotations

import ast
import copy
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import multitl
from multitl.cli import main as cli
from multitl.contracts import Export, Job
from multitl.errors import BackboneError, RunError
from multitl.porting.originals import original_tensors
from multitl.runs.cards import Card, Started, checked, is_port, read_card, read_metrics, read_started
from multitl.runs.folders import finished_result

BACKEND = keras.config.backend()
RECIPE = multitl.Recipe(
    image_size=32,
    head_epochs=2,
    weights="none",
    backbone="torchvision/shufflenet_v2_x0_5",
    unfreeze="none",
    head="linear",
)
CODE = "__import__('pathlib').Path('PWNED').touch()"
HOSTILE = (
    f"{CODE} #", f'"""\n{CODE}\n"""', f"'\n{CODE}\n'", f"']; {CODE}; ['", f"{{{CODE}}}", f"${{{CODE}}}", "{{ 7 * 7 }}",
    "<script>x</script>", "\\", "\x00", "a\nb", "\u202e", "../../x", "hf-hub:someone/something", "x" * 10**6, "",
    0, -1, 2**63, 1e308, True, None, [], {}, [[]], ["a", "a", "a"], [CODE] * 3, [{"name": CODE}], {CODE: CODE},
)  # fmt: skip
Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def run(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run, whose network came from torchvision: every key of a card is filled."""
    return multitl.finetune(photo_folder, output=tmp_path_factory.mktemp("runs") / "run", recipe=RECIPE).output


@pytest.fixture
def written(run: Path) -> dict[str, Any]:
    return json.loads((run / "card.json").read_text())


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Every place of a JSON value; of lists the first item alone."""
    yield here
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*here, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*here, 0))


def with_value(values: dict[str, Any], place: Place, new: Any) -> dict[str, Any]:
    """A copy with another value at a place."""
    changed = copy.deepcopy(values)
    *path, last = place
    here: Any = changed
    for step in path:
        here = here[step]
    here[last] = new
    return changed


def read(folder: Path, values: Any) -> Card | None:
    """A card of these values; None if it is refused in our own words."""
    (folder / "card.json").write_text(json.dumps(values))
    try:
        return read_card(folder)
    except RunError as error:
        assert str(folder / "card.json") in error.problem and error.received and error.fix
        return None


def test_every_key_that_is_written_is_read_and_checked(run: Path, written: dict[str, Any]):
    card = read_card(run)
    assert card.class_names == ("blue", "green", "red")
    assert card.preprocess.scale == tuple(written["backbone"]["preprocess"]["scale"])
    assert card.backbone.tensors[0].name == written["backbone"]["tensors"][0]["name"]
    assert card.recipe == RECIPE
    known = set(Card.__struct_fields__)
    assert written.keys() <= known, "a key of the card that no type describes"
    for name in ("backend", "backbone", "data", "features"):
        assert written[name].keys() <= set(getattr(card, name).__struct_fields__), name


def test_a_card_is_checked_before_it_is_written(written: dict[str, Any]):
    assert checked(written) == written
    with pytest.raises(ValueError, match="class_names"):
        checked(with_value(written, ("data", "class_names"), CODE))


def test_values_of_other_types_and_ranges_are_refused(tmp_path: Path, written: dict[str, Any]):
    refused: dict[Place, list[Any]] = {
        ("status",): ["running", 1, None],
        ("backend", "name"): ["numpy", "", None, 3],
        ("backbone", "name"): ["", "a\nb", "x" * 5000, None, ["torchvision/resnet18"]],
        ("backbone", "preprocess", "height"): [0, -1, 10**9, 32.5, "32"],
        ("backbone", "preprocess", "resize"): ["stretch", None],
        ("backbone", "preprocess", "scale"): [[1, 2], [1, 2, "3"], [1, 2, None], "abc"],
        ("backbone", "preprocess", "fill"): [[0, 0, 256]],
        ("backbone", "tensors", 0, "axes"): [[0, 1, 2, 2], [0], [0, 1, 2, 4], [-1, 0, 1, 2]],
        ("backbone", "tensors", 0, "shape"): [[1], [-64, -3, 3, 3], [2**70]],
        ("backbone", "file_sha256"): ["0" * 63, "g" * 64, "0" * 64 + "\n"],
        ("data", "class_names"): [CODE, "abc", ["a", "b", "b"], ["a", "b", 3], ["a", "b", ""], None, {"a": 1}],
        ("data", "counts"): [{"train": {"a": -1}}, {"other": {}}, []],
        ("recipe", "pooling"): ["median", 1],
        ("recipe", "max_unreadable"): [2, -1, "0.1"],
        ("seed",): [-1, "0", 0.5, True],
        ("head",): ["tail"],
        ("seconds",): [{"data": -1}, {"data": "long"}],
    }
    for place, values in refused.items():
        for value in values:
            assert read(tmp_path, with_value(written, place, value)) is None, (place, value)


def programs(card: Card, model: keras.Model) -> Iterator[str]:
    """Every program that multitl writes for a model of this card."""
    from multitl_jax.export import loader as of_flax
    from multitl_torch.templates import loader as of_torch

    export = Export(model, card.backbone.name, card.class_names, card.preprocess, "pixels", None, {})
    for source in ("torchvision", "timm"):
        yield of_torch(export, source, card.backbone.name.partition("/")[2], {"num_classes": len(card.class_names)})
    yield of_flax(export, 3)


def without_literals(program: str) -> str:
    """What a program does, whatever the values of the constants at its top."""
    tree = ast.parse(program)
    for node in tree.body:
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Attribute | ast.Call):
            ast.literal_eval(node.value)
            node.value = ast.Constant(0)
    return ast.dump(tree)


@pytest.mark.parametrize("each", [1, pytest.param(len(HOSTILE), marks=pytest.mark.slow)])
def test_hostile_values_in_every_field_change_no_program(
    each: int, run: Path, written: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In each place of the card in turn: refused, or the program is the same but for literals at its top.

    each: how many of the values a place is given, by turns.
    """
    monkeypatch.chdir(tmp_path)
    pixels = keras.Input((32, 32, 3), dtype="uint8")
    model = keras.Model(pixels, keras.layers.Flatten()(pixels))
    harmless = [without_literals(program) for program in programs(read_card(run), model)]
    accepted, values = 0, itertools.cycle(HOSTILE)
    for place in filter(None, places(written)):
        for value in itertools.islice(values, each):
            card = read(tmp_path, with_value(written, place, value))
            if card is None:
                continue
            accepted += 1
            assert [without_literals(program) for program in programs(card, model)] == harmless, (place, value)
    assert accepted > 20 * each, "the comparison of programs was hardly reached"
    assert not (tmp_path / "PWNED").exists()


def all_hostile(written: dict[str, Any], keep: tuple[str, ...]) -> dict[str, Any]:
    """A card with code in every text that may hold any, so that it is accepted. keep: first keys left as they are."""
    values = written
    for place in places(written):
        inside = place[:1] + place[1:2]
        if not place or inside[0] in ("status", "recipe", *keep) or place[-1] in ("name", "layer", "variable"):
            continue
        for text in (f'"""\n{CODE}\n"""', f"'{CODE}'"):
            try:
                changed = checked(with_value(values, place, text))
            except ValueError:
                continue
            values = dict(changed)
            break
    names = [f'{"abc"[number]}"""\n{CODE}\n"""' for number in range(3)]
    values = with_value(values, ("data", "class_names"), names)
    return with_value(values, ("backbone", "name"), f"torchvision/shufflenet_v2_x0_5:'''{CODE}'''")


@pytest.fixture
def hostile(run: Path, written: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose card holds code wherever a text may stand; the current folder is an empty one."""
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    values = all_hostile(written, keep=())
    (folder / "card.json").write_text(json.dumps(values))
    assert json.dumps(values).count("PWNED") > 8
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def assert_nothing_ran(tmp_path: Path) -> None:
    assert not list(tmp_path.rglob("PWNED")) and not Path("PWNED").exists()


@pytest.mark.every_backend
def test_code_in_a_card_is_not_run_by_predict_evaluate_and_resume(
    hostile: Path, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["predict", str(hostile), str(photo_folder)]) == 0
    assert cli.main(["evaluate", str(hostile), str(photo_folder)]) == 2  # other classes
    assert "PWNED" in capsys.readouterr().err
    recipe = ["--recipe", str(hostile / "recipe.toml")]
    assert cli.main(["finetune", str(photo_folder), "--out", str(hostile), *recipe, "--resume"]) in (0, 2)
    assert_nothing_ran(tmp_path)


@pytest.mark.every_backend
@pytest.mark.parametrize("to", [{"torch": "torch", "jax": "flax", "tensorflow": "keras"}[BACKEND]])
def test_code_in_a_card_is_not_run_by_port(hostile: Path, to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Written, and then opened by load.py, in processes of their own."""
    code = cli.main(["port", str(hostile), "--to", to, "--out", str(tmp_path / "port")])
    said = capsys.readouterr()
    assert code == 0, said.err
    if to != "keras":
        assert "PWNED" in (tmp_path / "port" / "load.py").read_text()
    assert_nothing_ran(tmp_path)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch writes state_dicts")
@pytest.mark.every_backend
@pytest.mark.parametrize("name", ["hf-hub:someone/something", "local-dir:/etc", "resnet18'''", "resnet18.no_such_tag"])
def test_a_state_dict_is_written_for_known_networks_alone(name: str):
    from multitl_torch.translator import open_class

    for source in ("timm", "torchvision"):
        with pytest.raises(BackboneError) as caught:
            open_class(Job(source, name, "none", 32, "keep"), 3)
        assert "multitl backbones" in caught.value.fix


def test_tensors_of_another_size_are_a_users_error(run: Path, written: dict[str, Any], tmp_path: Path):
    model = keras.models.load_model(run / "model.keras", compile=False)
    tensors = copy.deepcopy(written["backbone"]["tensors"])
    tensors[0] |= {"shape": [7], "split": [7], "axes": [0]}
    card = read(tmp_path, with_value(written, ("backbone", "tensors"), tensors))
    assert card is not None
    with pytest.raises(multitl.MultitlError):
        original_tensors(model, card)


def test_metrics_are_checked(run: Path, tmp_path: Path):
    values = json.loads((run / "metrics.json").read_text())
    assert json.loads(json.dumps(read_metrics(run))) == values
    for place, value in [
        (("test", "accuracy"), 1.5), (("test", "accuracy"), "high"), (("test", "confusion_matrix"), [[1]]),
        (("test", "confusion_matrix", 0), [-1, 0, 0]), (("validation",), None), (("test", "per_class"), []),
        (("test", "count"), 10**6),
    ]:  # fmt: skip
        (tmp_path / "metrics.json").write_text(json.dumps(with_value(values, place, value)))
        with pytest.raises(RunError, match=r"metrics\.json"):
            read_metrics(tmp_path)


STARTED = {"backend": "jax", "fingerprint": "a" * 64, "weights_sha256": "c" * 64}


def test_what_a_run_was_started_with_is_read_as_it_was_written(tmp_path: Path):
    assert read_started(tmp_path) is None  # it was killed before that
    (tmp_path / "run.json").write_text(json.dumps(checked(STARTED, Started)))
    assert read_started(tmp_path) == Started(**STARTED)
    (tmp_path / "run.json").write_text('{"backend": "torch", "fingerprint": ""}')  # by multitl 0.1, of a network
    assert read_started(tmp_path) == Started(backend="torch", fingerprint="")
    (tmp_path / "run.json").unlink()
    (tmp_path / "card.json").write_text("{}")  # it was not killed: the file is lost
    with pytest.raises(RunError, match=r"Cannot read .*run\.json(.|\n)*--overwrite"):
        read_started(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "numpy"}, {"backend": None}, {"backend": ["jax"]}, {"fingerprint": None}, {"fingerprint": "a" * 65},
        {"fingerprint": CODE}, {"weights_sha256": ""}, {"weights_sha256": "c" * 63}, {"weights_sha256": 1},
    ],
)  # fmt: skip
def test_other_values_in_run_json_are_refused(tmp_path: Path, change: dict[str, Any]):
    (tmp_path / "run.json").write_text(json.dumps(STARTED | change))
    with pytest.raises(RunError, match=r"run\.json"):
        read_started(tmp_path)
    with pytest.raises(ValueError, match=next(iter(change))):
        checked(STARTED | change, Started)


def test_an_artefact_is_no_run_and_says_so(tmp_path: Path):
    (tmp_path / "card.json").write_text('{"port": {"to": "onnx"}}')
    with pytest.raises(RunError, match=r"artefact(.|\n)*name the run"):
        read_card(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 10**6, '{"a":' * 10**5, "\xff", '{"seed": 1e999}'])
def test_damaged_cards_are_refused(run: Path, text: str, tmp_path: Path):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "card.json").write_bytes(text.encode("latin-1"))
    for reader in (read_card, finished_result):
        with pytest.raises(RunError):
            reader(folder)
    assert not is_port(folder)


def test_a_name_that_cannot_be_printed_stands_in_the_card_as_a_line(tmp_path: Path):
    from multitl.runs.cards import as_line

    assert as_line("file:a\nb\udcff\u202e猫.h5") == "file:a?b??猫.h5"
    assert np.array_equal([as_line("torchvision/resnet18")], ["torchvision/resnet18"])
