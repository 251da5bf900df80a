"""What reordering noise does to a convolution: exact moments against enumeration, kernels read from graphs."""

import dataclasses
import itertools
import json

import graphs
import numpy as np
import pytest
from runs import call

import analyzer.cli.drawing  # noqa: F401
from analyzer import graph
from analyzer.analyses import frequency
from analyzer.analyses.frequency import energy
from analyzer.errors import InputError, UsageError
from analyzer.graph.kernel import Convolution, first_convolution
from analyzer.plots import frequency as drawing
from analyzer.session import Backend, Session
from analyzer.study.preprocessing import Preprocessing

LAYERS = {
    "plain": {"size": (2, 4)},
    "padded": {"size": (3, 2), "pads": (1, 0, 1, 2)},
    "strided": {"size": (4, 2), "strides": (2, 1), "pads": (1, 1, 0, 0)},
    "dilated": {"size": (2, 4), "dilations": (1, 2), "pads": (0, 2, 0, 2)},
    "both": {"size": (2, 4), "dilations": (1, 2), "strides": (1, 3), "pads": (1, 3, 2, 1)},
    "smaller than its kernel": {"size": (1, 6), "pads": (1, 0, 0, 0)},
}


def layer_of(rng, name, channels=1, filters=2):
    return Convolution(weights=rng.standard_normal((filters, channels, 2, 2)), **LAYERS[name])


def matrix(layer):
    """A of each filter: (M, N, D)."""
    shape = (layer.weights.shape[1], *layer.size)
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.stack([energy.responses(layer, e).reshape(len(layer.weights), -1) for e in basis], axis=-1)


