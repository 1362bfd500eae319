"""What cannot be raced is refused before anything starts, with the nearest name and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multitl.bench.options import Options
from multitl.cli.main import main, parse
from multitl.errors import MultitlError


@pytest.mark.parametrize(
    ("values", "problem", "nearest"),
    [
        ({"contenders": ("jaxx",)}, "Unknown contender 'jaxx'.", ("jax",)),
        ({"contenders": ("",)}, "Unknown contender ''.", ()),
        ({"tasks": ("fine",)}, "Unknown task 'fine'.", ("finetune",)),
        ({"dtypes": ("float16",)}, "Unknown dtype 'float16'.", ("bfloat16", "float32")),
        ({"backbones": ("torchvision/resnet5",)}, "Unknown backbone 'torchvision/resnet5'.", None),
        ({"backbones": ("resnet50",)}, "Unknown backbone 'resnet50'.", None),
        ({"budget": 5.0}, "A budget of 5 seconds is too small.", ()),
        ({"contenders": ("tf-data",)}, "tf-data reads image files, and no task does.", ()),
        ({"contenders": ("jax", "multitl")}, "multitl reads image files, and no task does.", ()),
        (
            {"contenders": ("multitl",), "tasks": ("head", "input"), "data": "photos"},
            "No contender is for the task head.",
            (),
        ),
        ({"tasks": ("input",)}, "The task input reads image files, and none were named.", ()),
    ],
)
def test_bad_options(values: dict[str, Any], problem: str, nearest: tuple[str, ...] | None):
    with pytest.raises(MultitlError) as caught:
        Options(**values)
    assert caught.value.problem == problem
    assert caught.value.fix
    if nearest is not None:
        assert caught.value.nearest == nearest
    else:
        assert "torchvision/resnet50" in caught.value.nearest


def test_a_file_is_a_backbone_too(tmp_path: Path):
    file = tmp_path / "my flowers.keras"
    file.touch()
    assert Options(backbones=(f"file:{file}",)).cells()[0].backbone == f"file:{file}"


def test_contenders_of_a_contest_follow_one_another():
    cells = Options(contenders=("jax", "torch"), tasks=("head", "finetune"), batch_sizes=(4, 8)).cells()
    assert [cell.contender for cell in cells] == ["jax", "torch"] * 4
    assert [cell.contest for cell in cells[::2]] == [cell.contest for cell in cells[1::2]]
    assert len({cell.contest for cell in cells}) == 4


def test_input_has_contenders_of_its_own():
    cells = Options(tasks=("input",), data="photos").cells()
    assert [cell.contender for cell in cells] == ["multitl", "torch-dataloader", "tf-data", "keras-directory"]
    cells = Options(contenders=("jax", "tf-data"), tasks=("head", "input"), data="photos").cells()
    assert [(cell.task, cell.contender) for cell in cells] == [("head", "jax"), ("input", "tf-data")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backends", "jaxx"], "nearest: jax"),
        (["--budget", "3"], "A budget of 3 seconds is too small."),
        (["--budget", "nan"], "The option budget cannot be nan."),
        (["compare", "nowhere", "nowhere"], "nowhere holds no results of multitl bench."),
    ],
)
def test_the_command_line_says_so_and_exits_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "0"], "--batch-size: '0' is not a whole number above 0"),
        (["--threads", "x"], "'x' is not a whole number"),
        (["--bakends", "jax"], "unknown argument --bakends; did you mean --backends?"),
        (["--backends", "jax", "torch"], "unexpected 'torch'; options take several values as A,B"),
        (["compare", "a"], "compare takes two results: multitl bench compare A B"),
    ],
)
def test_malformed_flags_are_usage_errors(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "usage: multitl bench [compare A B] [options]" in error
    assert said in error


@pytest.mark.parametrize("flags", [["--backbone", "a,b"], ["--backbone", "a", "--backbone", "b"]])
def test_several_backbones(flags: list[str]):
    assert parse(["bench", *flags]).backbone == ["a", "b"]
