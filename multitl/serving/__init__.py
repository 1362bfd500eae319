"""A finished run behind HTTP: a page to try it on, and an endpoint for programs. Comes in: the folder of a run or of
its ONNX artefact, then images of anyone's; goes out: what `multitl predict` says of them. Read `answers.py` first,
then `answerers.py` and `app.py`.
"""

__all__ = ["server"]
