"""What a pilot's images tell of a number: its interval for any number of images, and for fewer trials."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer import sequential
from analyzer.errors import UsageError
from analyzer.measures import NUMBERS, Number
from analyzer.measures.quantities import FLAG, VALUE, contributions, estimates, per_image, scaled
from analyzer.statistics import QUANTILES, Estimate
from analyzer.store import Run, scales_of
from analyzer.summary import measured_images, parts
from analyzer.summary.target import Target
from analyzer.verdicts import pairing

Array = NDArray[np.float64]
MOST_IMAGES = 100_000
_LARGE = 2000
_DRAWS, _FEWEST_DRAWS = 100, 9
_POINTS = 5_000_000  # drawn in all for one width
_FEWEST_TRIALS = 10
_TRIALS = (10, 20, 50, 100, 200, 500, 1000)


class Pilot(NamedTuple):
    """What the images of the pilot contribute, (image,) or (image, point); and how to make an estimate of as many."""

    target: Target
    number: Number
    values: Array
    factor: float
    pooled: bool

    def estimate(self, values: Array) -> Estimate:
        """The number of some images."""
        statistic = self.number.statistic
        (found,) = estimates(self.number.quantity, values, [statistic], pooled=self.pooled)
        return scaled(found, self.factor)

    def sequential(self, values: Array) -> Estimate:
        """The same with an interval that may be looked at after every image."""
        statistic = str(self.number.statistic)
        if statistic in QUANTILES:
            found = sequential.quantile(values, QUANTILES[statistic], censored=self.number.quantity.censored)
            return scaled(found, self.factor)
        return sequential.mean_share(values)

    @property
    def watchable(self) -> bool:
        """Whether `run --until` takes it."""
        return self.values.ndim == 1 and (str(self.number.statistic) in QUANTILES or self.number.quantity.kind != VALUE)

    def width(self, images: int, interval: Callable[[Array], Estimate]) -> float:
        """Half the width to be expected of so many images: the median of bootstrap samples."""
        # Beyond the pilot's own images it shrinks with the square root; more of them would repeat their few values.
        for fewer in (*(len(self.values) * times for times in (1, 2, 4, 8)), _LARGE):
            if images > fewer and math.isfinite(width := self.width(fewer, interval)):
                return width * math.sqrt(fewer / images)
        rng = np.random.default_rng(0)
        known = self.values[~np.isnan(self.values)] if self.values.ndim == 1 else self.values
        continuous = self.values.ndim == 1 and self.number.quantity.kind == VALUE and np.isfinite(known).all()
        widths = []
        points = images * (1 if self.values.ndim == 1 else self.values.shape[1])
        for _ in range(int(np.clip(_POINTS / points, _FEWEST_DRAWS, _DRAWS))):
            # Between the values of a continuous quantity, so that many images are not the same few again.
            drawn = np.quantile(known, rng.random(images)) if continuous else known[rng.integers(0, len(known), images)]
            widths.append(self.target.width(interval(drawn)))
        return float(np.median(widths))

    def images(self, bound: float, interval: Callable[[Array], Estimate]) -> int | None:
        """The fewest images whose expected half width is within `bound`; None where 100,000 are too few."""
        low, high = 1, 16
        while self.width(high, interval) > bound:
            if high >= MOST_IMAGES:
                return None
            low, high = high, min(2 * high, MOST_IMAGES)
        while high - low > max(1, high // 50):
            middle = (low + high) // 2
            low, high = (low, middle) if self.width(middle, interval) <= bound else (middle, high)
        return high


def read(reader: Run, target: Target) -> tuple[Pilot, dict[int, float]]:
    """The pilot's contributions; and for each number of trials, by which factor the width grows."""
    stem, radius, suffix = parts(target.name)
    number = NUMBERS[stem]
    with pairing.opened(reader) as opened:
        layers = {"": 0} if len(reader.layers) <= 1 else {f"/{name}": k for k, name in enumerate(reader.layers)}
        layer = layers.get(suffix, 0)
        dataset = measured_images(opened.dataset).isel(layer=slice(layer, layer + 1))
        scales = scales_of(dataset)
        factor = float(scales.ratio[0]) if number.quantity.layered else 1.0
        place = None if radius is None else list(dataset["radius"].values).index(radius)

        def contributed(part: Any) -> Array:
            (values,) = per_image(part, [number.quantity], scales)
            values = values[..., 0] if number.quantity.layered else values
            return np.asarray(contributions(number.quantity, values, radius=place, scale=factor), np.float64)

        pilot = Pilot(target, number, contributed(dataset), factor if number.quantity.scaled else 1.0, radius is None)
        if not np.isfinite(pilot.values).any() and not number.quantity.censored:
            raise UsageError(f"`to` {target.name}: it is undefined on every image of the pilot")
        if not isinstance(number.statistic, str) or not math.isfinite(pilot.width(MOST_IMAGES, pilot.estimate)):
            why = "however many there are"
            if number.quantity.censored:
                why = "since most of the pilot's lie outside its radii: measure at others"
            raise UsageError(f"`to` {target.name}: it has no interval over images, {why}")
        trials = dataset.sizes["trial"]
        factors = {trials: 1.0}
        if _thins(number, dataset) and trials >= 2 * _FEWEST_TRIALS:
            halves = [
                contributed(dataset.isel(trial=slice(k * (trials // 2), (k + 1) * (trials // 2)))) for k in (0, 1)
            ]
            factors |= _factors(pilot, halves, trials)
    return pilot, factors


def _thins(number: Number, dataset: Any) -> bool:
    """Whether the number can be computed of fewer trials: all that it reads of a radius is there trial by trial."""
    dims = [dataset[name].dims for name in number.quantity.reads]
    by_trial = all("trial" in each or "radius" not in each for each in dims) and any("trial" in each for each in dims)
    return (
        by_trial and not number.quantity.by_trials and not (number.quantity.points and number.quantity.within is None)
    )


def _factors(pilot: Pilot, halves: Sequence[Array], trials: int) -> dict[int, float]:
    """Trials -> by which factor the width grows; only those of the pilot where the number itself depends on them."""
    total = _spread(pilot.values) ** 2
    # Where nothing is seen to vary, nothing is known; and whether any trial does, hangs on how many there are.
    if not total or pilot.number.quantity.kind == FLAG:
        return {}
    whole = pilot.estimate(pilot.values).value
    shifts = [abs(pilot.estimate(half).value - whole) for half in halves]
    allowed = pilot.target.bound * (abs(whole) if pilot.target.relative else 1.0) / 2
    if not all(shift <= allowed for shift in shifts):
        return {}
    # The difference of two halves has twice the variance of a half, which has twice that of all trials.
    own = _spread(halves[0] - halves[1]) ** 2 / 4
    between = max(total - own, 0.0)
    return {fewer: math.sqrt((between + own * trials / fewer) / total) for fewer in _TRIALS if fewer < trials}


def _spread(values: Array) -> float:
    """A standard deviation that outliers do not move: the interquartile range over that of a normal distribution."""
    known = values[np.isfinite(values)]
    return float(np.subtract(*np.quantile(known, [0.75, 0.25])) / 1.349) if known.size else 0.0
