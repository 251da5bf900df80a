"""How far from a flip: margins, flip radius and probabilities; closed forms, 10^6 draws, scale, summary, gate."""

import itertools
import json

import graphs
import numpy as np
import pytest
import runs
from graphs import node, tensor, value
from scipy.special import ndtr, ndtri, softmax
from scipy.stats import binomtest

from analyzer.estimate import Estimate, at_worst, entry, estimate_of, outside
from analyzer.measures import flips
from analyzer.measures.scores import true_class
from analyzer.perturbations import deltas
from analyzer.store import Run
from analyzer.verdicts import compare, gate

RADII = np.array([0.5, 1.0, 2.0, 5.0, 10.0, 20.0])


def classifier(folder, *, margin, gain=1.0, name="net", classes=3):
    """Logits gain (W (x - 100) + (margin, 0, -1, ...)), W drawn once: a linear network around a grey image."""
    weights = np.random.default_rng(5).standard_normal((classes, 192)).astype(np.float32) / 100
    bias = np.array([margin, 0.0, *(-1.0 - k for k in range(classes - 2))], np.float32)
    nodes = [
        node("Flatten", "x", "flat"),
        node("Sub", "flat grey", "feature"),
        node("Gemm", "feature weights bias", "logits", transB=1),
    ]
    constants = [tensor("grey", np.float32(100.0)), tensor("weights", gain * weights), tensor("bias", gain * bias)]
    ends = [value("x", ["N", 3, 8, 8])], [value("logits", ["N", classes])]
    path, _ = graphs.save(folder, name, nodes, *ends, constants, graphs.make_card(feature="feature"))
    return path, weights.astype(np.float64), bias.astype(np.float64)


def around_grey(folder, count=8):
    """Images that are grey but for one pixel value: the margins of `classifier` hardly differ."""
    from PIL import Image

    folder.mkdir()
    for k in range(count):
        pixels = np.full((8, 8, 3), 100, np.uint8)
        pixels[0, 0, 0] += k
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


