"""What is measured, and how: the part of a run that decides its numbers."""

import dataclasses
import math
from typing import Any

from analyzer.errors import UsageError
from analyzer.measures import REGISTRY
from analyzer.perturbations import NORMS

DEFAULT_RADII = (0.5, *map(float, range(1, 21)))
SMALLEST_RADIUS = 1e-3
LARGEST_RADIUS = 1e6
MOST_RADII = 1000
MOST_DISTANCES = 2 * 10**8  # radii x trials^2: what one image's distance matrices take, 1.6 GB in float64


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The protocol of one run; the defaults are the paper's (section 2.1), with epsilon = 0.5 grey level.

    radii: grey levels, distinct, above 0, ascending. trials: perturbations per radius and family, at least 3.
    limit: how many images at most. min_confidence: softmax probability a correct image needs to count.
    norm: "linf" or "l2", the norm in which a perturbation has length radius. clip, round: keep perturbed pixels
    inside 0..255, on whole grey levels. permutations: of the Mantel test.
    linearity_trials: how many trials a of the noise family are answered at x - a/2 too. Raises UsageError naming what
    is at fault.
    """

    radii: tuple[float, ...] = DEFAULT_RADII
    trials: int = 100
    limit: int = 300
    min_confidence: float = 0.99
    norm: str = "linf"
    clip: bool = False
    round: bool = False
    seed: int = 0
    measures: tuple[str, ...] = tuple(name for name, measure in REGISTRY.items() if measure.default)
    layers: tuple[str, ...] = ()
    permutations: int = 999
    linearity_trials: int = 20

    def __post_init__(self) -> None:
        if not self.radii or not all(math.isfinite(r) and r > 0 for r in self.radii):
            raise UsageError("`radii`: every radius must be a finite number of grey levels above 0")
        if self.radii[0] < SMALLEST_RADIUS:
            raise UsageError(f"`radii`: {self.radii[0]:g} is below {SMALLEST_RADIUS:g}, what float32 pixels resolve")
        if self.radii[-1] > LARGEST_RADIUS:
            raise UsageError(f"`radii`: {self.radii[-1]:g} is above {LARGEST_RADIUS:g}; grey levels are 0..255")
        if any(a >= b for a, b in zip(self.radii, self.radii[1:], strict=False)):
            raise UsageError("`radii`: must be ascending and distinct")
        if self.trials < 3:
            raise UsageError(f"`trials` {self.trials}: at least 3 are needed")
        if self.limit < 1:
            raise UsageError(f"`limit` {self.limit}: must be above 0")
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"`min_confidence` {self.min_confidence:g}: must lie in 0..1")
        if self.norm not in NORMS:
            raise UsageError(f"`norm` {self.norm}: must be one of {', '.join(NORMS)}")
        if self.permutations < 19 and self.permutations != 0:
            raise UsageError(
                f"`permutations` {self.permutations}: 0 for none, or at least 19, so that p can reach 0.05"
            )
        if self.linearity_trials < 1:
            raise UsageError(f"`linearity_trials` {self.linearity_trials}: at least 1 is needed")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"`seed` {self.seed}: must lie in 0..2^64-1")
        unknown = [m for m in self.measures if m not in REGISTRY]
        if unknown or not self.measures or len(set(self.measures)) < len(self.measures):
            raise UsageError(
                f"`measures`: choose from {', '.join(REGISTRY)}, each once; got {','.join(self.measures)!r}"
            )
        if "noise" in self.families and len(self.radii) * self.trials**2 > MOST_DISTANCES:
            raise UsageError(
                f"`trials` {self.trials} at {len(self.radii)} radii: radii x trials^2 exceeds {MOST_DISTANCES:g}"
            )
        # One order, so that a run asked for in another is the same run.
        object.__setattr__(self, "measures", tuple(m for m in REGISTRY if m in self.measures))

    def check_layers(self, count: int) -> None:
        """Raise UsageError where the distance matrices of so many layers would not fit."""
        if self.needs_features and len(self.radii) * self.trials**2 * (1 + count) > 2 * MOST_DISTANCES:
            raise UsageError(
                f"`trials` {self.trials} at {len(self.radii)} radii and {count} layers: radii x trials^2 x "
                f"(1 + layers) exceeds {2 * MOST_DISTANCES:g}; use fewer"
            )

    @property
    def families(self) -> tuple[str, ...]:
        """The perturbation families that the chosen measures need, each once: the noise family serves several."""
        return tuple(dict.fromkeys(REGISTRY[name].family for name in self.measures))

    @property
    def needs_features(self) -> bool:
        """Whether any chosen measure reads feature layers."""
        return any(REGISTRY[name].layered for name in self.measures)

    @property
    def halved(self) -> int:
        """How many trials of each radius are answered at x - a/2 too; 0 where no measure asks for it."""
        return min(self.linearity_trials, self.trials) if any(REGISTRY[m].halves for m in self.measures) else 0

    def identity(self) -> dict[str, Any]:
        """The protocol as JSON, for the manifest."""
        document = {**dataclasses.asdict(self), "linearity_trials": self.halved}
        if not self.halved:
            del document["linearity_trials"]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in document.items()}


def parse_radii(text: str) -> tuple[float, ...]:
    """``0.5,1:20`` -> 0.5 and 1..20: comma-separated numbers and whole-number ranges low:high, ascending.

    Raises UsageError for anything else.
    """
    radii: list[float] = []
    try:
        for part in text.split(","):
            low, colon, high = part.partition(":")
            if colon:
                if not 0 <= int(high) - int(low) < MOST_RADII:
                    raise UsageError(f"`radii`: {part} is no range of up to {MOST_RADII} ascending whole numbers")
                radii.extend(map(float, range(int(low), int(high) + 1)))
            else:
                radii.append(float(low))
    except UsageError:
        raise
    except ValueError:
        raise UsageError(f"`radii` {text!r}: expected numbers and ranges such as 0.5,1:20") from None
    return tuple(radii)


def parse_sigma(text: str) -> tuple[float, ...]:
    """Standard deviations of Gaussian noise, as `parse_radii` reads radii. Raises UsageError for anything else."""
    try:
        sigmas = parse_radii(text)
    except UsageError as e:
        raise UsageError(str(e).replace("`radii`", "`sigma`")) from None
    if not all(SMALLEST_RADIUS <= sigma <= LARGEST_RADIUS for sigma in sigmas):
        raise UsageError(f"`sigma` {text}: expected grey levels from {SMALLEST_RADIUS:g} to {LARGEST_RADIUS:g}")
    return sigmas


def parse_names(text: str) -> tuple[str, ...]:
    """Comma-separated names; blanks around them are dropped."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
