"""The command line against faked runs: what it asks for, what it prints where, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from quick_runs import BACKBONE

import multitl
from multitl.cli import main as cli
from multitl.cli.flags import NAMED_FLAGS
from multitl.contracts import Result
from multitl.errors import DataError
from multitl.recipes import Recipe

METRICS = {
    "count": 80,
    "accuracy": 0.95,
    "accuracy_ci": [0.9, 0.9875],
    "f1_macro": 0.9481,
    "f1_macro_ci": [0.89, 0.98],
    "f1_weighted": 0.949,
    "f1_weighted_ci": [0.88, 0.99],
    "top5_accuracy": 1.0,
    "ece": 0.03,
    "ece_ci": [0.02, 0.05],
    "log_loss": 0.2,
    "kappa": 0.91,
    "per_class": [
        {
            "class": "[red]shoes",
            "precision": 0.9,
            "recall": 0.8,
            "specificity": 0.99,
            "f1": 0.85,
            "roc_auc": None,
            "average_precision": 0.97,
            "support": 20,
        },
    ],
    "confusion_matrix": [[20]],
}
PREDICTIONS = [
    {"path": "a.png", "predicted": "cat", "confidence": 0.7, "probabilities": {"dog": 0.2, "cat": 0.7, "cow": 0.1}},
    {"path": "b.png", "error": "truncated"},
]


class Calls(list):
    """What a faked function was called with, as (args, kwargs)."""


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    calls, run = Calls(), tmp_path / "run"

    def fake(*args, **kwargs):
        calls.append((args, kwargs))
        run.mkdir(exist_ok=True)
        (run / "recipe.toml").write_text(kwargs["recipe"].to_toml())
        metrics = {"test": METRICS, "validation": None}
        return Result(run, metrics, ("cat", "dog"), run / "model.keras", run / "report.html")

    monkeypatch.setattr(multitl, "finetune", fake)
    return calls


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(multitl, "predict", lambda *args, **kwargs: calls.append((args, kwargs)) or PREDICTIONS)
    return calls


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(multitl, "evaluate", lambda *args, **kwargs: calls.append((args, kwargs)) or METRICS)
    return calls


AS_TRAINED = {"images": "", "path_column": "", "label_column": "", "costs": "", "max_unreadable": None}


def raising(error: BaseException):
    def function(*args, **kwargs):
        raise error

    return function


def other_value(field: dataclasses.Field):
    """A valid value of a recipe option that is not its default."""
    limits, default = field.metadata, field.default
    if limits["choices"]:
        return limits["choices"][-1] if limits["choices"][-1] != default else limits["choices"][0]
    if type(default) is bool:
        return not default
    if field.name in OF_A_FORM:
        return OF_A_FORM[field.name]
    return {int: 7, float: 0.25, str: "some/text"}[type(default)]


OF_A_FORM = {
    "budget": "90s", "range": "0,4095", "channels": "4,3,2", "class_weights": "cat=2,dog=1", "loss": "focal:3",
    "costs": "true,predicted,cost\ncat,dog,1\n",
    "relabel": "path,issue,verdict,sha256\na.png,label,dog,sha256:0123456789abcdef\n",
}  # fmt: skip
NEEDED = {"adapt": {"unlabelled": "new", "unfreeze": "none"}}  # beside it


def test_finetune_passes_its_options_on(finetune: Calls):
    arguments = ["finetune", "photos", "--backend", "jax", "--out", "here", "--overwrite", "--backbone", "keras/VGG16"]
    assert cli.main([*arguments, "--log-to", "mlflow"]) == 0
    recipe = Recipe(backbone="keras/VGG16")
    wanted = {"backend": "jax", "output": "here", "recipe": recipe, "overwrite": True, "resume": False}
    wanted["log_to"] = "mlflow"
    assert finetune == [(("photos",), wanted)]


@pytest.mark.parametrize("field", dataclasses.fields(Recipe), ids=lambda field: field.name)
def test_every_recipe_option_is_a_flag(finetune: Calls, field: dataclasses.Field, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("multitl.cli.terminal.print_memory", lambda folder: None)  # it reads a run that went on
    flag, value = NAMED_FLAGS.get(field.name, "--" + field.name.replace("_", "-")), other_value(field)
    given = [flag if value else flag.replace("--", "--no-", 1)] if isinstance(value, bool) else [flag, str(value)]
    needed = NEEDED.get(field.name, {})
    beside = [word for name, text in needed.items() for word in (f"--{name}", text)]
    assert cli.main(["finetune", "photos", *given, *beside]) == 0
    assert finetune[0][1]["recipe"] == Recipe(**{field.name: value} | needed)


def test_flags_win_over_the_recipe_file_and_the_file_over_defaults(finetune: Calls, tmp_path: Path):
    (tmp_path / "mine.toml").write_text('seed = 3\nhidden = 64\npooling = "max"\n')
    assert cli.main(["finetune", "photos", "--recipe", str(tmp_path / "mine.toml"), "--hidden", "0"]) == 0
    assert finetune[0][1]["recipe"] == Recipe(seed=3, hidden=0, pooling="max")


def test_a_bad_value_in_the_file_does_not_matter_where_a_flag_replaces_it(finetune: Calls, tmp_path: Path):
    (tmp_path / "mine.toml").write_text("hidden = -5\n")
    assert cli.main(["finetune", "photos", "--recipe", str(tmp_path / "mine.toml")]) == 2
    assert cli.main(["finetune", "photos", "--recipe", str(tmp_path / "mine.toml"), "--hidden", "8"]) == 0


def test_help_states_meaning_default_and_range_of_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["finetune", "--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert ended.value.code == 0
    for field in dataclasses.fields(Recipe):
        default = f"default: {field.default})" if field.default != "" else ""  # what is by itself, the help says
        assert field.metadata["help"] in text and default in text
    assert "(0 to 0.95, default: 0.0)" in text
    assert "{adam,adamw,sgd}" in text


def test_summary_gives_figures_files_and_next_steps(finetune: Calls, capsys, tmp_path: Path):
    assert cli.main(["finetune", "my photos", "--unfreeze", "none"]) == 0
    out, err = capsys.readouterr()
    assert "0.950 [0.900, 0.988]" in out and "0.948 [0.890, 0.980]" in out
    assert str(tmp_path / "run" / "report.html") in out and str(tmp_path / "run" / "model.keras") in out
    assert "multitl finetune 'my photos' --recipe" in out and "--unfreeze auto" in out
    assert err == ""


def test_summary_does_not_advise_what_was_done(finetune: Calls, capsys):
    assert cli.main(["finetune", "photos"]) == 0
    assert "--unfreeze" not in capsys.readouterr().out


def test_next_steps_call_a_program_that_is_not_on_path_by_its_path(finetune: Calls, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [".venv/bin/multitl", "finetune", "photos"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(None) == 0
    assert ".venv/bin/multitl predict" in capsys.readouterr().out


def test_next_step_is_a_command_that_parses(finetune: Calls, capsys):
    cli.main(["finetune", "it's photos", "--backend", "jax", "--unfreeze", "none"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    command = shlex.split(next(line for line in lines if line.startswith("multitl finetune")))
    assert cli.main(command[1:]) == 0
    assert finetune[1][0] == ("it's photos",) and finetune[1][1]["backend"] == "jax"
    assert finetune[1][1]["recipe"] == Recipe()


def test_evaluate_prints_overall_and_per_class(evaluate: Calls, capsys):
    assert cli.main(["evaluate", "run", "photos", "--split", "validation", "--backend", "jax"]) == 0
    out = capsys.readouterr().out
    assert evaluate == [(("run", "photos"), {"backend": "jax", "split": "validation", **AS_TRAINED})]
    assert re.search(r"accuracy +0\.950 +\[0\.900, 0\.988\]", out)
    assert re.search(r"Cohen's kappa +0\.910", out)
    assert re.search(r"\[red\]shoes +0\.900 +0\.800 +0\.990 +0\.850 +0\.970 +20", out)


@pytest.mark.parametrize(("count", "said"), [(1, "1 image; in brackets"), (2, "2 images; in brackets")])
def test_one_image_is_not_several(monkeypatch: pytest.MonkeyPatch, capsys, count: int, said: str):
    monkeypatch.setattr(multitl, "evaluate", lambda *args, **kwargs: METRICS | {"count": count})
    assert cli.main(["evaluate", "run", "photos"]) == 0
    assert capsys.readouterr().out.startswith(said)


def test_evaluate_json_is_all_that_stdout_holds(evaluate: Calls, capsys):
    assert cli.main(["evaluate", "run", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == METRICS
    assert evaluate == [(("run", "photos"), {"backend": None, "split": "test", **AS_TRAINED})]


def test_predict_prints_a_line_an_image_and_marks_the_unreadable(predict: Calls, capsys):
    assert cli.main(["predict", "run", "a.png", "b.png", "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert predict == [(("run", ["a.png", "b.png"]), {"backend": None, "costs": ""})]
    assert re.search(r"a\.png +cat +0\.700 +dog 0\.200\s", out)
    assert re.search(r"b\.png +unreadable: truncated", out)
    assert "cow" not in out
    cli.main(["predict", "run", "a.png", "b.png"])
    assert "then" not in capsys.readouterr().out


def test_predict_json_ranks_the_classes(predict: Calls, capsys):
    assert cli.main(["predict", "run", "a.png", "b.png", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert list(first["probabilities"].items()) == [("cat", 0.7), ("dog", 0.2), ("cow", 0.1)]
    assert second == PREDICTIONS[1]
    cli.main(["predict", "run", "a.png", "b.png", "--json", "--top", "1"])
    assert json.loads(capsys.readouterr().out)[0]["probabilities"] == {"cat": 0.7}


def test_predict_ranks_the_classes_of_each_head(monkeypatch: pytest.MonkeyPatch, capsys):
    said = {"predicted": "cat", "confidence": 0.7, "probabilities": {"cow": 0.3, "cat": 0.7}}
    monkeypatch.setattr(
        multitl, "predict", lambda *args, **kwargs: [{"path": "a.png", "kind": said, "size": {"value": 2.0}}]
    )
    assert cli.main(["predict", "run", "a.png", "--json", "--top", "1"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["kind"]["probabilities"] == {"cat": 0.7} and row["size"] == {"value": 2.0}


@pytest.mark.parametrize("top", ["0", "-1", "two"])
def test_predict_top_must_be_positive(predict: Calls, capsys, top: str):
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", "run", "a.png", "--top", top])
    assert ended.value.code == 2 and "--top" in capsys.readouterr().err


def test_file_name_that_is_no_text_prints(monkeypatch, capsys):
    monkeypatch.setattr(multitl, "predict", lambda *args, **kwargs: [PREDICTIONS[0] | {"path": "bad-\udcff.png"}])
    assert cli.main(["predict", "run", "x"]) == 0
    assert r"bad-\xff.png" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", ["resnet50", "keras/ResNet50*", "*/RESNET*"])
def test_backbones_match_by_part_or_glob(capsys, pattern: str):
    assert cli.main(["backbones", pattern, "--json"]) == 0
    names = [info["name"] for info in json.loads(capsys.readouterr().out)]
    assert "keras/ResNet50" in names and "keras/VGG16" not in names


def test_backbones_table_lists_all_sources(capsys):
    assert cli.main(["backbones"]) == 0
    out = capsys.readouterr().out
    assert "keras/MobileNet " in out and "pypi/efficientnet_lite0" in out and "224 px" in out
    assert "torchvision/resnet50" in out
    assert re.search(r"timm +1,\d{3} more: multitl backbones timm/", out)  # its list alone would fill 20 screens
    assert len(out.splitlines()) < 200


def test_backbones_without_a_match_names_the_nearest(capsys):
    assert cli.main(["backbones", "keras/ResNet5O"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "keras/ResNet50" in err


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["finetune", "x", "--stepps", "3"], "--steps"),
        (["finetune", "x", "--batchsize=3"], "--batch-size"),
        (["predict", "run", "a.png", "--jsn"], "--json"),
        (["--verison"], "--version"),
    ],
)
def test_unknown_flag_names_the_nearest(capsys, arguments: list[str], suggestion: str):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert f"did you mean {suggestion}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "finetune",
        "finetune x y",
        "finetun",
        "finetune x --seed one",
        "evaluate x",
        "finetune x --head-epoch 3",
        "predict x",
    ],
)
def test_bad_usage_exits_with_2(capsys, command: str):
    with pytest.raises(SystemExit) as ended:
        cli.main(command.split())
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and "error:" in err


def test_no_command_prints_help(capsys):
    assert cli.main([]) == 0
    assert "finetune" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"multitl {multitl.__version__}\n")


def test_error_of_ours_is_a_message_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(multitl, "finetune", raising(DataError("No images.", fix="add some")))
    assert cli.main(["finetune", "x"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "multitl: No images.\n  to mend: add some\n")


@pytest.mark.parametrize("option", [["--optimizer", "adm"], ["--dropout", "2"], ["--recipe", "no/such.toml"]])
def test_bad_option_value_is_a_message_and_exit_code_2(capsys, option: list[str]):
    assert cli.main(["finetune", "x", *option]) == 2
    assert "to mend:" in capsys.readouterr().err


def test_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(multitl, "finetune", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["finetune", "x"])


def test_interrupted_training_says_how_to_resume(monkeypatch, capsys):
    monkeypatch.setattr(multitl, "finetune", raising(KeyboardInterrupt()))
    assert cli.main(["finetune", "my photos", "--overwrite", "--seed", "3"]) == 130
    err = capsys.readouterr().err
    assert err.endswith("to go on: multitl finetune 'my photos' --seed 3 --resume\n") and err.count("\n") == 1


def test_interrupted_prediction_just_ends(monkeypatch, capsys):
    monkeypatch.setattr(multitl, "predict", raising(KeyboardInterrupt()))
    assert cli.main(["predict", "run", "x"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    code = """
