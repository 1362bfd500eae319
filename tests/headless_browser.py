"""Pages in a real headless Chromium, and what it finds in them."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr",
)  # fmt: skip

MEASURE = Path(__file__).with_name("measure_page.js")


def browse(*arguments: str, profile: Path) -> tuple[str, list[str]]:
    """Run Chromium; returns what it printed and the lines of its console (errors, failed or refused requests)."""
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def measure(report: Path, width: int, folder: Path, *flags: str) -> dict[str, Any]:
    """What measure_page.js finds with the report in a frame of `width` pixels, and the console's lines.

    In a frame the report's own media queries and Content-Security-Policy hold, and the page around it may look inside.
    """
    around = folder / f"around-{width}.html"
    source = html.escape(report.read_text(encoding="utf-8"))
    around.write_text(
        f"""<!doctype html><meta charset="utf-8"><title>around</title><body style="margin:0"><pre id="found"></pre>
        <iframe style="border:0;width:{width}px;height:900px" srcdoc="{source}"></iframe>
        <script>
        const frame = document.querySelector("iframe");
        frame.onload = () => {{{MEASURE.read_text()}}};
        </script>""",
        encoding="utf-8",
    )
    profile, address = folder / "profile", f"file://{around}"
    dom, console = browse("--virtual-time-budget=4000", "--dump-dom", *flags, address, profile=profile)
    found = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
    assert found, f"the report did not load: {dom[:300]} {console}"
    return json.loads(html.unescape(found[1])) | {"console": console}
