"""What is wrong with a wish for several workers is said before a framework loads, with what to write instead."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from quick_runs import message_of

from multitl import adapters
from multitl.cli.main import main

WRONG = {  # options -> what the message says
    ("--workers", "0"): "--workers 2",
    ("--workers", "-3"): "a number of workers from 1 on",
    ("--workers", "2", "--batch-size", "33"): "--batch-size 32, or another number",
    ("--workers", "5", "--batch-size", "4"): "--batch-size 5, or another number",
    ("--workers", "2", "--engine", "rai"): "nearest: ray",
    ("--workers", "2", "--engine", "ray", "--address", "ray://127.0.0.1:10001"): "ray job submit",
    ("--workers", "2", "--address", "auto"): "add --engine ray",
    ("--address", "auto"): "add --engine ray",
    ("--engine", "local"): "--workers N, or --devices all",
    ("--devices", "all"): "sees no GPU here",
    ("--devices", "two"): "--devices all",
    ("--devices", "all", "--workers", "2"): "leave --devices out",
    ("--workers", "2", "--train-batch-norm"): "leave --train-batch-norm out",
    ("--workers", "2", "--repeats", "3"): "leave --workers out",
    ("--workers", "2", "--restarts", "-1"): "--restarts 3",
    ("--workers", "2", "--out", "{photos}"): "choose another folder with --out",
    ("--workers", "2", "--backbone", "keras/MobilNet"): "keras/MobileNet",
}

if keras.config.backend() != "jax":
    pytest.skip("loads no framework", allow_module_level=True)


@pytest.mark.parametrize(("options", "told"), WRONG.items(), ids=" ".join)
def test_wrong_uses(options: tuple[str, ...], told: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(adapters, "is_installed", lambda package: True)  # Ray comes with an extra
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    options = tuple(option.format(photos=photos) for option in options)
    assert told in message_of(main(["finetune", str(photos), *options]), *capsys.readouterr())


def test_ray_is_an_extra(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    code = main(["finetune", str(photos), "--workers", "2", "--engine", "ray"])
    assert "pip install 'multitl[ray]'" in message_of(code, *capsys.readouterr())


def test_an_address_where_nobody_listens(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(adapters, "is_installed", lambda package: True)
    with socket.socket() as deaf:  # its port is nobody else's
        deaf.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        code = main(["finetune", str(photos), "--workers", "2", "--engine", "ray", "--address", address])
    message = message_of(code, *capsys.readouterr())
    assert address in message and "ray start --head" in message


def test_who_works_alone_loads_nothing_of_it():
    code = "import multitl, multitl.cli.main, sys; print({'ray', 'torch', 'pty'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
