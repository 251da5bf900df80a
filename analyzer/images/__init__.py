"""From a folder of image files to pixels: float32, 0..255, canonical RGB or L, with ids and labels.

    find           which images, with which labels; opens no image
    find_set       the same, and what was left out
    seeded_order   the fixed order in which a run takes them
    load           the bytes of one image's file
    read           one image: bytes -> pixels as the card's resize wants them

Bad sets (no image, a label that means nothing) are `InputError`. One bad image is `ImageError`, which the caller counts
and skips: a set of photos nearly always has one.
"""

from analyzer.images.folder import ImageFile, ImageSet, find, find_set, seeded_order
from analyzer.images.pixels import FORMATS, Pixels, load, read
from analyzer.images.resizing import ImageError, recompressed
from analyzer.images.walk import SUFFIXES

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "ImageError",
    "ImageFile",
    "ImageSet",
    "Pixels",
    "find",
    "find_set",
    "load",
    "read",
    "recompressed",
    "seeded_order",
]
