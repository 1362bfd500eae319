"""What goes with a model that leaves, so that it needs no multitl: see programs.py."""

__all__ = ["classify", "decisions", "programs"]
