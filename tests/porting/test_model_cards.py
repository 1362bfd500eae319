"""The model card of an artefact: the Hub's own library reads it, and it says what the run's files say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import msgspec
import pytest

from multitl.judging.opening import Run
from multitl.judging.summaries import read_figures
from multitl.porting.formats import FORMATS
from multitl.porting.model_cards import FIGURES, LIBRARIES, model_card, plain
from multitl.runs.cards import Card, read_card

ABOUT: dict[str, Any] = {
    "port": {"format": "onnx", "summary": FORMATS["onnx"].summary},
    "takes": {"images": "RGB pixels, uint8, 0 to 255", "shape": [None, 32, 32, 3]},
    "opened_by": "onnxruntime 1.22.0",
    "proof": {"on": "the run's test images", "max_rel": 2e-7},
}
HOSTILE = "<script>alert(1)</script> | [x](http://e.vil) `*_"

if keras.config.backend() != "jax":
    pytest.skip("text is made of text", allow_module_level=True)


@pytest.fixture(scope="module")
def card(finished: Path) -> Card:
    return read_card(finished)


@pytest.fixture(scope="module")
def metrics(finished: Path, card: Card) -> dict[str, Any]:
    return read_figures(Run(finished, card)) or {}


def test_the_hubs_library_reads_it(card: Card, metrics: dict[str, Any]):
    hub = pytest.importorskip("huggingface_hub")
    read = hub.ModelCard(model_card(card, metrics, ABOUT))
    assert (read.data.library_name, read.data.pipeline_tag) == ("onnx", "image-classification")
    assert {one.metric_type: one.metric_value for one in read.data.eval_results} == {
        kind: pytest.approx(metrics["test"][key], rel=1e-5) for key, (kind, _) in FIGURES["one"].items()
    }
    assert {(one.dataset_name, one.dataset_split) for one in read.data.eval_results} == {("photos", "test")}


def test_it_says_what_the_run_says(card: Card, metrics: dict[str, Any]):
    text, test = model_card(card, metrics, ABOUT), metrics["test"]
    low, high = test["accuracy_ci"]
    assert f"| Accuracy | {test['accuracy']:.3f} | {low:.3f} to {high:.3f} |" in text
    assert "On 4 test images" in text and "4 test images cannot tell much" in text.replace("\\", "")
    for name in card.class_names:
        assert f"| {name} | " + " | ".join(f"{card.data.counts[split][name]}" for split in card.data.images) in text
    assert str(Path(card.data.path).parent) not in text  # nobody's folders are published
    assert text == model_card(card, metrics, ABOUT)


def test_names_of_anyone_are_text(card: Card, metrics: dict[str, Any]):
    """Of classes, of the data and of the backbone."""
    was, now = (msgspec.json.encode(name) for name in (card.class_names[0], HOSTILE))
    values = msgspec.json.encode(card).replace(was, now).replace(b'/photos"', b'/pho: [\\"tos"')
    renamed = msgspec.json.decode(values, type=Card)
    figures = msgspec.json.decode(msgspec.json.encode(metrics).replace(was, now))
    text = model_card(renamed, figures, ABOUT)
    assert not re.search(r"(?<!\\)[<\[]", text.split("---", 2)[2].replace("```", ""))
    assert plain(HOSTILE) in text
    hub = pytest.importorskip("huggingface_hub")
    assert hub.ModelCard(text).data.eval_results[0].dataset_name == 'pho: ["tos'


def test_a_network_that_was_not_trained_here_has_no_figures(card: Card):
    text = model_card(msgspec.structs.replace(card, head="keep"), None, ABOUT)
    assert "model-index" not in text and "Training data" not in text and "Evaluation" not in text


def test_every_format_has_a_library():
    assert LIBRARIES.keys() == FORMATS.keys()
