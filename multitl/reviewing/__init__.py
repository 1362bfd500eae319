"""The faults of the data, from stored features. Comes in: a finished run; goes out: issues.csv, for a person to decide
on. Read `reviewing.py` first: it calls the rest in order. (`multitl/doctor/` looks at the machine instead.)
"""

__all__ = ["asked", "drift", "reviewing"]
