"""`multitl serve` under load: many requests by several clients, bad files among them.

    python benchmarks/serve.py RUN IMAGES [--requests 1000] [--clients 8] [--runtime keras|onnx] [--backend B]

The server is a process of its own, as the command line starts it. Every answer is compared with that of `multitl
predict`, every bad file has to be refused with its status. Prints Markdown: answers, times, and the server's memory
after the first hundred requests and after the last. Ends with an error for a wrong answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WARM_UP = 100  # requests after which memory is looked at first
OFTEN = 5  # every so many requests one is bad
CLOSE = 1e-4  # a share may differ from predict's by rounding: batches have another size, ONNX another runtime


@dataclass(frozen=True)
class Bad:
    """A request that has to be refused. change: what becomes of a good image's bytes."""

    status: int
    change: Callable[[bytes], bytes]
    kind: str = "application/octet-stream"


BAD = (
    Bad(422, lambda data: data[: len(data) // 2]),
    Bad(422, lambda data: b"no image" * 1000),
    Bad(422, lambda data: b""),
    Bad(415, lambda data: data, "text/plain"),
    Bad(400, lambda data: data, "multipart/form-data; boundary=x"),
    Bad(413, lambda data: data + bytes(33 * 2**20)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("images")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--runtime", default="keras")
    parser.add_argument("--backend")
    options = parser.parse_args()
    backend = ["--backend", options.backend] if options.backend else []
    multitl = [sys.executable, "-m", "multitl"]
    command = [*multitl, "predict", options.run, options.images, "--json", *backend]
    rows = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    images = [(Path(row.pop("path")).read_bytes(), row) for row in rows if "error" not in row]
    serve = [*multitl, "serve", options.run, "--runtime", options.runtime, "--port", "0", *backend]
    process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
    try:
        port = port_of(process)
        numbers = range(options.requests)
        first, memory = measure(port, images, numbers[:WARM_UP], options.clients), [memory_of(process.pid)]
        began = time.perf_counter()
        rest = measure(port, images, numbers[WARM_UP:], options.clients)
        seconds = time.perf_counter() - began
        memory.append(memory_of(process.pid))
        is_alive = process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    faults = [fault for fault, _ in (*first, *rest) if fault]
    times = [1000 * taken for fault, taken in rest if not fault]
    bad = sum(number % OFTEN == 0 for number in numbers)
    print("| requests | bad ones | clients | runtime | wrong | median ms | 95 % ms | a second | memory MiB |")
    print("|---" * 9 + "|")
    print(
        f"| {options.requests} | {bad} | {options.clients} | {options.runtime} | {len(faults)} | "
        f"{statistics.median(times):.0f} | {statistics.quantiles(times, n=20)[-1]:.0f} | {len(rest) / seconds:.0f} | "
        f"{memory[0]:.0f} → {memory[1]:.0f} |"
    )
    if faults or not is_alive:
        sys.exit("\n".join(faults[:5]) or "the server has ended")


def port_of(process: subprocess.Popen[str]) -> int:
    """What it listens on, which it says once it can answer."""
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"http://[^ ]*:(\d+) ", line):
            return int(found[1])
    sys.exit("the server did not start")


def measure(
    port: int, images: Sequence[tuple[bytes, dict[str, Any]]], numbers: Sequence[int], clients: int
) -> list[tuple[str, float]]:
    """Of each request what is wrong with its answer, "" for nothing, and its seconds."""

    def ask(number: int) -> tuple[str, float]:
        data, expected = images[number % len(images)]
        bad = BAD[number // OFTEN % len(BAD)] if number % OFTEN == 0 else None
        began = time.perf_counter()
        status, said = post(port, bad.change(data) if bad else data, bad.kind if bad else "image/jpeg")
        seconds = time.perf_counter() - began
        if not bad:
            is_right = status == 200 and is_close(said, expected)
        elif status:
            is_right = status == bad.status and "error" in said
        else:
            is_right = bad.status == 413
        return "" if is_right else f"request {number}: {status} {json.dumps(said)[:300]}", seconds

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(ask, numbers))


def post(port: int, data: bytes, kind: str) -> tuple[int, Any]:
    """Status and answer; 0 where the server hung up on a body that is too large before all of it was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/predict", data, {"content-type": kind})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (BrokenPipeError, ConnectionResetError):
        return 0, {}
    finally:
        connection.close()


def is_close(said: Any, expected: Any) -> bool:
    """The same names, and numbers that differ by rounding alone."""
    if isinstance(expected, dict):
        return said.keys() == expected.keys() and all(is_close(said[name], expected[name]) for name in expected)
    if isinstance(expected, float):
        return abs(said - expected) <= CLOSE * max(1.0, abs(expected))
    return said == expected


def memory_of(process: int) -> float:
    """Resident, in MiB. Linux."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


if __name__ == "__main__":
    main()
