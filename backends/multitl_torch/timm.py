"""timm's networks, opened to be translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from multitl.contracts import Job, Preprocess
from multitl.errors import BackboneError, WeightsError, nearest_names
from multitl_torch.torchvision import import_timm
from multitl_torch.transforms import from_timm

Opened: TypeAlias = "tuple[torch.nn.Module, Preprocess, tuple[str, ...], str, str, tuple[str, ...]]"


def open_network(job: Job, classes: int) -> Opened:
    """The module, its preprocessing, class names (none here), licence, address, and the weights of the classifier that
    it lacks. See `contracts.Translator` and `contracts.Original`.

    Raises BackboneError for an unknown name or tag, or a size it cannot take; WeightsError if weights cannot be
    fetched.
    """
    timm = import_timm()
    _insist_on_known(timm, job.name)
    known = timm.get_pretrained_cfg(job.name).to_dict()
    preprocess = from_timm(known, job.image_size)
    module = _create(timm, job, _options(known, job.image_size, classes))
    address = f"https://huggingface.co/{known['hf_hub_id']}" if known.get("hf_hub_id") else str(known.get("url", ""))
    missing = () if module.num_classes else _classifier(known)
    return module, preprocess, (), str(known.get("license") or "not stated by timm"), address, missing


def open_class(job: Job, classes: int) -> tuple[torch.nn.Module, str, dict[str, Any]]:
    """A network with random weights, and the arguments of `create_model` that make it."""
    timm = import_timm()
    _insist_on_known(timm, job.name)
    options = _options(timm.get_pretrained_cfg(job.name).to_dict(), job.image_size, classes)
    return _create(timm, job, options), job.name, options


def _insist_on_known(timm: Any, name: str) -> None:
    """Raises BackboneError for a network or tag that timm does not have: it would look on a hub, or on the disk."""
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise BackboneError(
            f"This timm {timm.__version__} has no network {plain!r}.",
            expected=f"one of its {len(timm.list_models())} networks",
            received=f"timm/{name}",
            nearest=[f"timm/{near}" for near in nearest_names(plain, timm.list_models())],
            fix="multitl backbones timm/, or pip install --upgrade timm",
        )
    known_tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{plain}.*")]
    if tag and tag not in known_tags:
        raise BackboneError(
            f"timm has no weights {name!r}.",
            expected=f"timm/{plain}, or with a tag after a dot",
            received=f"timm/{name}",
            nearest=[f"timm/{plain}.{near}" for near in nearest_names(tag, known_tags) or known_tags[:5]],
            fix=f"multitl backbones timm/{plain}",
        )


def _options(known: Mapping[str, Any], size: int, classes: int) -> dict[str, Any]:
    options: dict[str, Any] = {"num_classes": classes} if classes else {}
    return options | ({"img_size": size} if size and known.get("fixed_input_size") else {})


def _classifier(known: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that the weights of a network's classifier have once it gets one."""
    layers = known.get("classifier") or "head"
    listed = [layers] if isinstance(layers, str) else list(layers)
    return tuple(f"{layer}.{part}" for layer in listed for part in ("weight", "bias"))


def _create(timm: Any, job: Job, options: dict[str, Any]) -> torch.nn.Module:
    try:
        return timm.create_model(job.name, pretrained=job.weights == "default", **options)
    except Exception as error:  # the hub's client, timm and the network's own class raise all kinds
        reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        if job.weights != "default":
            raise BackboneError(
                f"timm cannot make {job.name} as asked for.",
                expected="options that the network takes",
                received=f"{options}: {reason}",
                fix="leave --image-size out for the network's own",
            ) from error
        raise WeightsError(
            f"The weights of timm/{job.name} cannot be fetched.",
            expected="access to huggingface.co, or a file of theirs on this machine",
            received=reason,
            fix="download model.safetensors by hand and give it with --weights PATH, or take --weights none",
        ) from error
