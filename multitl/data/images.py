"""From an image file to 8-bit RGB or other channels, and, with geometry.py, to pixels as a network wants them.

Nothing is taken on trust: a file is read once, its size is checked before it is decoded, and only formats whose
decoders are plain libraries are allowed (Pillow's EPS reader, for one, would start Ghostscript). Every function may run
in any thread: no setting of Pillow or of `warnings` is changed, and LOAD_TRUNCATED_IMAGES has no say.
"""

from __future__ import annotations

import base64
import contextlib
import io
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from multitl.contracts import RGB, Decoding, Preprocess
from multitl.data import stacks
from multitl.data.bands import HOW_TO_PICK, NPY, eight_bits, picked, plain_values, white_of
from multitl.data.containers import read_address, split_address
from multitl.data.depths import FLOATS, GREY16, GREYS, PLAIN, Look, channels_of, kind_of, look_at, to_eight_bits, unfit
from multitl.data.dicoms import is_dicom, open_dicom
from multitl.data.geometry import MAX_PIXELS, fit_pixels, to_rgb
from multitl.data.stacks import is_stack
from multitl.data.tiffs import count_pages, describe_tiff
from multitl.system.budgets import Budget

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM")
UNSUPPORTED = ("pixel mode", "data organization", "samples per pixel", "string index")  # of a TIFF, as Pillow tells it
CONVERT = "convert it to grey, RGB or RGBA of 8 bits; grey may have 16 or 32; or --channels R,G,B or all"
PLAINLY = Decoding()
MAX_BYTES = 2**31
CHANNELS_PLAIN = 4  # of an ordinary picture; a stack of more takes room for so many pictures
Picture = Image.Image | list[Image.Image]  # of RGB, or of other channels an image of 8 bits for each
AT_ONCE = MAX_PIXELS  # in all threads together: the largest image alone, or as many small ones as there are threads


class UnreadableImage(Exception):  # noqa: N818  (a verdict on a file, not a bug)
    """Why a file gives no pixels, in one line for people. Callers list the file or turn this into a DataError.

    fix: what would make it readable, if that is known.
    """

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


def open_rgb(path: str | Path, decoding: Decoding = PLAINLY) -> Image.Image:
    """Decode a file to an upright RGB image. Raises UnreadableImage."""
    return decode_rgb(read_file(path), decoding)


def decode_pixels(data: bytes, preprocess: Preprocess, budget: Budget) -> np.ndarray:
    """Decode and fit a file's bytes: uint8 (height, width, channels). Raises UnreadableImage.

    budget: of pixels, shared by the threads that decode at the same time.
    """
    return decode_and_look(data, preprocess, budget)[0]


def decode_and_look(data: bytes, preprocess: Preprocess, budget: Budget) -> tuple[np.ndarray, Look]:
    """`decode_pixels`, and what values there were."""
    with budget.take(count_pixels(data, preprocess.decoding)):
        picture, look = _decode(data, preprocess.decoding)
        return fit_pixels(picture, preprocess), look


