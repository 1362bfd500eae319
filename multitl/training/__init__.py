"""The loop. Comes in: a recipe, a data set, a backbone; goes out: the folder of a finished run. Read `finetuning.py`
first: it calls the rest in order.
"""

__all__ = [
    "asked",
    "candidates",
    "checkpoints",
    "choosing",
    "extractors",
    "feature_rows",
    "feature_store",
    "features",
    "finetuning",
    "groups",
    "heads",
    "large_tasks",
    "phases",
    "recording",
    "sessions",
    "several_heads",
    "solved_head",
    "targets",
]
