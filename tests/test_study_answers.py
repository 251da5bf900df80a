"""Whole runs: known answers, the literal equations, what must not matter."""

import graphs
import literal
import numpy as np
import pytest
import runs

from analyzer import store
from analyzer.errors import InputError

RADII = (0.5, 4.0)


# closed forms ---------------------------------------------------------------------------------------------------------


def test_constant_network_is_isotropic_and_has_no_mantel_r(tmp_path, images):
    model, _ = graphs.constant(tmp_path)
    runs.write_images(images, 3, size=8)
    found = runs.measure(model, images, tmp_path / "run")
    assert np.ptp(found.isotropy_score.values, axis=-1).max() == 0
    assert np.ptp(found.symmetry_log_odds.values, axis=-1).max() == 0
    assert np.isnan(found.mantel_r).all()
    assert np.isnan(found.mantel_p).all()
    assert (found.mantel_status == 1).all()
    assert np.isnan(found.lipschitz).all()
    summary = store.Run(tmp_path / "run").read_summary()
    assert summary["mantel_r_mean@0.5"]["value"] is None
    assert summary["mantel_r_mean@0.5"]["n"] == 0
    assert any("Mantel's r is undefined in 6 of 6" in w for w in summary["warnings"])


def test_mean_of_pixels_is_symmetric_but_not_isotropic(tmp_path, images):
    model, _ = graphs.pixel_mean(tmp_path)
    runs.write_images(images, 3, size=8)
    found = runs.measure(model, images, tmp_path / "run", trials=20)
    symmetric = np.ptp(found.symmetry_log_odds.values, axis=-1)
    isotropic = np.ptp(found.isotropy_log_odds.values, axis=-1)
    assert symmetric.max() < 1e-5
    assert isotropic.min() > 1e-3
    assert (isotropic[:, 1] > 2 * isotropic[:, 0]).all()


def test_distance_from_the_clean_image_is_isotropic_in_l2(tmp_path, images):
    (path,) = runs.write_images(images, 1, size=8)
    model, _ = graphs.distance(tmp_path, literal.pixels_of(path))
    found = runs.measure(model, images, tmp_path / "run", norm="l2", trials=20)
    assert np.ptp(found.isotropy_log_odds.values, axis=-1).max() < 2e-5
    assert np.allclose(found.isotropy_log_odds.values, -np.array(RADII)[:, None], atol=2e-5)
    assert np.allclose(found.input_distance_l2.values, np.array(RADII)[:, None], rtol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_orthogonal_layer_keeps_topology_and_distances(tmp_path, images, rng, norm):
    dim = 3 * 8 * 8
    orthogonal = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    model, _ = graphs.linear(tmp_path, orthogonal)
    runs.write_images(images, 2, size=8)
    found = runs.measure(model, images, tmp_path / "run", norm=norm, trials=12, permutations=99)
    assert np.allclose(found.mantel_r, 1, atol=1e-4)
    assert np.allclose(found.mantel_p, 0.01)
    assert np.allclose(found.alpha_departure, 0, atol=1e-3)
    # Under l2 an element moves by 0.04 grey levels on pixels near 128, which float32 holds to 1e-5.
    assert np.allclose(found.feature_distance[..., 0] / found.input_distance_l2, 1, rtol=3e-4)
    # normF(J) / sqrt(D) of an orthogonal matrix is 1; 12 trials sample it.
    assert np.allclose(found.jacobian_rms, 1, rtol=0.03)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_linear_features_have_the_mantel_r_of_the_linear_reference(tmp_path, images, rng, norm):
    model, _ = graphs.linear(tmp_path, rng.standard_normal((40, 3 * 16 * 16)), size=(16, 16))
    runs.write_images(images, 12, size=16)
    found = runs.measure(model, images, tmp_path / "run", norm=norm, trials=60, permutations=0)
    difference = (found.mantel_r - found.mantel_r_linear).values
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(difference.size) + 0.02
    assert found.participation_ratio.median() == pytest.approx(38, rel=0.1)  # 1 / (1/40 + 1/768)
    assert np.allclose(found.alpha_departure.mean(), found.alpha_departure_linear.mean(), rtol=0.05)


def test_the_ratio_never_exceeds_the_largest_singular_value(tmp_path, images, rng):
    dim, singular = 3 * 8 * 8, np.linspace(0.2, 3.0, 30)
    left, right = (np.linalg.qr(rng.standard_normal((n, 30)))[0] for n in (50, dim))
    model, _ = graphs.linear(tmp_path, left * singular @ right.T)
    runs.write_images(images, 3, size=8)
    found = runs.measure(model, images, tmp_path / "run", trials=30)
    raw = (found.feature_distance[..., 0] / found.input_distance_l2).values
    assert raw.max() <= 3.0 * (1 + 1e-5)
    assert raw.max() > 0.2
    expected = np.sqrt((singular**2).sum() / dim)
    assert np.median(found.jacobian_rms) == pytest.approx(expected, rel=0.1)


# against the literal equations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "how"),
    [
        ({}, {}),
        ({"softmax": True, "layout": "NHWC", "channels": "BGR"}, {"norm": "l2"}),
        ({"fixed_batch": 1}, {"clip": True, "round": True}),
    ],
)
def test_agrees_with_the_literal_equations(tmp_path, images, build, how):
    model, card = graphs.convnet(tmp_path, **build)
    paths = runs.write_images(images, 3)
    radii, trials = (2.0, 8.0), 7
    found = runs.measure(model, images, tmp_path / "run", radii=radii, trials=trials, seed=5, **how)
    network = literal.Network(model, card, "fc2")
    how = {"norm": how.get("norm", "linf"), "clip": how.get("clip", False), "whole": how.get("round", False)}
    how["seed"] = 5
    for path in paths:
        one = found.sel(image=path.name)
        label = int(np.argmax(network(literal.pixels_of(path))[0]))
        assert one.label == label
        for name, family in (("isotropy", "noise"), ("symmetry", "permutation")):
            s, odds, predicted = literal.isotropy(network, path, label, radii, trials, family=family, **how)
            assert np.allclose(one[f"{name}_score"], s, atol=1e-6)
            assert np.allclose(one[f"{name}_log_odds"], odds, atol=1e-5)
            assert np.array_equal(one[f"{name}_predicted"], predicted)
        r, departure, participation = literal.topology(network, path, radii, trials, **how)
        assert np.allclose(one.mantel_r[:, 0], r, atol=2e-3)
        assert np.allclose(one.alpha_departure[:, 0], departure, rtol=2e-2)
        assert np.allclose(one.participation_ratio[:, 0], np.clip(participation, 1, 768), rtol=2e-2)
        ratio, moved, added, rms = literal.lipschitz(network, path, radii, trials, paths, **how)
        assert np.allclose(one.input_distance_l2, added, rtol=1e-5)
        assert np.allclose(one.feature_distance[..., 0], moved, rtol=1e-3)
        assert np.allclose(one.lipschitz[..., 0], ratio, rtol=1e-3)
        assert np.allclose(one.jacobian_rms[:, 0], rms, rtol=1e-3)


