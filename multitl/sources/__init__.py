"""Sources of pretrained weights that need no framework of their own; each module satisfies `contracts.Source`."""
