"""Pictures of made-up runs whose points are known, and the band of a linear map against direct simulation."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import graphs
import matplotlib
import numpy as np
import pytest
import runs as small_runs
import xarray
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.text import Text

from analyzer.errors import UsageError
from analyzer.measures import isotropy
from analyzer.measures import topology as measure
from analyzer.measures.reference import linear_band
from analyzer.plots import (
    DrawnRun,
    clouds,
    distances,
    image_strip,
    misclassified,
    pictures,
    profile,
    spread,
    text,
    to_png,
    to_svg,
    topology,
)
from analyzer.plots.model import number
from analyzer.statistics import share
from analyzer.summary import summarise

RADII = (0.5, 4.0)
HOSTILE = "$x_1^2$ _a <b>&--> \x1b[31m \u202e \U0001f600 漢 \\frac{ %s {0}"
NAMES = ["fig1_isotropy", "fig3_symmetry", "log_odds_ranges", "misclassified", "fig4_mantel", "fig6_distances"]
NAMES += ["linearity"]


def made_up(*, images=3, radii=RADII, trials=5, layers=("fc",), seed=0, **changed):
    """A data set as open_run gives it; `changed` replaces variables, None removes them."""
    rng = np.random.default_rng(seed)
    by_trial, by_layer = (images, len(radii), trials), (images, len(radii), len(layers))
    variables = {
        "label": np.zeros(images, np.int32),
        "image_status": np.zeros(images, np.int8),
        "log_odds_noise_floor": np.full(images, 1e-6),
        "input_distance_l2": np.broadcast_to(np.array(radii)[:, None] * 10, by_trial),
        "feature_distance": rng.uniform(0.1, 1, (*by_trial, len(layers))),
        "lipschitz": rng.uniform(0.1, 1, (*by_trial, len(layers))),
        "mantel_r": rng.uniform(-0.1, 0.3, by_layer),
        "mantel_r_linear": rng.uniform(0.1, 0.2, by_layer),
        "participation_ratio": rng.uniform(5, 20, by_layer),
        "jacobian_rms": rng.uniform(0.1, 1, by_layer),
        "linearity": rng.uniform(0.05, 0.5, by_layer),
        "linearity_floor": rng.uniform(1e-4, 1e-3, by_layer),
    }
    for family in ("isotropy", "symmetry"):
        variables[f"{family}_score"] = rng.uniform(0.8, 1, by_trial)
        variables[f"{family}_log_odds"] = rng.uniform(2, 5, by_trial)
        variables[f"{family}_predicted"] = np.zeros(by_trial, np.int32)
    variables |= changed
    dims = ("image", "radius", "trial", "layer")
    per_layer = ("mantel_r", "mantel_r_linear", "participation_ratio", "jacobian_rms")
    per_layer += ("linearity", "linearity_floor")
    return xarray.Dataset(
        {
            name: (("image", "radius", "layer") if name in per_layer else dims[: np.ndim(values)], values)
            for name, values in variables.items()
            if values is not None
        },
        {"image": [f"{k}.png" for k in range(images)], "radius": list(radii), "layer": list(layers)},
        {
            "manifest": json.dumps({"identity": {"norm": "linf"}, "context": {"pixel_shape": [3, 8, 8]}}),
            "calibration": json.dumps({"input_range": 200.0, "feature_range": dict.fromkeys(layers, 4.0)}),
        },
    )


def labelled(*datasets, summary=None):
    return [DrawnRun(f"run {k}", dataset, summary or {}) for k, dataset in enumerate(datasets)]


def drawn(*datasets):
    """All pictures, by name."""
    return {picture.name: picture for picture in pictures(labelled(*datasets))}


def scattered(ax):
    return [c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets())]


def points(collection):
    return sorted(map(tuple, np.asarray(collection.get_offsets()).tolist()))


def texts(figure):
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def test_fig1_shows_range_mean_misclassification_and_median():
    score = np.full((3, 2, 4), 0.9)
    score[:, 0, 0] = [0.8, 0.7, 0.6]  # ranges 0.1, 0.2, 0.3 at radius 0.5
    score[:, 1, 0] = [0.5, 0.4, 0.9]  # 0.4, 0.5, 0 at radius 4
    predicted = np.zeros((3, 2, 4), np.int32)
    predicted[1, 1, 2] = 7
    log_odds = np.where(score < 0.9, 1.0, 2.0)
    data = made_up(trials=4, isotropy_score=score, isotropy_predicted=predicted, isotropy_log_odds=log_odds)
    picture = clouds.draw(labelled(data), family=isotropy.SCORES)
    ax = picture.figure.axes[0]
    circles, squares, bottom = scattered(ax)
    np.testing.assert_allclose(points(circles), [(0.5, 0.1), (0.5, 0.2), (0.5, 0.3), (4, 0.4)])
    np.testing.assert_allclose(points(squares), [(4, 0.5)])
    np.testing.assert_allclose(squares.get_array(), [(0.4 + 3 * 0.9) / 4])
    (at,) = points(bottom)
    assert at[0] == 4
    assert ax.get_ylim()[0] < at[1] < 0.1
    (median,) = ax.lines
    np.testing.assert_allclose(median.get_xydata(), [(0.5, 0.2), (4, 0.4)])
    assert ax.get_yscale() == "log"
    assert "1 of 6 at the bottom" in ax.get_title(loc="left")
    assert "varies by 0.2 at radius 0.5 and by 0.4 at radius 4" in picture.says[0]
    assert "at radius 4 1 of 3 were; 1 of 6 ranges are 0" in picture.says[0]
    assert picture.says[0] in picture.alt
    assert "A square" in picture.how and "triangles" in picture.how


def test_fig1_describes_only_what_it_shows():
    how = clouds.draw(labelled(made_up()), family=isotropy.SCORES).how
    assert "square" not in how and "triangle" not in how


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"isotropy_score": np.broadcast_to(0.9 + 1e-16 * np.arange(5), (3, 2, 5))}, "float64"),
        (
            {"isotropy_score": np.broadcast_to(np.float32(0.9) + 6e-8 * np.arange(2).repeat([1, 4]), (3, 2, 5))},
            "float32",
        ),
        ({"log_odds_noise_floor": np.full(3, 2.0)}, "noise floor"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_ranges_that_rounding_makes_are_counted_not_dropped(change, why):
    if why == "float32":
        change = {"isotropy_score": change["isotropy_score"].astype(np.float32).astype(np.float64)}
    figure = clouds.draw(labelled(made_up(**change)), family=isotropy.SCORES).figure
    assert "6 of 6 at the bottom" in figure.axes[0].get_title(loc="left")
    assert sum(len(c.get_offsets()) for c in scattered(figure.axes[0])) == 6


def test_undefined_scores_are_counted():
    score = np.full((3, 2, 5), 0.9) - np.arange(5) / 100
    score[0] = np.nan
    figure = clouds.draw(labelled(made_up(isotropy_score=score)), family=isotropy.SCORES).figure
    assert "2 of 6 undefined" in figure.axes[0].get_title(loc="left")


def test_log_odds_medians_and_floor():
    log_odds = np.zeros((3, 2, 5))
    log_odds[:, :, 0] = [[1, 10], [2, 20], [4, 40]]
    data = made_up(isotropy_log_odds=log_odds, symmetry_log_odds=2 * log_odds, log_odds_noise_floor=np.full(3, 0.75))
    picture = spread.draw(labelled(data))
    lines = [line.get_xydata().tolist() for line in picture.figure.axes[0].lines]
    assert [[0.5, 2], [4, 20]] in lines
    assert [[0.5, 4], [4, 40]] in lines
    assert [[0, 1.5], [1, 1.5]] in lines
    low, high = (
        f(p.vertices[:, 1].max() for p in picture.figure.axes[0].collections[0].get_paths()) for f in (min, max)
    )
    assert low == high == pytest.approx(np.quantile([10, 20, 40], 0.9))
    assert "2 nat at radius 0.5 and 20 nat at radius 4" in picture.says[0]


def test_medians_below_the_noise_floor_are_said():
    picture = spread.draw(labelled(made_up(log_odds_noise_floor=np.full(3, 50.0))))
    assert "not above what rounding may do at radius 0.5, 4" in picture.says[0]


def test_misclassified_shares_with_wilson_intervals():
    predicted = np.zeros((3, 2, 5), np.int32)
    predicted[:2, 1, 0] = 3
    picture = misclassified.draw(labelled(made_up(isotropy_predicted=predicted), made_up()))
    (ax,) = picture.figure.axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0, 2 / 3])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0, 0])
    beside = ax.lines[1].get_xdata() - ax.lines[0].get_xdata()
    assert (beside > 0).all() and (beside <= 0.005 * np.ptp(ax.get_xlim())).all()
    assert "beside each other" in picture.how
    bars = next(c for c in ax.collections if isinstance(c, LineCollection))
    wilson = share(np.array([1, 1, 0]))
    np.testing.assert_allclose(bars.get_segments()[1][:, 1], [wilson.low, wilson.high])
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines}
    assert all(len(set(column)) == 2 for column in zip(*looks, strict=True))
    assert "2 of 3 images" in picture.says[0]


def test_misclassified_shares_of_one_measured_run_stand_at_their_radii():
    bare = made_up(isotropy_score=None, isotropy_log_odds=None, isotropy_predicted=None)
    picture = misclassified.draw(labelled(made_up(), bare))
    (line,) = picture.figure.axes[0].lines
    assert line.get_xdata().tolist() == list(RADII)
    assert "beside each other" not in picture.how


def test_fig4_points_reference_and_band():
    data = made_up(participation_ratio=np.full((3, 2, 1), 12.0))
    picture = topology.draw(labelled(data))
    assert "a linear map whose sensitivity is local" in picture.how
    ax = picture.figure.axes[0]
    r = data["mantel_r"].values[:, :, 0]
    (cloud,) = scattered(ax)
    assert points(cloud) == sorted((radius, v) for radius, column in zip(RADII, r.T, strict=True) for v in column)
    lines = [line.get_ydata() for line in ax.lines]
    assert any(np.array_equal(y, np.median(r, axis=0)) for y in lines)
    assert any(np.array_equal(y, np.median(data["mantel_r_linear"].values[:, :, 0], axis=0)) for y in lines)
    low, _, high = linear_band(np.full(2, 12.0), dimension=192, trials=5, norm="linf")
    band = next(c for c in ax.collections if not isinstance(c, PathCollection)).get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (low.min(), high.max())
    inside = ((r >= low) & (r <= high)).sum()
    assert f"{inside} of 6 values" in picture.says[0]


def test_fig6_points_fits_and_line(monkeypatch):
    data = made_up()
    entry = {"low": 0.1, "high": 0.3, "n": 3}
    terms = {"linear_intercept": 0.01, "linear_slope": 2.0}
    terms |= {"quadratic_intercept": 0.02, "quadratic_slope": 1.0, "quadratic_curvature": 3.0}
    summary = {f"lipschitz_{name}": {"value": value, **entry} for name, value in terms.items()}
    picture = distances.draw(labelled(data, summary=summary))
    ax = picture.figure.axes[0]
    (cloud,) = scattered(ax)
    x, y = data["input_distance_l2"].values / 200, data["feature_distance"].values[..., 0] / 4
    np.testing.assert_allclose(points(cloud), sorted(zip(x.ravel(), y.ravel(), strict=True)))
    one, linear, quadratic = ax.lines
    np.testing.assert_array_equal(one.get_xdata(), one.get_ydata())
    np.testing.assert_allclose(linear.get_ydata(), 0.01 + 2 * linear.get_xdata())
    np.testing.assert_allclose(quadratic.get_ydata(), 0.02 + quadratic.get_xdata() + 3 * quadratic.get_xdata() ** 2)
    below = (y / x < 1).mean()
    assert f"{below:.1%} of 30 perturbations lie below L = 1" in picture.says[0]
    assert "the slope of the linear fit 2 (95 % interval 0.1 to 0.3)" in picture.says[0]
    assert "chosen at random" not in picture.how
    monkeypatch.setattr(distances, "MOST", 7)
    fewer = distances.draw(labelled(data))
    assert len(scattered(fewer.figure.axes[0])[0].get_offsets()) == 7
    assert "chosen at random" in fewer.how


def test_profile_only_with_several_layers():
    several = made_up(layers=("a", "b", "c"), radii=(0.5, 1.0, 2.0, 4.0))
    single = made_up()
    assert profile.draw(labelled(single)) is None
    picture = profile.draw(labelled(several, single))
    top = picture.figure.axes[0]
    expected = np.median(several["mantel_r"].values, axis=0)
    shown = [line.get_ydata().tolist() for line in top.lines]
    assert all(expected[k].tolist() in shown for k in (0, 1, 3))
    ratio = next(ax for ax in picture.figure.axes if ax.get_ylabel() == "Lipschitz ratio")
    np.testing.assert_allclose(
        ratio.lines[0].get_ydata(), np.median(np.median(several["lipschitz"].values[:, 0], axis=1), axis=0)
    )
    bottom = next(ax for ax in picture.figure.axes if ax.get_ylabel() == "departure N")
    assert [t.get_text() for t in bottom.get_xticklabels()] == ["a", "b", "c"]
    older = made_up(layers=("a", "b", "c"), linearity=None, linearity_floor=None)
    assert "departure N" not in [ax.get_ylabel() for ax in profile.draw(labelled(older)).figure.axes]
    assert any("one layer only" in t.get_text() for t in texts(picture.figure))
    assert "from layer a to c, at radius 0.5" in picture.says[0]
    assert "layer c" in topology.draw(labelled(several)).figure.axes[0].get_title(loc="left")


def test_pictures_without_data_are_left_out_and_gaps_are_said():
    bare = {name: None for name in made_up() if name not in ("label", "image_status", "log_odds_noise_floor")}
    assert drawn(made_up(**bare)) == {}
    assert list(drawn(made_up())) == NAMES
    mixed = drawn(made_up(**bare), made_up())
    assert list(mixed) == NAMES
    for picture in mixed.values():
        assert "not measured" in picture.says[0]
        assert len(picture.says) == 2
        if picture.name != "misclassified":
            assert any("not measured" in t.get_text() for t in picture.figure.axes[0].texts)
    assert drawn(made_up(image_status=np.full(3, 1, np.int8))) == {}


@pytest.mark.parametrize("layers", [("fc",), ("a", "b")])
def test_the_least_and_the_worst_data(layers):
    one = {"images": 1, "radii": (1.0,), "trials": 3, "layers": layers}
    gone = np.full((1, 1, len(layers)), np.nan)
    constant = {
        "isotropy_score": np.ones((1, 1, 3)),
        "isotropy_log_odds": np.full((1, 1, 3), np.nan),
        "symmetry_log_odds": np.zeros((1, 1, 3)),
        "feature_distance": np.zeros((1, 1, 3, len(layers))),
        "lipschitz": np.zeros((1, 1, 3, len(layers))),
        "mantel_r": gone,
        "mantel_r_linear": gone,
        "participation_ratio": gone,
        "jacobian_rms": gone,
        "linearity": gone,
        "linearity_floor": gone,
        "log_odds_noise_floor": np.full(1, np.nan),
        "isotropy_predicted": np.full((1, 1, 3), -1, np.int32),
    }
    found = drawn(made_up(**one, **constant))
    assert list(found)[: len(NAMES)] == NAMES
    unmoved = made_up(**one, **constant, input_distance_l2=np.zeros((1, 1, 3)))
    for picture in (*found.values(), distances.draw(labelled(unmoved))):
        assert to_png(picture.figure, dpi=40).startswith(b"\x89PNG")
        assert "nan" not in " ".join(picture.says)


@pytest.mark.parametrize("count", [1, 6])
def test_letters_are_readable_and_inside_the_picture(count):
    data = made_up(layers=("first", "a layer of a name that has no end at all, or nearly so"))
    found = [DrawnRun(f"a/long_name_of_a_network_{'x' * 12 * k}", data, {}) for k in range(count)]
    for picture in pictures(found):
        width, height = picture.figure.get_size_inches() * picture.figure.dpi
        assert width == 6.25 * picture.figure.dpi
        assert min(shown.get_fontsize() for shown in texts(picture.figure)) >= 8
        box = picture.figure.get_tightbbox(picture.figure.canvas.get_renderer())
        assert (box.min > -0.02).all()
        assert (box.max < np.array([width, height]) / picture.figure.dpi + 0.02).all()


def test_labels_are_shown_literally():
    data = made_up(layers=("in", HOSTILE))
    for picture in pictures([DrawnRun(HOSTILE, data, {}), DrawnRun("_hidden", data, {})]):
        svg = to_svg(picture.figure)
        ElementTree.fromstring(svg)
        assert b"\x1b" not in svg
        words = [t.get_text() for t in texts(picture.figure)]
        assert any("$x_1^2$" in word for word in words)
        assert any("_hidden" in word for word in words)
        assert not any(t.get_parse_math() for t in texts(picture.figure) if "$" in t.get_text())
    assert text.printable("a\x1b\u202e$\U00020000漢é") == "a\ufffd\ufffd$\\U00020000\\u6f22é"


def test_the_same_data_give_the_same_bytes_and_settings_stay(monkeypatch):
    first = {name: (to_png(p.figure), to_svg(p.figure)) for name, p in drawn(made_up()).items()}
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    before = dict(matplotlib.rcParams)
    again = drawn(made_up())
    for name, picture in again.items():
        assert (to_png(picture.figure), to_svg(picture.figure)) == first[name]
        assert b"<dc:date>" not in first[name][1]
        assert b"<image" in first[name][1] or name in ("misclassified", "log_odds_ranges")
    assert dict(matplotlib.rcParams) == before


def test_nothing_is_loaded_before_it_is_needed():
    code = "import sys, analyzer.plots as p; assert 'matplotlib' not in sys.modules\n"
    code += "import numpy; p.to_png(p.image_strip([('a', numpy.zeros((2, 2)))]))\n"
    code += "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_matplotlib_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (lambda: next(pictures([])), lambda: image_strip([]), lambda: to_svg(None)):
        with pytest.raises(UsageError, match=r"pip install 'convnet-analyzer\[report\]'"):
            call()


def test_image_strip_shows_the_pixels():
    colour = np.arange(48, dtype=np.float32).reshape(4, 4, 3)
    figure = image_strip(
        [("clean $x$", colour), ("grey", np.array([[-5.0, 300.0], [np.nan, 7.4]])), ("one", colour[..., :1])]
    )
    shown = [ax.images[0].get_array() for ax in figure.axes]
    np.testing.assert_array_equal(shown[0], colour)
    np.testing.assert_array_equal(shown[1], [[0, 255], [0, 7]])
    np.testing.assert_array_equal(shown[2], colour[..., 0])
    assert figure.axes[0].get_title(loc="left") == "clean $x$"
    assert to_png(figure) == to_png(figure)


def test_pictures_of_a_real_run(tmp_path):
    model, _ = graphs.convnet(tmp_path)
    small_runs.write_images(tmp_path / "images", 4)
    dataset = small_runs.measure(model, tmp_path / "images", tmp_path / "run", layers=("relu1", "fc2"))
    found = list(pictures([DrawnRun("convnet", dataset, summarise(dataset))]))
    assert [picture.name for picture in found] == [*NAMES, "flips", "profile"]
    fits = found[5].figure.axes[0].lines[1]
    assert np.isfinite(fits.get_ydata()).any()
    assert not any("undefined" in said or "nan" in said for picture in found for said in picture.says)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (-0.1, "−0.1"),
        (1e-6, "10⁻⁶"),
        (2e-6, "2·10⁻⁶"),
        (1e12, "10¹²"),
        (0.30000000000000004, "0.3"),
    ],
)
def test_ticks_without_markup(value, shown):
    assert text.tick(value) == shown


def test_shortened_keeps_both_ends():
    assert text.shortened("short", letters=10) == "short"
    one = text.shortened("a" * 30 + "z" * 30, letters=11)
    assert one == "aaaaa…zzzzz"
    assert max(map(len, text.shortened("word " * 40, letters=12, lines=2).split("\n"))) <= 12
    assert text.shortened("", letters=3) == ""


def test_numbers_in_words():
    assert [number(v) for v in (0.0142, 5.6e-5, 0.0, np.nan, 1234.0)] == ["0.014", "5.6e-5", "0", "undefined", "1200"]


def direct(rng, *, rows, dimension, trials, norm, count):
    """Mantel's r of `count` Gaussian maps, with everything drawn, and the median participation ratio."""
    found, ratios = [], []
    for _ in range(count):
        x = rng.uniform(-1, 1, (trials, dimension))
        x /= np.linalg.norm(x, axis=1, keepdims=True) if norm == "l2" else np.abs(x).max(axis=1, keepdims=True)
        jacobian = rng.standard_normal((rows, dimension))
        m = jacobian @ jacobian.T
        ratios.append(np.trace(m) ** 2 / np.square(m).sum())
        d_in, d_out = (np.linalg.norm(p[:, None] - p, axis=2) for p in (x, x @ jacobian.T))
        found.append(measure.mantel(d_in, d_out, permutations=0)[0])
    return np.array(found), np.median(ratios)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("rows", [2, 9, 120])
