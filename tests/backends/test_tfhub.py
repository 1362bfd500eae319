"""Source `tfhub`: modules in folders and archives as backbones and classifiers, on every backend."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import saved_models  # noqa: E402
from multitl_tensorflow import graphdef, tfhub  # noqa: E402
from multitl_tensorflow.keras_exports import NOT_KERAS  # noqa: E402
from multitl_tensorflow.saved_models import read_module  # noqa: E402

from multitl.contracts import Preprocess  # noqa: E402
from multitl.errors import BackboneError, BackendError, TranslationError, WeightsError  # noqa: E402
from multitl.sources.pretrained import load_pretrained  # noqa: E402
from multitl.translation import parity, store  # noqa: E402
from multitl.translation import worker as translation_worker  # noqa: E402
from multitl.translation.filling import extract  # noqa: E402

SIZE, CLASSES = saved_models.SIZE, saved_models.CLASSES


def images(size: int = SIZE, count: int = 3) -> np.ndarray:
    return parity.probe_images((size, size, 3), count) / 4 + 0.5


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's work without its process, whose imports take ten seconds."""
    monkeypatch.setattr(store, "_run_worker", translation_worker.translate)


@pytest.fixture(scope="module")
def network() -> saved_models.Network:
    return saved_models.Network()


@pytest.fixture(scope="module")
def module(network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_models.write_reusable(network, tmp_path_factory.mktemp("module") / "classifier")


@pytest.mark.every_backend
def test_a_module_comes_with_its_classifier_or_without(module: Path, network):
    kept = load_pretrained(f"tfhub/{module}", head="keep")
    logits = network.run(tf.constant(images())).numpy()
    assert parity.compare(logits, parity.run(kept.backbone, images())).max_rel < 1e-5
    assert parity.is_close(kept.parity)
    assert kept.origin.url == str(module.resolve())
    cut = load_pretrained(f"tfhub/{module}")
    assert cut.backbone.output_shape == (None, SIZE // 2, SIZE // 2, 12)
    assert {weight.name.removesuffix(":0") for weight in cut.weights} == saved_models.values(classes=0).keys()
    staged = [layer for stage in cut.stages for layer in stage.layers]
    assert sorted(staged) == sorted(layer.name for layer in cut.backbone.layers if layer.weights)


@pytest.mark.every_backend
def test_weights_come_back_bit_by_bit(module: Path, network):
    kept = load_pretrained(f"tfhub/{module}", head="keep")
    tensors = extract(kept.backbone, kept.weights)
    assert len(tensors) == len(network.held)
    for variable in network.held.values():
        (found,) = (array for name, array in tensors.items() if name.removesuffix(":0") == variable.name[:-2])
        assert np.array_equal(found, variable.numpy())


def test_feature_vectors_are_backbones_as_a_whole(in_process, tmp_path: Path):
    features = saved_models.Network(classes=0)
    folder = saved_models.write_reusable(features, tmp_path / "features")
    loaded = load_pretrained(f"tfhub/{folder}")
    pooled = parity.run(loaded.backbone, images()).mean((1, 2))
    assert parity.compare(features.run(tf.constant(images())).numpy(), pooled).max_rel < 1e-5
    assert len(loaded.weights) == len(features.held)
    with pytest.raises(BackboneError, match="no classifier to keep"):
        load_pretrained(f"tfhub/{folder}", head="keep")


def test_an_archive_is_the_folder_it_holds(in_process, module: Path, tmp_path: Path, network):
    with tarfile.open(tmp_path / "module.tar.gz", "w:gz") as archive:
        archive.add(module, arcname=".")
    kept = load_pretrained(f"tfhub/{tmp_path / 'module.tar.gz'}", head="keep")
    logits = network.run(tf.constant(images())).numpy()
    assert parity.compare(logits, parity.run(kept.backbone, images())).max_rel < 1e-5


def test_a_module_that_changes_is_translated_anew(in_process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = saved_models.write_signature(saved_models.Network(seed=1), tmp_path / "module")
    first = load_pretrained(f"tfhub/{folder}").backbone
    with monkeypatch.context() as patch:
        patch.setattr(store, "_make", lambda job, folder: pytest.fail("translated again"))
        again = load_pretrained(f"tfhub/{folder}").backbone
    assert np.array_equal(parity.run(first, images()), parity.run(again, images()))
    saved_models.write_signature(saved_models.Network(seed=2), folder)
    assert not np.allclose(
        parity.run(first, images()), parity.run(load_pretrained(f"tfhub/{folder}").backbone, images())
    )


def test_a_softmax_at_the_end_is_left_off(in_process, tmp_path: Path, network):
    folder = saved_models.write_function(
        lambda x: tf.nn.softmax(network.run(x)), tmp_path / "module", network.spec, held=network.held
    )
    logits = network.run(tf.constant(images())).numpy()
    kept = load_pretrained(f"tfhub/{folder}", head="keep")
    assert parity.compare(logits, parity.run(kept.backbone, images())).max_rel < 1e-5


@pytest.mark.parametrize(
    ("function", "scale"),
    [
        (lambda x: x, 1 / 255),
        (lambda x: x * 2 - 1, 1 / 255),
        (lambda x: (x * 255 - 127) / 128, 1 / 255),
        (lambda x: (x - 0.5) / 0.25, 1 / 255),
        (lambda x: x / 127.5 - 1, 1.0),
        (lambda x: (x - 127.0) / 128, 1.0),
        (lambda x: x * (1 / 255), 1.0),
    ],
)
def test_range_of_pixels_is_read_from_the_first_operation(function, scale: float, tmp_path: Path, network):
    folder = saved_models.write_function(
        lambda x: network.run(function(x)), tmp_path / "module", network.spec, held=network.held
    )
    found = tfhub.preprocess(graphdef.prepare(read_module(folder)).graph, SIZE, SIZE)
    assert found.scale == pytest.approx((scale,) * 3)
    assert found.offset == (0, 0, 0)
    assert (found.height, found.shorter_side) == (SIZE, round(SIZE / 0.875))


def kept_pixels(layers: list[tuple[str, dict]], folder: Path, network) -> Preprocess:
    """What a module gets that Keras 2 made of such layers, whose graph begins with a resize."""
    module = saved_models.write_function(
        lambda x: network.run(tf.image.resize(x, (SIZE, SIZE))), folder, network.spec, held=network.held
    )
    saved_models.write_keras_metadata(module, [{"class_name": kind, "config": config} for kind, config in layers])
    read = read_module(module)
    return tfhub.preprocess(graphdef.prepare(read).graph, SIZE, SIZE, read.export)


@pytest.mark.parametrize(
    ("layers", "scale"),
    [
        ([("Resizing", {}), ("Rescaling", {"scale": 1 / 255}), ("Conv2D", {})], 1.0),
        ([("Resizing", {}), ("Sequential", {"layers": [{"class_name": "Rescaling", "config": {"scale": 0.01}}]})], 1.0),
        ([("Rescaling", {"scale": 2.0, "offset": -1.0}), ("Conv2D", {})], 1 / 255),
        ([("Conv2D", {}), ("Rescaling", {"scale": 1 / 255})], 1 / 255),
        ([("Conv2D", {}), ("Dense", {})], 1 / 255),
    ],
)
def test_keras_own_description_says_what_pixels_it_wants_and_images_are_squashed(layers, scale, tmp_path, network):
    found = kept_pixels(layers, tmp_path / "module", network)
    assert found.scale == pytest.approx((scale,) * 3)
    assert (found.resize, found.antialias) == ("squash", False)


def test_a_damaged_description_counts_as_none(tmp_path: Path, network):
    folder = saved_models.write_function(network.run, tmp_path / "module", network.spec, held=network.held)
    for content in (b"\xff" * 9, b"\x0a\x04\x22\x02\xff\xfe", b"\x08\x01", b""):
        (folder / "keras_metadata.pb").write_bytes(content)
        assert read_module(folder).export == NOT_KERAS


def test_what_keras_3_exports_is_squashed(tmp_path: Path):
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.GlobalAveragePooling2D()])
    if keras.config.backend() != "tensorflow":
        pytest.skip("Keras exports a SavedModel with TensorFlow")
    model.export(str(tmp_path / "module"), verbose=False)
    assert read_module(tmp_path / "module").export.is_keras


@pytest.mark.parametrize("is_keras", [True, False])
def test_what_nothing_says_is_said(is_keras: bool, in_process, tmp_path: Path, network, capsys):
    """Which values a module of the user's own gets, and which part of the image; unless it scales them itself."""
    folder = saved_models.write_signature(network, tmp_path / "module")
    if is_keras:
        saved_models.write_keras_metadata(folder, [{"class_name": "Conv2D", "config": {}}])
    loaded = load_pretrained(f"tfhub/{folder}")
    assert loaded.preprocess.resize == ("squash" if is_keras else "crop")
    said = " ".join(capsys.readouterr().err.split())
    assert f"gets pixels in [0, 1] ({'the whole image squashed' if is_keras else 'its centre cut out'})" in said
    assert "--preprocess torch, caffe, tf, unit or bytes" in said
    saved_models.write_function(
        lambda x: network.run(x / 127.5 - 1), tmp_path / "scaling", network.spec, held=network.held
    )
    load_pretrained(f"tfhub/{tmp_path / 'scaling'}")
    assert "gets pixels" not in capsys.readouterr().err


def test_random_weights_are_others(in_process, module: Path, network):
    drawn = load_pretrained(f"tfhub/{module}", "none")
    assert drawn.origin.file_sha256 is None
    theirs = {name: variable.numpy() for name, variable in network.held.items()}
    tensors = extract(drawn.backbone, drawn.weights)
    kernel = next(array for name, array in tensors.items() if "project/kernel" in name)
    assert kernel.shape == theirs["body.project.kernel"].shape
    assert not np.allclose(kernel, theirs["body.project.kernel"])


def test_sizes_are_those_of_the_module(in_process, module: Path, tmp_path: Path):
    with pytest.raises(TranslationError, match=f"{SIZE} x {SIZE} pixels only"):
        load_pretrained(f"tfhub/{module}", image_size=32)
    free = saved_models.write_reusable(saved_models.Network(size=None), tmp_path / "free_net_96")
    assert load_pretrained(f"tfhub/{free}").backbone.input_shape == (None, 96, 96, 3)
    assert load_pretrained(f"tfhub/{free}", image_size=40).preprocess.height == 40


def test_what_is_no_module_is_said(in_process, tmp_path: Path):
    with pytest.raises(WeightsError, match="There is no module"):
        load_pretrained(f"tfhub/{tmp_path / 'absent'}")
    with pytest.raises(WeightsError, match="is not a SavedModel"):
        load_pretrained(f"tfhub/{tmp_path}")


@pytest.mark.every_backend
def test_fine_tuning_a_module(module: Path, photo_folder: Path, tmp_path: Path):
    """The command line, on every backend, beyond the head; then the saved model is judged again."""
    command = [sys.executable, "-m", "multitl", "finetune", str(photo_folder), "--backbone", f"tfhub/{module}"]
    run = tmp_path / "run"
    options = ["--out", str(run), "--head-epochs", "2", "--learning-rate", "5e-4", "--steps", "4"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "multitl", "evaluate", str(run), str(photo_folder), "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert keras.models.load_model(run / "model.keras", compile=False).input_shape == (None, SIZE, SIZE, 3)


def test_without_tensorflow_the_extra_is_named(module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The worker's Python, without TensorFlow."""
    hide = "import sys, importlib.abc\n"
    hide += "class Hide(importlib.abc.MetaPathFinder):\n"
    hide += "    def find_spec(self, name, path, target=None):\n"
    hide += "        if name == 'tensorflow': raise ModuleNotFoundError(f'No module named {name!r}')\n"
    hide += "sys.meta_path.insert(0, Hide())\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BackendError, match=r"pip install 'multitl\[tfhub\]'"):
        load_pretrained(f"tfhub/{module}", "none")


# --- handles ---


@pytest.mark.parametrize(
    ("handle", "address"),
    [
        ("google/imagenet/mobilenet_v2_100_224/feature_vector/5", "https://tfhub.dev/google/imagenet/mobilenet_v2_100"),
        ("https://tfhub.dev/google/bit/m-r50x1/1", "https://tfhub.dev/google/bit/m-r50x1/1"),
        (
            "google/mobilenet-v2/tensorFlow2/100-224-feature-vector/2",
            "https://www.kaggle.com/models/google/mobilenet-v2/frameworks/tensorFlow2/variations/"
            "100-224-feature-vector/versions/2",
        ),
    ],
)
def test_handles_have_addresses(handle: str, address: str):
    from multitl_tensorflow import tfhub

    assert tfhub.address(handle).startswith(address)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("google/imagenet/mobilenet_v2_035_96/feature_vector/5", 96),
        ("google/imagenet/mobilenet_v1_100_160/classification/5", 160),
        ("google/imagenet/resnet_v2_152/classification/5", 224),
        ("sayakpaul/vit_s16_fe/1", 224),
    ],
)
def test_sizes_are_read_from_names(name: str, size: int):
    from multitl_tensorflow import tfhub

    assert tfhub.default_size(name) == size


def test_a_handle_comes_from_the_hubs_own_cache(in_process, network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """tensorflow_hub looks there first, so this needs no network."""
    pytest.importorskip("pkg_resources", reason="tensorflow_hub needs setuptools < 81")
    pytest.importorskip("tensorflow_hub")
    handle = "google/imagenet/a_network/classification/1"
    place = tmp_path / hashlib.sha1(f"https://tfhub.dev/{handle}".encode()).hexdigest()
    saved_models.write_reusable(network, place)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    kept = load_pretrained(f"tfhub/{handle}", head="keep")
    logits = network.run(tf.constant(images())).numpy()
    assert parity.compare(logits, parity.run(kept.backbone, images())).max_rel < 1e-5
    assert (kept.name, kept.origin.url) == (f"tfhub/{handle}", handle)


@pytest.mark.parametrize(
    ("missing", "fix"),
    [
        ("tensorflow_hub", "pip install 'multitl[tfhub]'"),
        ("pkg_resources", "pip install 'setuptools<81'"),
        ("tf_keras", "pip install tf_keras"),
    ],
)
def test_what_tensorflow_hub_lacks_is_said(missing: str, fix: str, monkeypatch: pytest.MonkeyPatch):
    from multitl_tensorflow import tfhub

    def fail(package: str):
        raise ModuleNotFoundError(f"No module named {missing!r}")

    monkeypatch.setattr(tfhub.importlib, "import_module", fail)
    with pytest.raises(BackendError, match="cannot be imported here") as caught:
        tfhub.fetch("google/imagenet/mobilenet_v2_100_224/feature_vector/5")
    assert caught.value.fix == fix


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch):
    from multitl_tensorflow import tfhub

    class Hub:
        @staticmethod
        def resolve(address: str) -> str:
            raise OSError("Network is unreachable")

    monkeypatch.setattr(tfhub.importlib, "import_module", lambda package: Hub)
    with pytest.raises(WeightsError, match="cannot be fetched") as caught:
        tfhub.fetch("google/bit/m-r50x1/1")
    assert "OSError: Network is unreachable" in caught.value.received
    assert "--backbone tfhub/PATH" in caught.value.fix
