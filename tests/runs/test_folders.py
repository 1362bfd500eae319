"""The run folder: whose it is, what is never removed, and that no file is ever half written."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from multitl.errors import RunError
from multitl.recipes import Recipe
from multitl.runs.folders import RUN_FILES, beside, check_folder, finished_result, start_run
from multitl.runs.promises import FILES, HEADS, REPORT
from multitl.system.cache import cache_folder
from multitl.system.writing import atomic_write, read_json, write_json, write_text
from multitl.training.checkpoints import CHECKPOINT, PREVIOUS

RECIPE = Recipe()


DATA, WEIGHTS = "a" * 64, "c" * 64  # fingerprints


def claim(
    folder: Path, recipe: Recipe = RECIPE, backend: str = "jax", *, overwrite: bool = False, resume: bool = False
) -> bool:
    """Ask, and start unless the run is complete, as `finetune` does."""
    is_complete = check_folder(folder, recipe, backend, overwrite=overwrite, resume=resume)
    if not is_complete:
        start_run(folder, recipe, backend, DATA, WEIGHTS, resume=resume)
    return is_complete


def left_by_a_killed_process(folder: Path, name: str) -> None:
    """What `atomic_write` has made of a file when SIGKILL comes."""
    (folder / ".multitl-abcdefgh").mkdir(parents=True)
    (folder / ".multitl-abcdefgh" / name).write_text("half")


def test_results_go_beside_a_folder_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "tensorboard").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    assert beside("runs/x/", "onnx") == Path("runs/x-onnx")
    assert beside(".", "review") == beside("tensorboard/..", "review").resolve() == tmp_path / "run-review"
    assert beside(tmp_path / "run", "explained") == tmp_path / "run-explained"
    (tmp_path / "run" / HEADS).touch()
    assert beside(tmp_path / "run" / "heads" / "width", "onnx") == tmp_path / "run-width-onnx"
    assert beside("heads/width", "onnx") == tmp_path / "run-width-onnx"


def test_of_the_heads_only_what_is_theirs_goes(tmp_path: Path) -> None:
    claim(tmp_path)
    for name in ("width", "width-review"):
        (tmp_path / "heads" / name).mkdir(parents=True)
        (tmp_path / "heads" / name / "issues.csv").touch()
    (tmp_path / "heads" / "width.csv").touch()
    (tmp_path / HEADS).touch()
    claim(tmp_path, overwrite=True)
    assert [path.name for path in (tmp_path / "heads").iterdir()] == ["width-review"]
    assert (tmp_path / "heads" / "width-review" / "issues.csv").is_file()


def test_new_and_empty_folders_are_claimed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/deep"):
        assert claim(tmp_path / name) is False
        assert Recipe.read(tmp_path / name / "recipe.toml") == RECIPE
        started = {"backend": "jax", "fingerprint": DATA, "weights_sha256": WEIGHTS}
        found = json.loads((tmp_path / name / "run.json").read_text())
        assert {key: found[key] for key in started} == started and found["recipe"]["backbone"] == RECIPE.backbone


def test_an_existing_run_needs_permission(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    with pytest.raises(RunError, match=r"exists already(.|\n)*--resume(.|\n)*--overwrite"):
        claim(tmp_path / "run")


@pytest.mark.parametrize("permission", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_of_the_users_own_is_never_touched(tmp_path: Path, permission: dict[str, bool]) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(RunError, match="not a run of multitl"):
        claim(tmp_path, **permission)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RunError, match="a file"):
        claim(tmp_path / "out", overwrite=True)


def test_overwrite_removes_the_runs_files_and_no_others(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    (tmp_path / "run" / "tensorboard").mkdir()
    for name in ("card.json", "model.keras", "tensorboard/events", "my-notes.md"):
        (tmp_path / "run" / name).write_text("x")
    assert claim(tmp_path / "run", Recipe(seed=1), overwrite=True) is False
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.toml", "run.json", "my-notes.md"}
    assert Recipe.read(tmp_path / "run" / "recipe.toml").seed == 1


def test_resume_starts_what_never_began(tmp_path: Path) -> None:
    assert claim(tmp_path / "run", resume=True) is False
    assert (tmp_path / "run" / "recipe.toml").is_file()


def test_resume_is_complete_only_with_a_card(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    assert claim(tmp_path / "run", resume=True) is False
    (tmp_path / "run" / "card.json").write_text("{}")
    assert claim(tmp_path / "run", resume=True) is True


def test_a_run_with_a_card_that_lost_what_it_was_started_with_is_not_cleared(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    (tmp_path / "run" / "card.json").write_text("{}")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(RunError, match=r"Cannot read .*run\.json(.|\n)*--overwrite"):
        claim(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "card.json").exists()


def test_resume_with_other_options_names_them(tmp_path: Path) -> None:
    claim(tmp_path / "run", Recipe(head_epochs=5))
    with pytest.raises(RunError) as caught:
        claim(tmp_path / "run", Recipe(head_epochs=6), "torch", resume=True)
    message = str(caught.value)
    assert "head_epochs = 5" in message and "head_epochs = 6" in message and "backend = 'jax'" in message


def test_an_edited_recipe_is_not_the_runs_own(tmp_path: Path) -> None:
    """Whoever resumes by it means the run as it was begun, or another run."""
    claim(tmp_path / "run", Recipe(l2=0.5, label_column="a,b"))
    assert not claim(tmp_path / "run", Recipe.read(tmp_path / "run" / "recipe.toml"), resume=True)
    edited = (tmp_path / "run" / "recipe.toml").read_text().replace("l2 = 0.5", "l2 = 100.0")
    (tmp_path / "run" / "recipe.toml").write_text(edited)
    with pytest.raises(RunError, match=r"l2 = 0.5(.|\n)*l2 = 100.0(.|\n)*put .*recipe\.toml back"):
        claim(tmp_path / "run", Recipe.read(tmp_path / "run" / "recipe.toml"), resume=True)
    with pytest.raises(RunError, match="was started with other options"):
        claim(tmp_path / "run", Recipe(l2=0.5, label_column="a,b"), resume=True)
    assert claim(tmp_path / "run", Recipe(l2=100.0), overwrite=True) is False


def test_overwrite_and_resume_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="exclude each other"):
        claim(tmp_path / "run", overwrite=True, resume=True)


def test_killed_before_run_json_can_be_resumed(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    left_by_a_killed_process(tmp_path / "run", "run.json")
    assert claim(tmp_path / "run", resume=True) is False
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.toml", "run.json"}


def test_killed_before_anything_was_renamed_can_be_started_again(tmp_path: Path) -> None:
    left_by_a_killed_process(tmp_path / "run", "recipe.toml")
    assert claim(tmp_path / "run") is False


def test_changed_data_is_refused(tmp_path: Path) -> None:
    start_run(tmp_path, RECIPE, "jax", DATA, WEIGHTS, resume=False)
    start_run(tmp_path, RECIPE, "jax", DATA, WEIGHTS, resume=True)
    with pytest.raises(RunError, match="data changed"):
        start_run(tmp_path, RECIPE, "jax", "b" * 64, WEIGHTS, resume=True)
    with pytest.raises(RunError, match="backbone's weights changed"):
        start_run(tmp_path, RECIPE, "jax", DATA, "d" * 64, resume=True)


def test_asking_changes_nothing(tmp_path: Path) -> None:
    """Between asking and starting the input may turn out wrong; the old run must still be there then."""
    claim(tmp_path / "run")
    (tmp_path / "run" / "model.keras").write_text("weeks of work")
    assert check_folder(tmp_path / "run", Recipe(seed=2), "torch", overwrite=True, resume=False) is False
    assert check_folder(tmp_path / "new", RECIPE, "jax", overwrite=False, resume=False) is False
    assert (tmp_path / "run" / "model.keras").read_text() == "weeks of work"
    assert not (tmp_path / "new").exists()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "file.txt") as path:
        path.write_text("half of the new")
        raise ZeroDivisionError
    assert (tmp_path / "file.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "x")
    (tmp_path / "plain.txt").write_text("x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file.txt", "plain.txt")}
    assert len(modes) == 1


def test_nan_is_not_a_figure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"accuracy": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [None, "{half"])
def test_missing_or_damaged_json_says_what_to_do(tmp_path: Path, text: str | None) -> None:
    if text:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises(RunError, match="to mend: do this"):
        read_json(tmp_path / "card.json", missing="do this")


@pytest.mark.parametrize("folder", ["/proc/nowhere/run", "{file}/run", "/tmp/" + 300 * "long"])
def test_a_place_that_cannot_be_written(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"Cannot write(.|\n)*--out"):
        claim(Path(folder.format(file=tmp_path / "file")))


def test_a_cache_that_cannot_be_written_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITL_CACHE", "/proc/nowhere")
    with pytest.raises(RunError, match="MULTITL_CACHE"):
        write_text(cache_folder() / "features" / "shard", "x")


def test_hidden_files_of_the_users_are_not_taken_for_leftovers(tmp_path: Path) -> None:
    (tmp_path / ".report-for-my-boss.docx").write_text("x")
    claim(tmp_path)
    assert (tmp_path / ".report-for-my-boss.docx").exists()


def test_a_full_disk_is_an_error_of_ours(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow past a limit, as it does on a full disk; the old file stays."""
    code = f"""
        import resource
        from multitl.system.writing import write_text
        write_text({str(tmp_path / "file")!r}, "old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        write_text({str(tmp_path / "file")!r}, "x" * (1 << 20))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert "multitl.errors.RunError: Cannot write" in done.stderr and "--resume" in done.stderr
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_clearing_that_fails_half_way_leaves_a_run(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")  # rmtree refuses links
    with pytest.raises(RunError, match="Cannot write"):
        claim(tmp_path / "run", overwrite=True)
    (tmp_path / "run" / "tensorboard").unlink()
    assert claim(tmp_path / "run", overwrite=True) is False


@pytest.mark.parametrize("content", ["[]", "1", "{}", '{"backend": "jax"}'])
def test_damaged_json_of_the_right_syntax(tmp_path: Path, content: str) -> None:
    claim(tmp_path)
    for name in ("run.json", "card.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=r"run\.json"):
        claim(tmp_path, resume=True)
    with pytest.raises(RunError, match=r"card\.json"):
        finished_result(tmp_path)


def test_whatever_a_run_leaves_goes_with_it() -> None:
    assert {*FILES, REPORT, "card.json", CHECKPOINT, PREVIOUS} <= {*RUN_FILES}
