"""The folder of a run: its card, whose it is, what it promises. Comes in: a folder that anyone may have made; goes out:
a typed card, or a RunError. Read `cards.py` first, then `folders.py`.
"""

__all__ = ["cards", "familiarity", "folders", "head_runs", "heatmaps", "images", "label_figures", "locks", "promises"]
