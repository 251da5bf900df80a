"""From a folder of image files to pixels: float32, 0..255, canonical RGB or L, with ids and labels.

    find           which images, with which labels; opens no image
    seeded_order   the fixed order in which a run takes them
    read           one image: bytes -> pixels as the card's resize wants them

Bad sets (no image, a label that means nothing) are `InputError`. One bad image is `ImageError`, which the caller counts
and skips: a set of photos nearly always has one.
"""

from analyzer.images.folder import SUFFIXES, ImageFile, find, seeded_order
from analyzer.images.pixels import FORMATS, Pixels, read
from analyzer.images.resizing import ImageError

__all__ = ["FORMATS", "SUFFIXES", "ImageError", "ImageFile", "Pixels", "find", "read", "seeded_order"]
