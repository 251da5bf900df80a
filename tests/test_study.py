"""The whole path: known answers, the literal equations, what must not matter, stopping and going on."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import graphs
import literal
import numpy as np
import pytest
import runs
from PIL import Image
from scipy.special import softmax

from analyzer import card as cards
from analyzer import open_run, store, study
from analyzer.errors import InputError, UsageError

RADII = (0.5, 4.0)


@pytest.fixture
def images(tmp_path):
    return tmp_path / "images"


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
    assert passes[-1] == 2 * 40  # 2 radii x 2 families x 6 trials + 1 clean + 8 floor rows = 33, in batches of 8
    summary = store.Run(tmp_path / "a").read_summary()
    assert "mantel_r_mean@0.5/relu1" in summary
    assert "mantel_r_mean@0.5" not in summary


def test_measures_can_be_chosen(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    found = runs.measure(model, images, tmp_path / "a", measures=("symmetry",))
    assert "symmetry_score" in found
    assert not {"isotropy_score", "mantel_r", "feature_distance", "input_distance_l2"} & set(found)


# the record -----------------------------------------------------------------------------------------------------------


def test_clean_scores_labels_and_noise_floor(tmp_path, images):
    model, card = graphs.convnet(tmp_path)
    (path,) = runs.write_images(images, 1)
    found = runs.measure(model, images, tmp_path / "run")
    logits = literal.Network(model, card, "fc2")(literal.pixels_of(path))[0]
    assert found.clean_predicted.item() == np.argmax(logits)
    assert found.clean_score.item() == pytest.approx(softmax(logits).max(), abs=1e-6)
    # Rows that differ from the clean one in the last bit of float32: some rounding, and no more than that.
    assert 0 < found.log_odds_noise_floor.item() < 1e-5
    assert 0 < found.feature_noise_floor.item() < 1e-5


def test_selection_counts_and_limit(tmp_path, images):
    model, card = graphs.convnet(tmp_path)
    paths = runs.write_images(images, 8)
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    network = literal.Network(model, card, "fc2")
    confidence = {p.name: softmax(network(literal.pixels_of(p))[0]).max() for p in paths}
    threshold = sorted(confidence.values())[3]
    found = runs.measure(model, images, tmp_path / "run", min_confidence=float(threshold) - 1e-9)
    assert set(found.image.values) == {name for name, c in confidence.items() if c >= threshold - 1e-9}
    counted = store.Run(tmp_path / "run").read_summary()["run"]["images"]
    assert (counted["found"], counted["read"], counted["bad"]) == (9, 8, 1)
    assert (counted["wrong"], counted["below_confidence"], counted["measured"]) == (0, 3, 5)
    assert counted["bad_images"][0]["id"] == "broken.png"
    with pytest.raises(InputError, match=r"best: image_\d+\.png 0\.\d+"):
        runs.measure(model, images, tmp_path / "none", min_confidence=1.0)


def test_wrong_labels_are_wrong(tmp_path, images):
    model, card = graphs.convnet(tmp_path)
    paths = runs.write_images(images, 4)
    network = literal.Network(model, card, "fc2")
    label = [int(np.argmax(network(literal.pixels_of(p))[0])) for p in paths]
    label[1] = (label[1] + 1) % 5
    csv = tmp_path / "labels.csv"
    csv.write_text("file,label\n" + "".join(f"{p.name},{c}\n" for p, c in zip(paths, label, strict=True)))
    found = runs.measure(model, images, tmp_path / "run", labels=csv)
    assert set(found.image.values) == {p.name for i, p in enumerate(paths) if i != 1}
    assert store.Run(tmp_path / "run").read_summary()["run"]["images"]["wrong"] == 1


def test_images_with_outputs_that_are_not_finite_are_marked(tmp_path, images):
    runs.write_images(images, 3, size=8)
    means = sorted(np.asarray(Image.open(p)).mean() for p in images.iterdir())
    model, _ = graphs.nan(tmp_path, threshold=(means[1] + means[2]) / 2)
    found = runs.measure(model, images, tmp_path / "run", radii=(0.5, 200.0))
    summary = store.Run(tmp_path / "run").read_summary()
    assert summary["run"]["images"]["non_finite"] == 1
    # A perturbation of 200 grey levels takes one of the others beyond the threshold or not: its flag says so.
    for k in range(found.sizes["image"]):
        bad = not np.isfinite(found.isotropy_score.values[k]).all() or not np.isfinite(found.symmetry_score[k]).all()
        assert (found.image_status.values[k] == 1) == bad


def test_an_image_removed_during_the_run_fails_alone(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 3)
    removed = []

    def remove(progress):
        if progress.stage == "measuring" and progress.done == 1 and not removed:
            last = json.loads((tmp_path / "run" / "calibration.json").read_text())["selected"][-1]["id"]
            (images / last).unlink()
            removed.append(last)

    found = runs.measure(model, images, tmp_path / "run", progress=remove)
    assert found.image_status.sel(image=removed[0]) == 2
    assert (found.image_status == 0).sum() == 2
    assert np.isnan(found.isotropy_score.sel(image=removed[0])).all()
    assert any("removed or changed" in w for w in store.Run(tmp_path / "run").read_summary()["warnings"])


def test_what_only_rounds_is_marked_as_rounding(tmp_path, images):
    """The mean of permuted noise never changes: all that moves is the last bits, and the summary says so."""
    model, _ = graphs.pixel_mean(tmp_path)
    runs.write_images(images, 3, size=8)
    found = runs.measure(model, images, tmp_path / "run", measures=("symmetry",), trials=20)
    ranges = np.ptp(found.symmetry_log_odds.values, axis=-1)
    assert (ranges <= 2 * found.log_odds_noise_floor.values[:, None]).all()
    assert store.Run(tmp_path / "run").read_summary()["symmetry_below_noise_floor_share@4"]["value"] == 1


def test_the_same_file_twice_counts_once(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    paths = runs.write_images(images, 2)
    (images / "copy.png").write_bytes(paths[0].read_bytes())
    found = runs.measure(model, images, tmp_path / "run")
    assert found.sizes["image"] == 2
    assert store.Run(tmp_path / "run").read_summary()["run"]["images"]["duplicate"] == 1


def test_another_folder_on_resume_is_refused(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 3)
    runs.measure(model, images, tmp_path / "run")
    other = tmp_path / "other"
    for k, path in enumerate(runs.write_images(other, 3, seed=1)):
        path.rename(other / f"different_{k}.png")
    with pytest.raises(UsageError, match="3 of the 3 images"):
        runs.measure(model, other, tmp_path / "run")


def test_an_image_that_comes_back_is_measured_after_all(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    paths = {p.name: p.read_bytes() for p in runs.write_images(images, 3)}
    gone = []

    def remove(progress):
        if progress.stage == "measuring" and not gone:
            gone.append(json.loads((tmp_path / "run" / "calibration.json").read_text())["selected"][-1]["id"])
            (images / gone[0]).unlink()

    runs.measure(model, images, tmp_path / "run", progress=remove)
    (images / gone[0]).write_bytes(paths[gone[0]])
    assert (runs.measure(model, images, tmp_path / "run").image_status == 0).all()


def test_scores_of_the_other_kind_are_refused(tmp_path, images):
    runs.write_images(images, 2)
    model, card = graphs.convnet(tmp_path)
    cards.write(dataclasses.replace(card, kind="probabilities"), cards.beside(model))
    with pytest.raises(InputError, match=r"set output\.kind to logits"):
        runs.measure(model, images, tmp_path / "a")


def test_float16_input_records_what_survives_the_cast(tmp_path, images):
    model, _ = graphs.convnet(tmp_path, input_type="float16")
    runs.write_images(images, 1)
    found = runs.measure(model, images, tmp_path / "run", radii=(0.05, 4.0))
    # (pixel - 127.5) / 64 near 1 is held to 1/1024, which is 1/16 grey level: a radius of 0.05 comes in such steps.
    steps = found.input_distance_linf.values[0, 0] * 1024 / 64
    assert np.allclose(steps * 4, np.round(steps * 4), atol=1e-3)
    assert np.allclose(found.input_distance_linf.values[0, 1], 4, atol=0.04)


def test_every_row_of_the_summary_by_plain_numpy(tmp_path, images):
    """Twelve images, two layers: the whole summary recomputed from the dataset with nothing but numpy."""
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 12)
    runs.measure(model, images, tmp_path / "run", layers=("fc2", "relu1"), radii=(1.0, 8.0, 20.0), trials=11)
    with open_run(tmp_path / "run") as opened:
        d = opened.load()
    expected = {}
    label = d.label.values[:, None]
    factor = 2 * 3.1729 / 2.8472  # expected ranges of 11 and of 8 normal values
    for k, radius in enumerate(("1", "8", "20")):
        for name in ("isotropy", "symmetry"):
            p, odds = (d[f"{name}_{what}"].values[:, k] for what in ("score", "log_odds"))
            wrong = d[f"{name}_predicted"].values[:, k] != label
            spread = odds.max(1) - odds.min(1)
            expected |= {
                f"{name}_range_median@{radius}": np.median(p.max(1) - p.min(1)),
                f"{name}_range_q90@{radius}": np.quantile(p.max(1) - p.min(1), 0.9),
                f"{name}_log_odds_range_median@{radius}": np.median(spread),
                f"{name}_log_odds_range_q90@{radius}": np.quantile(spread, 0.9),
                f"{name}_score_mean@{radius}": p.mean(),
                f"{name}_misclassified_share@{radius}": wrong.any(1).mean(),
                f"{name}_misclassified_trials_mean@{radius}": wrong.mean(),
                f"{name}_below_noise_floor_share@{radius}": (spread <= factor * d.log_odds_noise_floor.values).mean(),
            }
        expected[f"misclassified_share@{radius}"] = expected[f"isotropy_misclassified_share@{radius}"]
        ranges = [np.ptp(d[f"{name}_log_odds"].values[:, k], axis=1) for name in ("symmetry", "isotropy")]
        expected[f"symmetry_excess_median@{radius}"] = np.median(ranges[0] - ranges[1])
        expected[f"input_l2_median@{radius}"] = np.median(d.input_distance_l2.values[:, k].mean(1))
        expected[f"input_linf_median@{radius}"] = float(radius)
        expected[f"input_rms_median@{radius}"] = expected[f"input_l2_median@{radius}"] / np.sqrt(768)
        for j, layer in enumerate(("fc2", "relu1")):
            here = {name: d[name].values[:, k, j] for name in d if d[name].dims == ("image", "radius", "layer")}
            ratio = d.feature_distance.values[:, k, :, j] / d.input_distance_l2.values[:, k]
            scaled = d.lipschitz.values[:, k, :, j]
            tail = f"@{radius}/{layer}"
            expected |= {
                f"mantel_r_mean{tail}": here["mantel_r"].mean(),
                f"mantel_r_median{tail}": np.median(here["mantel_r"]),
                f"mantel_r_linear_mean{tail}": here["mantel_r_linear"].mean(),
                f"mantel_r_linear_median{tail}": np.median(here["mantel_r_linear"]),
                f"mantel_p_below_05_share{tail}": (here["mantel_p"] <= 0.05).mean(),
                f"mantel_undefined_share{tail}": 0.0,
                f"participation_ratio_median{tail}": np.median(here["participation_ratio"]),
                f"alpha_departure_mean{tail}": here["alpha_departure"].mean(),
                f"alpha_departure_linear_mean{tail}": here["alpha_departure_linear"].mean(),
                f"jacobian_rms_median{tail}": np.median(here["jacobian_rms"]),
                f"lipschitz_below_one_share{tail}": (scaled < 1).mean(),
            }
            for q, name in ((0.05, "q05"), (0.5, "median"), (0.95, "q95")):
                expected[f"lipschitz_{name}{tail}"] = np.quantile(scaled, q, method="inverted_cdf")
                expected[f"lipschitz_raw_{name}{tail}"] = np.quantile(ratio, q, method="inverted_cdf")
            for values, name in ((scaled, "image"), (ratio, "raw_image")):
                tails = np.quantile(values, 0.95, axis=1, method="inverted_cdf")
                expected[f"lipschitz_{name}_q95_median{tail}"] = np.median(tails)
    relative = [2 * (s - i) / (s + i) for s, i in zip(*all_ranges(d), strict=True)]
    expected["symmetry_relative_excess_mean"] = np.mean(relative)
    expected["log_odds_noise_floor_median"] = np.median(d.log_odds_noise_floor)
    calibration = json.loads(d.attrs["calibration"])
    for j, layer in enumerate(("fc2", "relu1")):
        r, linear, p = (d[n].values[:, :, j] for n in ("mantel_r", "mantel_r_linear", "mantel_p"))
        moved, added = d.feature_distance.values[..., j], d.input_distance_l2.values
        middle = np.mean(moved / added, axis=2)
        expected |= {
            f"mantel_r_mean/{layer}": r.mean(),
            f"mantel_r_linear_mean/{layer}": linear.mean(),
            f"mantel_r_minus_linear_mean/{layer}": (r - linear).mean(),
            f"mantel_p_below_05_share/{layer}": (p <= 0.05).mean(),
            f"lipschitz_below_one_share/{layer}": (d.lipschitz.values[..., j] < 1).mean(),
            f"lipschitz_growth_median/{layer}": np.median(middle[:, -1] / middle[:, 0]),
        }
        for q, name in ((0.05, "q05"), (0.5, "median"), (0.95, "q95")):
            scaled = d.lipschitz.values[..., j]
            expected[f"lipschitz_{name}/{layer}"] = np.quantile(scaled, q, method="inverted_cdf")
            expected[f"lipschitz_raw_{name}/{layer}"] = np.quantile(moved / added, q, method="inverted_cdf")
        for values, name in ((scaled, "image"), (moved / added, "raw_image")):
            tails = np.quantile(values.reshape(12, -1), 0.95, axis=1, method="inverted_cdf")
            expected[f"lipschitz_{name}_q95_median/{layer}"] = np.median(tails)
        x, y = (added / calibration["input_range"]).ravel(), (moved / calibration["feature_range"][layer]).ravel()
        for degree, name in ((1, "linear"), (2, "quadratic")):
            fitted = np.polynomial.polynomial.polyfit(x, y, degree)
            for term, value in zip(("intercept", "slope", "curvature"), fitted, strict=False):
                expected[f"lipschitz_{name}_{term}/{layer}"] = value
    numbers = {
        name: e["value"]
        for name, e in store.Run(tmp_path / "run").read_summary().items()
        if isinstance(e, dict) and "value" in e
    }
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(value, rel=2e-5, abs=1e-9), name


def all_ranges(dataset):
    return [np.ptp(dataset[f"{name}_log_odds"].values, axis=-1) for name in ("symmetry", "isotropy")]


def test_rounding_a_perturbation_away_is_undefined_not_zero(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    found = runs.measure(model, images, tmp_path / "run", radii=(0.25,), round=True)
    assert (found.input_distance_l2 == 0).all()
    assert np.isnan(found.lipschitz).all()
    assert np.isnan(found.jacobian_rms).all()
    assert (found.mantel_status == 2).all()
    said = store.Run(tmp_path / "run").read_summary()["warnings"]
    assert any("Rounding left nothing of some perturbations, at radius 0.25 (100%)" in w for w in said)


def test_probabilities_without_logits(tmp_path, images):
    """A graph with no softmax to look behind: scores are taken as they are, undefined log-odds are said."""
    model, card = graphs.constant(tmp_path, logits=(1.0, 0.0))
    cards.write(dataclasses.replace(card, kind="probabilities"), cards.beside(model))
    runs.write_images(images, 1, size=8)
    found = runs.measure(model, images, tmp_path / "run", measures=("isotropy",))
    assert found.clean_score.item() == 1
    assert np.isnan(found.isotropy_log_odds).all()
    assert found.log_odds_status.item() == 1
    assert any("round" in w for w in store.Run(tmp_path / "run").read_summary()["warnings"])


# stopping and continuing ----------------------------------------------------------------------------------------------


def same(a, b):
    for name in a.variables:
        if a[name].dtype.kind == "f":
            assert np.allclose(a[name], b[name], rtol=1e-6, atol=1e-9, equal_nan=True), name
        else:
            assert (a[name].values == b[name].values).all(), name


def test_sigkill_in_mid_run_then_the_same_command(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 12)
    options = ["--trials", "30", "--radii", "1,4", "--min-confidence", "0", "--permutations", "19"]
    options += ["--batch-size", "8", "--provider", "cpu"]

    def command(out):
        return [sys.executable, "-m", "analyzer", "run", str(model), "--images", str(images), "--out", out, *options]

    killed = tmp_path / "killed"
    with subprocess.Popen(command(str(killed)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while len(list(killed.glob("units/*.npz"))) < 3:
            assert process.poll() is None, "finished before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert 3 <= len(list(killed.glob("units/*.npz"))) < 12
    with open_run(killed) as partial:
        assert 3 <= partial.sizes["image"] < 12
    undisturbed = tmp_path / "undisturbed"
    for out in (killed, undisturbed):
        subprocess.run(command(str(out)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open_run(killed) as a, open_run(undisturbed) as b:
        same(a, b)
    one, two = (json.loads((d / "summary.json").read_text()) for d in (killed, undisturbed))
    assert {k: v for k, v in one.items() if "@" in k} == {k: v for k, v in two.items() if "@" in k}


def test_sigint_stops_cleanly_and_says_how_to_go_on(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 30)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "analyzer", "run", str(model), "--images", str(images), "--out", str(out)]
    command += ["--min-confidence", "0", "--batch-size", "8", "--provider", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(out.glob("units/*.npz")):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("stopped; to continue: analyzer run ")
    assert "Traceback" not in said


def test_a_complete_run_is_left_alone_and_a_larger_limit_continues_it(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 5)
    out = tmp_path / "run"
    three = runs.measure(model, images, out, limit=3)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in out.rglob("*.*") if p.name != ".lock"}
    runs.measure(model, images, out, limit=3)
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in out.rglob("*.*") if p.name != ".lock"}
    five = runs.measure(model, images, out, limit=5)
    assert list(five.image.values[:3]) == list(three.image.values)
    same(five.isel(image=slice(3)), three)
    with pytest.raises(UsageError, match="limit"):
        runs.measure(model, images, out, limit=2)


def test_other_settings_on_resume_are_refused_by_name(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    out = tmp_path / "run"
    runs.measure(model, images, out)
    with pytest.raises(UsageError, match="seed 0 -> 1"):
        runs.measure(model, images, out, seed=1)
    with pytest.raises(UsageError, match="trials"):
        runs.measure(model, images, out, trials=7)
    graphs.convnet(tmp_path, seed=9)
    with pytest.raises(UsageError, match="model"):
        runs.measure(model, images, out)


def test_another_batch_size_on_resume_gives_the_same_results(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 4)
    reference = runs.measure(model, images, tmp_path / "a")
    runs.measure(model, images, tmp_path / "b", limit=2)
    resumed = runs.measure(model, images, tmp_path / "b", limit=100, batch_size=3)
    for name in ("isotropy_log_odds", "feature_distance"):
        assert np.allclose(resumed[name], reference[name], rtol=1e-4, atol=1e-6)


# the protocol ---------------------------------------------------------------------------------------------------------


def test_default_protocol_is_the_papers():
    assert study.Protocol().radii == study.parse_radii("0.5,1:20")
    assert len(study.Protocol().radii) == 21
    assert study.Protocol().families == ("noise", "permutation")


@pytest.mark.parametrize(
    "wrong",
    [
        {"radii": ()},
        {"radii": (1.0, 0.5)},
        {"radii": (0.0,)},
        {"radii": (float("nan"),)},
        {"trials": 2},
        {"limit": 0},
        {"min_confidence": 1.5},
        {"norm": "l1"},
        {"permutations": -1},
        {"permutations": 18},
        {"radii": (1e-5,)},
        {"seed": -1},
        {"measures": ("isotropi",)},
        {"measures": ()},
    ],
)
def test_protocols_that_make_no_sense_are_usage_errors(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).split("_")[0]):
        study.Protocol(**wrong)


@pytest.mark.parametrize("text", ["", "a", "1:", "1:b", "0.5,,1"])
def test_radii_that_are_none(text):
    with pytest.raises(UsageError, match="radii"):
        study.parse_radii(text)
