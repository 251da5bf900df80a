"""Verdicts on networks whose answer is known."""

import json

import graphs
import numpy as np
import pytest
import runs

from analyzer import open_run
from analyzer.verdicts import claims
from analyzer.verdicts.claims.judging import AS_LINEAR, FAILS, HOLDS, NO_MORE, NOT_LINEAR, UNKNOWN

RADII = (0.5, 1.0, 4.0)


def verdicts(tmp_path, made, *, images=12, size=8, given=None, **changed):
    model, _ = made
    runs.write_images(tmp_path / "images", images, size=size)
    options = {"radii": RADII, "trials": 20, **changed}
    with runs.measure(model, tmp_path / "images", tmp_path / "run", **options) as dataset:
        return {claim.number: claim for claim in claims.judge(dataset, **(given or {}))}


def test_a_constant_network_is_isotropic_and_symmetric_everywhere(tmp_path):
    found = verdicts(tmp_path, graphs.constant(tmp_path))
    assert [found[k].verdict for k in (1, 2, 3, 4)] == [FAILS, FAILS, UNKNOWN, UNKNOWN]
    assert "it stays below 0.01 up to radius 4 (0)" in found[1].reason
    assert "r is defined on 0 image(s)" in found[3].reason


def test_the_mean_of_all_pixels_is_symmetric(tmp_path):
    assert verdicts(tmp_path, graphs.pixel_mean(tmp_path))[2].verdict == FAILS


def matrix(rank, scale, dimension=192):
    return np.random.default_rng(0).standard_normal((rank, dimension)) * scale


def test_a_linear_map_does_what_a_linear_map_does(tmp_path):
    # Of low rank its r is low, its range grows in proportion to the radius, its symmetry is that of fresh noise.
    made = graphs.linear(tmp_path, matrix(8, 1e-3, 3072), (32, 32))
    found = verdicts(tmp_path, made, size=32, trials=60, images=30)
    assert found[3].verdict == AS_LINEAR
    assert found[2].verdict == NO_MORE
    assert found[1].figures[-1].estimate.value == pytest.approx(2, rel=0.2)
    assert "that of a linear map 2-fold" in found[1].reason


def edited(tmp_path, **changes):
    """Claims on a run of 12 images whose variables were overwritten."""
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(tmp_path / "images", 12)
    with runs.measure(model, tmp_path / "images", tmp_path / "run", radii=RADII, trials=6) as dataset:
        for name, change in changes.items():
            dataset[name][...] = change(dataset[name].values.copy())
        return {claim.number: claim for claim in claims.judge(dataset, bound=2.0)}


def but_the_first(values):
    values[1:] = np.nan
    return values


def test_what_is_known_of_few_images_only_is_no_verdict(tmp_path):
    names = ("isotropy_log_odds", "symmetry_log_odds", "isotropy_score", "mantel_r", "feature_distance")
    found = edited(tmp_path, **dict.fromkeys(names, but_the_first))
    assert {claim.verdict for claim in found.values()} == {UNKNOWN}
    assert all("is defined on 1 image(s); 10 are needed" in claim.reason for claim in found.values())


def test_reordering_that_cannot_be_compared_says_so(tmp_path):
    found = edited(tmp_path, isotropy_log_odds=but_the_first)[2]
    assert found.verdict == HOLDS
    assert "the difference from fresh noise is defined on 1 image(s)" in found.reason


def test_r_that_averages_out_is_not_low(tmp_path):
    signs = np.where(np.arange(12) % 2, 0.5, -0.5)[:, None, None]
    found = edited(tmp_path, mantel_r=lambda values: np.broadcast_to(signs, values.shape))[3]
    assert found.verdict == FAILS


def test_a_range_that_grows_late_names_the_radius(tmp_path):
    def late(values):
        values[...] = 0.5
        values[:, -1, 0] = 0.9
        return values

    found = edited(tmp_path, isotropy_score=late)[1]
    assert found.verdict == FAILS
    assert "it reaches 0.01 first at radius 4" in found.reason


