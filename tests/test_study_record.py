"""Whole runs: what is selected, marked and recorded, and every number of the summary."""

import dataclasses
import json

import graphs
import literal
import numpy as np
import pytest
import runs
from graphs import node, tensor, value
from PIL import Image
from scipy.special import softmax
from scipy.stats import beta, binomtest

from analyzer import card as cards
from analyzer import open_run, store
from analyzer.errors import InputError


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


def test_where_nearly_all_images_are_left_out_the_cards_fields_are_named_in_order(tmp_path, images):
    model, card = graphs.convnet(tmp_path)
    paths = runs.write_images(images, 11)
    network = literal.Network(model, card, "fc2")
    label = [int(np.argmax(network(literal.pixels_of(p))[0])) for p in paths]
    label = [c if i == 0 else (c + 1) % 5 for i, c in enumerate(label)]
    csv = tmp_path / "labels.csv"
    for right, said in ((1, True), (2, False)):
        shown = [c if i >= right else (c - (i > 0)) % 5 for i, c in enumerate(label)]
        csv.write_text("file,label\n" + "".join(f"{p.name},{c}\n" for p, c in zip(paths, shown, strict=True)))
        runs.measure(model, images, tmp_path / f"run{right}", labels=csv)
        warnings = store.Run(tmp_path / f"run{right}").read_summary()["warnings"]
        found = [w for w in warnings if w.startswith("10 of 11 images are classified wrongly or fall below")]
        assert len(found) == said
        for warning in found:
            places = [warning.index(key) for key in ("channels", "mean", "std", "resize", "layout", "labels")]
            assert places == sorted(places)
    with pytest.raises(InputError, match=r"input\.channels \(RGB or BGR\), input\.mean and input\.std"):
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
        margin = d.isotropy_runner_up_log_odds.values[:, k]
        units = margin.mean(1) / margin.std(1, ddof=1)
        flipped = (d.isotropy_predicted.values[:, k] != label).sum()
        expected |= {
            f"margin_noise_units_median@{radius}": np.median(units),
            f"margin_noise_units_q05@{radius}": np.quantile(units, 0.05),
            f"flip_probability_mean@{radius}": flipped / margin.size,
            f"flip_probability_bound@{radius}": (
                binomtest(int(flipped), margin.size, alternative="less").proportion_ci(0.95, method="exact").high
            ),
            # Lieberman and Resnikoff: of 11 trials, a beta distribution with both parameters 11/2 - 1.
            f"flip_probability_tail_mean@{radius}": np.mean(
                [beta(4.5, 4.5).cdf(max(0.0, 0.5 - z * np.sqrt(11) / 20)) for z in units]
            ),
        }
        expected[f"misclassified_share@{radius}"] = expected[f"isotropy_misclassified_share@{radius}"]
        ranges = [np.ptp(d[f"{name}_log_odds"].values[:, k], axis=1) for name in ("symmetry", "isotropy")]
        expected[f"symmetry_excess_median@{radius}"] = np.median(ranges[0] - ranges[1])
        expected[f"input_l2_median@{radius}"] = np.median(d.input_distance_l2.values[:, k].mean(1))
        expected[f"input_linf_median@{radius}"] = float(radius)
        expected[f"log_odds_linearity_median@{radius}"] = np.median(d.log_odds_linearity.values[:, k])
        within = d.log_odds_linearity.values[:, k] <= d.log_odds_linearity_floor.values[:, k]
        expected[f"log_odds_linearity_below_floor_share@{radius}"] = within.mean()
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
                f"linearity_median{tail}": np.median(here["linearity"]),
                f"linearity_below_floor_share{tail}": (here["linearity"] <= here["linearity_floor"]).mean(),
                f"even_share_median{tail}": np.median(here["even_share"]),
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
    expected["flip_radius_median"] = np.inf  # no margin is near; test_flips.py has a reference of its own
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
            for term, number in zip(("intercept", "slope", "curvature"), fitted, strict=False):
                expected[f"lipschitz_{name}_{term}/{layer}"] = number
    numbers = {
        name: np.inf if e.get("censored") == "above" else e["value"]
        for name, e in store.Run(tmp_path / "run").read_summary().items()
        if isinstance(e, dict) and "value" in e
    }
    assert numbers.keys() == expected.keys()
    for name, number in expected.items():
        assert numbers[name] == pytest.approx(number, rel=2e-5, abs=1e-9), name


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


def test_a_range_within_the_noise_floor_is_called_no_response(tmp_path):
    """Of a network whose answer is drawn at random, which no rounding explains."""
    nodes = [
        node("Flatten", "x", "flat"),
        node("ReduceMean", "flat", "feature", axes=[1], keepdims=1),
        node("Gemm", "feature weights", "exact"),
        node("RandomNormalLike", "exact", "random", scale=0.3),
        node("Add", "exact random", "logits"),
    ]
    ends = [value("x", ["N", 3, 8, 8])], [value("logits", ["N", 2])]
    weights = [tensor("weights", [[0.001, -0.001]])]
    model, _ = graphs.save(tmp_path, "random", nodes, *ends, weights, graphs.make_card(feature="feature"))
    runs.write_images(tmp_path / "images", 6, size=8)
    runs.measure(model, tmp_path / "images", tmp_path / "run", permutations=0)
    summary = store.Run(tmp_path / "run").read_summary()
    assert not any("rounding" in text for text in summary["warnings"])
    assert any("no response to the noise" in text for text in summary["warnings"])
    assert "within the noise floor" in next(s for s in summary["sentences"] if s.startswith("Isotropy"))


def test_symmetry_of_a_network_that_does_not_answer(tmp_path):
    model, _ = graphs.constant(tmp_path)
    runs.write_images(tmp_path / "images", 12, size=8)
    runs.measure(model, tmp_path / "images", tmp_path / "run", measures=("isotropy", "symmetry"))
    said = store.Run(tmp_path / "run").read_summary()["sentences"]
    assert any("fresh noise does not move it either" in sentence for sentence in said)


def test_a_radius_beyond_the_range_of_a_pixel_is_said(tmp_path):
    model, _ = graphs.pixel_mean(tmp_path)
    runs.write_images(tmp_path / "images", 2, size=8)
    for norm, said in (("linf", True), ("l2", False)):
        runs.measure(model, tmp_path / "images", tmp_path / norm, radii=(5.0, 300.0), norm=norm, permutations=0)
        warned = [w for w in store.Run(tmp_path / norm).read_summary()["warnings"] if w.startswith("Radius 300: more")]
        assert bool(warned) == said


@pytest.mark.parametrize(("count", "said"), [(9, False), (12, True)])
def test_intervals_that_take_values_as_nearly_normal_are_marked(tmp_path, count, said):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(tmp_path / "images", count)
    runs.measure(model, tmp_path / "images", tmp_path / "run", measures=("isotropy", "topology"))
    summary = store.Run(tmp_path / "run").read_summary()
    marked = [warning for warning in summary["warnings"] if "too narrow where" in warning]
    shown = [name for name, e in summary.items() if name.startswith("mantel_r_mean") and e["low"] is not None]
    assert bool(marked) == bool(shown) == said
    assert not said or f"rest on {count} images" in marked[0]
