"""Translated networks on disk: translated once in another process, loaded without PyTorch, whole or not there."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from multitl.contracts import Job
from multitl.errors import BackboneError, BackendError, TranslationError, WeightsError
from multitl.models.weight_hashes import weights_sha256
from multitl.sources import pretrained
from multitl.system import children
from multitl.system.workers import read_error
from multitl.translation import parity, worker
from multitl.translation import store as translations
from multitl.translation.entries import entry_folder
from multitl.translation.store import translated

if importlib.util.find_spec("timm") is None:
    pytest.skip("needs timm", allow_module_level=True)
SMALL = Job("timm", "test_resnet.r160_in1k", "none", 0, "cut")  # timm's own network for tests: 0.5 million parameters


@pytest.fixture(scope="module")
def entry():
    return translated(SMALL)


@pytest.fixture(scope="module")
def good(entry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the entry's folder."""
    return Path(shutil.copytree(entry_folder(SMALL), tmp_path_factory.mktemp("entries") / "good"))


def without_a_process(job: Job, work: Path) -> None:
    """The worker's work here, without the ten seconds of its imports."""
    worker.main([json.dumps(asdict(job)), str(work)])
    if (work / "error.json").is_file():
        raise read_error(work / "error.json")


def test_card_says_what_was_translated_and_how_exact(entry):
    card = entry.card
    assert {"keras", "torch", "timm"} <= card.versions.keys()
    assert parity.is_close(entry.card.parity)
    assert len(card.weights_sha256) == 64
    assert card.weights_sha256 == weights_sha256(entry.translation.model)
    assert {weight.name for weight in card.weights} >= {"conv1.0.weight", "fc.weight", "bn1.running_mean"}


@pytest.mark.every_backend
def test_second_time_it_comes_from_the_disk(entry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(translations, "_make", lambda job, folder: pytest.fail("translated again"))
    again = translated(SMALL)
    images = parity.probe_images(entry.translation.model.input_shape[1:], count=2)
    before, after = (parity.run(one.translation.model, images) for one in (entry, again))
    assert np.array_equal(before, after)


def test_as_a_backbone(entry):
    loaded = pretrained.load_pretrained("timm/test_resnet.r160_in1k", "none")
    assert loaded.backbone.output_shape[1:3] == (5, 5)
    assert [stage.name for stage in loaded.stages] == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert loaded.parity == entry.card.parity
    assert not any(weight.name.startswith("fc.") for weight in loaded.weights)


def test_a_damaged_entry_is_made_anew(entry, good: Path, monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(
        translations, "_run_worker", lambda job, work: made.append(shutil.copytree(good, work, dirs_exist_ok=True))
    )
    (entry_folder(SMALL) / "model.keras").write_bytes(b"not a model")
    for _ in range(2):
        assert translated(SMALL).translation.model.count_params() == entry.translation.model.count_params()
    assert len(made) == 1


def test_two_at_once_do_no_harm(good: Path):
    """Both find a damaged entry; one makes it anew, and the other one does not take it for the damaged one."""
    job = replace(SMALL, image_size=64)
    entry_folder(job).mkdir(parents=True)
    (entry_folder(job) / "card.json").write_text("{")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: made_or_error(job, good), range(2)))
    assert sorted(both) == ["complete", "made complete"]
    assert [path.name for path in entry_folder(job).parent.glob(f".{entry_folder(job).name}*")] == []


def made_or_error(job: Job, good: Path) -> str:
    """What a process says that wants an entry, and copies it after a second if it has to make it."""
    code = f"""
import shutil, time
from multitl.contracts import Job
from multitl.translation import store
def make(job, work):
    time.sleep(1)
    shutil.copytree({str(good)!r}, work, dirs_exist_ok=True)
    print("made", end=" ")
store._run_worker = make
store.translated(Job{(job.source, job.name, job.weights, job.image_size, job.head)!r})
print("complete")"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    return done.stdout.strip() or done.stderr


def test_a_local_file_is_verified_and_kept_apart(entry, tmp_path: Path):
    torch = pytest.importorskip("torch")
    from multitl_torch.torchvision import import_timm

    module = import_timm().create_model("test_resnet", num_classes=7)
    torch.save({"state_dict_ema": module.state_dict()}, tmp_path / "seven.pth")
    job = replace(SMALL, weights=str(tmp_path / "seven.pth"), head="keep")
    kept = translated(job)
    assert entry_folder(job) != entry_folder(SMALL)
    assert kept.translation.model.output_shape == (None, 7)
    assert "state_dict_ema" in kept.card.weights_note
    images = parity.probe_images((160, 160, 3), count=2)
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert parity.compare(wanted, parity.run(kept.translation.model, images)).max_rel < 1e-4


@pytest.mark.parametrize(
    ("name", "weights", "error", "text"),
    [
        ("resnet5000", "none", BackboneError, "resnet50"),
        ("resnet50.no_such_tag", "none", BackboneError, "resnet50.a1_in1k"),
        ("test_resnet.r160_in1k", "default", WeightsError, "--weights"),
    ],
)
def test_faults_arrive_as_they_were_raised(name: str, weights: str, error: type, text: str, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # or it tries for a minute, and may succeed
    monkeypatch.setattr(translations, "_run_worker", without_a_process)
    with pytest.raises(error, match=text):
        pretrained.load_pretrained(f"timm/{name}", weights)


def test_nothing_is_left_of_a_failed_translation(tmp_path: Path):
    """Whose process has written its error down."""
    (tmp_path / "empty.pth").write_bytes(b"")
    job = replace(SMALL, weights=str(tmp_path / "empty.pth"))
    with pytest.raises(WeightsError):
        translated(job)
    assert not entry_folder(job).exists()
    assert list(entry_folder(job).parent.glob(f".{entry_folder(job).name}*")) == []


def test_a_worker_that_dies_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(children.sys, "executable", shutil.which("false"))
    with pytest.raises(TranslationError, match="ended early") as caught:
        translated(replace(SMALL, image_size=96))
    assert "exit code 1" in caught.value.received


def test_a_missing_package_is_said_with_its_pip_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda name, package=None: None if name == 'timm' else find(name, package)\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(BackendError, match=r"pip install 'multitl\[timm\]'"):
        translated(replace(SMALL, image_size=128))


def test_jobs_travel_as_json():
    assert Job(**json.loads(json.dumps(SMALL.__dict__))) == SMALL
