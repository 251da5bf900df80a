"""Gaussian noise and certified radii: keyed rows, the published procedure, the closed form of a linear classifier."""

import json

import graphs
import numpy as np
import pytest
import runs
from PIL import Image
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, kstest
from test_flips import around_grey, classifier

from analyzer import report, study
from analyzer.errors import UsageError
from analyzer.measures import certified
from analyzer.perturbations import Perturbations, deltas
from analyzer.store import Run

KEY = {"seed": 0, "sha256": "ab" * 32, "shape": (3, 7, 5), "family": "gaussian"}


# noise ----------------------------------------------------------------------------------------------------------------


def test_gaussian_noise_is_normal_with_the_deviation_asked_for():
    noise = deltas(**{**KEY, "shape": (3, 100, 100)}, radius=12.0, trials=20)
    assert noise.std() == pytest.approx(12.0, rel=0.01)
    assert kstest(noise.ravel().astype(float) / 12.0, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise.reshape(20, -1))[np.triu_indices(20, 1)]).max() < 0.05


def test_gaussian_rows_can_be_had_in_any_number_and_order():
    drawn = Perturbations(**KEY, radius=0.25, trials=50)
    whole = drawn.words(range(50))
    np.testing.assert_array_equal(drawn.words(range(17, 23)), whole[17:23])
    other = Perturbations(**{**KEY, "seed": 1}, radius=0.25, trials=50).words(range(50))
    assert (other != whole).mean() > 0.9
    np.testing.assert_allclose(
        whole * drawn.scales(whole)[:, None], deltas(**KEY, radius=0.25, trials=50).reshape(50, -1), rtol=1e-6
    )


def test_gaussian_words_stay_the_same():
    """A promise: these numbers never change."""
    words = Perturbations(**KEY, radius=0.25, trials=2).words(range(2))
    assert words[:, :5].tolist() == PROMISED


PROMISED = [[-5275, -3802, 2489, 4331, -3439], [4377, -8608, -498, 2472, 870]]


def test_no_bits_lie_so_near_a_boundary_that_the_last_digits_decide():
    """The 32 bits at which a word begins, to the precision of the normal distribution itself."""
    boundary = (np.arange(-32461, 32461) + 0.5) / 5120
    place = 2.0**32 * ndtr(boundary) - 0.5  # of the bits; a word's width there, in bits
    width = 2.0**32 * np.exp(-(boundary**2) / 2) / np.sqrt(2 * np.pi) / 5120
    nearest = np.abs(place - np.rint(place)) / width  # in words
    inside = (place > 0) & (place < 2.0**32)
    relative = nearest / np.maximum(1, np.abs(5120 * boundary))
    assert relative[inside].min() > 100 * np.finfo(float).eps


# the procedure --------------------------------------------------------------------------------------------------------