import sys, multitl, multitl.cli.main
multitl.evaluate = lambda *args, **kwargs: {}
sys.exit(multitl.cli.main.main(["evaluate", "run", "data", "--json"]))
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.PIPE_CLOSED, "")


def test_module_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "multitl", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, "multitl")


@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_a_run_loads_no_framework_but_its_own(photo_folder, tmp_path, backend):
    """Also where the others are installed, as here."""
    code = """
        import sys
        from multitl.cli.main import main
        code = main()
        print("loaded:", sorted({"jax", "tensorflow", "torch"} & set(sys.modules)))
        sys.exit(code)
    """
    options = f"--backbone {BACKBONE} --image-size 32 --head-epochs 1 --steps 3 --learning-rate 1e-3 --backend"
    command = [sys.executable, "-c", textwrap.dedent(code), "finetune", str(photo_folder), *options.split(), backend]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"loaded: ['{backend}']"


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", ">&- 2>&-", ">/dev/null 2>/dev/full"])
def test_output_that_nobody_takes_is_no_crash(redirection: str):
    command = f"{shlex.quote(sys.executable)} -m multitl backbones resnet {redirection}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == (2 if redirection == ">/dev/full" else 0)
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert ("no room left" in done.stderr) == (redirection == ">/dev/full")


def test_letters_that_the_terminal_does_not_have_are_escaped():
    code = """
import sys, multitl, multitl.cli.main
row = {"path": "猫.png", "predicted": "猫", "confidence": 1.0, "probabilities": {}}
multitl.predict = lambda *args, **kwargs: [row]
sys.exit(multitl.cli.main.main(["predict", "run", "images"]))
"""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and r"\u732b.png" in done.stdout
