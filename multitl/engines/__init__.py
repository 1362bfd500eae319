"""Who starts the processes that work on one run together, watches them, and starts them again: this machine, or Ray.
Comes in: a command and a number of workers; goes out: ended processes, or why they could not be. Read `watching.py`
first. A worker learns who it is from its environment (`distribution.group`), whoever started it.
"""

__all__ = ["ray_engine", "this_machine", "watching", "workers"]
