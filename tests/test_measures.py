"""Measures against closed forms, plain loops, scipy and scikit-bio."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.special import softmax
from skbio.stats.distance import mantel as skbio_mantel

from analyzer.measures import geometry, isotropy, lipschitz, scores, symmetry, topology
from analyzer.measures.topology import MantelStatus


def directions(rng, trials, size, norm):
    if norm == "l2":
        u = rng.standard_normal((trials, size))
        return u / np.linalg.norm(u, axis=1)[:, None]
    u = rng.uniform(-1, 1, (trials, size))
    return u / np.abs(u).max(axis=1)[:, None]


def both_distances(u, features):
    return (geometry.distances(geometry.row_gram([u])), geometry.distances(geometry.centred_gram(features)))


# scores ---------------------------------------------------------------------------------------------------------------


def test_true_class_from_logits(rng):
    logits = rng.standard_normal((4, 3, 7)) * 5
    seen = scores.true_class(logits, label=2, kind="logits")
    p = softmax(logits, axis=-1)
    assert np.allclose(seen.score, p[..., 2])
    assert np.allclose(seen.log_odds, np.log(p[..., 2] / (1 - p[..., 2])))
    assert np.array_equal(seen.predicted, p.argmax(axis=-1))


def test_log_odds_survive_where_the_probability_rounds_to_one():
    seen = scores.true_class(np.array([60.0, 0.0, 1.0]), label=0, kind="logits")
    assert seen.score == 1.0
    assert seen.log_odds == pytest.approx(60 - np.log(1 + np.e))
    rounded = scores.true_class(np.array([1.0, 0.0, 0.0]), label=0, kind="probabilities")
    assert rounded.score == 1.0
    assert np.isnan(rounded.log_odds)


def test_probabilities_and_logits_agree(rng):
    logits = rng.standard_normal((5, 4))
    a = scores.true_class(logits, label=1, kind="logits")
    b = scores.true_class(softmax(logits, axis=-1), label=1, kind="probabilities")
    assert np.allclose(a.log_odds, b.log_odds)
    assert np.allclose(a.score, b.score)


def test_with_a_sigmoid_each_class_is_its_own_odds():
    logits = np.array([[2.0, -1.0, 5.0], [40.0, 0.0, 41.0]])
    seen = scores.true_class(logits, label=0, kind="sigmoid_logits")
    np.testing.assert_allclose(seen.log_odds, [2.0, 40.0])
    np.testing.assert_allclose(seen.score, 1 / (1 + np.exp(-logits[:, 0])))
    assert seen.predicted.tolist() == [2, 2]
    given = scores.true_class(1 / (1 + np.exp(-logits)), label=0, kind="sigmoid")
    np.testing.assert_allclose(given.log_odds, [2.0, np.nan], rtol=1e-12)  # 1 / (1 + exp(-40)) rounds to 1
    np.testing.assert_allclose(given.score, seen.score)


def test_rows_that_are_not_finite_are_undefined():
    seen = scores.true_class(np.array([[1.0, np.nan], [np.inf, 0.0], [1.0, 0.0]]), label=0, kind="logits")
    assert seen.predicted.tolist() == [-1, -1, 0]
    assert np.isnan(seen.score[:2]).all()
    assert np.isnan(seen.log_odds[:2]).all()
    assert np.isfinite(seen.score[2])


# isotropy, symmetry ---------------------------------------------------------------------------------------------------


def test_ranges_means_and_shares():
    s = np.array([[0.2, 0.9, 0.5], [0.1, 0.1, np.nan]])
    assert isotropy.score_range(s)[0] == pytest.approx(0.7)
    assert np.isnan(isotropy.score_range(s)[1])
    assert isotropy.mean_score(s)[0] == pytest.approx(1.6 / 3)
    wrong = isotropy.misclassified(np.array([[1, 2, 1], [1, 1, -1]]), np.array([1, 1]))
    assert wrong[0] == pytest.approx(1 / 3)
    assert np.isnan(wrong[1])
    assert symmetry.excess(s[:1], np.array([[0.0, 0.1, 0.0]]))[0] == pytest.approx(0.6)


# geometry -------------------------------------------------------------------------------------------------------------


def test_distances_agree_with_pdist(rng):
    features = rng.standard_normal((20, 50)).astype(np.float32) * 1e-3 + 100
    assert np.allclose(
        geometry.distances(geometry.centred_gram(features)), squareform(pdist(features.astype(float))), rtol=1e-6
    )
    noise = rng.integers(-32767, 32767, (20, 40000)).astype(np.int16)
    assert np.allclose(
        geometry.distances(geometry.row_gram([noise[:7], noise[7:]])), squareform(pdist(noise.astype(float))), rtol=1e-5
    )
    assert np.allclose(
        geometry.distance_from(features, features[3]), np.linalg.norm(features.astype(float) - features[3], axis=1)
    )


@pytest.mark.parametrize("rank", [5, 50, 500])
def test_participation_ratio_of_a_known_map(rng, rank):
    singular = np.ones(rank)
    matrix = np.linalg.qr(rng.standard_normal((2000, rank)))[0] * singular
    found = [
        geometry.participation_ratio(geometry.centred_gram(directions(rng, 100, 2000, "l2") @ matrix), 2000)
        for _ in range(20)
    ]
    assert np.mean(found) == pytest.approx(rank, rel=0.1)


def test_participation_ratio_limits(rng):
    one = geometry.centred_gram(rng.standard_normal((50, 1)) @ np.ones((1, 9)))
    assert geometry.participation_ratio(one, 100) == pytest.approx(1, rel=0.1)
    assert np.isnan(geometry.participation_ratio(np.zeros((50, 50)), 100))
    assert geometry.participation_ratio(geometry.centred_gram(rng.standard_normal((50, 9000))), 100) <= 100


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_jacobian_rms_of_a_known_matrix(rng, norm):
    matrix = rng.standard_normal((300, 40))
    u = directions(rng, 400, 300, norm) * 7
    rms = geometry.jacobian_rms(geometry.centred_gram(u @ matrix), geometry.row_gram([u]))
    assert rms == pytest.approx(np.linalg.norm(matrix) / np.sqrt(300), rel=0.03)
    shifted = u * 0.01 + 5  # a common shift, as clipping makes it, is no spread
    rms = geometry.jacobian_rms(geometry.centred_gram(shifted @ matrix), geometry.row_gram([shifted]))
    assert rms == pytest.approx(np.linalg.norm(matrix) / np.sqrt(300), rel=0.05)
    assert np.isnan(geometry.jacobian_rms(np.eye(4), np.zeros((4, 4))))


# topology -------------------------------------------------------------------------------------------------------------


def test_mantel_agrees_with_scikit_bio(rng):
    for _ in range(3):
        points = rng.standard_normal((30, 6))
        x, y = (squareform(pdist(p)) for p in (points, points @ rng.standard_normal((6, 2)) + rng.normal(size=(30, 2))))
        r, p = topology.mantel(x, y, permutations=1999, key=int(rng.integers(1 << 40)))
        reference_r, reference_p, _ = skbio_mantel(x, y, permutations=1999, seed=1)
        assert r == pytest.approx(reference_r, abs=1e-12)
        assert p == pytest.approx(reference_p, abs=0.04)


def test_mantel_agrees_with_the_plain_loop(rng):
    """The same permutations, one by one, with numpy's own correlation: the same count."""
    x, y = (squareform(pdist(rng.standard_normal((12, 3)))) for _ in range(2))
    upper = np.triu_indices(12, 1)
    observed = abs(np.corrcoef(x[upper], y[upper])[0, 1])
    count = 0
    for order in topology.permutation_table(trials=12, permutations=300, key=9):
        count += abs(np.corrcoef(x[upper], y[np.ix_(order, order)][upper])[0, 1]) >= observed
    assert topology.mantel(x, y, permutations=300, key=9)[1] == pytest.approx((count + 1) / 301)


