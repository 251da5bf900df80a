"""Derivatives against closed forms in float64 numpy, attacks against known distances, and the forward-only fallback."""

import json
import sys

import graphs
import numpy as np
import pytest
from runs import measure, write_images

from analyzer import graph
from analyzer.analyses.gradients import attacks, check, image, isotropy, jacobian, logodds, sentences
from analyzer.analyses.gradients import sensitivity as sensitivities
from analyzer.analyses.gradients.differences import largest_in_span, slopes
from analyzer.analyses.gradients.differentiable import DifferentiableNetwork
from analyzer.analyses.gradients.noise import noise_around
from analyzer.cli import sensitivity as commands
from analyzer.cli.app import app
from analyzer.errors import InputError, UsageError
from analyzer.graph.derivative import GradientsUnavailable
from analyzer.session import Backend, Session
from analyzer.study import Model

SIZE = (4, 4)
D = 48
MEAN, STD = 100.0, 50.0


@pytest.fixture
def onnx_ad():
    pytest.importorskip("onnx_ad", reason="onnx-ad is not installed (extra `gradients`)")


def build(folder, nodes, weights, *, kind="logits", feature="feature", name="net", opset=graphs.OPSET):
    """A network on (3, 4, 4) pixels whose nodes go from "x" to "feature" and "logits"."""
    card = graphs.make_card(SIZE, mean=MEAN, std=STD, kind=kind, feature=feature)
    ends = [graphs.value("x", ["N", 3, *SIZE])], [graphs.value("logits", ["N", None])]
    return graphs.save(folder, name, nodes, *ends, weights, card, opset=opset)


def open_network(path, card):
    prepared = graph.prepare(path, card=card)
    session = Session(prepared, pixel_shape=card.pixel_shape, backend=Backend("cpu", 1))
    return DifferentiableNetwork(Model(prepared, session, card))


def draw(seed=0, classes=3, hidden=6):
    rng = np.random.default_rng(seed)
    w1 = rng.standard_normal((hidden, D)) / np.sqrt(D)
    w2 = rng.standard_normal((classes, hidden))
    b1, b2 = rng.standard_normal(hidden) / 5, rng.standard_normal(classes) / 5
    return w1, b1, w2, b2, rng.uniform(20, 230, (3, *SIZE))


