"""Source `timm`: PyTorch image models, translated when they are first asked for and kept in the cache.

timm and PyTorch are needed for that first time only. The list of networks is data, written by `multitl_torch.describe`.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

from multitl.adapters import is_present
from multitl.contracts import BackboneInfo, Head, Job, Origin, Pretrained
from multitl.errors import BackboneError, nearest_names
from multitl.system.paths import expanded

NETWORKS = Path(__file__).parent / "timm_networks.json"


def backbones() -> list[BackboneInfo]:
    """Every network with pretrained weights; the variants of a name are its other weights (`timm/resnet50.tv_in1k`)."""
    return [
        BackboneInfo(
            name=f"timm/{name}",
            image_size=size,
            licence=licence,
            weights="downloaded by timm",
            variants=tuple(f".{tag}" for tag in tags[1:]),
        )
        for name, (size, licence, tags) in _networks().items()
    ]


def check(name: str, weights: str) -> None:
    """See `contracts.Source`. Tags are left to timm, whose next release may have more."""
    known = _networks()
    if name.partition(".")[0] in known:
        return
    raise BackboneError(
        f"Unknown backbone 'timm/{name}'.",
        expected=f"one of {len(known)} networks of timm",
        received=f"timm/{name}",
        nearest=[f"timm/{near}" for near in nearest_names(name.partition(".")[0], known)],
        fix="multitl backbones timm/",
    )


def at_hand(image_size: int) -> list[str]:
    """See `contracts.Source`. What timm downloads lies in Hugging Face's cache, one folder a repository."""
    from multitl.translation.entries import official_entries

    kept = {job.name for job in official_entries("timm") if job.image_size == image_size and job.head == "cut"}
    if is_present("timm") and is_present("torch"):
        folders = _hub_folder().glob("models--timm--*/snapshots/*/model.safetensors")
        kept |= {file.parts[-4].removeprefix("models--timm--") for file in folders if file.is_file()}
    return [f"timm/{name}" for name in sorted(kept) if name.partition(".")[0] in _networks()]


def load(name: str, weights: str, image_size: int, head: Head = "cut") -> Pretrained:
    """Translate a network of timm, or take it from the cache. See `contracts.Source`.

    name: as timm has it, with the tag of its weights or without: "resnet50.a1_in1k", "vit_tiny_patch16_224".
    weights: a local file or folder may hold what `state_dict_files.read_state_dict` reads. Of a network whose weights
    come without a classifier (DINO, CLIP's towers, masked autoencoders, ...) nothing is cut off.

    Raises BackboneError for an unknown name or size, and for a classifier to keep where there is none;
    BackendError if it is not in the cache and timm is not installed;
    TranslationError with the list of what is missing for a network that cannot be translated; WeightsError.
    """
    from multitl.sources.imagenet import class_names
    from multitl.sources.translated import Network, as_pretrained, of_features, say
    from multitl.translation.store import translated

    check(name, weights)
    entry = translated(Job("timm", name, weights, image_size, head))
    say(entry.card.weights_note)
    sha256 = None if weights == "none" else entry.card.weights_sha256
    network = Network(
        name=f"timm/{name}",
        translation=entry.translation,
        preprocess=entry.card.preprocess,
        origin=Origin("timm", weights, sha256, _licence(weights, entry.card.licence), entry.card.url),
        parity=entry.card.parity,
        class_names=class_names(entry.translation.model.output_shape[-1]),
    )
    return as_pretrained(network, head) if entry.card.has_classifier else of_features(network)


def _hub_folder() -> Path:
    """As huggingface_hub has it."""
    own, caches = os.environ.get("HF_HUB_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(own or Path(os.environ.get("HF_HOME") or Path(caches, "huggingface"), "hub"))


def _licence(weights: str, official: str) -> str:
    if weights == "none":
        return "none: random weights"
    return official if weights == "default" else f"that of the file; {official} for the official weights"


@functools.cache
def _networks() -> dict[str, tuple[int, str, list[str]]]:
    """Name -> (image size, licence, tags), in alphabetical order."""
    return json.loads(NETWORKS.read_text(encoding="utf-8"))
