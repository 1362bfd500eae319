"""From bytes to tensors, without Keras and without trust: PyTorch's, safetensors', HDF5's and Keras' files, tables for
spreadsheets, downloads. Comes in: a path; goes out: arrays and text, or a WeightsError. Read `state_dict_files.py`
first, then `torch_files.py`; what is not listed below serves those that are.
"""

__all__ = ["csv_cells", "downloads", "hdf5_files", "keras_files", "sealed_arrays", "state_dict_files"]
