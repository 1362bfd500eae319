"""The command line: flags in, text and an exit code out. Read `main.py` first."""

__all__ = ["main"]
