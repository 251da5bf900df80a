"""Verdicts on networks whose answer is known."""

import json

import graphs
import numpy as np
import pytest
import runs

from analyzer import claims, open_run
from analyzer.claims import AS_LINEAR, FAILS, HOLDS, NO_MORE, UNKNOWN

RADII = (0.5, 1.0, 4.0)


def verdicts(tmp_path, made, *, images=12, size=8, given=None, **changed):
    model, _ = made
    runs.write_images(tmp_path / "images", images, size=size)
    options = {"radii": RADII, "trials": 20, **changed}
    with runs.measure(model, tmp_path / "images", tmp_path / "run", **options) as dataset:
        return {claim.number: claim for claim in claims.claims(dataset, **(given or {}))}


def test_a_constant_network_is_isotropic_and_symmetric_everywhere(tmp_path):
    found = verdicts(tmp_path, graphs.constant(tmp_path))
    assert [found[k].verdict for k in (1, 2, 3, 4)] == [FAILS, FAILS, UNKNOWN, UNKNOWN]
    assert "below 0.01 beyond epsilon as well" in found[1].reason
    assert "r is defined on 0 image(s)" in found[3].reason


def test_the_mean_of_all_pixels_is_symmetric(tmp_path):
    assert verdicts(tmp_path, graphs.pixel_mean(tmp_path))[2].verdict == FAILS


def matrix(rank, scale, dimension=192):
    return np.random.default_rng(0).standard_normal((rank, dimension)) * scale


def test_a_linear_map_does_what_a_linear_map_does(tmp_path):
    # Of rank 2 its r is low, its range grows in proportion to the radius, its symmetry is that of fresh noise.
    found = verdicts(tmp_path, graphs.linear(tmp_path, matrix(2, 1e-3, 768), (16, 16)), size=16, trials=40)
    assert found[3].verdict == AS_LINEAR
    assert found[2].verdict == NO_MORE
    assert found[1].figures[-1].estimate.value == pytest.approx(2, rel=0.2)
    assert "where that of a linear map grows 2-fold" in found[1].reason


def test_an_orthogonal_map_keeps_the_topology(tmp_path):
    found = verdicts(tmp_path, graphs.linear(tmp_path, np.linalg.qr(matrix(192, 1.0))[0]), given={"bound": 2.0})
    assert found[3].verdict == FAILS
    assert found[3].figures[0].estimate.value > 0.99


@pytest.mark.parametrize(("bound", "verdict"), [(30.0, HOLDS), (0.9, FAILS), (None, UNKNOWN)])
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
        expected = claims.claims(dataset)
    assert document["claims"][2]["figures"]["mantel_r_mean@0.5"]["value"] == expected[2].figures[0].estimate.value
    assert {c["verdict"] for c in document["claims"]} <= {HOLDS, FAILS, UNKNOWN, AS_LINEAR, NO_MORE}
