"""How an image gets to a worker: its bytes, or a path that is the same there."""

import dataclasses
from collections.abc import Sequence

from analyzer.card import Card
from analyzer.errors import InputError
from analyzer.images import ImageError, ImageFile, load, read
from analyzer.study.looking import Seen


def as_sent(image: ImageFile, *, shared: bool) -> ImageFile:
    """As a worker can read it. Raises ImageError where it cannot be read here."""
    if shared:
        return dataclasses.replace(image, path=image.path.resolve())
    return dataclasses.replace(image, data=load(image))


def refuse_unshared(images: Sequence[ImageFile], seen: Sequence[Seen], card: Card) -> None:
    """Raise InputError where a worker cannot read what can be read here: its paths are not those of this side."""
    for image, what in zip(images, seen, strict=False):
        if what.reason and what.reason != _unread(image, card):
            raise InputError(
                f"{image.path}: a worker says: {what.reason}\nwith `shared`, workers need the images under the same "
                "paths; leave it out to send them"
            )


def _unread(image: ImageFile, card: Card) -> str:
    """Why an image cannot be read here; "" where it can."""
    try:
        read(image, card=card)
    except ImageError as e:
        return str(e)
    return ""
