"""downloads.py against a server on this machine: fetched once, checked always, never half there."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from multitl.errors import WeightsError
from multitl.files.downloads import checkpoint_folder, download


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


CONTENT = saved({"weight": torch.arange(375_000.0)})
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"net-{SHA256[:8]}.pth"


class Handler(BaseHTTPRequestHandler):
    """Answers by the folder in the path: good, wrong, short, silent, slow, unsized, moved, page, refused."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        kind, name = self.path.split("/")[1:3]
        if kind == "refused":
            self.send_error(404)
        elif kind == "moved":
            self.send_response(302)
            self.send_header("Location", f"/good/{name}")
            self.end_headers()
        elif kind == "silent":
            self.close_connection = True  # without a word
        else:
            self._send(kind)

    def _send(self, kind: str) -> None:
        content = {"wrong": CONTENT[:-1] + b"x", "page": b"<html>Please log in</html>"}.get(kind, CONTENT)
        self.send_response(200)
        if kind != "unsized":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        if kind == "slow":
            time.sleep(0.5)
        if kind != "short":
            self.wfile.write(content[len(content) // 2 :])

    def log_message(self, *arguments: object) -> None:
        """Nothing: stderr is multitl's."""


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{kind}/{NAME}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PyTorch's cache, empty; and no proxy between us and this machine."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


def refusal(url: str, prefix: str = SHA256[:8]) -> str:
    with pytest.raises(WeightsError) as caught:
        download(url, prefix, 1.5)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["good", "moved", "unsized"])
def test_a_file_is_fetched_once(server: Server, folder: Path, kind: str, capfd: pytest.CaptureFixture[str]):
    path = download(server.url(kind) + "?download=true", SHA256[:8], 1.5)
    assert path == folder / NAME and path.read_bytes() == CONTENT
    assert list(folder.iterdir()) == [folder / NAME] and path.stat().st_mode & 0o777 == 0o666 & ~umask()
    out, err = capfd.readouterr()
    assert out == "" and NAME in err and "2/2" in err
    count = len(server.requests)
    assert download(server.url(kind), SHA256.upper(), 1.5) == path
    assert len(server.requests) == count and capfd.readouterr() == ("", "")


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_pytorch_takes_what_we_fetched_and_we_what_pytorch_fetched(server: Server, folder: Path):
    path = download(server.url("good"), SHA256[:8], 1.5)
    theirs = torch.hub.load_state_dict_from_url(server.url("good"), check_hash=True, progress=False)
    assert torch.equal(theirs["weight"], torch.arange(375_000.0)) and len(server.requests) == 1
    path.unlink()
    torch.hub.load_state_dict_from_url(server.url("good"), check_hash=True, progress=False)
    assert len(server.requests) == 2
    assert download(server.url("good"), SHA256[:8], 1.5) == path and len(server.requests) == 2


@pytest.mark.parametrize(
    "variables",
    [{"TORCH_HOME": "~/a"}, {"TORCH_HOME": "/a/b"}, {"XDG_CACHE_HOME": "/c"}, {"XDG_CACHE_HOME": "~/d"}, {}],
)
def test_the_folder_is_pytorchs(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert checkpoint_folder() == Path(torch.hub.get_dir()) / "checkpoints"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("refused", "HTTP Error 404: Not Found"),
        ("silent", "closed connection without response|Connection reset"),
        ("short", f"the connection ended {len(CONTENT) - len(CONTENT) // 2:,} bytes too early"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(server: Server, folder: Path, kind: str, message: str):
    text = refusal(server.url(kind))
    assert any(part in text for part in message.split("|")), text
    assert text.startswith(f"Cannot download {NAME} (2 MB).")
    for part in (server.url(kind), f"put it at {folder / NAME}", f"--weights PATH/{NAME}"):
        assert part in text
    assert list(folder.iterdir()) == []


def test_nobody_answers(folder: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening
        text = refusal(f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}")
    assert "Connection refused" in text and str(folder / NAME) in text
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["wrong", "page"])
def test_another_file_than_the_official_one_is_not_kept(server: Server, folder: Path, kind: str):
    text = refusal(server.url(kind))
    assert f"What {server.url(kind)} sent is damaged, or is not the official file." in text
    assert f"begins with {SHA256[:8]}" in text
    assert (f"{len(CONTENT):,} bytes" if kind == "wrong" else "26 bytes") in text
    assert list(folder.iterdir()) == []


def test_a_damaged_file_that_lies_there_is_named_and_left(server: Server, folder: Path):
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(CONTENT[:1000])
    text = refusal(server.url("good"))
    assert f"The file {folder / NAME} is damaged" in text and f"rm '{folder / NAME}'" in text and "1,000 bytes" in text
    assert (folder / NAME).read_bytes() == CONTENT[:1000] and server.requests == []


def test_a_folder_that_cannot_be_written(server: Server, folder: Path, tmp_path: Path):
    (tmp_path / "torch").write_text("a file in the folder's place")
    text = refusal(server.url("good"))
    assert f"Cannot keep the file {folder / NAME}" in text and "TORCH_HOME" in text
    assert server.requests == [] and (tmp_path / "torch").is_file()


def test_something_else_of_the_files_name(server: Server, folder: Path):
    (folder / NAME).mkdir(parents=True)
    assert "Is a directory" in refusal(server.url("good")) and server.requests == []


def test_a_full_disk(server: Server, folder: Path):
    """No file may grow past a megabyte, as on a disk with no more room; in a process of its own."""
    code = (
        "import resource, signal, sys; from multitl.files.downloads import download\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, -1))\n"
        "download(*sys.argv[1:3], 1.5)"
    )
    done = subprocess.run([sys.executable, "-c", code, server.url("good"), SHA256[:8]], capture_output=True, text=True)
    assert f"WeightsError: Cannot keep the file {folder / NAME}." in done.stderr
    assert "File too large" in done.stderr and "a folder with 2 MB of room" in done.stderr
    assert list(folder.iterdir()) == []


def test_two_processes_at_once(server: Server, folder: Path):
    code = "import sys; from multitl.files.downloads import download; download(*sys.argv[1:3], 1.5)"
    command = [sys.executable, "-c", code, server.url("slow"), SHA256[:8]]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    assert list(folder.iterdir()) == [folder / NAME] and (folder / NAME).read_bytes() == CONTENT
