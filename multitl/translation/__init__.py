"""Networks of other frameworks as Keras models, and their weights back again. Comes in: a graph of operations, by an
adapter's table; goes out: a functional model of stock layers, with a figure for how exact it is. Read `values.py`
first, then `building.py`; `store.py` keeps what was made.
"""

__all__ = [
    "building",
    "cutting",
    "descriptions",
    "entries",
    "filling",
    "layouts",
    "op_tables",
    "parity",
    "state_dicts",
    "store",
    "values",
]
