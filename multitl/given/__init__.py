"""Data that are no folder and no table but objects of a program: arrays, frames, data sets of the frameworks. Comes in:
any of them; goes out: the path of a table of files, which everything else reads. Read `shelves.py` first, then
`kinds.py`; each kind has a file that imports nothing of the library it is for.
"""

__all__ = ["shelves"]
