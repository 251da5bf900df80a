"""One image file to pixels, through Pillow, with hostile bytes in mind.

What becomes of an image that is not already 8 bits of RGB or L (*noted* where it happens):

- a name that lies: the content decides, among `FORMATS`; anything else is refused
- EXIF orientation: applied (noted); unreadable EXIF: ignored (noted)
- several frames (GIF, WebP, APNG, TIFF, MPO): the first (noted)
- alpha or a transparent colour: dropped, so the colour under it counts; premultiplied colour is divided first (noted)
- palette: looked up (noted)
- CMYK: Pillow's plain formula, no colour profile (noted); embedded profiles are ignored everywhere
- 16 bits: to 8 bits; gray by rounding value / 257, colour as Pillow's decoder does (noted)
- 32 bits or signed 16, gray, of a TIFF, whose white is unknown: grey levels as they are where all lie in 0..255, else
  16 bits where all lie in 0..65535 (noted)
- RGB where the card says L: ITU-R 601-2 luma; L where it says RGB or BGR: the same value three times
- 12 or more than 16 bits, 16 bits with white at zero, floating point, CIE Lab: refused

Then the region of interest is cut out, and the card's resize follows, see `resizing`.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from analyzer.card import Card
from analyzer.images.archives import content
from analyzer.images.files import regular_bytes
from analyzer.images.resizing import MAX_PIXELS, ImageError, refuse_above_limit, resized

if TYPE_CHECKING:
    from analyzer.images import folder

FORMATS = ("PNG", "JPEG", "PPM", "BMP", "GIF", "TIFF", "WEBP")

_ORIENTATION = 0x0112
_PHOTOMETRIC = 0x0106
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Pixels:
    """One image, ready to be perturbed.

    values: float32 (C, H, W) as in `Card.pixel_shape`, grey levels 0..255, RGB or L whatever the card's channel order.
    sha256: of the file's bytes, in hex. notes: the conversions that happened.
    """

    values: np.ndarray
    sha256: str
    notes: tuple[str, ...]


def read(image: "folder.ImageFile", *, card: Card) -> Pixels:
    """Read, decode, convert, crop and resize one image as this module's docstring says.

    The file is read once, so the pixels and the hash are of the same bytes.

    Args:
        image: What `find` returned.
        card: The model's card: which channels and size are wanted, and how to resize.

    Raises:
        ImageError: The file is gone, too large, truncated, damaged, or of a format, size or colour mode that cannot be
            used.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from analyzer.card import Resize
    >>> from analyzer.images import ImageFile as File
    >>> card = Card("NCHW", (2, 2), "L", Resize("stretch"), (0.0,), (255.0,), "logits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (4, 6), (9, 9, 9)).save(Path(folder) / "a.png")
    ...     read(File("a.png", Path(folder) / "a.png", label=None), card=card).values.tolist()
    [[[9.0, 9.0], [9.0, 9.0]]]
    """
    data = load(image)
    if not data:
        raise ImageError("empty file")
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is decoded must not depend on the filters of the process
            picture = _decode(data, notes)
            picture = _convert(picture, "L" if card.channels == "L" else "RGB", notes)
            if image.roi is not None:
                picture = _cut(picture, image.roi)
            values = resized(picture, card)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"the image is above the limit of {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"not an image in one of the formats {', '.join(FORMATS)}") from None
    except Exception as e:
        # Damaged bytes make Pillow raise nearly anything: SyntaxError, struct.error, KeyError, MemoryError, ...
        raise ImageError(f"cannot be decoded: {type(e).__name__}: {' '.join(str(e).split()):.200}") from e
    return Pixels(np.ascontiguousarray(values.transpose(2, 0, 1)), hashlib.sha256(data).hexdigest(), tuple(notes))


def load(image: "folder.ImageFile") -> bytes:
    """The bytes of the file. Raises ImageError where it is gone or too large."""
    try:
        if image.data is not None:
            return image.data
        return regular_bytes(image.path) if image.member is None else content(image.path, image.member)
    except OSError as e:
        raise ImageError(f"cannot be read: {e.strerror or e}") from e


def _decode(data: bytes, notes: list[str]) -> Image.Image:
    """The first frame, upright, in the file's own colour mode."""
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    refuse_above_limit(picture.size, "the image")
    if getattr(picture, "is_animated", False):
        notes.append("first of several frames")
    layout = str(picture.tile[:1])
    if "I;12" in layout:
        raise ImageError("12 bits a pixel; expected 8 or 16")
    if picture.mode.startswith("I") and getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        raise ImageError("16 bits with white at zero, which Pillow would read as a negative")
    no_white = picture.format == "TIFF" and picture.mode == "I"
    deep = ";16" in layout or picture.mode == "I" or (picture.format == "PPM" and _maximum(picture) > 255)
    # Pillow turns a TIFF itself while it loads it, and then forgets the tag. Elsewhere the tag may follow the pixels.
    before = picture.getexif().get(_ORIENTATION) if picture.format == "TIFF" else None
    picture.load()
    grey_levels = no_white and _are_grey_levels(picture)
    if grey_levels:
        notes.append("integers of more than 8 bits, all in 0..255, taken as grey levels")
    elif deep:
        notes.append("16 bits scaled to 8")
    try:
        after = picture.getexif().get(_ORIENTATION)
    except Exception:  # many good photos carry damaged EXIF
        notes.append("unreadable EXIF ignored")
        after = None
    if before in _TRANSPOSE or after in _TRANSPOSE:
        notes.append("EXIF orientation applied")
    upright = picture.transpose(_TRANSPOSE[after]) if after in _TRANSPOSE else picture
    return upright.convert("L") if grey_levels else upright


def _are_grey_levels(picture: Image.Image) -> bool:
    values = np.asarray(picture)
    return bool(values.min() >= 0 and values.max() <= 255)


def _maximum(picture: ImageFile.ImageFile) -> int:
    """The value that a portable pixmap calls white."""
    arguments = picture.tile[0][3]
    return arguments[-1] if isinstance(arguments, tuple) and isinstance(arguments[-1], int) else 255


def _convert(picture: Image.Image, mode: str, notes: list[str]) -> Image.Image:
    """To 8-bit "RGB" or "L"."""
    if picture.mode == "F":
        raise ImageError("floating point pixels, whose white is unknown; expected 8 or 16 bits")
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("32-bit pixels outside 0..65535; expected 8 or 16 bits")
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert(mode)
    transparent = picture.info.pop("transparency", None) is not None
    if transparent or picture.mode in ("LA", "PA", "RGBA"):
        notes.append("transparency dropped")
    if picture.mode in ("P", "PA"):
        notes.append("palette looked up")
        picture = picture.convert("RGB")
    elif picture.mode == "CMYK":
        notes.append("CMYK converted without a colour profile")
        picture = picture.convert("RGB")
    return picture.convert(mode)


def _cut(picture: Image.Image, roi: tuple[int, int, int, int]) -> Image.Image:
    x1, y1, x2, y2 = roi
    width, height = picture.size
    if not (0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height):
        raise ImageError(f"region x {x1}..{x2}, y {y1}..{y2} is not inside the image of {width} x {height}")
    return picture.crop((x1, y1, x2 + 1, y2 + 1))
