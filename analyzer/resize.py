"""The card's `input.resize`: how an image of any size is brought to the card's size, and its JSON document."""

import dataclasses

from analyzer.document import Keys, ResizeDocument
from analyzer.errors import InputError

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
_FORMS = "shorter_side, longer_side, crop_pct, letterbox, stretch or none"


@dataclasses.dataclass(frozen=True)
class Resize:
    """How an image of any size is brought to the card's size.

    kind:

    - "shorter_side": scale the shorter side to `side`, then cut the centre.
    - "longer_side": scale the longer side to `side`, then pad with `pad` what is missing around it, or cut the centre.
    - "crop_pct": scale until the image covers floor(size / `crop_pct`), then cut the centre, as timm does.
    - "letterbox": scale until the whole image just fits into the size, then pad around it with `pad`.
    - "stretch": to the size, or to `through` and then cut the centre, whatever becomes of the aspect ratio.
    - "none": images have the size already.

    interpolation: one of `INTERPOLATIONS`. pad: grey levels 0..255, one for all channels, or one a channel in the
    card's order. antialias: whether the image is low-passed where it shrinks, as Pillow does it; without, "bilinear"
    reads the four pixels around each point, as OpenCV does it. through: (height, width).
    """

    kind: str
    side: int | None = None
    interpolation: str = "bilinear"
    pad: tuple[float, ...] | None = None
    crop_pct: float | None = None
    antialias: bool = True
    through: tuple[int, int] | None = None


def parse(keys: Keys, *, channels: int) -> Resize:
    """The resize of a card with so many channels. Raises InputError naming the key at fault."""
    interpolation = keys.choice("interpolation", INTERPOLATIONS, "bilinear")
    resize = dataclasses.replace(_form(keys, channels), interpolation=interpolation)
    if resize.kind != "none" and not keys.take("antialias", bool, True):
        if interpolation != "bilinear":
            raise InputError(f"{keys.where}: {keys.prefix}antialias false is for bilinear only, not {interpolation}")
        resize = dataclasses.replace(resize, antialias=False)
    keys.finish()
    return resize


def to_document(resize: Resize) -> ResizeDocument:
    """The JSON document, from which `parse` gives the same resize. Keys that say the default are left out."""
    document: ResizeDocument
    match resize.kind:
        case "shorter_side":
            document = {"shorter_side": resize.side, "crop": "centre"}
        case "longer_side":
            document = {"longer_side": resize.side}
        case "crop_pct":
            document = {"crop_pct": resize.crop_pct, "crop": "centre"}
        case "letterbox":
            document = {"letterbox": True}
        case "stretch":
            document = {"stretch": True}
            if resize.through is not None:
                document = {"stretch": list(resize.through), "crop": "centre"}
        case _:
            document = {"none": True}
    if resize.pad is not None:
        document["pad"] = resize.pad[0] if len(resize.pad) == 1 else list(resize.pad)
    if resize.kind != "none" or resize.interpolation != "bilinear":
        document["interpolation"] = resize.interpolation
    if not resize.antialias:
        document["antialias"] = False
    return document


def _form(keys: Keys, channels: int) -> Resize:
    """Which of the six it is, with what belongs to it."""
    if (side := _side(keys, "shorter_side")) is not None:
        keys.choice("crop", ("centre",))
        return Resize("shorter_side", side)
    if (side := _side(keys, "longer_side")) is not None:
        return Resize("longer_side", side, pad=_pad(keys, channels))
    if "crop_pct" in keys.left:
        share = keys.number("crop_pct", above=0, most=1)
        keys.choice("crop", ("centre",), "centre")
        return Resize("crop_pct", crop_pct=share)
    if keys.take("letterbox", bool, False):
        return Resize("letterbox", pad=_pad(keys, channels))
    if isinstance(keys.left.get("stretch"), list):
        height, width = keys.numbers("stretch", 2, kind=int, above=0)
        keys.choice("crop", ("centre",), "centre")
        return Resize("stretch", through=(int(height), int(width)))
    for kind in ("stretch", "none"):
        if keys.take(kind, bool, False):
            return Resize(kind)
    raise InputError(f"{keys.where}: {keys.prefix.rstrip('.')} must have one of the keys {_FORMS}")


def _side(keys: Keys, key: str) -> int | None:
    side: int | None = keys.take(key, int, None)
    if side is not None and side <= 0:
        raise InputError(f"{keys.where}: {keys.prefix}{key} must be above 0, not {side!r:.60}")
    return side


def _pad(keys: Keys, channels: int) -> tuple[float, ...]:
    """The pad value: a number, or a list of one a channel."""
    if not isinstance(keys.left.get("pad"), list):
        return (keys.number("pad", least=0, most=255),)
    given = keys.left["pad"]
    values = keys.numbers("pad", channels)
    if not all(0 <= value <= 255 for value in values):
        raise InputError(f"{keys.where}: {keys.prefix}pad must be grey levels in 0..255, not {given!r:.60}")
    return values