def test_band_agrees_with_direct_simulation(rng, norm, rows):
    r, ratio = direct(rng, rows=rows, dimension=96, trials=15, norm=norm, count=500)
    band = np.array(linear_band(ratio, dimension=96, trials=15, norm=norm, draws=2000))
    width = band[2] - band[0]
    np.testing.assert_allclose(np.quantile(r, (0.025, 0.5, 0.975)), band, atol=0.12 * width)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dimension", [3072, 150_528])
def test_band_lies_about_the_formula(norm, dimension):
    ratios = np.array([20.0, 300.0])
    low, middle, high = linear_band(ratios, dimension=dimension, trials=60, norm=norm)
    expected = measure.mantel_linear(ratios, dimension=dimension, norm=norm)
    np.testing.assert_allclose(middle, expected, rtol=0.05, atol=0.006)
    assert (low < expected).all()
    assert (expected < high).all()


def test_band_of_maps_that_keep_everything_or_are_unknown():
    bands = np.array(linear_band(np.array([[np.nan, 48.0, 1.0]]), dimension=48, trials=10, norm="linf"))
    assert bands.shape == (3, 1, 3)
    assert np.isnan(bands[:, 0, 0]).all()
    assert (bands[:, 0, 1] == 1).all()
    assert (np.diff(bands[:, 0, 2]) > 0).all()
    assert np.isnan(linear_band(5.0, dimension=48, trials=2, norm="l2")).all()
    assert np.array(linear_band(1.0, dimension=1, trials=4, norm="l2")).tolist() == [1, 1, 1]


def test_band_is_interpolated_between_many_ratios_and_reproducible():
    ratios = np.geomspace(4, 80, 15)
    options = {"dimension": 300, "trials": 20, "norm": "linf"}
    many = np.array(linear_band(ratios, **options))
    few = np.array(linear_band(ratios[[0, 7, 14]], **options))
    np.testing.assert_allclose(many[:, [0, 7, 14]], few, atol=0.03)
    np.testing.assert_array_equal(many, linear_band(ratios, **options))
    assert not np.array_equal(many, linear_band(ratios, seed=1, **options))


def test_band_shrinks_beyond_the_trials_simulated():
    options = {"dimension": 5000, "norm": "l2", "draws": 40}
    low, middle, high = linear_band(10.0, trials=200, **options)
    narrow = linear_band(10.0, trials=800, **options)
    np.testing.assert_allclose(narrow, [(low + middle) / 2, middle, (high + middle) / 2])
