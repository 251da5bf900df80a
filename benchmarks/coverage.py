"""How often the 95 % intervals hold the true value: each kind that a summary shows, on data from normal to very skewed.

    python benchmarks/coverage.py [--repetitions 2000] [--images 6,10,20,40,100,300]

Four distributions of an image's value: normal; lognormal with sigma 1.5; Student's t with 2 degrees of freedom; and
zero-inflated, 0 for 70 % of the images and exponential for the rest. A dash is an interval that is not shown. The last
rows are the share of comparisons that call two runs different although neither is the more robust on more images.
It uses the package's own functions, so it measures what a summary shows. docs/statistics.md has the table.
"""

import argparse
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from analyzer import sequential, statistics
from analyzer.measures.flips import most_probable
from analyzer.measures.lipschitz import image_quantile
from analyzer.statistics import Estimate
from analyzer.verdicts.compare import paired

IMAGES = (6, 10, 20, 40, 100, 300)
POINTS = 40
"""Perturbations of an image."""
WITHIN = 0.5
"""Spread of an image's perturbations: of the logarithm where all values are positive."""
ZEROS = 0.7

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]


def _zero_inflated(rng: np.random.Generator, n: int) -> Array:
    return np.where(rng.random(n) < ZEROS, 0.0, rng.exponential(size=n))


DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "lognormal(1.5)": lambda rng, n: rng.lognormal(0.0, 1.5, n),
    "t2": lambda rng, n: rng.standard_t(2, n),
    "zero-inflated": _zero_inflated,
}
MEANS = {"normal": 0.0, "lognormal(1.5)": math.exp(1.125), "t2": 0.0, "zero-inflated": 1 - ZEROS}
QUANTILE = {
    "normal": stats.norm.ppf,
    "lognormal(1.5)": stats.lognorm(1.5).ppf,
    "t2": stats.t(2).ppf,
    "zero-inflated": lambda q: stats.expon.ppf(max(0.0, (q - ZEROS) / (1 - ZEROS))),
}


class Kind(NamedTuple):
    """One kind of interval.

    estimate: (generator, name of the distribution, images) -> what a summary shows. true: the name -> the true value.
    """

    name: str
    estimate: Callable[[np.random.Generator, str, int], Estimate]
    true: Callable[[str], float]


class Coverage(NamedTuple):
    """Share of shown intervals that hold the true value (NaN without any), and the share of intervals shown."""

    covered: float
    shown: float


def pooled(rng: np.random.Generator, name: str, images: int) -> Array:
    """Points of images, (image, point): an image's value, and a spread within the image."""
    level = DISTRIBUTIONS[name](rng, images)[:, None]
    within = WITHIN * rng.standard_normal((images, POINTS))
    return level * np.exp(within) if name in ("lognormal(1.5)", "zero-inflated") else level + within


_SAMPLE = 100_000
"""Images from which a true value is taken that has no closed form."""


def _true_pooled(quantile: float) -> Callable[[str], float]:
    @cache
    def value(name: str) -> float:
        points = pooled(np.random.default_rng(1), name, _SAMPLE)
        return float(np.quantile(points, quantile))

    return value


@cache
def _true_tail(name: str) -> float:
    points = pooled(np.random.default_rng(2), name, _SAMPLE)
    return float(np.median(image_quantile(points, 0.95)))


@cache
def _true_share(name: str) -> float:
    rng = np.random.default_rng(3)
    return float(_shares(rng, name, 40 * _SAMPLE).mean())


def _shares(rng: np.random.Generator, name: str, images: int) -> Array:
    """A share in 0..1 of each image: v / (1 + v) of what is positive, else the normal integral."""
    values = DISTRIBUTIONS[name](rng, images)
    return values / (1 + values) if name in ("lognormal(1.5)", "zero-inflated") else ndtr(values)


