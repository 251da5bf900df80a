"""The usual mistakes in a card, each as the card that would be right if it had been made."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from analyzer.card import Card
from analyzer.resize import INTERPOLATIONS, Resize

CHANNELS, NORMALISATION, LAYOUT = "input.channels", "input.mean and input.std", "input.layout"
RESIZE, INTERPOLATION = "input.resize", "input.resize.interpolation"
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # RGB, of 0..255
_CAFFE = ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
_SAME = 0.02  # relative, of std: normalisations that are so close are one
_SHORTER = 0.875  # of the shorter side is kept, where a card says nothing else


class Variant(NamedTuple):
    """A card that differs in one field. field: which; name: what it has there, in a few words."""

    field: str
    name: str
    card: Card


def variants(card: Card, *, resized: bool, normalised: bool = True) -> list[Variant]:
    """The usual alternatives to a card.

    Args:
        card: As it is.
        resized: Whether images have other sizes than the card's, so that it matters how they are brought to it.
        normalised: Whether mean and std are the card's to say, not fixed inside the graph.

    >>> from analyzer.card import Resize
    >>> net = Card("NCHW", (32, 32), "RGB", Resize("stretch"), (0.0,) * 3, (255.0,) * 3, "logits")
    >>> [variant.name for variant in variants(net, resized=False)][:3]
    ['BGR', 'NHWC', 'pixels 0..255 as they are']
    """
    found = [*_channels(card), *_layout(card)]
    found += _normalisations(card) if normalised else []
    found += [*_resizes(card), *_interpolations(card)] if resized and card.resize.kind != "none" else []
    return found


def _channels(card: Card) -> Iterator[Variant]:
    if card.channels == "L":
        return
    other = "BGR" if card.channels == "RGB" else "RGB"
    own = dataclasses.replace(card, channels=other, mean=card.mean[::-1], std=card.std[::-1])
    yield Variant(CHANNELS, other, own)
    if (card.mean, card.std) != (own.mean, own.std):
        yield Variant(CHANNELS, f"{other}, mean and std in that order", dataclasses.replace(card, channels=other))


def _layout(card: Card) -> Iterator[Variant]:
    other = "NHWC" if card.layout == "NCHW" else "NCHW"
    yield Variant(LAYOUT, other, dataclasses.replace(card, layout=other))


def _normalisations(card: Card) -> Iterator[Variant]:
    count = len(card.mean)
    order = -1 if card.channels == "BGR" else 1
    known = {
        "pixels 0..255 as they are": ((0.0,) * count, (1.0,) * count),
        "0..1": ((0.0,) * count, (255.0,) * count),
        "-1..1": ((127.5,) * count, (127.5,) * count),
    }
    if count == len(_IMAGENET[0]):
        known["ImageNet's mean and std"] = (_IMAGENET[0][::order], _IMAGENET[1][::order])
        known["ImageNet's mean, no std (Caffe)"] = (_CAFFE[0][::order], _CAFFE[1])
    known["the card's mean, no std"] = (card.mean, (1.0,) * count)
    known["the card's std, no mean"] = ((0.0,) * count, card.std)
    if len(set(card.mean)) > 1 or len(set(card.std)) > 1:
        known["mean and std in reverse order"] = (card.mean[::-1], card.std[::-1])
    seen = [(card.mean, card.std)]
    for name, (mean, std) in known.items():
        if not any(_same(mean, std, *other) for other in seen):
            seen.append((mean, std))
            yield Variant(NORMALISATION, name, dataclasses.replace(card, mean=mean, std=std))


def _same(mean: tuple[float, ...], std: tuple[float, ...], *other: tuple[float, ...]) -> bool:
    """Whether two normalisations give nearly the same input."""
    scale = np.array(other[1])
    apart = np.abs(np.array(mean) - np.array(other[0])) / scale
    return bool((apart < _SAME).all() and (np.abs(np.array(std) / scale - 1) < _SAME).all())


def _resizes(card: Card) -> Iterator[Variant]:
    own, short = card.resize, min(card.size)
    bare = Resize("stretch", interpolation=own.interpolation, antialias=own.antialias)
    known = {
        "stretched to the size": bare,
        "scaled to cover the size, centre cut out": dataclasses.replace(bare, kind="crop_pct", crop_pct=1.0),
        f"shorter side {round(short / _SHORTER)}, centre cut out": dataclasses.replace(
            bare, kind="crop_pct", crop_pct=_SHORTER
        ),
        "letterbox, grey": dataclasses.replace(bare, kind="letterbox", pad=(114.0,)),
        "letterbox, black": dataclasses.replace(bare, kind="letterbox", pad=(0.0,)),
    }
    for name, resize in known.items():
        if not _same_resize(resize, own, short):
            yield Variant(RESIZE, name, dataclasses.replace(card, resize=resize))


def _same_resize(resize: Resize, own: Resize, short: int) -> bool:
    if own.kind == "shorter_side" and own.side is not None and resize.kind == "crop_pct":
        return resize.crop_pct is not None and abs(int(short / resize.crop_pct) - own.side) <= 1
    if own.kind == "longer_side" and own.side is not None:
        return resize.kind == "letterbox" and resize.pad == own.pad
    return resize == own


def _interpolations(card: Card) -> Iterator[Variant]:
    own = card.resize
    for name in INTERPOLATIONS:
        if name != own.interpolation:
            resize = dataclasses.replace(own, interpolation=name, antialias=True)
            yield Variant(INTERPOLATION, name, dataclasses.replace(card, resize=resize))
    if own.interpolation == "bilinear" and own.antialias:
        resize = dataclasses.replace(own, antialias=False)
        yield Variant(INTERPOLATION, "bilinear without low-pass (OpenCV)", dataclasses.replace(card, resize=resize))
    elif not own.antialias:
        resize = dataclasses.replace(own, antialias=True)
        yield Variant(INTERPOLATION, "bilinear with low-pass (Pillow)", dataclasses.replace(card, resize=resize))
