"""The loop. Comes in: a recipe, a data set, a backbone; goes out: the folder of a finished run. Read `finetuning.py`
first: it calls the rest in order.
"""

__all__ = [
    "asked",
    "candidates",
    "checkpoints",
    "choosing",
    "extractors",
    "finetuning",
    "groups",
    "phases",
    "recording",
    "several_heads",
]
