"""Loops that an expert of one framework would write, without Keras and without multitl: what `multitl bench` measures
multitl against. Each file reads as an example: pytorch.py, jax_loop.py, tensorflow_loop.py, textbook.py.
"""
