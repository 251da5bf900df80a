"""How far the small print of preprocessing moves a network: decisions, and the noise that moves it as far."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from analyzer.images import recompressed
from analyzer.perturbations import Perturbations
from analyzer.verdicts.check_card.asking import Answers, Array, Asker
from analyzer.verdicts.check_card.variants import INTERPOLATION, Variant
from analyzer.verdicts.drift.numbers import Number, censored_median
from analyzer.verdicts.drift.responses import equivalent_noise

RADII = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
TRIALS = 5
IMAGES = 10
QUALITIES = (95, 75)


class Difference(TypedDict):
    """One way to preprocess otherwise. changed: images of another class. equivalent: median radius, grey levels."""

    name: str
    images: int
    changed: int
    equivalent: Number


def differences(asker: Asker, own: Answers, tried: Sequence[tuple[Variant, Answers]], *, seed: int) -> list[Difference]:
    """Other interpolations, of those that were tried, and JPEG's compression, against the card; see `IMAGES`."""
    count = min(IMAGES, len(asker.pixels))
    response = _response(asker, own, count, seed)
    found: list[Difference] = []
    for name, answers in _otherwise(asker, own, tried):
        drift = np.abs(answers.own - own.own)[:count]
        radii = np.where(drift == 0, -np.inf, equivalent_noise(response, drift, RADII))
        found.append(
            {
                "name": name,
                "images": len(own.classes),
                "changed": int((answers.classes != own.classes).sum()),
                "equivalent": censored_median(radii),
            }
        )
    return found


def _otherwise(asker: Asker, own: Answers, tried: Sequence[tuple[Variant, Answers]]) -> Iterator[tuple[str, Answers]]:
    for variant, answers in tried:
        if variant.field == INTERPOLATION:
            yield f"resize: {variant.name}", answers
    for quality in QUALITIES:
        pixels = np.stack([recompressed(each, quality=quality) for each in asker.pixels])
        yield f"JPEG of quality {quality}, at the card's size", asker.of(pixels, asker.card, own)


def _response(asker: Asker, own: Answers, count: int, seed: int) -> Array:
    """(image, radius) median over the trials of |log-odds(x + noise) - log-odds(x)| of the predicted class, nat."""
    response = np.full((count, len(RADII)), np.nan)
    shape = asker.card.pixel_shape
    for number in range(count):
        if own.classes[number] < 0:
            continue
        rows: list[NDArray[np.float32]] = []
        for radius in RADII:
            drawn = Perturbations(
                seed=seed, sha256=asker.hashes[number], shape=shape, family="noise", radius=radius, trials=TRIALS
            )
            words = drawn.words(range(TRIALS))
            noise = (words * drawn.scales(words)[:, None]).reshape(TRIALS, *shape)
            rows.append(np.asarray(asker.pixels[number] + noise, np.float32))
        moved = asker.log_odds(np.concatenate(rows), int(own.classes[number])) - own.own[number]
        response[number] = np.median(np.abs(moved).reshape(len(RADII), TRIALS), axis=1)
    return response
