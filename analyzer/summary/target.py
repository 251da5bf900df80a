"""How narrow the interval of a number is to be: `NAME=±10%`, and what an image contributes to that number."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer import sequential
from analyzer.errors import UsageError
from analyzer.measures import NUMBERS, Number, Scales
from analyzer.measures.quantities import VALUE, contributions
from analyzer.statistics import QUANTILES, Estimate
from analyzer.store.documents import Reached
from analyzer.summary.names import name_of, parts


class Target(NamedTuple):
    """name: of a number of the summary. bound: half the width allowed, of the value where `relative`."""

    name: str
    bound: float
    relative: bool

    @property
    def text(self) -> str:
        """As a person writes it."""
        return f"{self.name}=±{100 * self.bound:.12g}%" if self.relative else f"{self.name}=±{self.bound:.12g}"

    def width(self, estimate: Estimate) -> float:
        """Half the width of the interval, of the value where `relative`; infinite without an interval."""
        half = (estimate.high - estimate.low) / 2
        if not math.isfinite(half) or (self.relative and not estimate.value):
            return math.inf
        return half / abs(estimate.value) if self.relative else half

    def reached(self, estimate: Estimate) -> bool:
        """Whether the interval is narrow enough."""
        return self.width(estimate) <= self.bound

    def shown(self, width: float) -> str:
        """A width as text."""
        return "unknown" if not math.isfinite(width) else f"±{width:.1%}" if self.relative else f"±{width:.3g}"


def parse(text: str, *, parameter: str) -> Target:
    """``NAME=±10%`` or ``NAME=±0.02``, the sign ± as it is, as +- or left out. Raises UsageError for anything else.

    >>> parse("isotropy_log_odds_range_median@1=±10%", parameter="to")
    Target(name='isotropy_log_odds_range_median@1', bound=0.1, relative=True)
    """
    name, _, bound = text.rpartition("=")
    bound = bound.strip().removeprefix("±").removeprefix("+-").removeprefix("+/-")
    relative = bound.endswith("%")
    try:
        value = float(bound.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not name.strip() or not math.isfinite(value) or value <= 0:
        raise UsageError(
            f"`{parameter}` {text}: expected NAME=±VALUE above 0, as isotropy_log_odds_range_median@1=±10%"
        )
    stem, radius, suffix = parts(name.strip())
    return Target(name_of(stem, radius=radius, suffix=suffix), value / 100 if relative else value, relative)


class Watched(NamedTuple):
    """A number that is looked at after every image: what each contributes, and its interval for that."""

    target: Target
    number: Number
    place: int | None
    """Of its radius among those of the run; None for all."""
    layer: int

    @property
    def reads(self) -> tuple[str, ...]:
        """The variables that an image's contribution follows from."""
        return self.number.quantity.reads

    def contribution(self, arrays: Mapping[str, NDArray[Any]], scales: Scales) -> float:
        """What one image contributes. arrays: its variables, without the image axis; scales: of all layers."""
        quantity = self.number.quantity
        given = [np.asarray(arrays[name])[None] for name in self.reads]
        values = quantity.reduce(*given, **({"scales": scales} if quantity.uses_scales else {}))
        values = values[..., self.layer] if quantity.layered else values
        ratio = float(scales.ratio[self.layer]) if quantity.layered else 1.0
        (value,) = contributions(quantity, values, radius=self.place, scale=ratio)
        return float(value) * (ratio if quantity.scaled else 1.0)

    def estimate(self, contributed: Sequence[float]) -> Estimate:
        """Value and interval after these images, in their order."""
        values, statistic = np.asarray(contributed, np.float64), str(self.number.statistic)
        if statistic in QUANTILES:
            return sequential.quantile(values, QUANTILES[statistic], censored=self.number.quantity.censored)
        return sequential.mean_share(values)


def watch(
    target: Target,
    *,
    radii: Sequence[float],
    layers: Sequence[str],
    variables: Sequence[str],
    lacks: frozenset[str] = frozenset(),
) -> Watched:
    """The number that `run` looks at after every image.

    variables: of an image's unit. lacks: see `measures.quantities.lacking`. Raises UsageError where a run of
    these radii and layers has no such number, or where its interval cannot be looked at so.
    """
    stem, radius, suffix = parts(target.name)
    number = NUMBERS.get(stem)
    if number is None or not set(number.quantity.reads) <= {*variables} or number.quantity.needs in lacks:
        raise UsageError(f"`until` {target.name}: this run will have no such number; see `analyzer summary RUN --json`")
    wanted = (
        {"": 0} if len(layers) == 1 or not number.quantity.layered else {f"/{name}": k for k, name in enumerate(layers)}
    )
    if suffix not in wanted:
        raise UsageError(f"`until` {target.name}: give one of the layers: {', '.join(wanted) or 'none'}")
    if (radius is None and not number.overall) or (
        radius is not None and (radius not in radii or not number.by_radius)
    ):
        raise UsageError(f"`until` {target.name}: the radii of this run are {', '.join(f'{r:g}' for r in radii)}")
    pooled = number.quantity.points and number.quantity.within is None
    mean = number.statistic in ("mean", "share")
    if not isinstance(number.statistic, str) or pooled or (mean and number.quantity.kind == VALUE):
        raise UsageError(
            f"`until` {target.name}: only medians and other quantiles over images, and shares, have an interval that "
            "may be looked at after every image"
        )
    return Watched(target, number, None if radius is None else list(radii).index(radius), wanted[suffix])


def held(estimate: Estimate, until: Reached) -> Estimate:
    """A number with the interval that may be looked at after every image, by which its run was to stop."""
    low, high = until["low"], until["high"]
    return estimate._replace(low=math.nan if low is None else low, high=math.nan if high is None else high)


def sentence(rows: Mapping[str, Estimate], until: Reached) -> str:
    """What became of it."""
    aim = Target(until["name"], until["bound"], until["relative"])
    estimate = held(rows.get(aim.name, Estimate(np.nan, np.nan, np.nan, 0)), until)
    bound = f"±{100 * aim.bound:.4g} %" if aim.relative else f"±{aim.bound:.4g}"
    width = aim.width(estimate)
    if until["reached"]:
        return (
            f"Stopped after {estimate.n} images, since {aim.name} is known within {aim.shown(width)} ({bound} asked "
            "for): its interval allows for a stop that depends on the data, those of other numbers do not."
        )
    known = f"leave {aim.shown(width)}" if math.isfinite(width) else "give it no such interval yet"
    return f"Not reached: {aim.name} within {bound}; {estimate.n} images {known} when looked at one after another."