def test_mantel_of_a_batch_is_mantel_of_each(rng):
    x = np.stack([squareform(pdist(rng.standard_normal((15, 3)))) for _ in range(6)]).reshape(3, 2, 15, 15)
    y = np.stack([squareform(pdist(rng.standard_normal((15, 3)))) for _ in range(6)]).reshape(3, 2, 15, 15)
    r, p = topology.mantel(x, y, permutations=99, key=3)
    for where in np.ndindex(3, 2):
        one_r, one_p = topology.mantel(x[where], y[where], permutations=99, key=3)
        assert r[where] == pytest.approx(one_r, abs=1e-12)
        assert p[where] == one_p


def test_mantel_p_is_uniform_under_the_null(rng):
    x, y = (np.stack([squareform(pdist(rng.standard_normal((12, 40)))) for _ in range(400)]) for _ in range(2))
    p = topology.mantel(x, y, permutations=99, key=5)[1]
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(p) == pytest.approx(0.5, abs=0.06)


def test_mantel_is_one_for_scaled_distances_and_undefined_for_constant_ones(rng):
    x = squareform(pdist(rng.standard_normal((10, 3))))
    r, p = topology.mantel(x, 3 * x, permutations=999, key=1)
    assert r == pytest.approx(1)
    assert p == pytest.approx(1 / 1000)
    constant = np.ones((10, 10)) - np.eye(10)
    assert np.isnan(topology.mantel(x, constant, permutations=9, key=1)).all()
    assert np.isnan(topology.mantel(x, np.full((10, 10), np.nan), permutations=9, key=1)).all()
    assert np.isnan(topology.mantel(x, x, permutations=0, key=1)[1])