def _censored(values: Array, name: str) -> Array:
    """The values, infinite from the 60 % quantile of their distribution on, or where all are 0 below it."""
    limit = float(QUANTILE[name](0.6))
    return np.where(values > limit, np.inf, values)


def _flags(quantile: float) -> Callable[[np.random.Generator, str, int], Estimate]:
    """Whether an image's value is above a quantile of its distribution."""

    def estimate(rng: np.random.Generator, name: str, images: int) -> Estimate:
        return statistics.share((DISTRIBUTIONS[name](rng, images) > QUANTILE[name](quantile)).astype(np.float64))

    return estimate


KINDS = (
    Kind("mean", lambda rng, d, n: statistics.mean_over_images(DISTRIBUTIONS[d](rng, n)), MEANS.__getitem__),
    Kind("mean of shares", lambda rng, d, n: statistics.mean_share(_shares(rng, d, n)), _true_share),
    Kind("share of images, 50 %", _flags(0.5), lambda d: 1 - ZEROS if d == "zero-inflated" else 0.5),
    Kind("share of images, 10 %", _flags(0.9), lambda _: 0.1),
    Kind(
        "median",
        lambda rng, d, n: statistics.quantile_over_images(DISTRIBUTIONS[d](rng, n), 0.5),
        lambda d: float(QUANTILE[d](0.5)),
    ),
    Kind(
        "90 % quantile",
        lambda rng, d, n: statistics.quantile_over_images(DISTRIBUTIONS[d](rng, n), 0.9),
        lambda d: float(QUANTILE[d](0.9)),
    ),
    Kind(
        "median, the largest 40 % known to be above",
        lambda rng, d, n: statistics.quantile_over_images(_censored(DISTRIBUTIONS[d](rng, n), d), 0.5, censored=True),
        lambda d: float(QUANTILE[d](0.5)),
    ),
    Kind(
        "median of an image's 95 % quantile",
        lambda rng, d, n: statistics.quantile_over_images(image_quantile(pooled(rng, d, n), 0.95), 0.5),
        _true_tail,
    ),
    *(
        Kind(
            f"pooled {quantile:.0%} quantile".replace("50% quantile", "median").replace("%", " %"),
            lambda rng, d, n, quantile=quantile: statistics.pooled_quantiles(pooled(rng, d, n), (quantile,))[0],
            _true_pooled(quantile),
        )
        for quantile in (0.05, 0.5, 0.95)
    ),
)
NEAR_NORMAL = Kind(
    "mean, nearly normal quantity",
    lambda rng, d, n: statistics.mean_over_images(DISTRIBUTIONS[d](rng, n), near_normal=True),
    MEANS.__getitem__,
)
"""Only what is near the first distribution is declared so; the others show what the skewness test lets through."""


def coverage(kind: Kind, name: str, images: int, *, repetitions: int, seed: int = 0) -> Coverage:
    """How often intervals of this kind are shown, and hold the true value."""
    stream = zlib.crc32(f"{kind.name} {name}".encode())
    true, rng = kind.true(name), np.random.default_rng((seed, stream, images))
    rounding = 1e-12 * abs(true)
    hits = shown = 0
    for _ in range(repetitions):
        estimate = kind.estimate(rng, name, images)
        if not math.isnan(estimate.low) and not math.isnan(estimate.high):
            shown += 1
            hits += estimate.low - rounding <= true <= estimate.high + rounding
    return Coverage(hits / shown if shown else math.nan, shown / repetitions)


