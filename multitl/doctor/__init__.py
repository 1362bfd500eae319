"""`multitl doctor`: what works on this machine. Comes in: nothing; goes out: a `Diagnosis`. Read `diagnosis.py` first;
to add a check, `traps.py`.
"""

__all__ = ["diagnosis", "probe"]
