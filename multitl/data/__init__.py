"""From a user's folder or table to batches of pixels. Comes in: a path; goes out: a `contracts.Dataset`, then uint8
images. Read `scanning.py` first, then `pixels.py` and `images.py`.
"""

__all__ = [
    "augmentation", "bands", "bins", "columns", "depths", "geometry", "images", "listings", "parquet_images", "parts",
    "pixel_store", "pixels", "remote", "resampling", "scanning", "split_names", "stripes", "tables",
    "unlabelled",
]  # fmt: skip