def test_a_range_that_jumps_is_not_that_of_a_linear_map(tmp_path):
    def jump(values):
        values[...] = 0.5
        values[:, 1:, 0] = 0.9
        return values

    found = edited(tmp_path, isotropy_score=jump, isotropy_log_odds=lambda v: jump(v) * 10)[1]
    assert found.verdict == HOLDS
    assert "cannot be compared with a linear map" in found.reason


def test_claims_are_about_the_layer_before_the_classification(tmp_path):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(tmp_path / "images", 12)
    for layers, named in ((("fc2", "relu1"), "layer fc2"), (("relu1", "relu2"), "fc2, is not among")):
        out = tmp_path / named.replace(",", "")
        with runs.measure(model, tmp_path / "images", out, radii=RADII, trials=6, layers=layers) as dataset:
            found = {claim.number: claim for claim in claims.judge(dataset, bound=2.0)}
        assert all(named in found[number].reason for number in (3, 4))


def test_an_orthogonal_map_keeps_the_topology(tmp_path):
    found = verdicts(tmp_path, graphs.linear(tmp_path, np.linalg.qr(matrix(192, 1.0))[0]), given={"bound": 2.0})
    assert found[3].verdict == FAILS
    assert found[3].figures[1].estimate.value > 0.99


def spread_around(mean):
    """Values near a mean, that differ from image to image."""
    near = np.linspace(-0.002, 0.002, 12)[:, None, None]
    return lambda values: np.broadcast_to(mean + near, values.shape)


@pytest.mark.parametrize(
    ("r", "linear", "verdict"),
    [(0.05, 0.02, NOT_LINEAR), (0.022, 0.02, AS_LINEAR), (0.05, 0.3, HOLDS), (0.09, 0.105, UNKNOWN)],
)
def test_a_low_r_is_held_against_the_interval_of_the_reference(tmp_path, r, linear, verdict):
    changes = {"mantel_r": lambda v: 2 * spread_around(r / 2)(v), "mantel_r_linear": spread_around(linear)}
    unknown = edited(tmp_path, **changes, linearity=lambda v: np.full_like(v, np.nan))[3]
    assert unknown.verdict == verdict


@pytest.mark.parametrize(
    ("r", "departure", "verdict", "said"),
    [
        (0.022, 0.05, AS_LINEAR, "linear within a tenth"),
        (0.05, 0.05, UNKNOWN, "linear within a tenth"),  # the response is linear, r is not a linear map's
        (0.022, 0.3, NOT_LINEAR, "not linear"),
        (0.05, 0.3, NOT_LINEAR, "not linear"),
        (0.022, 0.1, AS_LINEAR, "cannot be told"),  # the interval straddles 0.1: r decides
        (0.05, 0.1, NOT_LINEAR, "cannot be told"),
    ],
)
def test_what_mantels_r_cannot_tell_the_departure_does(tmp_path, r, departure, verdict, said):
    changes = {"mantel_r": lambda v: 2 * spread_around(r / 2)(v), "mantel_r_linear": spread_around(0.02)}
    found = edited(tmp_path, **changes, linearity=spread_around(departure))[3]
    assert found.verdict == verdict
    assert f"its departure N from an affine response is {departure:.2g} at radius 0.5 ({said})" in found.reason
    assert ("affine maps explain how" in found.reason) == (departure == 0.05 and verdict == AS_LINEAR)
    assert [figure.name for figure in found.figures][-2:] == ["linearity_median@0.5", "linearity_median@4"]


@pytest.mark.parametrize("value", [0.3, np.nan])
def test_a_departure_within_rounding_or_undefined_tells_nothing(tmp_path, value):
    changes = {"mantel_r": lambda v: 2 * spread_around(0.011)(v), "mantel_r_linear": spread_around(0.02)}
    found = edited(tmp_path, **changes, linearity=spread_around(value), linearity_floor=spread_around(0.5))[3]
    text = f"{value:.2g}" if np.isfinite(value) else "undefined"
    assert f"is {text} at radius 0.5 (cannot be told)" in found.reason and "nan" not in found.reason
    assert found.verdict == AS_LINEAR