def false_rate(name: str, images: int, *, repetitions: int, seed: int = 0) -> float:
    """Share of comparisons that call two runs different, of differences that are above 0 as often as below."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode()), images))
    differences = DISTRIBUTIONS[name](rng, images * repetitions).reshape(images, repetitions)
    centred = differences - QUANTILE[name](0.5)
    if name == "zero-inflated":  # no direction either: as often one way as the other
        centred = differences * rng.choice([-1.0, 1.0], differences.shape)
    told = paired.differences(np.zeros_like(centred), centred)
    return float(np.mean([bool(paired.distinguishable(each.estimate, each.p)) for each in told]))


def bounded(name: str, images: int, *, repetitions: int, seed: int = 0) -> float:
    """How often the bound of a flip's probability is at least its mean over the images, each with one of its own."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode()), images))
    held = 0
    for _ in range(repetitions):
        own = 0.05 * _shares(rng, name, images)
        held += most_probable(int(rng.binomial(POINTS, own).sum()), images * POINTS) >= own.mean()
    return held / repetitions


def looked_at(statistic: str, name: str, images: tuple[int, ...], *, repetitions: int, seed: int = 0) -> list[float]:
    """How often an interval that is looked at after every image has held the true value up to so many images.

    statistic: "median", "90 % quantile", "share of images" or "mean of shares".
    """
    rng = np.random.default_rng((seed, zlib.crc32(f"{statistic} {name}".encode())))
    most, held = max(images), np.ones((repetitions, max(images)), bool)
    if statistic in ("mean of shares", "share of images"):
        drawn, true = _shares(rng, name, repetitions * most), _true_share(name)
        if statistic == "share of images":
            drawn = (rng.random(repetitions * most) < drawn).astype(np.float64)
        total = np.cumsum(drawn.reshape(repetitions, most), axis=1)
        held = sequential.log_evidence(total, np.arange(1, most + 1), true, 1.0, 1.0) <= math.log(20)
    else:
        at = {"median": 0.5, "90 % quantile": 0.9}[statistic]
        values = DISTRIBUTIONS[name](rng, repetitions * most).reshape(repetitions, most)
        true = float(QUANTILE[name](at))
        up_to, below = np.cumsum(values <= true, axis=1), np.cumsum(values < true, axis=1)
        for k in range(most):
            if ranks := sequential.ranks(k + 1, at):
                held[:, k] = (up_to[:, k] >= ranks[0]) & (below[:, k] < ranks[1])
    ever = np.logical_and.accumulate(held, axis=1).mean(axis=0)
    return [float(ever[n - 1]) for n in images]


def rows(images: tuple[int, ...], *, repetitions: int) -> Iterator[tuple[str, str, list[str]]]:
    """(kind, distribution, a cell for each number of images)."""
    for kind in (*KINDS, NEAR_NORMAL):
        for name in DISTRIBUTIONS:
            cells = []
            for n in images:
                seen = coverage(kind, name, n, repetitions=repetitions)
                text = "-" if not seen.shown else f"{100 * seen.covered:.1f}"
                cells.append(text if seen.shown in (0, 1) else f"{text} (shown: {seen.shown:.0%})".replace("%", " %"))
            yield kind.name, name, cells
    for name in DISTRIBUTIONS:
        held = [f"{100 * bounded(name, n, repetitions=repetitions):.1f}" for n in images]
        yield "bound of a flip's probability, 95 % one-sided", name, held
    for statistic in ("median", "90 % quantile", "share of images", "mean of shares"):
        for name in DISTRIBUTIONS:
            ever = looked_at(statistic, name, images, repetitions=repetitions)
            yield f"{statistic}, looked at after every image", name, [f"{100 * share:.1f}" for share in ever]
    for name in DISTRIBUTIONS:
        yield (
            "`compare`: falsely different",
            name,
            [f"{100 * false_rate(name, n, repetitions=repetitions):.1f}" for n in images],
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--images", default=",".join(map(str, IMAGES)))
    given = parser.parse_args()
    images = tuple(int(n) for n in given.images.split(","))
    sys.stdout.write(f"| interval, % | data | {' | '.join(f'n = {n}' for n in images)} |\n")
    sys.stdout.write("|---|---|" + "---|" * len(images) + "\n")
    for kind, name, cells in rows(images, repetitions=given.repetitions):
        sys.stdout.write(f"| {kind} | {name} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
