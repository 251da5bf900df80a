"""The promise that perturbations are the same on every machine, for any batch, trial count, radius set and norm."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import perturbations as P
from analyzer.errors import UsageError

SHA = hashlib.sha256(b"an image").hexdigest()
COMMON = {"seed": 0, "sha256": SHA, "shape": (3, 7, 5), "radius": 1.0}

GOLDEN_STREAM = ["0x86b5b94f6d9d99ee", "0x3e5774885ae50ef0"]
GOLDEN_NOISE = [[-19941, -28297, 27875, 14077], [-31043, -11561, 27671, -23329]]
GOLDEN_PERMUTATION = [[-25451, 23201, -9999, -3989], [23201, -28779, -3989, -22497]]


def make(family="noise", trials=5, **changed):
    return P.Perturbations(**{**COMMON, **changed}, family=family, trials=trials)


def rows(drawn):
    return drawn.words(range(drawn.trials))


def test_frozen_words():
    """Golden values: a change of these breaks every stored run and the pairing between networks."""
    assert [hex(int(w)) for w in P.random_words(12345678901234567890123, 2, counter=7)] == GOLDEN_STREAM
    noise = rows(make(trials=2))
    assert noise[:, :4].tolist() == GOLDEN_NOISE
    permuted = rows(make("permutation", trials=2))
    assert permuted[:, :4].tolist() == GOLDEN_PERMUTATION


@pytest.mark.parametrize("family", P.FAMILIES)
def test_a_row_does_not_depend_on_how_many_there_are(family):
    few, many = make(family, trials=3), make(family, trials=50)
    assert np.array_equal(rows(few), rows(many)[:3])
    assert np.array_equal(many.words(range(17, 29)), rows(many)[17:29])
    assert np.array_equal(few.scales(rows(few)), many.scales(rows(many))[:3])


@pytest.mark.parametrize("family", P.FAMILIES)
@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"sha256": "0" * 64}, {"radius": 2.0}, {"shape": (3, 5, 7)}, {"shape": (1, 7, 15)}]
)
def test_everything_in_the_key_changes_the_words(family, change):
    assert not np.array_equal(rows(make(family)), rows(make(family, **change)))


def test_families_and_trials_differ():
    assert not np.array_equal(rows(make("noise"))[0], rows(make("permutation"))[0])
    for family in P.FAMILIES:
        assert len(np.unique(rows(make(family, trials=100)), axis=0)) == 100


def test_the_norm_scales_the_same_words():
    linf, l2 = make(norm="linf"), make(norm="l2")
    assert np.array_equal(rows(linf), rows(l2))


@given(st.integers(1, 400), st.integers(0, 2**64 - 1), st.sampled_from([0.25, 0.5, 1.0, 20.0]))
@settings(max_examples=60, deadline=None)
def test_lengths_are_the_radius(width, seed, radius):
    for family in ("noise", "permutation"):
        for norm, order in (("linf", np.inf), ("l2", 2)):
            drawn = P.deltas(
                seed=seed, sha256=SHA, shape=(1, 1, width), family=family, radius=radius, trials=4, norm=norm
            )
            lengths = np.linalg.norm(drawn.reshape(4, -1).astype(np.float64), ord=order, axis=1)
            assert lengths == pytest.approx(radius, rel=1e-6)


@given(st.integers(2, 3000))
@settings(max_examples=60, deadline=None)
def test_permutations_are_bijections_of_one_noise_row(size):
    permuted = make("permutation", trials=7, shape=(1, 1, size))
    base = np.sort(permuted._twice[:size])
    for row in rows(permuted):
        assert np.array_equal(np.sort(row), base)
    # Where the noise row has no repeated value, the reorderings themselves can be told apart.
    if len(np.unique(base)) == size and size > 8:
        assert len(np.unique(rows(permuted), axis=0)) == 7


def test_as_many_distinct_permutations_as_elements():
    drawn = make("permutation", trials=30, shape=(1, 1, 30))
    drawn._twice = np.tile(np.arange(30, dtype=np.int16), 2)
    assert len(np.unique(rows(drawn), axis=0)) == 30


@pytest.mark.parametrize("size", [9, 30])
def test_more_permutations_than_elements_are_drawn(size):
    drawn = make("permutation", trials=200, shape=(1, 1, size))
    drawn._twice = np.tile(np.arange(size, dtype=np.int16), 2)
    orders = rows(drawn)
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(size), (200, 1)))
    assert len(np.unique(orders, axis=0)) == 200
    assert np.array_equal(drawn.words(range(size, size + 3)), orders[size : size + 3])
    shifts = [drawn._twice[shift : shift + size][drawn._tau] for shift in drawn._tau]
    assert np.array_equal(orders[:size], shifts)  # as where there are fewer trials
    other = make("permutation", trials=200, shape=(1, 1, size), radius=2.0)
    assert not np.array_equal(other._drawn_order(size), drawn._drawn_order(size))


def test_words_are_uniform_and_symmetric():
    words = rows(make(shape=(3, 64, 64), trials=40))
    assert np.all(words % 2 != 0)
    assert words.min() >= -32767
    values = words.astype(np.float64) / 32768
    n = values.size
    assert abs(values.mean()) < 4 * np.sqrt(1 / 3 / n)
    assert abs(values.var() - 1 / 3) < 4 * np.sqrt((1 / 5 - 1 / 9) / n)
    counts = np.histogram(values, bins=16, range=(-1, 1))[0]
    assert ((counts - n / 16) ** 2 / (n / 16)).sum() < 45  # chi-squared, 15 degrees of freedom, p about 1e-4


@pytest.mark.parametrize("family", P.FAMILIES)
def test_rows_are_uncorrelated_in_space_and_between_trials(family):
    words = rows(make(family, shape=(3, 32, 32), trials=60)).astype(np.float64)
    size = words.shape[1]
    products = words @ words.T / size / words.var()
    off = products[np.triu_indices(60, 1)]
    assert abs(off.mean()) < 4 / np.sqrt(size * 60)
    assert off.std() == pytest.approx(1 / np.sqrt(size), rel=0.15)
    # A shift of the image by one pixel is not another trial: what a convolution would see as the same patch moved.
    image = words.reshape(60, 3, 32, 32)
    moved = (image[:, :, :, 1:] * image[:, :, :, :-1]).mean(axis=(1, 2, 3)) / (32768**2 / 3)
    assert np.abs(moved).max() < 5 / np.sqrt(size)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="family"):
        make("rotation")
    with pytest.raises(UsageError, match="norm"):
        make(norm="l1")


def test_derived_keys_tell_types_and_borders_apart():
    keys = [P.derived_key("a", *parts) for parts in ((1, 2), (12,), ("1", 2), (1.0, 2), (1, "2"), ("12",))]
    assert len(set(keys)) == len(keys)
    assert P.derived_key("a", 1) != P.derived_key("b", 1)