# what must not matter -------------------------------------------------------------------------------------------------


def test_batch_size_trials_radii_and_order_change_nothing(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 4)
    whole = runs.measure(model, images, tmp_path / "a", trials=9, batch_size=8)
    other_batch = runs.measure(model, images, tmp_path / "b", trials=9, batch_size=5)
    fewer = runs.measure(model, images, tmp_path / "c", trials=4, radii=(4.0,), batch_size=64)
    for name in ("isotropy_log_odds", "symmetry_log_odds", "feature_distance", "input_distance_l2"):
        assert np.allclose(whole[name], other_batch[name], rtol=1e-4, atol=1e-6)
        common = whole[name].sel(radius=[4.0]).isel(trial=slice(4))
        assert np.allclose(common, fewer[name], rtol=1e-4, atol=1e-6)
    # The images come in the seeded order whatever the file system says; a set of fewer images keeps it.
    (images / "image_002.png").unlink()
    rest = runs.measure(model, images, tmp_path / "d", trials=9)
    order = [name for name in whole.image.values if name != "image_002.png"]
    assert list(rest.image.values) == order
    assert np.allclose(rest.isotropy_score, whole.isotropy_score.sel(image=order), atol=1e-7)


@pytest.mark.parametrize("change", [{"layout": "NHWC"}, {"channels": "BGR"}, {"layout": "NHWC", "softmax": True}])
def test_twins_give_the_same_results(tmp_path, images, change):
    """The same weights behind another layout, channel order or a final softmax: the same measurements."""
    model, _ = graphs.convnet(tmp_path / "one")
    twin, _ = graphs.convnet(tmp_path / "two", **change)
    runs.write_images(images, 2)
    a = runs.measure(model, images, tmp_path / "a")
    b = runs.measure(twin, images, tmp_path / "b")
    for name in ("isotropy_log_odds", "symmetry_log_odds", "feature_distance", "mantel_r"):
        assert np.allclose(a[name], b[name], rtol=1e-3, atol=1e-4), name
    assert np.array_equal(a.input_distance_l2, b.input_distance_l2)


def test_uint8_input_needs_whole_pixels_and_then_works(tmp_path, images):
    model, _ = graphs.convnet(tmp_path / "float")
    integers, _ = graphs.convnet(tmp_path / "uint8", input_type="uint8")
    runs.write_images(images, 2)
    with pytest.raises(InputError, match="`clip` and `round`"):
        runs.measure(integers, images, tmp_path / "refused")
    a = runs.measure(model, images, tmp_path / "a", clip=True, round=True)
    b = runs.measure(integers, images, tmp_path / "b", clip=True, round=True)
    assert np.allclose(a.isotropy_log_odds, b.isotropy_log_odds, atol=1e-4)


def test_layers_come_as_asked_and_one_pass_serves_them_all(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    passes = []
    several = runs.measure(
        model, images, tmp_path / "a", layers=("fc2", "relu1"), progress=lambda p: passes.append(p.passes)
    )
    assert list(several.layer.values) == ["fc2", "relu1"]
    alone = runs.measure(model, images, tmp_path / "b", layers=("relu1",))
    assert np.allclose(several.feature_distance.sel(layer=["relu1"]), alone.feature_distance)
    # 2 radii x (2 families x 6 trials + 6 halves) + 1 clean + 8 floor rows = 45, in batches of 8
    assert passes[-1] == 2 * 48
    summary = store.Run(tmp_path / "a").read_summary()
    assert "mantel_r_mean@0.5/relu1" in summary
    assert "mantel_r_mean@0.5" not in summary


def test_measures_can_be_chosen(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    found = runs.measure(model, images, tmp_path / "a", measures=("symmetry",))
    assert "symmetry_score" in found
    assert not {"isotropy_score", "mantel_r", "feature_distance", "input_distance_l2"} & set(found)