def test_status_says_why(rng):
    x = squareform(pdist(rng.standard_normal((5, 3))))
    constant = np.ones((5, 5)) - np.eye(5)
    cases = np.stack([x, constant, x, x]), np.stack([x, x, np.zeros((5, 5)), np.full((5, 5), np.nan)])
    assert topology.status(*cases).tolist() == [
        MantelStatus.DEFINED,
        MantelStatus.CONSTANT_OR_COINCIDING_INPUTS,
        MantelStatus.CONSTANT_FEATURES,
        MantelStatus.NON_FINITE_FEATURES,
    ]
    coinciding = x.copy()
    coinciding[0, 1] = coinciding[1, 0] = 0
    assert topology.status(coinciding, x) == MantelStatus.CONSTANT_OR_COINCIDING_INPUTS
    spread = np.sqrt(np.mean(x[np.triu_indices(5, 1)] ** 2) / 2)
    assert topology.status(x, x, floor=0.49 * spread) == MantelStatus.DEFINED
    assert topology.status(x, x, floor=0.51 * spread) == MantelStatus.FEATURES_BELOW_NOISE_FLOOR


def test_alpha_departure(rng):
    x = squareform(pdist(rng.standard_normal((10, 30))))
    assert topology.alpha_departure(x, 2.5 * x) == pytest.approx(0, abs=1e-12)
    y = squareform(pdist(rng.standard_normal((10, 3))))
    alpha = np.linalg.inv(x) @ y
    c = np.trace(alpha) / 10
    assert topology.alpha_departure(x, y) == pytest.approx(
        np.linalg.norm(alpha - c * np.eye(10)) / np.linalg.norm(alpha)
    )
    assert np.isnan(topology.alpha_departure(np.zeros((10, 10)), y))
    assert np.isnan(topology.alpha_departure(x, np.zeros((10, 10))))


@pytest.mark.parametrize(
    ("norm", "dimension", "rank"), [("l2", 1000, 20), ("l2", 1000, 300), ("linf", 1500, 100), ("linf", 1500, 400)]
)
def test_a_random_linear_map_gives_the_linear_references(rng, norm, dimension, rank):
    """Measured r and alpha of linear maps lie where the references computed from the same responses say."""
    r, r_reference, alpha, alpha_reference = [], [], [], []
    for _ in range(12):
        u = directions(rng, 100, dimension, norm)
        features = u @ rng.standard_normal((dimension, rank))
        inputs, outputs = both_distances(u, features)
        pr = geometry.participation_ratio(geometry.centred_gram(features), dimension)
        r.append(topology.mantel(inputs, outputs, permutations=0)[0])
        r_reference.append(topology.mantel_linear(pr, dimension=dimension, norm=norm))
        alpha.append(topology.alpha_departure(inputs, outputs))
        alpha_reference.append(topology.alpha_linear(pr, dimension=dimension, trials=100))
    assert np.mean(r) == pytest.approx(np.mean(r_reference), abs=0.04)
    assert np.mean(alpha) == pytest.approx(np.mean(alpha_reference), rel=0.04)


def test_linear_references_at_their_ends():
    assert topology.mantel_linear(np.array(100.0), dimension=100, norm="l2") == pytest.approx(1)
    assert topology.mantel_linear(np.array(100.0), dimension=100, norm="linf") == pytest.approx(1)
    assert topology.mantel_linear(np.array(1.0), dimension=10**9, norm="linf") == pytest.approx(0, abs=1e-4)
    # Simulated: 0.94 at PR 5, 0.11 at PR 1500 of 3000 inputs.
    assert topology.alpha_linear(np.array(5.0), dimension=1000, trials=100) == pytest.approx(0.94, abs=0.005)
    assert topology.alpha_linear(np.array(1500.0), dimension=3000, trials=100) == pytest.approx(0.11, abs=0.005)
    assert topology.alpha_linear(np.array(100.0), dimension=100, trials=100) == 0
    # And at few trials, rank 20 of 2000: .226 at 5, .364 at 10, .505 at 20, .648 at 40.
    for trials, simulated in ((5, 0.226), (10, 0.364), (20, 0.505), (40, 0.648)):
        found = topology.alpha_linear(np.array(20.0), dimension=2000, trials=trials)
        assert found == pytest.approx(simulated, rel=0.03)
    assert np.isnan(topology.mantel_linear(np.array(np.nan), dimension=10, norm="l2"))


# Lipschitz ------------------------------------------------------------------------------------------------------------


def test_ratio_is_eq_9_and_undefined_where_nothing_was_added():
    found = lipschitz.ratio(np.array([2.0, 1.0]), np.array([4.0, 0.0]), input_range=255.0, feature_range=10.0)
    assert found[0] == pytest.approx((2 / 10) / (4 / 255))
    assert np.isnan(found[1])
    assert np.isnan(lipschitz.ratio(np.array([1.0]), np.array([1.0]), feature_range=0.0)).all()


def test_fits_are_least_squares(rng):
    x, y = rng.random((4, 30)), rng.random((4, 30))
    y[0, 0] = np.nan
    moments = lipschitz.pooled_moments(x, y).sum(axis=0)
    known = np.isfinite(y)
    for degree in (1, 2):
        expected = np.polynomial.polynomial.polyfit(x[known], y[known], degree)
        assert np.allclose(lipschitz.fit(moments, degree=degree), expected)
    single = lipschitz.pooled_moments(np.ones((1, 5)), np.ones((1, 5)))[0]
    assert np.isnan(lipschitz.fit(single, degree=1)).all()
