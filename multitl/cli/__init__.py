"""The command line: flags in, text and an exit code out. Read `main.py` first, then `commands.py`."""

__all__ = ["main"]
