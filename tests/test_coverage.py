"""Intervals hold the true value as often as they say, whatever the distribution: see docs/statistics.md."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest


def _loaded(path):
    """A script as a module, under a name that no package has."""
    spec = importlib.util.spec_from_file_location("benchmark_of_coverage", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


coverage = _loaded(Path(__file__).resolve().parent.parent / "benchmarks" / "coverage.py")
IMAGES = (10, 20, 40, 100, 300)
SAFE = {"mean of shares"}
"""At least as wide as need be."""
ATOMS = {
    ("median", "zero-inflated"),
    ("median, the largest 40 % known to be above", "zero-inflated"),
    ("median of an image's 95 % quantile", "zero-inflated"),
} | {(f"pooled {which}", "zero-inflated") for which in ("5 % quantile", "median")}
"""Where the true value is one that many images have, an interval that ends on it holds it always."""
DISCRETE = 0.99
"""With few images, order statistics and shares come in steps."""


def within(seen, *, most, repetitions):
    """Whether a coverage is 92..98 % (or up to `most`), up to 3 standard errors of the simulation."""
    error = 3 * np.sqrt(0.05 * 0.95 / (repetitions * seen.shown))
    return 0.92 - error <= seen.covered <= most + error


@pytest.mark.slow
@pytest.mark.parametrize("name", coverage.DISTRIBUTIONS)
@pytest.mark.parametrize("kind", coverage.KINDS, ids=lambda kind: kind.name)
def test_every_interval_that_is_shown_covers(kind, name):
    repetitions = 600
    for images in IMAGES:
        seen = coverage.coverage(kind, name, images, repetitions=repetitions)
        safe = kind.name in SAFE or (kind.name, name) in ATOMS
        most = 1.0 if safe else DISCRETE if images < 20 else 0.98
        assert not seen.shown or within(seen, most=most, repetitions=repetitions), (images, seen)


@pytest.mark.slow
def test_a_nearly_normal_quantity_has_its_interval_from_10_images_on():
    for images in IMAGES:
        seen = coverage.coverage(coverage.NEAR_NORMAL, "normal", images, repetitions=600)
        assert seen.shown > 0.97
        assert within(seen, most=0.98, repetitions=600)


@pytest.mark.slow
@pytest.mark.parametrize("name", coverage.DISTRIBUTIONS)
def test_runs_without_a_direction_are_rarely_called_different(name):
    for images in IMAGES:
        assert coverage.false_rate(name, images, repetitions=1000) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", coverage.DISTRIBUTIONS)
def test_the_bound_of_a_probability_is_rarely_too_low(name):
    for images in IMAGES:
        assert coverage.bounded(name, images, repetitions=1000) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", coverage.DISTRIBUTIONS)
@pytest.mark.parametrize("statistic", ["median", "90 % quantile", "share of images", "mean of shares"])
def test_an_interval_may_be_looked_at_after_every_image(statistic, name):
    held = coverage.looked_at(statistic, name, (10, 100, 1000), repetitions=2000)
    assert held == sorted(held, reverse=True)
    assert held[-1] > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "lognormal(1.5)", "t2"])
@pytest.mark.parametrize("kind", ["median of an image's 95 % quantile", "pooled 95 % quantile"])
def test_a_gate_at_its_bound_is_rarely_passed_with_certainty(kind, name):
    (made,) = [each for each in coverage.KINDS if each.name == kind]
    bound = made.true(name)
    for images in IMAGES:
        rng = np.random.default_rng(images)
        passed = [made.estimate(rng, name, images).high < bound for _ in range(1000)]
        assert np.mean(passed) < 0.025 + 3 * np.sqrt(0.025 / 1000)


def test_skewed_means_and_pooled_tails_of_few_images_have_no_interval():
    kinds = {kind.name: kind for kind in coverage.KINDS}
    for name in ("mean", "pooled 95 % quantile"):
        assert coverage.coverage(kinds[name], "lognormal(1.5)", 40, repetitions=5).shown == 0
    tail = kinds["median of an image's 95 % quantile"]
    assert coverage.coverage(tail, "lognormal(1.5)", 10, repetitions=200).covered > 0.92
