"""`multitl bench`: contenders against each other on this machine. Comes in: options; goes out: results, standings, a
page. Read `jobs.py` first, then `race.py` and `worker.py`.
"""

__all__ = ["board", "command", "comparison", "flags"]