@pytest.mark.parametrize(("departure", "verdict"), [(0.05, UNKNOWN), (0.3, NOT_LINEAR), (np.nan, NOT_LINEAR)])
def test_a_ratio_that_changes_though_the_response_is_linear_cannot_be_told(tmp_path, departure, verdict):
    grown = {"feature_distance": lambda values: values * np.array([1.0, 1.5, 3.0])[:, None, None]}
    assert edited(tmp_path, **grown, linearity=spread_around(departure))[4].verdict == verdict


def test_a_linear_map_with_a_small_root_mean_square_has_the_linear_verdict(tmp_path):
    # norm_F(J) / sqrt(D) is below 1 and sigma_max above, by the ranges of the image set.
    made = graphs.linear(tmp_path, matrix(8, 1e-3, 3072), (32, 32))
    found = verdicts(tmp_path, made, size=32, trials=20, images=12, given={"bound": 2.0})[4]
    assert found.verdict == AS_LINEAR
    assert "norm_F(J) / sqrt(D), which is what random noise sees of a linear map, is" in found.reason


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"feature_distance": lambda values: values * np.array([1.0, 1.5, 3.0])[:, None, None]}, NOT_LINEAR),
        ({"jacobian_rms": lambda values: values * 1e6}, HOLDS),
        ({"jacobian_rms": but_the_first}, HOLDS),
    ],
)
def test_ratios_that_no_linear_map_would_have(tmp_path, changes, verdict):
    found = edited(tmp_path, **changes)[4]
    assert found.verdict == verdict


@pytest.mark.parametrize(("bound", "verdict"), [(30.0, NOT_LINEAR), (0.9, FAILS), (None, UNKNOWN)])
def test_the_fourth_claim_needs_the_global_bound(tmp_path, bound, verdict):
    given = {"bound": bound, "no_bound": "is unavailable: LRN"}
    found = verdicts(tmp_path, graphs.convnet(tmp_path), size=16, given=given)[4]
    assert found.figures[0].estimate.value > 0.99
    assert found.verdict == verdict
    assert ("is unavailable: LRN" if bound is None else f"{bound:.3g}") in found.reason


def test_few_images_and_missing_measures_cannot_tell(tmp_path):
    found = verdicts(tmp_path, graphs.convnet(tmp_path), images=3, size=16, measures=("isotropy", "topology"))
    assert {claim.verdict for claim in found.values()} == {UNKNOWN}
    assert "3 image(s): below 10" in found[1].reason
    assert found[2].reason == found[4].reason == "the run has not measured it"


def test_radii_that_say_nothing_about_epsilon(tmp_path):
    found = verdicts(tmp_path, graphs.convnet(tmp_path), size=16, radii=(2.0, 4.0))
    assert found[1].verdict == UNKNOWN


def test_the_command_prints_each_and_json_has_the_figures(tmp_path, capsys):
    from analyzer.cli import main

    verdicts(tmp_path, graphs.convnet(tmp_path), size=16)
    for extra in ([], ["--json"]):
        with pytest.raises(SystemExit) as left:
            main(["claims", str(tmp_path / "run"), *extra])
        assert left.value.code == 0
        said = capsys.readouterr().out
    document = json.loads(said)
    assert [c["number"] for c in document["claims"]] == [1, 2, 3, 4]
    with open_run(tmp_path / "run") as dataset:
        expected = claims.judge(dataset)
    assert document["claims"][2]["figures"]["mantel_r_mean@0.5"]["value"] == expected[2].figures[1].estimate.value
    assert {c["verdict"] for c in document["claims"]} <= {HOLDS, FAILS, UNKNOWN, AS_LINEAR, NO_MORE}
