"""The README's pictures, from a run's own report: `python docs/pictures.py RUN`. Needs Chromium.

docs/report.png and docs/mistakes.png come from the CC0 photos of github.com/alexeygrigorev/clothing-dataset-small (320
of them, four classes), the default backbone and the default recipe: multitl finetune photos --out RUN
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

PICTURES = {"report": "section:not(#training), footer", "mistakes": "header, nav, section:not(#pictures), footer"}
MARGIN = 36


def main() -> None:
    page = (Path(sys.argv[1]) / "report.html").read_text(encoding="utf-8")
    for name, hidden in PICTURES.items():
        path = Path(__file__).with_name(f"{name}.png")
        picture = trim(photograph(page.replace("</style>", f"{hidden} {{ display: none }}</style>", 1)))
        picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
        print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size // 1000} KB")


def photograph(page: str) -> Image.Image:
    """The page, 1200 CSS pixels wide and in light colours, as headless Chromium draws it at 1.5 pixels each."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        source, picture = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(page, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += [f"--user-data-dir={folder}/profile", "--blink-settings=preferredColorScheme=1"]
        options += ["--force-device-scale-factor=1.5", "--window-size=1200,2000", f"--screenshot={picture}"]
        subprocess.run([browser, *options, source.as_uri()], check=True, capture_output=True, timeout=120)
        with Image.open(picture) as image:
            return image.convert("RGB")


def trim(picture: Image.Image) -> Image.Image:
    """Cut the empty border down to MARGIN pixels."""
    paper = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    left, top, right, bottom = ImageChops.difference(picture, paper).getbbox()
    box = (max(0, left - MARGIN), max(0, top - MARGIN), right + MARGIN, bottom + MARGIN)
    return picture.crop(box)


if __name__ == "__main__":
    main()
