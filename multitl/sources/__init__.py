"""Where pretrained weights come from; a module a source, and each satisfies `contracts.Source`. Comes in: a name such
as "torchvision/resnet50"; goes out: a `contracts.Pretrained`. Read `pretrained.py` first, then `torchvision.py`.
"""

__all__ = ["file", "imagenet", "keras_applications", "pretrained", "pypi", "run", "tfhub", "timm", "torchvision"]
