"""What can be done with any Keras model of ours, wherever it came from: a head on it, freezing, stages, folding,
running it in batches, saving and loading it. Comes in and goes out: a `keras.Model`. Read `heads.py` first, then
`freezing.py`.
"""

__all__ = [
    "feature_maps",
    "first_layer",
    "folding",
    "freezing",
    "goals",
    "heads",
    "inference",
    "initialisers",
    "insides",
    "joint",
    "keras_archives",
    "model_files",
    "norm_statistics",
    "objective",
    "preprocessing",
    "stages",
    "statistics",
    "strangeness",
    "together",
    "weight_files",
    "weight_hashes",
]