def read_file(path: str | Path) -> bytes:
    """The bytes of an ordinary, non-empty file, or of an image in a container. Raises UnreadableImage."""
    try:
        address = split_address(str(path))
        data = read_address(*address) if address else _read_ordinary(Path(path))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnreadableImage(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise UnreadableImage("empty: 0 bytes")
    return data


def _read_ordinary(file: Path) -> bytes:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a file")  # reading a pipe or a device could last for ever
    if status.st_size > MAX_BYTES:
        raise UnreadableImage(f"too large: {status.st_size:,} bytes, the limit is {MAX_BYTES:,}")
    return file.read_bytes()


def count_pixels(data: bytes, decoding: Decoding = PLAINLY) -> int:
    """Width times height, by the header alone: what decoding will take from a `Budget`. Raises UnreadableImage."""
    with _one_line_reasons():
        if is_stack(data, decoding):
            height, width, channels = _measure_stack(data)
            return height * width * -(-channels // CHANNELS_PLAIN)
        image = _identify(data)
        if decoding.page > 1:
            _turn_to(image, decoding.page)
        return image.width * image.height


def decode_rgb(data: bytes, decoding: Decoding = PLAINLY) -> Image.Image:
    """Decode a file's bytes to an upright RGB image; of several frames or pages the first, or the one asked for.

    EXIF orientation is applied. Transparency is laid over white. Grey of more than 8 bits: see depths.py. CMYK is
    converted without a colour profile. Of more than three channels the first three are shown, of one or two the first,
    in grey.
    Raises UnreadableImage.
    """
    picture = _decode(data, decoding)[0]
    if isinstance(picture, Image.Image):
        return picture
    return Image.merge("RGB", picture[:3] if len(picture) >= 3 else picture[:1] * 3)


def check_image(data: bytes, decoding: Decoding = PLAINLY) -> Look:
    """What values a file holds. Raises UnreadableImage where `decode_rgb` would, unless values are the reason.

    A JPEG is decoded in grey at an eighth of its size: every byte still passes through the decoder, but sooner.
    """
    with _one_line_reasons():
        if is_stack(data, decoding):
            return _pick(data, decoding)[1]
        image = _identify(data)
        if decoding.channels:
            _picked(decoding, channels_of(image.mode))
        if image.format == "JPEG":
            channels = channels_of(image.mode)
            image.draft("L", (1, 1))
            image.load()
            return Look(channels=channels)
        look = _load(image, decoding)
        if look.kind not in GREYS:
            _to_rgb(image)
        return look


def suffix_of(data: bytes) -> str:
    """How a file of these bytes is called: ".jpeg"; "" for what is no image."""
    Image.init()
    accepts = {name: Image.OPEN[name][1] for name in FORMATS if name in Image.OPEN}
    start = data[:16].ljust(16, b"\0")
    known = [name for name, accept in accepts.items() if accept and accept(start) is True]
    kind = "HEIC" if _is_heif(data) else "DCM" if is_dicom(data) else known[0] if known else ""
    return ".npy" if data.startswith(NPY) else f".{kind.lower()}" if kind else ""


def thumbnail_jpeg(path: str | Path, side: int, decoding: Decoding = PLAINLY) -> bytes:
    """A small upright JPEG of a file, at most `side` pixels wide and high. Raises UnreadableImage."""
    image, buffer = open_rgb(path, decoding), io.BytesIO()
    image.thumbnail((side, side))
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def jpeg_uri(jpeg: bytes) -> str:
    """The picture itself as an address, for a page that loads nothing."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


class _Bytes(io.BytesIO):
    """A file in memory whose end is an error once `strict`: a decoder that wants more has met a truncated file.

    Pillow checks the same, unless somebody set the global ImageFile.LOAD_TRUNCATED_IMAGES.
    """

    strict = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.strict and not data and size != 0:
            raise OSError("image file is truncated")
        return data


def _decode(data: bytes, decoding: Decoding) -> tuple[Picture, Look]:
    with _one_line_reasons():
        if is_stack(data, decoding):
            values, look = _pick(data, decoding)
            _check_fit(look, decoding)
            limits = decoding.values or (0, white_of(values))
            planes = np.moveaxis(values, -1, 0)
            eight = planes if look.kind == PLAIN else (eight_bits(plane, *limits) for plane in planes)
            return _joined([Image.fromarray(np.ascontiguousarray(plane)) for plane in eight]), look
        image = _identify(data, is_windowed=decoding.values is None)
        look = _load(image, decoding)
        _check_fit(look, decoding)
        with contextlib.suppress(Exception):  # damaged EXIF says nothing about the pixels
            ImageOps.exif_transpose(image, in_place=True)
        rgb = _to_rgb(to_eight_bits(image, look, decoding) if look.kind in GREYS else image)
        if decoding.channels is None:
            return rgb, look
        bands = rgb.split()
        return _joined([bands[channel - 1] for channel in _picked(decoding, look.channels)]), look


def _joined(bands: list[Image.Image]) -> Picture:
    return Image.merge("RGB", bands) if len(bands) == RGB else bands


def _check_fit(look: Look, decoding: Decoding) -> None:
    if reason := unfit(look, decoding):
        raise UnreadableImage(reason, fix="--range LOW,HIGH says which values are black and white")


def _pick(data: bytes, decoding: Decoding) -> tuple[np.ndarray, Look]:
    """The channels that are taken (height, width, channels), and what values they hold together."""
    held = _measure_stack(data)[2]
    taken = _picked(decoding, held)
    values = plain_values(stacks.read_stack(data)[..., [channel - 1 for channel in taken]])
    if values.dtype == np.uint8:
        return values, Look(channels=held)
    kind = FLOATS if values.dtype.kind == "f" else GREY16
    return values, Look(kind, float(values.min()), float(values.max()), channels=held)


def _picked(decoding: Decoding, held: int) -> Sequence[int]:
    try:
        return picked(decoding.channels, held)
    except ValueError as error:
        raise UnreadableImage(str(error), HOW_TO_PICK) from error


def _measure_stack(data: bytes) -> tuple[int, int, int]:
    try:
        height, width, channels = stacks.measure(data)
    except ImportError as error:
        raise UnreadableImage(
            f"a TIFF, whose channels need the package tifffile: {stacks.TIFFFILE}", stacks.TIFFFILE
        ) from error
    _check_room(width, height, -(-channels // CHANNELS_PLAIN))
    return height, width, channels


def _load(image: ImageFile.ImageFile, decoding: Decoding) -> Look:
    """Decode the page that is asked for; a file with one picture gives that."""
    pages = count_pages(image)
    if decoding.page > 1:
        _turn_to(image, decoding.page)
    kind = kind_of(image)
    image.load()
    return look_at(image, kind, pages)


def _turn_to(image: Image.Image, page: int) -> None:
    try:
        image.seek(1)
    except EOFError:
        return
    try:
        image.seek(page - 1)
        _check_size(image)
    except EOFError as error:
        raise UnreadableImage(f"it has no page {page}", fix="choose another with --page N") from error


def _identify(data: bytes, *, is_windowed: bool = True) -> ImageFile.ImageFile:
    """`Image.open` for FORMATS, minus its warning for large images, which no thread could catch safely.

    is_windowed: of DICOM, whether the file's own window is looked through.
    """
    Image.init()
    if is_dicom(data):
        image = _open_dicom(data, is_windowed)
        _check_size(image)
        return image
    if _is_heif(data):
        file = _Bytes(data)
        return _checked(_open_heif(file), file)
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and accept and accept(data[:16]) is True:
            file = _Bytes(data)
            try:
                return _checked(factory(file, ""), file)
            except SyntaxError as error:
                if any(words in str(error) for words in UNSUPPORTED) and (pixels := describe_tiff(data)):
                    raise UnreadableImage(f"unsupported: {pixels}", fix=CONVERT) from error
                raise
    raise UnreadableImage(f"not an image in a supported format ({', '.join(FORMATS)})")


def _is_heif(data: bytes) -> bool:
    """HEIC of telephones, by the brands in its first box; an AVIF is another."""
    brands = data[8 : int.from_bytes(data[:4])] if data[4:8] == b"ftyp" else b""
    return any(brands[place : place + 3] in (b"hei", b"hev") for place in range(0, min(len(brands), 256), 4))


def _open_heif(file: _Bytes) -> ImageFile.ImageFile:
    """By the package's own class: Pillow's list of formats is not changed."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        fix = "pip install 'multitl[heif]'"
        raise UnreadableImage(f"HEIC, which needs the package pillow-heif: {fix}", fix) from error
    return HeifImageFile(file, "")


def _open_dicom(data: bytes, is_windowed: bool) -> ImageFile.ImageFile:
    try:
        return open_dicom(data, is_windowed=is_windowed)
    except ImportError as error:
        fix = "pip install 'multitl[dicom]'"
        raise UnreadableImage(f"DICOM, which needs the package pydicom: {fix}", fix) from error


def _checked(image: ImageFile.ImageFile, file: _Bytes) -> ImageFile.ImageFile:
    _check_size(image)
    file.strict = True
    return image


def _check_size(image: Image.Image) -> None:
    _check_room(image.width, image.height)


def _check_room(width: int, height: int, times: int = 1) -> None:
    """times: as much as an ordinary picture takes, for more channels."""
    if width * height * times > MAX_PIXELS:
        size = f"{width:,} x {height:,} pixels" + (" of many channels" if times > 1 else "")
        raise UnreadableImage(f"too large: {size}, the limit is {MAX_PIXELS:,} (decompression bomb?)")


@contextlib.contextmanager
def _one_line_reasons() -> Iterator[None]:
    """Whatever a decoder raises becomes UnreadableImage with a short reason."""
    try:
        yield
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage("too large for the memory of this machine") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, EOFError, zlib.error, ...
        text = str(error).partition("\n")[0]
        if isinstance(error, EOFError | struct.error) or "truncated" in text.lower():
            raise UnreadableImage("truncated: the file ends before the picture does") from error
        raise UnreadableImage(f"damaged: {text or type(error).__name__}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    try:
        return to_rgb(image)
    except ValueError as error:
        raise UnreadableImage(f"unsupported pixel format {image.mode}") from error
