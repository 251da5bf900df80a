"""An image brought to the card's size, as its `input.resize` says.

Without padding and with the low-pass, as torchvision's transforms do it on PIL images. Roundings:

- shorter_side n: the long side becomes int(n * long / short).
- longer_side n: the short side becomes round(n * short / long), at least 1.
- crop_pct p: with a square size, shorter_side floor(size / p); else both sides become round(side / ratio), where ratio
  is the smaller of height / floor(card's height / p) and width / floor(card's width / p). That is timm's "center" mode.
- letterbox: both sides become round(side * the smaller of card's height / height and card's width / width).
- cut: at round(rest / 2), to even. Padded: rest // 2 above and on the left, so that an odd row or column is below or on
  the right.
"""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analyzer.card import Card
from analyzer.resize import Resize

# The size at which Pillow begins to warn; a constant here, since the images chosen must not depend on a global.
MAX_PIXELS = 2**28 // 3

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}

Size = tuple[int, int]


class ImageError(Exception):
    """One image that cannot be used: the reason in one line, without the file's name, which the caller has."""


def resized(picture: Image.Image, card: Card) -> NDArray[np.float32]:
    """(H, W, C) grey levels of the card's size, RGB or L, of an 8-bit RGB or L picture.

    Raises ImageError where the picture cannot have the size, and where it would be above `MAX_PIXELS` on the way.
    """
    height, width = card.size
    resize = card.resize
    if resize.kind == "none":
        if picture.size != (width, height):
            raise ImageError(
                f"{picture.size[0]} x {picture.size[1]} pixels; the card has no resize and wants {width} x {height}"
            )
        return _levels(picture)
    scaled = _scaled_size(picture.size, (width, height), resize)
    plain = resize.kind == "stretch" and resize.through is None
    what = "the card's size" if plain else f"the image scaled to the card's {resize.kind}"
    refuse_above_limit(scaled, what)
    if resize.pad is None and (scaled[0] < width or scaled[1] < height):
        raise ImageError(f"{scaled[0]} x {scaled[1]} after scaling, smaller than the crop of {width} x {height}")
    refuse_above_limit((width, height), "the card's size")
    # Cut first, where that changes nothing, so that what is cut away is never a large array of floats.
    if resize.antialias:
        values = _levels(_cut(picture.resize(scaled, _RESAMPLING[resize.interpolation]), (width, height)))
    else:
        values = _interpolated(picture, scaled, (width, height))
    return values if resize.pad is None else _padded(values, card, resize.pad)


def recompressed(pixels: NDArray[np.float32], *, quality: int) -> NDArray[np.float32]:
    """Pixels, (C, H, W) grey levels, RGB or L, written as a JPEG of this quality and read again."""
    whole = np.rint(pixels).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole).save(buffer, "JPEG", quality=quality)
    return np.ascontiguousarray(_levels(Image.open(buffer)).transpose(2, 0, 1))


def refuse_above_limit(size: Size, what: str) -> None:
    """Raise ImageError for a size, (width, height), of more than `MAX_PIXELS`; `what` begins the sentence."""
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(f"{what} is {size[0]} x {size[1]}, above the limit of {MAX_PIXELS} pixels")


def _scaled_size(given: Size, wanted: Size, resize: Resize) -> Size:
    """(width, height) to which a picture of size `given` is scaled, before it is cut or padded to `wanted`."""
    if resize.kind == "stretch":
        return wanted if resize.through is None else (resize.through[1], resize.through[0])
    if resize.kind == "crop_pct":
        share = resize.crop_pct or 1.0
        goal = math.floor(wanted[0] / share), math.floor(wanted[1] / share)
        if goal[0] == goal[1]:
            return _shorter_to(given, goal[0])
        ratio = min(given[0] / goal[0], given[1] / goal[1])
        return round(given[0] / ratio), round(given[1] / ratio)
    if resize.kind == "letterbox":
        factor = min(wanted[0] / given[0], wanted[1] / given[1])
        return max(1, round(given[0] * factor)), max(1, round(given[1] * factor))
    side = resize.side or 0
    if resize.kind == "longer_side":
        longer = max(given)
        width, height = (side if n == longer else max(1, round(side * n / longer)) for n in given)
        return width, height
    return _shorter_to(given, side)


def _shorter_to(given: Size, side: int) -> Size:
    short = min(given)
    width, height = (side if length == short else int(side * length / short) for length in given)
    return width, height


def _cut(picture: Image.Image, wanted: Size) -> Image.Image:
    """The centre of a picture, in each direction in which it is larger than (width, height)."""
    (left, right), (top, bottom) = (_kept(n, want) for n, want in zip(picture.size, wanted, strict=True))
    return picture.crop((left, top, right, bottom))


def _kept(length: int, wanted: int) -> Size:
    """First and last + 1 of the pixels that a cut keeps."""
    start = round((length - wanted) / 2) if length > wanted else 0
    return start, start + min(length, wanted)


def _levels(picture: Image.Image) -> NDArray[np.float32]:
    values = np.asarray(picture, dtype=np.float32)
    return values if values.ndim == 3 else values[..., None]


def _interpolated(picture: Image.Image, scaled: Size, wanted: Size) -> NDArray[np.float32]:
    """(H, W, C) whole grey levels of the bilinear interpolation without low-pass, its centre of `wanted` size only.

    Output pixel i lies at (i + 0.5) * length / scaled - 0.5 of the picture, held inside 0..length - 1, and has the
    weighted mean of the two pixels beside it, in each direction.
    """
    source = np.asarray(picture)
    source = source if source.ndim == 3 else source[..., None]
    (left, right, across), (above, below, down) = (
        _neighbours(length, *sizes) for length, *sizes in zip(picture.size, scaled, wanted, strict=True)
    )
    across, down = across[:, None], down[:, None, None]
    upper, lower = (source[rows][:, left] * (1 - across) + source[rows][:, right] * across for rows in (above, below))
    return np.floor(upper * (1 - down) + lower * down + 0.5).astype(np.float32)


def _neighbours(
    length: int, scaled: int, wanted: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Along one side, for each pixel that is kept: the source pixels before and after it, and the latter's weight."""
    places = (np.arange(*_kept(scaled, wanted)) + 0.5) * (length / scaled) - 0.5
    places = np.clip(places, 0, length - 1)
    before = np.floor(places).astype(np.intp)
    return before, np.minimum(before + 1, length - 1), places - before


def _padded(values: NDArray[np.float32], card: Card, pad: tuple[float, ...]) -> NDArray[np.float32]:
    """`values` in the middle of the card's size, which is filled with `pad`, in the card's channel order."""
    order = -1 if card.channels == "BGR" else 1
    filled = np.empty((*card.size, values.shape[2]), np.float32)
    filled[...] = np.array(pad[::order], np.float32)
    top, left = ((whole - part) // 2 for whole, part in zip(card.size, values.shape[:2], strict=True))
    filled[top : top + values.shape[0], left : left + values.shape[1]] = values
    return filled
