"""What people type who come from other programs, and what it is called here."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from multitl.errors import nearest_names
from multitl.recipes import GONE, MEANT

COMMANDS_MEANT = {
    "train": "finetune", "fit": "finetune", "tune": "finetune", "fine-tune": "finetune", "transfer": "finetune",
    "retrain": "finetune", "export": "port", "convert": "port", "classify": "predict", "infer": "predict",
    "inference": "predict", "label": "predict", "test": "evaluate", "eval": "evaluate", "val": "evaluate",
    "validate": "evaluate", "score": "evaluate", "rank": "choose", "models": "backbones",
    "networks": "backbones", "list": "backbones", "formats": "ports", "benchmark": "bench", "clean": "cache",
    "check": "doctor", "info": "doctor", "example": "demo",
}  # fmt: skip
FLAGS_MEANT = {
    "-b": ("--batch-size", "--backbone", "--backend"),
    "-m": ("--backbone",),
    "-a": ("--backbone",),
    "-o": ("--out",),
    "--output": ("--out",),
    "--output-dir": ("--out",),
    "--save-dir": ("--out",),
    "-f": ("--overwrite", "--to"),
    "--force": ("--overwrite",),
    "--format": ("--to",),
    "-k": ("--top",),
    "--topk": ("--top",),
    "--framework": ("--backend",),
    "--classes": ("--top",),
    "--report-to": ("--log-to",),
    "--logger": ("--log-to",),
}
NOT_TYPED = {  # what is no option here at all
    "device": "there is none: a GPU is used if the backend finds one (multitl doctor says), the one that "
    "CUDA_VISIBLE_DEVICES=1 names, or none with CUDA_VISIBLE_DEVICES=-1",
    "workers": "there is none: images are decoded on all cores",
    "data": "there is none: DATA comes right after the command, as multitl finetune DATA",
    "verbose": "there is none: progress is always shown, on stderr; 2>/dev/null hides it",
}
SPELLINGS = {
    "gpu": "device", "gpus": "device", "cuda": "device", "cpu": "device", "devices": "device",
    "num-workers": "workers", "j": "workers", "threads": "workers", "data-dir": "data", "dataset": "data",
    "train-dir": "data", "v": "verbose", "quiet": "verbose", "q": "verbose", "silent": "verbose",
}  # fmt: skip


def command_hint(name: str, commands: Iterable[str]) -> str:
    """ "; did you mean finetune?" for "train"."""
    meant = COMMANDS_MEANT.get(name.lower())
    return _question([meant] if meant else nearest_names(name, commands, count=1))


def flag_hint(flag: str, known: Collection[str]) -> str:
    """What may be meant by an unknown flag. known: those of the command."""
    word = flag.lstrip("-").lower().replace("_", "-")
    option = word.replace("-", "_")
    named = [f"--{name.replace('_', '-')}" for name in MEANT.get(option, ())]
    meant = [name for name in (*FLAGS_MEANT.get(flag, ()), *named) if name in known]
    if option in GONE and "--steps" in known:
        return f"; did you mean --steps? {GONE[option]}"
    if meant:
        return _question(meant)
    kind = SPELLINGS.get(word, word)
    if kind in NOT_TYPED:
        return f": {NOT_TYPED[kind]}"
    return "" if option in MEANT else _question(nearest_names(flag, known, count=1))


def _question(names: Iterable[str]) -> str:
    listed = list(names)
    *first, last = listed or [""]
    return f"; did you mean {', '.join(first)}{' or ' if first else ''}{last}?" if last else ""