def tanh_net(folder, seed=0, **options):
    """logits = W2 tanh(W1 x + b1) + b2; feature = the tanh."""
    w1, b1, w2, b2, pixels = draw(seed)
    nodes = [
        graphs.node("Flatten", "x", "flat"),
        graphs.node("Gemm", "flat w1 b1", "hidden", transB=1),
        graphs.node("Tanh", "hidden", "feature"),
        graphs.node("Gemm", "feature w2 b2", "logits", transB=1),
    ]
    weights = [graphs.tensor(n, v) for n, v in (("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2))]
    return build(folder, nodes, weights, **options), (w1 / STD, b1 - w1.sum(1) * MEAN / STD, w2, b2, pixels)


def tanh_answers(arrays, label):
    """Feature Jacobian (6, D), gradient (D,) and Hessian (D, D) of the log-odds, in float64."""
    w1, b1, w2, b2, pixels = arrays
    a = np.tanh(w1 @ pixels.reshape(-1) + b1)
    first = 1 - a**2
    features = first[:, None] * w1
    z = w2 @ a + b2
    others = np.exp(z - z.max())
    others[label] = 0
    others /= others.sum()
    u = -others
    u[label] = 1
    by_scores = -(np.diag(others) - np.outer(others, others))
    scores = w2 @ features
    hessian = scores.T @ by_scores @ scores + w1.T @ np.diag((w2.T @ u) * -2 * a * first) @ w1
    return features, scores.T @ u, hessian


def test_gradient_jacobian_and_hessian_are_the_closed_forms(tmp_path, onnx_ad):
    model, arrays = tanh_net(tmp_path)
    network, pixels = open_network(*model), arrays[-1]
    features, gradient, hessian = tanh_answers(arrays, label=1)
    np.testing.assert_allclose(network.gradient(pixels, 1).reshape(-1), gradient, rtol=2e-4, atol=1e-8)
    probes = jacobian.rademacher(5, pixels.shape, seed=3)
    np.testing.assert_allclose(network.jvp(pixels, probes)[1], probes.reshape(5, -1) @ features.T, rtol=1e-4, atol=1e-6)
    u = np.random.default_rng(0).standard_normal((2, 6))
    np.testing.assert_allclose(network.vjp(pixels, features=u).reshape(2, -1), u @ features, rtol=1e-4, atol=1e-7)
    expected = probes.reshape(5, -1) @ hessian
    exact = network.hessian_products(pixels, 1, probes).reshape(5, -1)
    np.testing.assert_allclose(exact, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert check.hessian_error(network, pixels, label=1) < 0.02


def test_a_rectified_convolution_has_the_gradient_of_its_piece(tmp_path, onnx_ad):
    rng = np.random.default_rng(1)
    kernel, readout = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal((2, 16))
    nodes = [
        graphs.node("Conv", "x kernel", "conv"),
        graphs.node("Relu", "conv", "relu"),
        graphs.node("Flatten", "relu", "feature"),
        graphs.node("Gemm", "feature readout", "logits", transB=1),
    ]
    network = open_network(
        *build(tmp_path, nodes, [graphs.tensor("kernel", kernel), graphs.tensor("readout", readout)])
    )
    pixels = rng.uniform(0, 255, (3, *SIZE))
    x = (pixels - MEAN) / STD
    matrix = np.zeros((16, D))
    for k, i, j in np.ndindex(4, 2, 2):
        window = np.zeros((3, *SIZE))
        window[:, i : i + 3, j : j + 3] = kernel[k]
        matrix[k * 4 + i * 2 + j] = window.reshape(-1)
    features = (matrix @ x.reshape(-1) > 0)[:, None] * matrix / STD
    gradient = (readout[0] - readout[1]) @ features
    np.testing.assert_allclose(network.gradient(pixels, 0).reshape(-1), gradient, rtol=1e-4, atol=1e-6)
    # Two classes have linear log-odds, and the piece is linear: no curvature but that of the kinks.
    probes = jacobian.rademacher(2, pixels.shape, seed=0)
    assert np.abs(network.hessian_products(pixels, 0, probes)).max() < 1e-6
    figures = image.by_gradients(network, pixels, label=0, options=image.Options())
    np.testing.assert_allclose(figures["sigma_max"], np.linalg.svd(features)[1][0], rtol=1e-3)
    np.testing.assert_allclose(figures["gradient_l2"], np.linalg.norm(gradient), rtol=1e-4)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "sigmoid_logits", "sigmoid"])
def test_derivatives_of_log_odds_by_the_scores(kind):
    scores = np.array([1.0, -2, 0, 3, 1] if "logits" in kind else [0.1, 0.2, 0.3, 0.25, 0.15])
    step = 1e-5 * np.eye(5)
    for label in (0, 3):

        def value(z, label=label):
            if kind != "probabilities":
                return logodds.value(z, label=label, kind=kind)
            return np.log(z[..., label]) - np.log(z.sum(-1) - z[..., label])

        numeric = (value(scores + step) - value(scores - step)) / 2e-5
        weights = logodds.weights(scores, label=label, kind=kind)
        np.testing.assert_allclose(weights, numeric, rtol=1e-5, atol=1e-8)
        change = np.array([0.3, -1.0, 0.2, 0.5, 0.1])
        ahead, behind = (logodds.weights(scores + s * change, label=label, kind=kind) for s in (1e-6, -1e-6))
        expected = (ahead - behind) / 2e-6
        np.testing.assert_allclose(
            logodds.weights_change(scores, change, label=label, kind=kind), expected, rtol=1e-4, atol=1e-6
        )
        slopes = logodds.margin_weights(scores, np.arange(5), label=label, kind=kind)
        for k in range(5):
            ahead, behind = (logodds.margins(scores + s * np.eye(5)[k], label=label, kind=kind) for s in (1e-6, -1e-6))
            np.testing.assert_allclose(slopes[:, k], (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-6)
    assert np.isnan(logodds.weights(np.array([1.0, 0.0]), label=0, kind="probabilities")).all()
    assert np.isnan(logodds.weights(np.array([1.0, 0.0]), label=0, kind="sigmoid")).all()


def test_spread_of_a_gradient():
    g = np.array([[3.0, -1.0], [0.0, 2.0]])
    spread = isotropy.gradient_spread(g)
    pairs = [abs(a - b) for k, a in enumerate(g.flat) for b in list(g.flat)[k + 1 :]]
    assert spread.pairwise_difference == pytest.approx(np.mean(pairs))
    assert (spread.l2, spread.l1, spread.mean) == pytest.approx((np.sqrt(14), 6, 1))
    assert spread.equal_share == pytest.approx(16 / (4 * 14))
    same = isotropy.gradient_spread(np.full(7, -2.0))
    assert (same.equal_share, same.pairwise_difference, same.std) == pytest.approx((1, 0, 0))
    assert np.isnan(isotropy.gradient_spread(np.zeros(3)).equal_share)


def test_mass_of_a_hessian():
    rng = np.random.default_rng(0)
    off = rng.standard_normal((30, 30))
    off = off + off.T
    np.fill_diagonal(off, 0)
    spread = np.diag(np.repeat([3.0, -3.0], 15))
    hessian = 4 * np.eye(30) + spread + off
    probes = jacobian.rademacher(4000, (30,), seed=1)
    mass = isotropy.hessian_mass(probes, probes @ hessian)
    total = (hessian**2).sum()
    assert mass.frobenius == pytest.approx(np.sqrt(total), rel=0.02)
    assert mass.trace == pytest.approx(120, rel=0.05)
    shares = (mass.equal_diagonal, mass.unequal_diagonal, mass.off_diagonal)
    assert shares == pytest.approx((16 * 30 / total, 9 * 30 / total, (off**2).sum() / total), abs=0.02)
    assert sum(shares) == pytest.approx(1)
    diagonal = isotropy.hessian_mass(probes[:3], 5 * probes[:3])
    assert diagonal[2:] == pytest.approx((1, 0, 0))
    assert np.isnan(isotropy.hessian_mass(probes[:2], 0 * probes[:2]).off_diagonal)
    with pytest.raises(ValueError, match="two or more"):
        isotropy.hessian_mass(probes[:1], probes[:1])


def test_the_linear_range_is_that_of_simulated_noise():
    rng = np.random.default_rng(0)
    g = rng.standard_normal(400)
    noise = rng.uniform(-1, 1, (200, 50, 400))
    for norm, length in (("linf", np.abs(noise).max(-1)), ("l2", np.linalg.norm(noise, axis=-1))):
        values = 3 * (noise @ g) / length
        expected = isotropy.linear_range(np.linalg.norm(g), radius=3, norm=norm, dimension=400, trials=50)
        assert np.ptp(values, axis=1).mean() == pytest.approx(expected, rel=0.03)
    assert isotropy.expected_range(2) == pytest.approx(2 / np.sqrt(np.pi))


def test_lanczos_finds_the_largest_singular_value():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((20, 60))
    largest = jacobian.largest_singular_value(lambda v: matrix @ v, lambda u: matrix.T @ u, rng.standard_normal(60))
    assert largest.value == pytest.approx(np.linalg.svd(matrix)[1][0], rel=1e-6)
    assert largest.converged and 1 < largest.iterations < 100 and largest.residual <= 1e-4
    cut = jacobian.largest_singular_value(
        lambda v: matrix @ v, lambda u: matrix.T @ u, rng.standard_normal(60), limit=2
    )
    assert not cut.converged and cut.value < largest.value
    assert jacobian.largest_singular_value(lambda v: 0 * v, lambda u: u, np.ones(3)).value == 0
    probes = jacobian.rademacher(3000, (60,), seed=0)
    frobenius = np.linalg.norm(matrix) / np.sqrt(60)
    assert jacobian.jacobian_rms(probes @ matrix.T, dimension=60) == pytest.approx(frobenius, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_nearly_equal_singular_values_are_told_apart(seed):
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    matrix = np.linspace(0.5, 1.0, 200)[:, None] * turned
    largest = jacobian.largest_singular_value(
        lambda v: matrix @ v, lambda u: matrix.T @ u, rng.choice([-1.0, 1.0], 200)
    )
    assert largest.converged
    assert largest.value == pytest.approx(1.0, abs=1e-5)
    alone = jacobian.largest_singular_value(lambda v: 3 * v, lambda u: 3 * u, np.ones((1, 1, 1)))
    assert alone.value == pytest.approx(3.0)


def test_attacks_on_a_linear_classifier_stop_at_its_boundary(tmp_path, onnx_ad):
    rng = np.random.default_rng(2)
    matrix, bias = rng.standard_normal((4, D)) / 40, rng.standard_normal(4)
    nodes = [graphs.node("Flatten", "x", "feature"), graphs.node("Gemm", "feature matrix bias", "logits", transB=1)]
    network = open_network(*build(tmp_path, nodes, [graphs.tensor("matrix", matrix), graphs.tensor("bias", bias)]))
    pixels = rng.uniform(100, 150, (3, *SIZE))
    scores = matrix @ ((pixels.reshape(-1) - MEAN) / STD) + bias
    label = int(scores.argmax())
    others = np.delete(np.arange(4), label)
    difference = (matrix[label] - matrix[others]) / STD
    margin = scores[label] - scores[others]
    figures = image.by_gradients(network, pixels, label=label, options=image.Options())
    assert figures["l2_distance"] == pytest.approx((margin / np.linalg.norm(difference, axis=1)).min(), rel=5e-3)
    # Along a fixed direction, the boundary of each other class is a point; the first one counts.
    direction = -np.sign(network.gradient(pixels, label)).reshape(-1)
    falls = -(difference @ direction)
    assert figures["fgsm_eps"] == pytest.approx((margin[falls > 0] / falls[falls > 0]).min(), rel=2e-3)
    # With two classes the sign of the gradient is the steepest direction: eps = margin / ||w||_1.
    w = difference[0]
    start = pixels.reshape(-1)
    predict = lambda x: (x @ w < start @ w - 0.7).astype(int)  # noqa: E731
    assert attacks.fgsm(predict, w, start, label=0) == pytest.approx(0.7 / np.abs(w).sum(), rel=2e-3)


def test_attacks_stay_inside_the_image_where_asked():
    w = np.array([1.0, 1.0])
    predict = lambda x: (x @ w < 3).astype(int)  # noqa: E731
    pixels = np.array([2.0, 10.0])
    assert attacks.fgsm(predict, w, pixels, label=0) == pytest.approx(4.5, rel=1e-3)
    assert attacks.fgsm(predict, w, pixels, label=0, clip=True) == pytest.approx(7, rel=1e-3)
    margins = lambda x: np.array([0.0, 3 - x @ w])  # noqa: E731
    gradients = lambda x, classes: -np.tile(w, (len(classes), 1))  # noqa: E731
    free = attacks.deepfool(predict, margins, gradients, pixels, label=0)
    assert free.distance == pytest.approx(9 / np.sqrt(2), rel=1e-3) and free.reached == 1
    inside = attacks.deepfool(predict, margins, gradients, pixels, label=0, clip=True)
    assert inside.distance > free.distance
    never = attacks.deepfool(lambda x: np.zeros(len(x), int), margins, gradients, pixels, label=0, limit=3)
    assert never.distance == np.inf
    undefined = attacks.first_flip(lambda x: np.full(len(x), -1), lambda t: t, label=0, largest=1.0)
    assert undefined == np.inf


def test_a_wrong_derivative_is_refused_with_its_error(tmp_path, monkeypatch, onnx_ad):
    model, arrays = tanh_net(tmp_path)
    network, pixels = open_network(*model), arrays[-1]
    right = check.self_check(network, pixels, label=0)
    assert max(right.jacobian, right.gradient) < 0.01 and right.adjoint < 1e-4
    forward, reverse = DifferentiableNetwork._jvp, DifferentiableNetwork._vjp
    monkeypatch.setattr(
        DifferentiableNetwork, "_jvp", lambda self, x, v: tuple(1.1 * part for part in forward(self, x, v))
    )
    with pytest.raises(GradientsUnavailable, match=r"forward products.* by 0\.09"):
        check.self_check(network, pixels, label=0)
    monkeypatch.setattr(DifferentiableNetwork, "_jvp", forward)
    monkeypatch.setattr(DifferentiableNetwork, "_vjp", lambda self, x, u, place: -reverse(self, x, u, place))
    with pytest.raises(GradientsUnavailable, match=r"the gradient differs .* by 2 of"):
        check.self_check(network, pixels, label=0)
    scaled = lambda self, x, u, place: (1.01 if place else 1.0) * reverse(self, x, u, place)  # noqa: E731
    monkeypatch.setattr(DifferentiableNetwork, "_vjp", scaled)
    with pytest.raises(GradientsUnavailable, match="reverse products"):
        check.self_check(network, pixels, label=0)


def quantised(folder):
    """`tanh_net`, its feature rounded to multiples of 1/127."""
    w1, b1, w2, b2, _ = draw()
    nodes = [
        graphs.node("Flatten", "x", "flat"),
        graphs.node("Gemm", "flat w1 b1", "hidden", transB=1),
        graphs.node("Tanh", "hidden", "smooth"),
        graphs.node("QuantizeLinear", "smooth scale zero", "bytes"),
        graphs.node("DequantizeLinear", "bytes scale zero", "feature"),
        graphs.node("Gemm", "feature w2 b2", "logits", transB=1),
    ]
    weights = [graphs.tensor(n, v) for n, v in (("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2), ("scale", 1 / 127))]
    return build(folder, nodes, [*weights, graphs.tensor("zero", 0, np.int8)], name="quantised")


def test_a_quantised_network_is_measured_by_differences(tmp_path):
    smooth = tanh_net(tmp_path)[1]
    network, pixels = open_network(*quantised(tmp_path)), smooth[-1]
    if "not installed" not in network.unavailable:
        assert "QuantizeLinear" in network.unavailable
    with pytest.raises(InputError, match="gradients unavailable"):
        network.jvp(pixels, pixels[None])
    features, gradient, _ = tanh_answers(smooth, label=0)
    figures = image.by_differences(network, pixels, label=0, options=image.Options())
    frobenius = np.linalg.norm(features) / np.sqrt(D)
    assert figures["jacobian_rms"] == pytest.approx(frobenius, rel=0.35)
    assert frobenius < figures["sigma_max"] < 1.1 * np.linalg.svd(features)[1][0]
    assert figures["gradient_l2"] == pytest.approx(np.linalg.norm(gradient), rel=0.5)
    assert "fgsm_eps" not in figures


def test_an_operator_without_derivative_is_named(tmp_path, onnx_ad):
    rng = np.random.default_rng(0)
    nodes = [
        graphs.node("MaxRoiPool", "x rois", "feature", pooled_shape=[2, 2]),
        graphs.node("Flatten", "feature", "flat"),
        graphs.node("Gemm", "flat readout", "logits"),
    ]
    weights = [graphs.tensor("rois", [[0, 0, 0, 3, 3]]), graphs.tensor("readout", rng.standard_normal((12, 2)))]
    network = open_network(*build(tmp_path, nodes, weights))
    assert "MaxRoiPool" in network.unavailable and not network.differentiable


def test_without_the_extra_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx_ad", None)
    network = open_network(*tanh_net(tmp_path)[0])
    assert "[gradients]" in network.unavailable


def test_differences_of_a_quadratic():
    rng = np.random.default_rng(0)
    g, directions = rng.standard_normal(20), jacobian.rademacher(3000, (20,), seed=0)
    hessian = rng.standard_normal((20, 20))
    hessian = hessian + hessian.T
    second = np.einsum("ni,ij,nj->n", directions, hessian, directions)
    slope = slopes(directions @ g, second, float(g.sum()), dimension=20)
    off = hessian - np.diag(np.diag(hessian))
    assert slope.l2 == pytest.approx(np.linalg.norm(g), rel=0.05)
    assert slope.equal_share == pytest.approx(g.sum() ** 2 / (20 * g @ g), rel=0.1)
    assert slope.trace == pytest.approx(np.trace(hessian), abs=1.5)
    assert slope.off_diagonal == pytest.approx(np.linalg.norm(off), rel=0.05)
    matrix = rng.standard_normal((7, 20))
    ratio, best = largest_in_span(directions[:5], directions[:5] @ matrix.T)
    assert np.linalg.norm(best) == pytest.approx(1)
    assert np.linalg.norm(matrix @ best) == pytest.approx(ratio)
    each = np.linalg.norm(directions[:5] @ matrix.T, axis=1) / np.sqrt(20)
    assert each.max() < ratio <= np.linalg.svd(matrix)[1][0]
    everything, _ = largest_in_span(np.eye(20), matrix.T)
    assert everything == pytest.approx(np.linalg.svd(matrix)[1][0])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run of the convnet, its model and its images."""
    folder = tmp_path_factory.mktemp("finished")
    model, _ = graphs.convnet(folder / "model", size=16)
    write_images(folder / "images", 2)
    dataset = measure(model, folder / "images", folder / "run", permutations=0)
    return model, folder, dataset


def test_a_run_gets_its_sensitivity(finished, onnx_ad, capsys):
    _, folder, dataset = finished
    document = sensitivities.sensitivity(folder / "run", images_limit=2, provider="cpu")
    assert json.loads((folder / "run" / "sensitivity.json").read_text()) == document
    assert document["method"]["gradients"].startswith("onnx-ad")
    assert [row["id"] for row in document["images"]] == [str(name) for name in dataset["image"].values[:2]]
    for row in document["images"]:
        seen = noise_around(dataset, row["id"], row["label"], document["run"]["layer"])
        assert row["ratio_sampled"] == pytest.approx(seen["ratio_sampled"])
        assert row["jacobian_rms"] <= row["sigma_max"] * 1.001
        assert row["ratio_sampled"] <= row["sigma_max"] * 1.5  # half a grey level: nearly linear
        assert row["fgsm_eps"] is None or row["fgsm_eps"] > 0
        shares = [row[f"hessian_{part}"] for part in ("equal_diagonal", "unequal_diagonal", "off_diagonal")]
        assert sum(shares) == pytest.approx(1)
    assert document["sigma_max_median"]["n"] == 2
    app(["sensitivity", str(folder / "run"), "--images-limit", "1", "--provider", "cpu"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "FGSM" in out and "sensitivity.json" in out


@pytest.mark.parametrize(
    ("radii", "changed", "shown"),
    [
        ((20.0, 20.0, 20.0), (False,) * 3, "> 20"),
        ((5.0, 20.0, 20.0), (True, True, False), "20"),
        ((5.0,), (True,), "5"),
    ],
)
def test_the_median_noise_radius_does_not_contradict_its_column(radii, changed, shown, capsys):
    rows = [
        {"id": f"a_rather_long_name_{k}.png", "noise_radius": radius, "noise_found": seen, "fgsm_eps": 17.0}
        for k, (radius, seen) in enumerate(zip(radii, changed, strict=True))
    ]
    run = {"model": "m.onnx", "device": "a CPU", "layer": "fc", "norm": "linf", "radii": [0.5, 20.0]}
    medians = dict(sensitivities._medians(rows))
    commands._print(
        {"run": run, "method": {"gradients": None}, "images": rows, "sentences": [], "warnings": [], **medians}
    )
    lines = capsys.readouterr().out.splitlines()
    last = [line.split() for line in lines if line.split()[:1] == ["median"]][-1]
    assert last == ["median", "17", "undefined", *shown.split()]


def test_the_tables_fit_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    names = [name for _, name in commands.SLOPES + commands.ATTACKS]
    row = {"id": "sixteen_lett.png", "noise_found": True, **dict.fromkeys(names, -1.2e-11)}
    run = {"model": "m.onnx", "device": "a CPU", "layer": "fc", "norm": "l2", "radii": [0.5, 20.0]}
    commands._print({"run": run, "method": {"gradients": None}, "images": [row], "sentences": [], "warnings": []})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines if "sixteen_lett.png" in line] == [["-1.2e-11"] * 5, ["-1.2e-11"] * 3]
    tables = [line for line in lines if line.startswith(" ")]
    assert max(map(len, tables)) <= 80


def test_a_run_without_gradients_gets_the_rest(finished, monkeypatch):
    _, folder, _ = finished
    monkeypatch.setitem(sys.modules, "onnx_ad", None)
    document = sensitivities.sensitivity(folder / "run", images_limit=1, provider="cpu")
    assert document["method"]["gradients"] is None and "lower bound" in document["method"]["sigma"]
    assert document["sigma_max_median"]["value"] >= document["jacobian_rms_median"]["value"]
    assert "fgsm_eps_median" not in document
    assert any("not installed" in warning and "boundary is unavailable" in warning for warning in document["warnings"])


def test_another_model_card_or_folder_is_refused(finished, tmp_path):
    model, folder, _ = finished
    other, _ = graphs.convnet(tmp_path / "other", size=16, seed=9)
    with pytest.raises(InputError, match="not the model"):
        sensitivities.sensitivity(folder / "run", model=other)
    with pytest.raises(InputError, match="`images`"):
        sensitivities.sensitivity(
            folder / "run", model=model, images=write_images(tmp_path / "more", 2, seed=5)[0].parent
        )
    with pytest.raises(UsageError, match="`images_limit`"):
        sensitivities.sensitivity(folder / "run", images_limit=0)
    with pytest.raises(InputError, match="`model`"):
        sensitivities.sensitivity(folder / "run", model=tmp_path / "gone.onnx")


def test_the_sentence_on_the_jacobian_says_the_residual():
    medians = {f"{name}_median": {"value": 3.0} for name in ("sigma_max", "sigma_over_rms", "sigma_over_sampled")}
    rows = [{"sigma_residual": residual} for residual in (2e-6, 4e-5, None)]
    said = list(sentences.sentences(medians, rows, {"radii": [0.5]}, {"gradients": "graph"}, dimension=D))
    assert said == [
        "Jacobian (median of 3 images): the largest singular value is 3 times norm_F(J) / sqrt(D) and 3 times the "
        "largest sampled ratio at radius 0.5: random noise understates the local Lipschitz constant by that (largest "
        "relative residual of the iteration 4e-05)."
    ]
