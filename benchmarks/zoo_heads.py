"""timm's networks with their classifier kept and cut off: the smallest of every family, networks without a classifier,
and random ones of all tags: `KERAS_BACKEND=torch python benchmarks/zoo_heads.py > benchmarks/zoo_heads.md`.

Each is translated once, with random weights that make it sensitive, and compared with its original; then its backbone's
features, averaged over positions, with what timm itself would give its classifier (`forward_head(pre_logits=True)`).
Rows are kept in runs/zoo/timm-heads.jsonl as they come, so an interrupted run goes on where it was; with `kept` as an
argument, the table is made of those that are there. After an upgrade of timm, `zoo_heads.py headless >
benchmarks/timm_headless.json` chooses the networks without a classifier anew.
"""

from __future__ import annotations

import datetime
import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo import RESULTS, TOLERANCE, Worker, kept_in, timm_networks, versions

MOST = 300_000_000  # parameters of a network that is tried here
DRAWN = 115  # tags at random, of which 100 are not too large
HEADLESS = Path(__file__).with_name("timm_headless.json")
FILE = RESULTS / "timm-heads.jsonl"

Row = dict[str, Any]


def both(name: str) -> Row:
    """One network: how far it is from its original, and its features from the original's. Under torch."""
    import keras
    import timm_smallest
    import torch
    from multitl_torch.translator import open_original

    from multitl.contracts import Job
    from multitl.errors import MultitlError

    warnings.simplefilter("ignore")
    keras.utils.clear_session()
    torch.manual_seed(0)
    row: Row = {"name": name, "parameters": timm_smallest.parameters(name)}
    if row["parameters"] > MOST:
        return row | {"skipped": f"more than {MOST / 1e6:.0f} million parameters"}
    size = timm_networks().get(name) or timm_smallest.smallest_size(name)
    try:
        original = open_original(Job("timm", name, "none", size, "cut"), classes=0)
        return row | {"image_size": original.image_size} | _compared(name, original)
    except MultitlError as error:
        return row | {"refused": f"{error.problem} {error.received}"}


def _compared(name: str, original: Any) -> Row:
    import time

    from multitl_torch import verifying
    from multitl_torch.randomising import randomise

    from multitl.contracts import Origin
    from multitl.sources.translated import Network, as_pretrained, of_features
    from multitl.translation.parity import compare, run

    images = verifying.probes((3, original.image_size, original.image_size))
    randomise(original.module, verifying.as_torch(images))
    started = time.perf_counter()
    translation = original.translate()
    row: Row = {"seconds": time.perf_counter() - started, "keep": original.verify(translation).max_rel}
    network = Network(name, translation, original.preprocess, Origin("timm", "none", None, "", ""), None, ())
    has_classifier = not original.missing_classifier
    cut = as_pretrained(network, "cut") if has_classifier else of_features(network)
    row |= {"has_classifier": has_classifier, "features": cut.backbone.output_shape[-1]}
    found, wanted = run(cut.backbone, images).mean((1, 2)), _features(original.module, images)
    if wanted is not None and wanted.shape == found.shape:
        row["cut"] = compare(wanted, found).max_rel
    return row


def _features(module: Any, images: Any) -> Any:
    """What timm would give the classifier, averaged over positions: (n, channels); None where it does not say."""
    import torch
    from multitl_torch.verifying import as_torch

    with torch.no_grad():
        try:
            values = module.forward_head(module.forward_features(as_torch(images)), pre_logits=True)
        except Exception:  # of a family with a way of its own
            return None
    if isinstance(values, tuple):  # of several classifiers
        return None
    places = {4: (2, 3), 3: (1,), 2: ()}[values.ndim]
    return (values.mean(places) if places else values).numpy()


def chosen() -> dict[str, list[str]]:
    """Title -> names."""
    from multitl_torch.torchvision import import_timm

    every = sorted(import_timm().list_pretrained())
    random.Random(0).shuffle(every)
    return {
        "The smallest of each family and tag without a classifier": json.loads(HEADLESS.read_text(encoding="utf-8")),
        f"A random {DRAWN} of all {len(every)} tags": every[:DRAWN],
        "The smallest of each family": list(timm_networks()),
    }


