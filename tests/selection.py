"""Which test files run: `python tests/selection.py` prints those of `make check`, one a line; and in which order.

`make check` runs the core, and what mirrors the files that differ from the branch `main`, committed or not.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The files that take longest, longest first: begun last, one of them would keep one core busy after the rest is done.
LONGEST = (ROOT / "tests" / "longest.txt").read_text().split()


def main() -> None:
    print("\n".join(selected()))


def selected() -> list[str]:
    """What changed first."""
    return list(dict.fromkeys([*tests_of(changed_files()), *core()]))


def core(*, whole: bool = False) -> list[str]:
    """The files of core.txt; unless `whole`, of its first part, which takes a minute and a half on two cores."""
    text = (ROOT / "tests" / "core.txt").read_text(encoding="utf-8")
    lines = (text if whole else text.partition("# Too long")[0]).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def changed_files() -> list[str]:
    """Relative to the repository's root; nothing where there is no repository, as in an sdist."""
    base = git("merge-base", "HEAD", "main") or ["HEAD"]
    return [*git("diff", "--name-only", *base), *git("ls-files", "--others", "--exclude-standard")]


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def tests_of(files: Iterable[str]) -> list[str]:
    """Test files that changed, and those that mirror a module that did."""
    found = [path for file in files for path in ([Path(file)] if is_test(file) else mirrors(Path(file)))]
    return list(dict.fromkeys(str(path) for path in found if (ROOT / path).is_file()))


def is_test(file: str) -> bool:
    return re.fullmatch(r"tests/(.+/)?test_\w+\.py", file) is not None


def mirrors(file: Path) -> list[Path]:
    """multitl/data/splits.py -> tests/data/test_splits.py; without one, the tests in tests/data/ that import splits."""
    if file.suffix != ".py" or file.parts[0] not in ("multitl", "backends", "benchmarks"):
        return []
    rooms = {"multitl": file.parts[1:-1], "backends": ("backends",), "benchmarks": ("bench",)}
    folder = Path("tests", *rooms[file.parts[0]])
    own = folder / f"test_{file.stem}.py"
    if (ROOT / own).is_file():
        return [own]
    imports = re.compile(rf"^\s*(from|import) .*\b{re.escape(file.stem)}\b", re.MULTILINE)
    tests = sorted((ROOT / folder).glob("test_*.py"))
    return [test.relative_to(ROOT) for test in tests if imports.search(test.read_text(encoding="utf-8"))]


def place(file: str) -> int:
    """Of a test file in the order of all: the longest come first, the rest stays as it is."""
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


if __name__ == "__main__":
    main()
