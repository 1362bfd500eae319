"""Models for other ecosystems, each with a proof that it gives the same answers there. Comes in: a run, a file or the
name of a network; goes out: a folder with an artefact and its card. Read `exporting.py` first, then `formats.py`.
"""

__all__ = ["asked", "exporting", "formats", "generated_code", "translate"]