@pytest.mark.parametrize("name", LAYERS)
def test_moments_over_all_orders_are_exact(rng, name):
    layer = layer_of(rng, name)
    values = rng.uniform(-1, 1, int(np.prod(layer.size))) ** 3 + 0.3
    every = values[np.array(list(itertools.permutations(range(values.size))))]
    responses = every @ matrix(layer).transpose(0, 2, 1)
    energies = (responses**2).sum(axis=-1)
    moments = energy.reordered(energy.sums_of(layer), values)
    np.testing.assert_allclose(moments.mean, energies.mean(axis=1), rtol=1e-10)
    np.testing.assert_allclose(moments.variance, energies.var(axis=1), rtol=1e-9)
    np.testing.assert_allclose(moments.shared, (responses.mean(axis=1) ** 2).sum(axis=-1), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", LAYERS)
def test_moments_of_fresh_noise_are_exact(rng, name):
    """Over all sign vectors: mean 0, variance 1, kurtosis 1."""
    layer = layer_of(rng, name)
    every = np.array(list(itertools.product((-1.0, 1.0), repeat=int(np.prod(layer.size)))))
    energies = ((every @ matrix(layer).transpose(0, 2, 1)) ** 2).sum(axis=-1)
    moments = energy.fresh(energy.sums_of(layer), kurtosis=1.0)
    np.testing.assert_allclose(moments.mean, energies.mean(axis=1), rtol=1e-10)
    np.testing.assert_allclose(moments.variance, energies.var(axis=1), rtol=1e-9)


def test_sums_are_those_of_the_matrix(rng):
    layer = layer_of(rng, "both", channels=3)
    a = matrix(layer)
    m = a.transpose(0, 2, 1) @ a
    centring = np.eye(m.shape[1]) - 1 / m.shape[1]
    diagonal = np.diagonal(centring @ m @ centring, axis1=1, axis2=2)
    rows = m.sum(axis=2)
    expected = energy.Sums(
        trace=np.trace(m, axis1=1, axis2=2),
        total=m.sum(axis=(1, 2)),
        squares=(m**2).sum(axis=(1, 2)),
        diagonal_squares=(np.diagonal(m, axis1=1, axis2=2) ** 2).sum(axis=1),
        row_squares=(rows**2).sum(axis=1),
        centred_diagonal_squares=(diagonal**2).sum(axis=1),
        diagonal_rows=((rows - rows.mean(axis=1, keepdims=True)) * diagonal).sum(axis=1),
    )
    for computed, exact in zip(energy.sums_of(layer), expected, strict=True):
        np.testing.assert_allclose(computed, exact, rtol=1e-10)


def test_responses_are_the_sums_over_the_taps(rng):
    layer = layer_of(rng, "both", channels=3)
    x = rng.standard_normal((3, *layer.size))
    maps = energy.responses(layer, x)
    (down, across), (high, wide), (top, left, _, _) = layer.strides, layer.dilations, layer.pads
    assert maps.shape[1:] == layer.positions
    for m, p, q in np.ndindex(*maps.shape):
        total = 0.0
        for c, k, n in np.ndindex(3, 2, 2):
            row, column = p * down + k * high - top, q * across + n * wide - left
            if 0 <= row < layer.size[0] and 0 <= column < layer.size[1]:
                total += layer.weights[m, c, k, n] * x[c, row, column]
        assert maps[m, p, q] == pytest.approx(total, abs=1e-12)


def test_a_delta_kernel_on_one_channel_keeps_the_norm_and_nothing_else():
    layer = Convolution(weights=np.full((1, 1, 1, 1), -2.5), size=(12, 10))
    responses = frequency.analyse(layer, trials=40)
    assert responses.participation[0] == pytest.approx(1)
    assert responses.norm_difference[0, 0] < 1e-12
    assert responses.norm_difference_predicted[0, 0] < 1e-6
    # Fresh noise has another norm: E is the sum of D squares of kurtosis 1.8.
    assert responses.norm_difference_predicted[1, 0] == pytest.approx(np.sqrt(0.8 / 120 / np.pi))
    np.testing.assert_allclose(responses.map_difference[:, 0], np.sqrt(2), rtol=0.03)
    np.testing.assert_allclose(responses.map_difference_predicted[:, 0], np.sqrt(2), rtol=0.03)


def test_the_sum_of_everything_does_not_change_at_all():
    layer = Convolution(weights=np.ones((1, 1, 5, 6)), size=(5, 6))
    responses = frequency.analyse(layer, trials=10)
    assert responses.map_difference[0, 0] < 1e-9
    assert responses.map_difference_predicted[0, 0] < 1e-6
    assert responses.norm_difference[0, 0] < 1e-9
    assert responses.norm_difference_predicted[0, 0] < 1e-6
    assert responses.map_difference[1, 0] > 0.5


def test_a_local_sum_changes_as_everything_else_does():
    layer = Convolution(weights=np.ones((1, 1, 3, 3)), size=(40, 40))
    responses = frequency.analyse(layer, trials=10)
    assert responses.map_difference[0, 0] == pytest.approx(np.sqrt(2), rel=0.03)


def test_measured_and_predicted_agree(rng):
    weights = rng.standard_normal((6, 3, 5, 5))
    weights[:3] = np.sort(weights[:3], axis=-1)  # peaked spectra
    weights[5, 1:] = 0
    layer = Convolution(weights=weights, size=(20, 22), pads=(2, 2, 2, 2))
    responses = frequency.analyse(layer, trials=600)
    np.testing.assert_allclose(responses.norm_difference, responses.norm_difference_predicted, rtol=0.12)
    np.testing.assert_allclose(responses.map_difference, responses.map_difference_predicted, rtol=0.02)
    assert (responses.norm_difference[:, :3].min(axis=1) > responses.norm_difference[:, 3:5].max(axis=1)).all()
    for wrong in (0.7, 1.4):
        assert not np.allclose(responses.norm_difference, wrong * responses.norm_difference_predicted, rtol=0.12)


def test_the_spectrum_alone_predicts_even_kernels_on_large_images(rng):
    weights = rng.standard_normal((4, 3, 3, 3))
    weights /= np.sqrt((weights**2).sum(axis=(2, 3), keepdims=True))
    layer = Convolution(weights=weights, size=(150, 150))
    exact = frequency.analyse(layer, trials=3)
    alone = frequency.predicted_norm_difference(
        exact.participation, positions=exact.positions, dimension=exact.dimension
    )
    np.testing.assert_allclose(alone, exact.norm_difference_predicted[0], rtol=0.02)


@pytest.mark.parametrize(
    ("taps", "stride", "expected"),
    [([1.0], 1, 1.0), ([1.0, 1.0], 1, 2 / 3), ([1.0, 1.0], 2, 1.0), ([1.0, 2.0, 1.0], 1, 36 / 70), ([0.0], 1, np.nan)],
)
def test_participation_in_closed_form(taps, stride, expected):
    layer = Convolution(weights=np.array(taps).reshape(1, 1, 1, -1), size=(8, 8), strides=(1, stride))
    assert energy.participation(layer)[0] == pytest.approx(expected, nan_ok=True)


def test_participation_is_that_of_the_spectrum(rng):
    layer = layer_of(rng, "plain", channels=3)
    power = energy.spectrum(layer, 16)
    expected = power.mean(axis=(1, 2)) ** 2 / (power**2).mean(axis=(1, 2))
    np.testing.assert_allclose(energy.participation(layer), expected, rtol=1e-12)
    np.testing.assert_allclose(power.mean(axis=(1, 2)), (layer.weights**2).sum(axis=(1, 2, 3)), rtol=1e-12)
    spread = dataclasses.replace(layer, weights=np.ones((1, 1, 2, 2)), dilations=(1, 2))
    vertical, horizontal = np.meshgrid(*[np.arange(-8, 8) / 16] * 2, indexing="ij")
    expected = 16 * np.cos(np.pi * vertical) ** 2 * np.cos(2 * np.pi * horizontal) ** 2
    np.testing.assert_allclose(energy.spectrum(spread, 16)[0], expected, atol=1e-12)


def test_a_filter_of_zeros_is_undefined(rng):
    weights = rng.standard_normal((2, 1, 2, 2))
    weights[1] = 0
    responses = frequency.analyse(Convolution(weights=weights, size=(6, 6)), trials=5)
    for name in ("norm_difference", "map_difference"):
        for suffix in ("", "_predicted"):
            values = getattr(responses, name + suffix)
            assert np.isfinite(values[:, 0]).all() and np.isnan(values[:, 1]).all()
    document = frequency.document(responses)
    assert document["over_filters"]["participation"]["median"] == document["filters"]["participation"][0]
    assert drawing.draw(responses, name="one dead filter", says="").name == "frequency"


def test_the_same_seed_gives_the_same_and_another_another(rng):
    layer = layer_of(rng, "plain", channels=3)
    first, again, other = (frequency.analyse(layer, trials=4, seed=seed).norm_difference for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    with pytest.raises(UsageError, match="at least 3"):
        frequency.analyse(layer, trials=2)


VARIANTS = {
    "RGB": {},
    "BGR": {"channels": "BGR"},
    "L": {"channels": "L"},
    "NHWC": {"layout": "NHWC"},
    "uint8": {"input_type": "uint8"},
    "external": {"external_data": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_kernel_read_is_the_one_that_the_session_runs(tmp_path, rng, variant):
    path, card = graphs.convnet(tmp_path, **VARIANTS[variant])
    assert difference_from_session(path, card, rng) < 1e-4


def difference_from_session(path, card, rng):
    """Largest relative error of the responses to a difference of two images of whole numbers."""
    layer = first_convolution(path, card=card)
    prepared = graph.prepare(path, card=card, layers=(layer.output,))
    session = Session(prepared, pixel_shape=card.pixel_shape, backend=Backend("cpu"))
    pixels = rng.integers(0, 256, (2, *card.pixel_shape)).astype(np.float32)
    prepare = Preprocessing(card, prepared.input_type)
    _, (maps,) = session.run(np.stack([prepare.apply(row).reshape(row.shape) for row in pixels]))
    expected = (maps[1] - maps[0]).astype(np.float64)
    maps = energy.responses(layer, pixels[1] - pixels[0])
    assert expected.any() and maps.size == expected.size
    return np.abs(maps.ravel() - expected).max() / np.abs(expected).max()


def before_conv(folder, nodes, weights, shape=(4, 3, 3, 3), kernel="w", **conv):
    """A model with `nodes` between the input "x" and the tensor "in" that a Conv of 4 filters reads."""
    rng = np.random.default_rng(3)
    nodes = [
        *(graphs.node(*parts, **attributes) for parts, attributes in nodes),
        graphs.node("Conv", f"in {kernel}", "conv1", **conv),
        graphs.node("Relu", "conv1", "relu"),
        graphs.node("GlobalAveragePool", "relu", "pool"),
        graphs.node("Flatten", "pool", "logits"),
    ]
    tensors = [graphs.tensor("w", rng.standard_normal(shape))]
    tensors += [graphs.tensor(k, v, v.dtype if v.dtype == np.int64 else np.float32) for k, v in weights.items()]
    card = graphs.make_card((9, 8), mean=100, std=50)
    inputs, outputs = [graphs.value("x", ["N", 3, 9, 8])], [graphs.value("logits", ["N", shape[0]])]
    return graphs.save(folder, "before", nodes, inputs, outputs, tensors, card)


SCALE = np.array([1.5, -2.0, 0.5]).reshape(1, 3, 1, 1)
BEFORE = {
    "grouped 1x1": ([(("Conv", "x pre", "in"), {"group": 3})], {"pre": SCALE.reshape(3, 1, 1, 1)}, {}),
    "1x1 and batch normalisation": (
        [
            (("Conv", "x pre b", "mixed"), {}),
            (("BatchNormalization", "mixed s b m v", "in"), {"epsilon": 1e-3}),
        ],
        {
            "pre": np.arange(9.0).reshape(3, 3, 1, 1) - 3,
            "b": np.ones(3),
            "s": np.array([1.0, 2.0, 3.0]),
            "m": np.ones(3),
            "v": np.array([4.0, 1.0, 0.25]),
        },
        {"strides": [2, 1], "auto_pad": "SAME_UPPER"},
    ),
    "arithmetic": (
        [
            (("Sub", "mean x", "a"), {}),
            (("Mul", "scale a", "b"), {}),
            (("Div", "b two", "c"), {}),
            (("Add", "c image", "in"), {}),
        ],
        {"mean": SCALE, "scale": SCALE[0], "two": np.array(2.0), "image": np.arange(72.0).reshape(9, 8)},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ),
    "pad and dropout": (
        [(("Pad", "x pads fill", "padded"), {}), (("Dropout", "padded", "in"), {})],
        {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "fill": np.array(7.0)},
        {"dilations": [2, 1], "pads": [1, 0, 0, 2]},
    ),
    "two groups": ([(("Identity", "x", "in"), {})], {}, {"group": 3, "shape": (6, 1, 3, 3)}),
}


@pytest.mark.parametrize("what", BEFORE)
def test_what_stands_before_is_folded_in(tmp_path, rng, what):
    nodes, weights, conv = BEFORE[what]
    path, card = before_conv(tmp_path, nodes, weights, **conv)
    layer = first_convolution(path, card=card)
    assert layer.output == "conv1"
    assert [f"node_{parts[2]}" for parts, _ in nodes] == list(layer.folded)
    assert difference_from_session(path, card, rng) < 1e-5


def test_a_convolution_of_one_pixel_counts_where_an_activation_follows(tmp_path, rng):
    nodes = [(("Conv", "x pre", "mixed"), {}), (("Relu", "mixed", "in"), {})]
    path, card = before_conv(tmp_path, nodes, {"pre": rng.standard_normal((3, 3, 1, 1))})
    assert first_convolution(path, card=card).output == "mixed"
    assert difference_from_session(path, card, rng) < 1e-5


@pytest.mark.parametrize(
    ("nodes", "weights", "words"),
    [
        ([(("Relu", "x", "in"), {})], {}, "Relu 'node_in'"),
        ([(("Sqrt", "x", "root"), {}), (("Conv", "root pre", "in"), {})], {"pre": np.ones((3, 3, 1, 1))}, "node_root"),
        ([(("Div", "one x", "in"), {})], {"one": np.array(1.0)}, "Div 'node_in'"),
        ([(("Mul", "x x", "in"), {})], {}, "Mul 'node_in'"),
        ([(("Mul", "x image", "in"), {})], {"image": np.ones((9, 8))}, "Mul 'node_in'"),
    ],
)
def test_another_first_layer_is_refused_by_name(tmp_path, nodes, weights, words):
    path, card = before_conv(tmp_path, nodes, weights)
    with pytest.raises(InputError, match=words) as refused:
        first_convolution(path, card=card)
    assert str(path) in str(refused.value)


def test_a_weight_that_is_computed_is_refused_by_name(tmp_path):
    nodes = [(("Identity", "x", "in"), {}), (("Exp", "w", "computed"), {})]
    path, card = before_conv(tmp_path, nodes, {}, kernel="computed")
    with pytest.raises(InputError, match="first layer, Conv 'node_conv1', is no stored constant"):
        first_convolution(path, card=card)


def test_a_network_without_convolution_is_refused(tmp_path):
    path, card = graphs.linear(tmp_path, np.ones((2, 192)))
    with pytest.raises(InputError, match="Flatten 'node_flat' meets the image"):
        first_convolution(path, card=card)


def test_the_command_prints_a_table_and_draws(capsys, tmp_path):
    path, _ = graphs.convnet(tmp_path, layout="NHWC")
    code, out, _ = call(capsys, "frequency", path, "--trials", "8", "--out", tmp_path / "f.png")
    assert code == 0
    assert "node_conv1: 8 filters of 3 x 3, 256 positions" in out
    assert "Folded into its weights: node_nchw" in out
    assert "reordered" in out and "fresh" in out and "predict" in out
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "f.svg").read_bytes()


def test_without_out_the_picture_is_named_after_the_model(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _ = graphs.convnet(tmp_path / "model", name="some net")
    code, out, err = call(capsys, "frequency", path, "--trials", "4")
    assert code == 0, err
    assert "Wrote some_net_frequency.png and some_net_frequency.svg" in out
    assert {p.name for p in tmp_path.glob("*_frequency.*")} == {"some_net_frequency.png", "some_net_frequency.svg"}
    (tmp_path / "some_net_frequency.png").unlink()
    assert call(capsys, "frequency", path, "--trials", "4", "--json")[0] == 0
    assert not (tmp_path / "some_net_frequency.png").exists()


def test_the_command_as_json(capsys, tmp_path):
    path, card = graphs.convnet(tmp_path)
    code, out, _ = call(capsys, "frequency", path, "--trials", "8", "--seed", "5", "--json")
    document = json.loads(out)
    responses = frequency.analyse(first_convolution(path, card=card), trials=8, seed=5)
    assert code == 0
    assert document["filters"]["permutation_norm_difference"] == responses.norm_difference[0].tolist()
    assert document["over_filters"]["participation"]["median"] == np.median(responses.participation)
    assert (document["layer"], document["kernel"], document["dimension"]) == ("node_conv1", [3, 3], 768)


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--out", "f.jpg"], 2, ".png"),
        (["--out", "nowhere/f.png"], 2, "no folder"),
        (["--trials", "1"], 2, "--trials 1"),
        (["--card", "none.json"], 4, "none.json"),
    ],
)
def test_bad_requests(capsys, tmp_path, monkeypatch, extra, code, words):
    monkeypatch.chdir(tmp_path)
    path, _ = graphs.convnet(tmp_path)
    exit_code, out, err = call(capsys, "frequency", path, *extra)
    assert (exit_code, out) == (code, "")
    assert words in err


def test_the_picture_shows_each_filter_where_it_is(tmp_path):
    path, card = graphs.convnet(tmp_path)
    responses = frequency.analyse(first_convolution(path, card=card), trials=8)
    picture = drawing.draw(responses, name="conv1 $x$", says="what it says")
    ax = picture.figure.findobj(lambda artist: hasattr(artist, "get_ylabel"))[0]
    ax = next(a for a in picture.figure.findobj(type(ax)) if "norms" in a.get_ylabel())
    points = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(points, np.stack([responses.participation, responses.norm_difference[0]], axis=1))
    (line,) = ax.lines
    x, y = line.get_xdata(), line.get_ydata()
    np.testing.assert_allclose(y, np.sqrt(2 / np.pi * (1 / (responses.positions * x) - 1 / responses.dimension)))
    assert "what it says" in picture.alt


def test_the_sentence_says_no_nan():
    from analyzer.analyses.frequency.sentences import sentence

    names = [f"{family}_{what}_difference" for family in ("permutation", "noise") for what in ("map", "norm")]
    rows = {name: {"median": 0.5, "low": 0.1, "high": 1.0} for name in names}
    rows["permutation_norm_difference_predicted"] = {"median": np.nan, "low": np.nan, "high": np.nan}
    assert sentence(rows).endswith("under fresh noise.")
    for name in names:
        said = sentence({**rows, name: {"median": np.nan, "low": np.nan, "high": np.nan}})
        assert "nan" not in said
