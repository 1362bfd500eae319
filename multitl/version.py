"""The version of multitl, for whoever writes it down without importing the rest."""

__version__ = "0.1.0"
