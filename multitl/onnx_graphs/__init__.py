"""Keras' functional graphs written as ONNX, with neither PyTorch nor TensorFlow. Comes in: a functional model, under
any backend; goes out: an ONNX model. Read `values.py` first, then `sheet.py` and `writing.py`; a table of operations
is in each of the others.
"""

__all__ = ["running", "writing"]
