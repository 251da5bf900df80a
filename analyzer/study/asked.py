"""What a run is asked for: card, images in their order, and the network that is to be opened."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer import card as cards
from analyzer import graph
from analyzer.errors import InputError
from analyzer.images import ImageError, ImageFile, ImageSet, find_set, read, seeded_order
from analyzer.session import Backend
from analyzer.study.consistency import EXAMPLES
from analyzer.study.engine import Job
from analyzer.study.model import Model
from analyzer.study.protocol import Protocol

_TRIED = 50  # files among which the examples are looked for


class Asked(NamedTuple):
    """card: its path. candidates: the images in their seeded order."""

    card: Path
    images: ImageSet
    candidates: list[ImageFile]
    job: Job


def asked(
    model: Path,
    images: Path,
    *,
    protocol: Protocol,
    card: Path | None,
    labels: Path | None,
    backend: Backend,
    batch_size: int | None,
) -> Asked:
    """Check the model, read the card, find the images. Raises InputError where one of them cannot be used."""
    path = cards.locate(model, card)
    graph.check(model)
    the_card = cards.read(path)
    image_set = find_set(images, card=the_card, labels=labels)
    candidates = seeded_order(image_set.images, seed=protocol.seed)
    examples = list(_examples(candidates, the_card))
    return Asked(path, image_set, candidates, Job(model, the_card, protocol, backend, batch_size, examples))


def refuse_labels_beyond(images: Iterable[ImageFile], model: Model) -> None:
    """Raise InputError for a label that is no class of the network; an embedding has none to hold labels against."""
    for image in images:
        if model.has_classes and image.label is not None and image.label >= model.session.classes:
            raise InputError(
                f"{image.path}: label {image.label}, but the model has classes 0..{model.session.classes - 1}"
                + ("" if model.card.labels else "; where that is a class's name, list the names in output.labels")
            )


def _examples(candidates: list[ImageFile], card: cards.Card) -> Iterator[NDArray[np.float32]]:
    """Pixels of the first few images that can be read."""
    left = EXAMPLES
    for image in candidates[:_TRIED]:
        with contextlib.suppress(ImageError):
            yield read(image, card=card).values
            left -= 1
        if not left:
            return
