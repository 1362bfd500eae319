"""On the path of a process whose Keras shall be another release: some of its source is edited as it is imported.

The variable MULTITL_KERAS_EDITS holds JSON: a list of (pattern of a file's path, pattern in it, replacement).
"""

import json
import os
import re
from importlib.machinery import SourceFileLoader
from pathlib import Path

EDITS = json.loads(os.environ.get("MULTITL_KERAS_EDITS", "[]"))
compiled = SourceFileLoader.get_code


def get_code(self, fullname):
    path = Path(self.get_filename(fullname)).as_posix()
    edits = [(pattern, new) for place, pattern, new in EDITS if re.search(f"/keras/src/{place}$", path)]
    if not edits:
        return compiled(self, fullname)
    text = Path(path).read_text(encoding="utf-8")
    for pattern, new in edits:
        text, count = re.subn(pattern, new, text)
        if not count:
            raise SystemExit(f"{path} has nothing like {pattern}")
    return compile(text, path, "exec")


if EDITS:
    SourceFileLoader.get_code = get_code
