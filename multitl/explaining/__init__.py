"""Where in an image what a network says comes from. Comes in: a classifier and pixels; goes out: a map of numbers for
each class, and pictures of them. Read `explainers.py` first, then `contributions.py`.
"""

__all__ = ["contributions", "explainers", "overlays"]
