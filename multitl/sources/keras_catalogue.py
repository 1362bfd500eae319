"""The 40 networks of keras.applications as data, known without importing Keras: sizes, pixels, licences, weights.

`tests/sources/test_keras_applications.py` holds this table to the installed Keras: names, URLs and hashes, pixel
values, smallest sizes and download sizes.

Licences: those of the weights, as the old Keras documentation and the authors' repositories state them (VGG
https://www.robots.ox.ac.uk/~vgg/research/very_deep, KaimingHe/deep-residual-networks, liuzhuang13/DenseNet,
facebookresearch/ConvNeXt; Xception was trained by Keras' author; the others come from Google's repositories).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from multitl.contracts import Head, Preprocess

Pixels = Literal["caffe", "tf", "torch", "inside"]
_STORE = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclass(frozen=True)
class Family:
    """How a group of networks was trained and judged by its authors.

    Geometry at side s: the shorter side becomes s / fraction + border and the centre is cut out; from `squash_from` on
    the whole image is squashed to s x s instead.  pixels: the style of `preprocess_input`; "inside": the network
    takes [0, 255] and scales by itself.  minimum: the smallest side that Keras accepts.  is_flattened: the classifier
    has weights for every position of the feature map, and so for one size of image.
    """

    licence: str
    pixels: Pixels
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    fraction: float = 1.0
    border: int = 0
    squash_from: int = 10_000
    minimum: int = 32
    is_flattened: bool = False


@dataclass(frozen=True)
class Architecture:
    """One network with one set of official weights.

    variant: what follows the colon, "" for the plain name.  megabytes: of the headless weights.
    url: of those weights; "{size}" stands for one of `url_sizes`, the last of them also serving every other size.
    digest: MD5 or SHA-256 as Keras checks it, None where Keras has none.  options: arguments of the Keras function.
    The file with the classifier has the same name less "no top", and a digest in `_WHOLE`.
    """

    name: str
    family: Family
    image_size: int
    megabytes: float
    url: str
    digest: str | None = None
    variant: str = ""
    url_sizes: tuple[int, ...] = ()
    options: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f"keras/{self.name}" + (f":{self.variant}" if self.variant else "")

    def weights_url(self, image_size: int, head: Head = "cut") -> str:
        """Where Keras downloads the weights for this size of image from."""
        url = self.url if head == "cut" else re.sub(r"[_-]no[_-]?top(_v2)?", "", self.url)
        sizes = self.url_sizes
        return url.replace("{size}", str(image_size if image_size in sizes else sizes[-1])) if sizes else url

    def kept_at(self, image_size: int, head: Head = "cut") -> Path:
        """Where Keras keeps that file, or will."""
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        return home / "models" / self.weights_url(image_size, head).rpartition("/")[2]

    def weights_digest(self, head: Head = "cut") -> str | None:
        """Of the file at `weights_url`."""
        return self.digest if head == "cut" else _WHOLE.get(self.full_name.partition("/")[2])

    def preprocess(self, image_size: int) -> Preprocess:
        """Geometry as the authors judged the network, values as `preprocess_input` gives them.

        antialias: Keras' own `load_img` resizes with Pillow, which always smooths.
        """
        from multitl.models.preprocessing import with_values

        family = self.family
        geometry = Preprocess(
            height=image_size,
            width=image_size,
            resize="squash" if image_size >= family.squash_from else "crop",
            shorter_side=round(image_size / family.fraction) + family.border,
            interpolation=family.interpolation,
            antialias=True,
        )
        return geometry if family.pixels == "inside" else with_values(geometry, family.pixels)


# VGG's paper tests at a shorter side of 256; He et al. judge one 224 crop of an image of 256.
_VGG = Family("CC BY 4.0", "caffe", fraction=0.875, is_flattened=True)
_RESNET = Family("MIT", "caffe", fraction=0.875)
# fb.resnet.torch, which DenseNet was trained with: Scale(256), bicubic by default, then CenterCrop(224).
_DENSENET = Family("BSD-3-Clause", "torch", "bicubic", fraction=0.875)
# TF-slim's inception_preprocessing: the central 87.5 %, bilinear. (slim squashes what is left to a square.)
_SLIM = Family("Apache-2.0", "tf", fraction=0.875)
_INCEPTION = Family("Apache-2.0", "tf", fraction=0.875, minimum=75)
_XCEPTION = Family("MIT", "tf", fraction=0.875, minimum=71)
_MOBILENET_V3 = Family("Apache-2.0", "inside", fraction=0.875)
# tensorflow/tpu efficientnet/preprocessing.py: the central s / (s + 32) of the shorter side, bicubic.
_EFFICIENTNET = Family("Apache-2.0", "inside", "bicubic", border=32)
# google/automl efficientnetv2/preprocessing.py: B0 to B3 as version 1; S, M, L bilinear, cropped only below 320.
_EFFICIENTNET_V2 = Family("Apache-2.0", "inside", "bilinear", border=32, squash_from=320)
# facebookresearch/ConvNeXt datasets.py: 224/256 of the shorter side, bicubic; warped from 384 on.
_CONVNEXT = Family("MIT", "inside", "bicubic", fraction=0.875, squash_from=384)


def _weights(name: str, family: Family, image_size: int, megabytes: float, file: str, digest: str) -> Architecture:
    url = f"{_STORE}{file}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return Architecture(name, family, image_size, megabytes, url, digest)


def _mobilenet(alpha: float, file: str, megabytes: float) -> Architecture:
    # Keras names this network after alpha, and PyTorch refuses a layer with a dot in its name.
    name, variant = f"mobilenet_{file}", "" if alpha == 1 else f"alpha={alpha:g}"
    url, sizes = f"{_STORE}mobilenet/mobilenet_{file}_{{size}}_tf_no_top.h5", (128, 160, 192, 224)
    return Architecture("MobileNet", _SLIM, 224, megabytes, url, None, variant, sizes, {"alpha": alpha, "name": name})


def _mobilenet_v2(alpha: float, megabytes: float) -> Architecture:
    name, variant = f"mobilenetv2_{alpha}".replace(".", "_"), "" if alpha == 1 else f"alpha={alpha:g}"
    url = f"{_STORE}mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{{size}}_no_top.h5"
    sizes = (96, 128, 160, 192, 224)
    return Architecture("MobileNetV2", _SLIM, 224, megabytes, url, None, variant, sizes, {"alpha": alpha, "name": name})


def _mobilenet_v3(size: str, megabytes: float, digest: str, variant: str = "") -> Architecture:
    files: dict[str, tuple[str, dict[str, float]]] = {
        "": ("224_1.0", {}),
        "alpha=0.75": ("224_0.75", {"alpha": 0.75}),
        "minimalistic=true": ("minimalistic_224_1.0", {"minimalistic": True}),
    }
    file, options = files[variant]
    url = f"{_STORE}mobilenet_v3/weights_mobilenet_v3_{size.lower()}_{file}_float_no_top_v2.h5"
    return Architecture(f"MobileNetV3{size}", _MOBILENET_V3, 224, megabytes, url, digest, variant, (), options)


def _nasnet(size: str, image_size: int, megabytes: float, digest: str) -> Architecture:
    url = f"{_STORE}nasnet/NASNet-{size.lower()}-no-top.h5"
    return Architecture(f"NASNet{size}", _SLIM, image_size, megabytes, url, digest)


def _efficientnet(size: str, image_size: int, megabytes: float, digest: str) -> Architecture:
    url = f"https://storage.googleapis.com/keras-applications/efficientnet{size.lower()}_notop.h5"
    return Architecture(f"EfficientNet{size}", _EFFICIENTNET, image_size, megabytes, url, digest)


def _efficientnet_v2(size: str, image_size: int, megabytes: float, digest: str) -> Architecture:
    family = _EFFICIENTNET if size.startswith("B") else _EFFICIENTNET_V2
    url = f"{_STORE}efficientnet_v2/efficientnetv2-{size.lower()}_notop.h5"
    return Architecture(f"EfficientNetV2{size}", family, image_size, megabytes, url, digest)


def _convnext(size: str, megabytes: float, digest: str) -> Architecture:
    url = f"{_STORE}convnext/convnext_{size.lower()}_notop.h5"
    return Architecture(f"ConvNeXt{size}", _CONVNEXT, 224, megabytes, url, digest)


ARCHITECTURES = (
    _weights("Xception", _XCEPTION, 299, 84, "xception/xception", "b0042744bf5b25fce3cb969f33bebb97"),
    _weights("VGG16", _VGG, 224, 59, "vgg16/vgg16", "6d6bbae143d832006294945121d1f1fc"),
    _weights("VGG19", _VGG, 224, 80, "vgg19/vgg19", "253f8cb515780f3b799900260a226db6"),
    _weights("ResNet50", _RESNET, 224, 94, "resnet/resnet50", "4d473c1dd8becc155b73f8504c6f6626"),
    _weights("ResNet101", _RESNET, 224, 171, "resnet/resnet101", "88cf7a10940856eca736dc7b7e228a21"),
    _weights("ResNet152", _RESNET, 224, 234, "resnet/resnet152", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    _weights("ResNet50V2", _SLIM, 224, 94, "resnet/resnet50v2", "fac2f116257151a9d068a22e544a4917"),
    _weights("ResNet101V2", _SLIM, 224, 170, "resnet/resnet101v2", "c0ed64b8031c3730f411d2eb4eea35b5"),
    _weights("ResNet152V2", _SLIM, 224, 233, "resnet/resnet152v2", "ed17cf2e0169df9d443503ef94b23b33"),
    _weights("InceptionV3", _INCEPTION, 299, 87, "inception_v3/inception_v3", "bcbd6486424b2319ff4ef7d526e38f63"),
    _weights(
        "InceptionResNetV2",
        _INCEPTION,
        299,
        217,
        "inception_resnet_v2/inception_resnet_v2",
        "d19885ff4a710c122648d3b5c3b684e4",
    ),
    _mobilenet(1.0, "1_0", 13),
    _mobilenet(0.75, "7_5", 7.3),
    _mobilenet(0.5, "5_0", 3.3),
    _mobilenet(0.25, "2_5", 0.9),
    _mobilenet_v2(1.0, 9),
    _mobilenet_v2(0.35, 1.6),
    _mobilenet_v2(0.5, 2.8),
    _mobilenet_v2(0.75, 5.5),
    _mobilenet_v2(1.3, 15),
    _mobilenet_v2(1.4, 17),
    _mobilenet_v3("Small", 3.8, "d3e8ec802a04aa4fc771ee12a9a9b836"),
    _mobilenet_v3("Small", 2.3, "ebdb5cc8e0b497cd13a7c275d475c819", "alpha=0.75"),
    _mobilenet_v3("Small", 1.8, "cde8136e733e811080d9fcd8a252f7e4", "minimalistic=true"),
    _mobilenet_v3("Large", 12, "07fb09a5933dd0c8eaafa16978110389"),
    _mobilenet_v3("Large", 7.2, "40af19a13ebea4e2ee0c676887f69a2e", "alpha=0.75"),
    _mobilenet_v3("Large", 5.8, "ec5221f64a2f6d1ef965a614bdae7973", "minimalistic=true"),
    _weights("DenseNet121", _DENSENET, 224, 28, "densenet/densenet121", "30ee3e1110167f948a6b9946edeeb738"),
    _weights("DenseNet169", _DENSENET, 224, 50, "densenet/densenet169", "b8c4d4c20dd625c148057b9ff1c1176b"),
    _weights("DenseNet201", _DENSENET, 224, 73, "densenet/densenet201", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    _nasnet("Mobile", 224, 17, "1ed92395b5b598bdda52abe5c0dbfd63"),
    _nasnet("Large", 331, 340, "d81d89dc07e6e56530c4e77faddd61b5"),
    _efficientnet("B0", 224, 16, "50bc09e76180e00e4465e1a485ddc09d"),
    _efficientnet("B1", 240, 26, "74c4e6b3e1f6a1eea24c589628592432"),
    _efficientnet("B2", 260, 31, "111f8e2ac8aa800a7a99e3239f7bfb39"),
    _efficientnet("B3", 300, 43, "af6d107764bb5b1abb91932881670226"),
    _efficientnet("B4", 380, 71, "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    _efficientnet("B5", 456, 114, "38879255a25d3c92d5e44e04ae6cec6f"),
    _efficientnet("B6", 528, 164, "9ecce42647a20130c1f39a5d4cb75743"),
    _efficientnet("B7", 600, 256, "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    _efficientnet_v2("B0", 224, 24, "893217f2bb855e2983157299931e43ff"),
    _efficientnet_v2("B1", 240, 28, "0e80663031ca32d657f9caa404b6ec37"),
    _efficientnet_v2("B2", 260, 35, "1dfe2e7a5d45b6632553a8961ea609eb"),
    _efficientnet_v2("B3", 300, 52, "f6abf7b5849ac99a89b50dd3fd532856"),
    _efficientnet_v2("S", 384, 81, "af0682fb74e8c54910f2d4393339c070"),
    _efficientnet_v2("M", 480, 213, "1b8dc055df72dde80d614482840fe342"),
    _efficientnet_v2("L", 480, 471, "b0b66b5c863aef5b46e8608fe1711615"),
    _convnext("Tiny", 111, "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    _convnext("Small", 198, "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
    _convnext("Base", 350, "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
    _convnext("Large", 785, "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
    _convnext("XLarge", 1392, "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
)

_WHOLE: Mapping[str, str] = {  # digests of the files with classifiers, where Keras has any
    "Xception": "0a58e3b7378bc2990ea3b43d5981f1f6",
    "VGG16": "64373286793e3c8b2b4e3219cbf3544b",
    "VGG19": "cbe5617147190e668d6c5d5026f83318",
    "ResNet50": "2cb95161c43110f7111970584f804107",
    "ResNet101": "f1aeb4b969a6efcfb50fad2f0c20cfc5",
    "ResNet152": "100835be76be38e30d865e96f2aaae62",
    "ResNet50V2": "3ef43a0b657b3be2300d5770ece849e0",
    "ResNet101V2": "6343647c601c52e1368623803854d971",
    "ResNet152V2": "a49b44d1979771252814e80f8ec446f9",
    "InceptionV3": "9a0d58056eeedaa3f26cb7ebd46da564",
    "InceptionResNetV2": "e693bd0210a403b3192acc6073ad2e96",
    "MobileNetV3Small": "8768d4c2e7dee89b9d02b2d03d65d862",
    "MobileNetV3Small:alpha=0.75": "cb65d4e5be93758266aa0a7f2c6708b7",
    "MobileNetV3Small:minimalistic=true": "99cd97fb2fcdad2bf028eb838de69e37",
    "MobileNetV3Large": "59e551e166be033d707958cf9e29a6a7",
    "MobileNetV3Large:alpha=0.75": "765b44a33ad4005b3ac83185abf1d0eb",
    "MobileNetV3Large:minimalistic=true": "675e7b876c45c57e9e63e6d90a36599c",
    "DenseNet121": "9d60b8095a5708f2dcce2bca79d332c7",
    "DenseNet169": "d699b8f76981ab1b30698df4c175e90b",
    "DenseNet201": "1ceb130c1ea1b78c3bf6114dbdfd8807",
    "NASNetLarge": "11577c9a518f0070763c2b964a382f17",
    "EfficientNetB0": "902e53a9f72be733fc0bcb005b3ebbac",
    "EfficientNetB1": "1d254153d4ab51201f1646940f018540",
    "EfficientNetB2": "b15cce36ff4dcbd00b6dd88e7857a6ad",
    "EfficientNetB3": "ffd1fdc53d0ce67064dc6a9c7960ede0",
    "EfficientNetB4": "18c95ad55216b8f92d7e70b3a046e2fc",
    "EfficientNetB5": "ace28f2a6363774853a83a0b21b9421a",
    "EfficientNetB6": "165f6e37dce68623721b423839de8be5",
    "EfficientNetB7": "8c03f828fec3ef71311cd463b6759d99",
    "EfficientNetV2B0": "21ecbf6da12460d5c40bb2f29ceb2188",
    "EfficientNetV2B1": "069f0534ff22adf035c89e2d9547a9dc",
    "EfficientNetV2B2": "424e49f28180edbde1e94797771950a7",
    "EfficientNetV2B3": "1f1fc43bd98a6e4fd8fdfd551e02c7a0",
    "EfficientNetV2S": "e1d88a8495beba45748fedd0cecbe016",
    "EfficientNetV2M": "a3bf6aa3276309f4fc6a34aa114c95cd",
    "EfficientNetV2L": "27e6d408b53c7ebc868fefa357689935",
    "ConvNeXtTiny": "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
    "ConvNeXtSmall": "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c",
    "ConvNeXtBase": "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6",
    "ConvNeXtLarge": "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6",
    "ConvNeXtXLarge": "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee",
    "NASNetMobile": "020fb642bf7360b370c678b08e0adf61",
}
