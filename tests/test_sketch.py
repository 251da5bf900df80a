"""Sketches of features: unbiased, of the standard error that is stated, the same on every machine."""

import numpy as np
import pytest

from analyzer import sketch
from analyzer.sketch import BUCKETS, STANDARD_ERROR


def relative_errors(pairs, *, seed):
    """Of the squared distance of each pair of rows, (pair, 2, F)."""
    sketches = np.array([sketch.sketch(pair, seed=seed) for pair in pairs], np.float64)
    estimated = np.square(sketches[:, 0] - sketches[:, 1]).sum(axis=-1)
    return estimated / np.square(np.subtract(*pairs.transpose(1, 0, 2), dtype=np.float64)).sum(axis=-1) - 1


@pytest.mark.parametrize(("size", "expected"), [(64, None), (100_000, STANDARD_ERROR)])
def test_squared_distances_err_as_much_as_is_stated(size, expected):
    """Expected: 25 % of a squared distance; less of 64 features, where a bucket has two or three."""
    rng = np.random.default_rng(1)
    errors = np.concatenate([relative_errors(rng.standard_normal((50, 2, size)), seed=0) for _ in range(20)])
    assert errors.shape == (1000,)
    counts = np.bincount(np.arange(size) % BUCKETS)
    if expected is None:  # E d_i^2 d_j^2 = 1 for each pair i != j of a bucket, over (E sum d^2)^2
        expected = np.sqrt(2 * (counts * (counts - 1)).sum() / size / (size + 2))
    assert errors.std() == pytest.approx(expected, rel=0.1)
    assert errors.std() < 1.1 * STANDARD_ERROR
    assert abs(errors.mean()) < 4 * expected / np.sqrt(1000)


def test_the_mean_over_signs_is_the_squared_length():
    rows = np.random.default_rng(2).standard_normal((1, 500)) ** 3  # some features are much larger than others
    lengths = [np.square(sketch.sketch(rows, seed=seed), dtype=np.float64).sum() for seed in range(2000)]
    squared = np.square(rows[0]).reshape(-1)
    buckets = np.arange(500) % BUCKETS
    energy, fourth = np.bincount(buckets, squared), np.bincount(buckets, squared**2)
    deviation = np.sqrt(2 * (energy**2 - fourth).sum())
    assert np.std(lengths) == pytest.approx(deviation, rel=0.1)
    assert np.mean(lengths) == pytest.approx(squared.sum(), abs=4 * deviation / np.sqrt(2000))


@pytest.mark.parametrize("size", [1, 30, 31])
def test_of_few_features_it_is_exact(size):
    rows = np.random.default_rng(3).standard_normal((4, size)).astype(np.float32)
    np.testing.assert_array_equal(np.abs(sketch.sketch(rows, seed=7))[:, :size], np.abs(rows))


def test_it_is_linear_and_depends_on_seed_and_size_only():
    a, b = np.random.default_rng(4).standard_normal((2, 1, 1000))
    np.testing.assert_allclose(
        sketch.sketch(2 * a - b, seed=5), 2 * sketch.sketch(a, seed=5) - sketch.sketch(b, seed=5), atol=1e-4
    )
    assert (sketch.signs(5, 1000) == sketch.signs(5, 1000)).all()
    assert (sketch.signs(5, 1000) != sketch.signs(6, 1000)).any()
    assert (sketch.signs(5, 1000)[:999] != sketch.signs(5, 999)).any()


def test_the_signs_are_the_same_on_every_machine():
    """Two runs are compared by their sketches, wherever they were made: the signs must never change."""
    drawn = sketch.signs(0, 4096)
    assert "".join("+" if sign > 0 else "-" for sign in drawn[:32]) == "-++--+---+-+-++--+--++-++++-++-+"
    assert abs(drawn.mean()) < 4 / 64
    assert not drawn.flags.writeable


def test_features_that_are_not_finite_have_no_sketch():
    rows = np.ones((2, 62), np.float32)
    rows[1, 3] = np.inf
    found = sketch.sketch(rows, seed=0)
    assert np.isfinite(found[0]).all() and not np.isfinite(found[1, 3])


@pytest.mark.parametrize("size", [5, 1023, 5000])
def test_the_fine_sketch_becomes_the_coarse_one(size):
    rows = np.random.default_rng(6).standard_normal((3, size))
    fine = sketch.sketch(rows, seed=0, buckets=sketch.FINE)
    assert fine.shape == (3, 1023)
    np.testing.assert_allclose(sketch.coarser(fine), sketch.sketch(rows, seed=0), atol=1e-4)
