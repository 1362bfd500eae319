"""From bytes to tensors, without Keras and without trust: PyTorch's, safetensors', HDF5's and Keras' files, tables for
spreadsheets, downloads. Comes in: a path; goes out: arrays and text, or a WeightsError. Read `torch_files.py` first;
what else is here serves those of the face.
"""

__all__ = ["csv_cells", "downloads", "hdf5_files", "keras_files", "safetensors_files", "sealed_arrays", "torch_files"]