def headless() -> list[str]:
    """The names in timm_headless.json: of each family and kind of weights the smallest, each network once."""
    import timm_smallest
    from multitl_torch.torchvision import import_timm

    timm = import_timm()
    kinds: dict[tuple[str, str], list[str]] = {}
    for family in timm.list_modules():
        for tag in (tag for name in timm.list_models(module=family) for tag in timm.list_pretrained(f"{name}.*")):
            if timm.get_pretrained_cfg(tag).num_classes == 0:
                kinds.setdefault((family, tag.partition(".")[2]), []).append(tag)
    smallest = [min(tags, key=lambda tag: (timm_smallest.parameters(tag), tag)) for tags in kinds.values()]
    return list({tag.partition(".")[0]: tag for tag in smallest}.values())


def rows(names: list[str]) -> Iterator[Row]:
    """In processes of their own."""
    worker = Worker("torch")
    for name in names:
        try:
            yield worker(both, name).result()
        except Exception as error:  # a crash is a row of its own: the rest of the zoo is still worth seeing
            yield {"name": name, "refused": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}


def line(row: Row) -> str:
    """A row of the table."""
    if why := row.get("skipped") or row.get("refused"):
        kind = "not tried: " if "skipped" in row else ""
        return f"| {row['name']} | {_million(row)} | {row.get('image_size', '')} | | | | | {kind}{why} |"
    keep = f"{row['keep']:.1e}" if row["has_classifier"] else f"none; features {row['keep']:.1e}"
    cut = f"{row['cut']:.1e}" if "cut" in row else ""
    return (
        f"| {row['name']} | {_million(row)} | {row['image_size']} | {keep} | {row['features']} | {cut} | "
        f"{row['seconds']:.1f} | |"
    )


def _million(row: Row) -> str:
    return f"{row['parameters'] / 1e6:.2f}" if "parameters" in row else ""


def summary(title: str, found: list[Row]) -> str:
    """Of one part of the table, in words."""
    tried = [row for row in found if "skipped" not in row]
    translated = [row for row in tried if "refused" not in row]
    asked = [row for row in translated if "cut" in row]
    equal = [row for row in asked if row["cut"] <= TOLERANCE]
    return (
        f"**{title}**: {len(translated)} of {len(tried)} translated ({len(translated) / max(1, len(tried)):.0%}), "
        f"{len(found) - len(tried)} too large to be tried here. Of {len(asked)} whose features timm tells, "
        f"{len(equal)} give them within {TOLERANCE:g}.\n"
    )


def table(parts: dict[str, list[Row]]) -> str:
    """Markdown: the summaries first."""
    head = "| network | parameters, million | image | error, kept | features | error, cut | translation, s | |"
    lines = ["# The zoo: timm, the classifier kept and cut off\n"]
    lines += [summary(title, found) for title, found in parts.items()]
    lines += [
        "Error: the largest difference of an output over the largest output, float32, random weights, evaluation mode, "
        "4 images, under torch; cut: of the features averaged over positions, empty where timm does not tell them or "
        "where two classifiers' features stand side by side. What a classifier normalises before its last layer stays "
        "in the backbone, and timm counts it to the classifier (efficientvit_m, iformer, shvit); side by side, the "
        "same features may stand in another order (crossvit, efficientvim): there both differ, and nothing is wrong.",
        f"Made by `python benchmarks/zoo_heads.py`, {datetime.date.today()}, {versions()}.\n",
    ]
    for title, found in parts.items():
        lines += [f"\n## {title}\n", head, "|---|---:|---:|---:|---:|---:|---:|---|", *map(line, found)]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """`kept`: only the rows that are there.  `headless`: the names of that part."""
    warnings.simplefilter("ignore")
    if "headless" in arguments:
        print(json.dumps(headless(), indent=0))
        return
    parts = chosen()
    names = list(dict.fromkeys(name for part in parts.values() for name in part))
    FILE.parent.mkdir(parents=True, exist_ok=True)
    make: Callable[[list[str]], Iterator[Row]] = rows if "kept" not in arguments else lambda names: iter(())
    found = kept_in(FILE, names, make, line)
    there = {title: [found[name] for name in part if name in found] for title, part in parts.items()}
    unfinished = {title: f" ({len(there[title])} of {len(part)} so far)" for title, part in parts.items()}
    print(table({title + unfinished[title] * (len(there[title]) < len(parts[title])): there[title] for title in parts}))


if __name__ == "__main__":
    main(sys.argv[1:])
