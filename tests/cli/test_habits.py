"""Words of other programs get the hint that is meant."""

from __future__ import annotations

import pytest

import multitl
from multitl.cli.commands import COMMANDS
from multitl.cli.habits import COMMANDS_MEANT
from multitl.cli.main import main
from multitl.errors import RecipeError
from multitl.recipes import MEANT, Recipe


def said_of(typed: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(typed.split())
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("train", "finetune"), ("tune", "finetune"), ("export", "port"), ("convert", "port"), ("classify", "predict"),
        ("test", "evaluate"), ("eval", "evaluate"), ("Train", "finetune"), ("evalute", "evaluate"),
    ],
)  # fmt: skip
def test_commands(word: str, meant: str, capsys: pytest.CaptureFixture[str]):
    assert said_of(f"{word} x", capsys) == f"multitl: error: unknown command {word!r}; did you mean {meant}?"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("finetune x --lr 0.1", "--lr; did you mean --learning-rate or --head-learning-rate?"),
        ("finetune x --batch 8", "--batch; did you mean --batch-size?"),
        ("finetune x -b 8", "-b; did you mean --batch-size, --backbone or --backend?"),
        ("finetune x --epochs 8", "--epochs; did you mean --steps? steps = epochs * training images / batch_size"),
        ("finetune x --model resnet50", "--model; did you mean --backbone?"),
        ("finetune x --output-dir y", "--output-dir; did you mean --out?"),
        ("predict x y -b 8", "-b; did you mean --backend?"),
        ("predict x y --batch 8", "unknown argument --batch"),
        ("port x --to onnx -o y", "-o; did you mean --out?"),
    ],
)
def test_options(typed: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert said in said_of(typed, capsys)


@pytest.mark.parametrize("typed", ["finetune x --device cuda", "predict x y --device=cuda:1", "finetune x --gpu 0"])
def test_the_device_is_the_backends(typed: str, capsys: pytest.CaptureFixture[str]):
    said = said_of(typed, capsys)
    assert "CUDA_VISIBLE_DEVICES=-1" in said and "did you mean" not in said


def test_so_it_is_in_python():
    with pytest.raises(RecipeError) as caught:
        multitl.finetune("x", lr=0.1)  # type: ignore[call-arg]
    assert caught.value.nearest == ("learning_rate", "head_learning_rate")


def test_what_is_meant_exists():
    assert set(COMMANDS_MEANT.values()) <= COMMANDS.keys() and not COMMANDS_MEANT.keys() & COMMANDS.keys()
    names = set(Recipe.__dataclass_fields__)
    assert {name for meant in MEANT.values() for name in meant} <= names and not MEANT.keys() & names
