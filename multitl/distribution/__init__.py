"""One job on many devices: who the others are, and how all of them are started, watched and started again. Comes in:
the environment, or a command and a number of workers; goes out: a `Group`, or ended processes. Read `watching.py`
first. Nothing here knows of models or frameworks, and who works alone loads and pays nothing of it.
"""

__all__ = ["ray_engine", "this_machine", "watching"]