# the margin -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logits", "probabilities", "sigmoid_logits", "sigmoid"])
def test_the_runner_up_is_the_best_other_class(rng, kind):
    logits = 3 * rng.standard_normal((200, 5))
    given = {"probabilities": softmax(logits, axis=-1), "sigmoid": 1 / (1 + np.exp(-logits))}.get(kind, logits)
    seen = true_class(given, label=2, kind=kind)
    others = np.delete(logits, 2, axis=1).max(axis=1)
    np.testing.assert_allclose(seen.runner_up, logits[:, 2] - others, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(seen.runner_up > 0, seen.predicted == 2)


def test_a_runner_up_that_is_ruled_out_or_rounded_away_leaves_the_margin_undefined():
    assert np.isnan(true_class(np.array([1.0, -np.inf]), label=0, kind="logits").runner_up)
    assert np.isnan(true_class(np.array([2.0]), label=0, kind="logits").runner_up)
    assert np.isnan(true_class(np.array([1.0, 0.0]), label=0, kind="probabilities").runner_up)
    assert true_class(np.array([1.0, 0.0, -np.inf]), label=0, kind="logits").runner_up == 1.0


def test_the_scale_of_the_logits_is_no_part_of_the_margin(rng):
    margins = 3 + rng.standard_normal((4, 50))
    np.testing.assert_allclose(flips.margin_noise_units(7 * margins), flips.margin_noise_units(margins))
    assert np.isnan(flips.margin_noise_units(np.full(5, 2.0)))


# the flip radius ------------------------------------------------------------------------------------------------------


def linear_margins(margin, slope, trials=100):
    """Margins of a linear map: quantiles of a normal, so that each radius has exactly the deviation slope * radius."""
    noise = ndtri((np.arange(trials) + 0.5) / trials)
    return margin + slope * RADII[:, None] * noise / noise.std(ddof=1)


@pytest.mark.parametrize("radius", [0.3, 0.7, 3.0, 14.0, 21.0, 39.0])
def test_of_a_linear_map_it_is_the_closed_form(radius):
    """Margin m and deviation s r: q s r = m."""
    slope = 2.0 / (ndtri(1 - 1 / 100) * radius)
    assert flips.flip_radius(linear_margins(2.0, slope), 2.0, RADII) == pytest.approx(radius, rel=1e-9)


@pytest.mark.parametrize(
    ("radius", "expected"), [(0.24, -np.inf), (0.26, 0.26), (39.9, 39.9), (40.1, np.inf), (1e6, np.inf)]
)
def test_it_is_censored_beyond_a_factor_of_two(radius, expected):
    slope = 2.0 / (ndtri(1 - 1 / 100) * radius)
    assert flips.flip_radius(linear_margins(2.0, slope), 2.0, RADII) == pytest.approx(expected)


def test_a_network_that_does_not_answer_or_is_unknown():
    still = np.full((6, 20), 2.0)
    assert flips.flip_radius(still, 2.0, RADII) == np.inf
    assert np.isnan(flips.flip_radius(np.full((6, 20), np.nan), 2.0, RADII))
    assert np.isnan(flips.flip_radius(still, np.nan, RADII))
    part = linear_margins(2.0, 2.0 / (ndtri(0.99) * 3.0))
    part[0, 3] = np.nan  # a radius at which a trial is unknown says nothing
    assert flips.flip_radius(part, 2.0, RADII) == pytest.approx(3.0)
    assert flips.flip_radius(part[3:4], 2.0, RADII[3:4]) == pytest.approx(3.0)


def test_sampling_errors_do_not_shift_it(rng):
    """The first crossing of a jittering line comes too early; that of the monotone fit does not."""
    radii = np.arange(1.0, 21.0)
    slope = 2.0 / (ndtri(0.99) * 10.0)
    found = [
        flips.flip_radius(2.0 + slope * radii[:, None] * rng.standard_normal((20, 100)), 2.0, radii) for _ in range(400)
    ]
    assert np.median(found) == pytest.approx(10.0, rel=0.02)
    assert np.std(found) < 1.0


def by_plain_loops(margins, clean, radii):
    """Where the line of q deviations minus the mean first passes 0, after pooling what falls."""
    q = ndtri(1 - 1 / margins.shape[1])
    blocks = [[q * m.std(ddof=1) - m.mean(), 1 / r**2, 1] for m, r in zip(margins, radii, strict=True)]
    while any(a[0] > b[0] for a, b in itertools.pairwise(blocks)):
        k = next(k for k in range(len(blocks) - 1) if blocks[k][0] > blocks[k + 1][0])
        (a, u, m), (b, v, n) = blocks[k : k + 2]
        blocks[k : k + 2] = [[(a * u + b * v) / (u + v), u + v, m + n]]
    heights, places = [-clean, *(a for a, _, n in blocks for _ in range(n))], [0.0, *radii]
    for k in range(1, len(places)):
        if heights[k] >= 0:
            radius = places[k - 1] - heights[k - 1] * (places[k] - places[k - 1]) / (heights[k] - heights[k - 1])
            return radius if radius >= radii[0] / 2 else -np.inf
    x, y = (
        np.array([v for v, r in zip(each, places, strict=True) if r >= radii[-1] / 2]) for each in (places, heights)
    )
    if len(x) == 1:
        x, y = np.array([0.0, *x]), np.array([-clean, *y])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    radius = radii[-1] - heights[-1] / slope if slope > 0 else np.inf
    return radius if radius <= 2 * radii[-1] else np.inf


@pytest.mark.parametrize("radii", [RADII, RADII[-1:], np.array([1.0, 8.0, 20.0])], ids=len)
def test_it_is_what_plain_loops_give(rng, radii):
    kinds = set()
    for _ in range(300):
        clean, slope, bend = rng.uniform(0.5, 5), rng.uniform(0.01, 0.6), rng.uniform(0.6, 1.4)
        noise = rng.standard_normal((len(radii), 30))
        margins = clean - 0.01 * radii[:, None] + slope * radii[:, None] ** bend * noise
        found = flips.flip_radius(margins, clean, radii)
        np.testing.assert_allclose(found, by_plain_loops(margins, clean, radii), rtol=1e-9)
        kinds.add(
            "above" if found == np.inf else "below" if found == -np.inf else "beyond" if found > radii[-1] else "in"
        )
    assert kinds >= {"above", "beyond", "in"}


# probabilities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trials", "z"), [(5, 1.0), (20, 2.0), (100, 0.0), (100, 2.5), (100, 3.5)])
def test_the_normal_tail_is_unbiased(rng, trials, z):
    found = flips.tail_probability(z + rng.standard_normal((200_000, trials)))
    error = found.std() / np.sqrt(found.size)
    assert found.mean() == pytest.approx(ndtr(-z), abs=4 * error)
    assert error < 0.05 * ndtr(-z)
    assert ((found >= 0) & (found <= 1)).all()


def test_the_normal_tail_without_any_spread():
    flat = np.array([[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 2.0]])
    np.testing.assert_allclose(flips.tail_probability(flat), [0.0, 1.0, 0.5, np.nan])


@pytest.mark.parametrize(("flipped", "rows"), [(0, 100), (3, 1200), (100, 100), (99, 100)])
def test_the_bound_is_that_of_clopper_and_pearson(flipped, rows):
    expected = binomtest(flipped, rows, alternative="less").proportion_ci(0.95, method="exact").high
    assert flips.most_probable(flipped, rows) == pytest.approx(expected)


def truth(weights, bias, pixels, radius, draws=1_000_000):
    """The share of fresh noise that flips a linear network, by draws of another seed."""
    wrong = 0
    for block in range(draws // 50_000):
        noise = deltas(
            seed=99, sha256=f"{block:064x}", shape=(3, 8, 8), family="noise", radius=radius, trials=50_000
        ).reshape(50_000, -1)
        logits = (noise + (pixels - 100)) @ weights.T + bias
        wrong += int((logits.argmax(axis=1) != 0).sum())
    return wrong / draws


def test_the_probabilities_of_a_run_are_those_of_a_million_draws(tmp_path):
    """One image, 2,000 trials: at one radius flips are counted, at the other none is, and the tail tells."""
    model, weights, bias = classifier(tmp_path, margin=3.5)
    folder = around_grey(tmp_path / "images", count=1)
    radii = (8.0, 15.0)
    runs.measure(model, folder, tmp_path / "run", radii=radii, trials=2000, measures=("isotropy",))
    numbers = json.loads((tmp_path / "run" / "summary.json").read_text())
    true = [truth(weights, bias, np.full(192, 100.0), radius) for radius in radii]
    assert 1e-6 < true[0] < 1e-3 < true[1]
    counted, tail, bound = (
        [numbers[f"flip_probability_{name}@{radius:g}"]["value"] for radius in radii]
        for name in ("mean", "tail_mean", "bound")
    )
    assert counted[0] == 0 and bound[0] == pytest.approx(3 / 2000, rel=0.01)
    assert counted[1] == pytest.approx(true[1], abs=4 * np.sqrt(true[1] / 2000))
    assert bound[1] > true[1] and bound[0] > true[0]
    assert tail[0] == pytest.approx(true[0], rel=0.6)  # four deviations out
    assert tail[1] == pytest.approx(true[1], rel=0.25)


# a run ----------------------------------------------------------------------------------------------------------------


def test_a_run_stores_what_numpy_computes(tmp_path):
    model, weights, bias = classifier(tmp_path, margin=2.0)
    dataset = runs.measure(model, around_grey(tmp_path / "images"), tmp_path / "run", radii=(1.0, 8.0), trials=12)
    sha256 = Run(tmp_path / "run").hashes
    for k, image in enumerate(map(str, dataset["image"].values)):
        clean = np.full(192, 100.0)
        clean[0] += int(image.removesuffix(".png"))
        for name, family in (("isotropy", "noise"), ("symmetry", "permutation")):
            noise = deltas(seed=0, sha256=sha256[image], shape=(3, 8, 8), family=family, radius=8.0, trials=12)
            logits = (clean - 100 + noise.reshape(12, -1)) @ weights.T + bias
            margin = logits[:, 0] - logits[:, 1:].max(axis=1)
            stored = dataset[f"{name}_runner_up_log_odds"].values[k, 1]
            np.testing.assert_allclose(stored, margin, rtol=1e-4, atol=1e-4)
        logits = (clean - 100) @ weights.T + bias
        assert dataset["clean_runner_up_log_odds"].values[k] == pytest.approx(logits[0] - logits[1:].max(), rel=1e-4)


@pytest.fixture
def scaled_pair(tmp_path):
    """Runs of a network and of the same with ten times the logits."""
    folder = around_grey(tmp_path / "images", count=12)
    for name, gain in (("one", 1.0), ("ten", 10.0)):
        model, *_ = classifier(tmp_path / name, margin=2.0, gain=gain, name=name)
        runs.measure(model, folder, tmp_path / f"run_{name}", radii=(1.0, 4.0), trials=30)
    return tmp_path / "run_one", tmp_path / "run_ten"


def test_compare_begins_with_what_does_not_depend_on_the_scale_of_the_logits(scaled_pair):
    properties = compare.compare(scaled_pair)["properties"]
    assert list(properties)[:3] == ["margin_noise_units", "flip_radius", "isotropy_log_odds_range"]
    for name in ("margin_noise_units", "flip_radius"):
        assert not properties[name]["overall"]["pairs"][0]["distinguishable"]
        assert abs(properties[name]["overall"]["pairs"][0]["difference"]) < 1e-3 * min(
            properties[name]["overall"]["values"].values()
        )
    assert properties["isotropy_log_odds_range"]["overall"]["pairs"][0]["distinguishable"]
    assert properties["flip_radius"]["radii"] == {}
    assert "own scale" in properties["isotropy_log_odds_range"]["title"]


def test_compare_counts_radii_outside_as_the_last_that_is_told(tmp_path):
    folder = around_grey(tmp_path / "images", count=12)
    for name, margin in (("near", 2.0), ("far", 200.0)):
        model, *_ = classifier(tmp_path / name, margin=margin, name=name)
        runs.measure(model, folder, tmp_path / f"run_{name}", radii=(1.0, 8.0), trials=30, measures=("isotropy",))
    found = compare.compare([tmp_path / "run_near", tmp_path / "run_far"])
    overall = found["properties"]["flip_radius"]["overall"]
    assert overall["values"]["run_far"] == 16.0 and overall["pairs"][0]["distinguishable"]
    assert found["properties"]["flip_radius"]["ranking"][0]["name"] == "run_far"
    assert "flip_radius of run_far lies above 16 on 12 images, and counts as 16." in found["notes"]
    assert not any("run_near lies" in note for note in found["notes"])


def test_a_censored_radius_in_summary_and_gate(tmp_path, capsys):
    model, *_ = classifier(tmp_path, margin=200.0)
    runs.measure(model, around_grey(tmp_path / "images"), tmp_path / "run", radii=(1.0, 8.0), measures=("isotropy",))
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    outside = dict.fromkeys(("censored", "low_censored", "high_censored"), "above")
    assert stored["flip_radius_median"] == {"value": None, "low": None, "high": None, "n": 8, **outside}
    said = "noise would flip one trial only above 16, twice the largest radius"
    assert any(said in sentence for sentence in stored["sentences"])
    for least, status, code in ((7, "passes", 0), (9, "undecided", 3)):
        (verdict,) = gate.gate(tmp_path / "run", min={"flip_radius_median": least})["verdicts"]
        assert (verdict["status"], verdict["passed"]) == (status, code == 0)
        assert "known only to lie above the largest radius, 8" in verdict["explanation"]
        assert runs.call(capsys, "gate", tmp_path / "run", "--min", f"flip_radius_median={least}")[0] == code
    (verdict,) = gate.gate(tmp_path / "run", max={"flip_radius_median": 100})["verdicts"]
    assert not verdict["passed"]


def test_two_radii_outside_are_no_change_that_is_known(tmp_path):
    """Flip radii of some 60 and 600, both beyond twice the largest radius: nothing is known of the change."""
    folder = around_grey(tmp_path / "images", count=12)
    for name, margin in (("far", 20.0), ("farther", 200.0)):
        model, *_ = classifier(tmp_path / name, margin=margin, name=name)
        runs.measure(model, folder, tmp_path / f"run_{name}", radii=(1.0, 8.0), measures=("isotropy",))
    document = gate.gate(
        tmp_path / "run_far",
        baseline=tmp_path / "run_farther",
        max_regression={"flip_radius_median": "10%"},
        strict=True,
    )
    (verdict,) = document["verdicts"]
    assert (verdict["status"], verdict["passed"]) == ("undecided", False)
    assert "outside the radii of both runs on 12 images" in verdict["explanation"]


def test_margins_that_are_unknown_at_large_radii_tell_nothing_beyond():
    margins = linear_margins(2.0, 2.0 / (ndtri(0.99) * 14.0))
    margins[3:] = np.nan
    assert np.isnan(flips.flip_radius(margins, 2.0, RADII))


def test_the_sentence_tells_counted_from_estimated(tmp_path):
    model, *_ = classifier(tmp_path, margin=1.5)
    runs.measure(model, around_grey(tmp_path / "images"), tmp_path / "run", radii=(2.0, 4.0), trials=50)
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    (sentence,) = (sentence for sentence in stored["sentences"] if sentence.startswith("Flips"))
    assert "extrapolated beyond 4, where the log-odds depart from a line by N = " in sentence
    assert "none flipped, so that at most 0.0075 of such noise does (95 %, of these images; the normal tail" in sentence
    assert stored["flip_radius_median"]["value"] == pytest.approx(6, rel=0.5)


# entries --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ends", [(1.0, 0.5, 2.0), (np.inf, 3.0, np.inf), (-np.inf, -np.inf, 2.0), (np.nan, np.nan, np.nan)]
)
def test_an_entry_holds_the_whole_estimate(ends):
    there = estimate_of(
        json.loads(json.dumps({k: None if v != v else v for k, v in entry(Estimate(*ends, 7)).items()}))
    )
    np.testing.assert_array_equal(there, (*ends, 7))


def test_what_lies_outside_is_held_against_a_bound_at_its_worst():
    below, above = Estimate(-np.inf, -np.inf, 0.7, 9), Estimate(np.inf, 12.0, np.inf, 9)
    assert at_worst(below, [1.0, 20.0], largest=True)[:3] == (0.7, 0.0, 0.7)
    assert at_worst(Estimate(np.inf, 32.0, np.inf, 9), [1.0, 20.0], largest=False)[:3] == (32.0, 32.0, np.inf)
    assert at_worst(below, [1.0, 20.0], largest=False)[:3] == (0.0, 0.0, 0.7)
    assert at_worst(above, [1.0, 20.0], largest=True)[:3] == (np.inf, 12.0, np.inf)
    assert at_worst(above, [1.0, 20.0], largest=False)[:3] == (20.0, 12.0, np.inf)
    assert outside(below, [1.0, 20.0]).endswith("below the smallest radius, 1")
    assert outside(Estimate(2.0, 1.0, 3.0, 9), [1.0, 20.0]) == ""
