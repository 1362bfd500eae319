"""On the path of whatever a mutant's process starts, so that it has the same audit hook from its beginning on."""

import os
import sys
from pathlib import Path

if folder := os.environ.get("MULTITL_FUZZ_FOLDER"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from fuzz.guard import install

    del sys.path[0]
    install(Path(folder))