def reference(predicted, sigma, *, alpha=0.001):
    """CERTIFY as published, by scipy's exact binomial interval."""
    first = min(100, max(1, len(predicted) // 10))
    values, counts = np.unique(predicted[:first], return_counts=True)
    chosen = values[counts.argmax()]
    rest = predicted[first:]
    successes = int((rest == chosen).sum())
    low = binomtest(successes, len(rest), alternative="greater").proportion_ci(1 - alpha, method="exact").low
    return chosen, (sigma * ndtri(low) if low > 0.5 else np.nan)


def test_it_is_the_published_procedure(rng):
    for trials in (30, 200, 1500):
        for share in (0.0, 0.02, 0.3, 0.55, 0.9):
            answers = np.where(rng.random(trials) < share, rng.integers(1, 5, trials), 0).astype(np.int32)
            found, radius = certified.certify(answers[None], np.array([0.5]))
            expected = reference(answers, 0.5)
            assert found[0] == expected[0]
            np.testing.assert_allclose(radius[0], expected[1], rtol=1e-9)


def test_a_certificate_is_wrong_no_more_often_than_it_says(rng):
    """The class has probability 0.8; a radius above sigma Phi^-1(0.8) is wrong. Of 40,000, 0.1 % are allowed."""
    counts = rng.binomial(900, 0.8, 40_000)
    wrong = (certified.lower_bound(counts, 900) > 0.8).mean()
    assert 0.0002 < wrong < 0.0015


def test_the_radius_of_a_linear_classifier_is_its_distance_from_the_boundary(tmp_path):
    model, weights, bias = classifier(tmp_path, margin=3.5, classes=2)
    folder = around_grey(tmp_path / "images", count=3)
    dataset = runs.measure(
        model, folder, tmp_path / "run", radii=(10.0, 20.0), trials=20_000, measures=("certified",), batch_size=256
    )
    normal = weights[0] - weights[1]
    for k, name in enumerate(map(str, dataset["image"].values)):
        shift = np.zeros(192)
        shift[0] = int(name.removesuffix(".png"))
        distance = (normal @ shift + bias[0] - bias[1]) / np.linalg.norm(normal)
        for j, sigma in enumerate((10.0, 20.0)):
            found = dataset["certified_radius"].values[k, j]
            most = certified.certify(np.zeros((1, 20_000), np.int32), np.array([sigma]))[1][0]
            assert found <= distance
            assert found == pytest.approx(min(distance, most), rel=0.08)
            predicted = dataset["gaussian_predicted"].values[k, j]
            noise = deltas(
                seed=0, sha256=Run(tmp_path / "run").hashes[name], shape=(3, 8, 8), family="gaussian", radius=sigma,
                trials=20_000,
            )  # fmt: skip
            expected = ((noise.reshape(20_000, -1) + shift) @ normal + bias[0] - bias[1] < 0).astype(int)
            assert (predicted != expected).mean() < 1e-3  # float32 on the boundary
            np.testing.assert_allclose(found, reference(predicted, sigma)[1], rtol=1e-9)


def black(folder, count):
    folder.mkdir()
    for k in range(count):
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[0, 0, 0] = k
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


def test_it_abstains_where_the_classes_are_too_near(tmp_path):
    model, _ = graphs.pixel_mean(tmp_path, weights=(0.01, -0.01))  # as often one class as the other, around black
    dataset = runs.measure(
        model, black(tmp_path / "images", 6), tmp_path / "run", radii=(30.0,), trials=60,
        measures=("certified",),
    )  # fmt: skip
    assert dataset["certified_status"].values.tolist() == [[1]] * 6
    numbers = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert numbers["certified_abstained_share@30"]["value"] == (dataset["certified_status"].values == 1).mean()
    assert np.isnan(dataset["certified_radius"].values[dataset["certified_status"].values == 1]).all()


def test_another_class_or_none_is_no_radius():
    radius, found = np.array([[2.0, np.nan], [3.0, 4.0]]), np.array([[1, 1], [1, 0]])
    np.testing.assert_array_equal(certified.right(radius, found, np.array([1, 0])), [[2.0, 0.0], [0.0, 4.0]])


# commands -------------------------------------------------------------------------------------------------------------


def test_from_the_command_line_to_the_report(tmp_path, capsys):
    model, *_ = classifier(tmp_path, margin=2.0)
    folder = around_grey(tmp_path / "images", count=4)
    asked = ["--family", "gaussian", "--sigma", "5,10", "--trials", "300", "--min-confidence", "0"]
    code, out, _ = runs.call(capsys, "run", model, "--images", folder, "--out", tmp_path / "run", *asked, "--tables")
    assert code is None or code == 0
    assert "Certified L2 radius by sigma, smoothed network" in out
    assert "Certified: at sigma 5 100% of 4 images within a median L2 radius of" in out
    identity = Run(tmp_path / "run").identity
    assert identity["measures"] == ["certified"] and identity["radii"] == [5.0, 10.0]
    page = report.write([tmp_path / "run"], tmp_path / "report").read_text()
    assert "Certified accuracy of the smoothed network" in page
    assert (tmp_path / "report" / "figures" / "certified.png").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--sigma", "5"], "without --family"),
        (["--family", "gaussian"], "--sigma is missing"),
        (["--family", "noise", "--sigma", "5"], "--family noise"),
        (
            ["--family", "gaussian", "--sigma", "5", "--measures", "isotropy"],
            "--radii and --measures do not go with it",
        ),
        (["--family", "gaussian", "--sigma", "5", "--radii", "1"], "--radii and --measures do not go with it"),
        (["--family", "gaussian", "--sigma", "-5"], "--sigma"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, capsys, asked, said):
    model, _ = graphs.pixel_mean(tmp_path)
    runs.write_images(tmp_path / "images", 2)
    code, _, err = runs.call(capsys, "run", model, "--images", tmp_path / "images", "--out", tmp_path / "run", *asked)
    assert code == 2 and said in err


def test_it_is_measured_where_it_is_asked_for_only():
    assert "certified" not in study.Protocol().measures
    assert study.Protocol(measures=("certified",), trials=200_000, radii=(1.0,)).families == ("gaussian",)
    with pytest.raises(UsageError, match="trials"):
        study.Protocol(measures=("certified", "isotropy"), trials=200_000, radii=(1.0,))
