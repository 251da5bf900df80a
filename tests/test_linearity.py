"""The measure of linearity: closed forms, through a session and by an independent script; rows, clipping, reduction."""

import itertools
import json

import graphs
import numpy as np
import onnxruntime
import pytest
import runs
from graphs import node, tensor, value
from scipy.special import logsumexp

from analyzer import bundled, card, study
from analyzer.errors import InputError, UsageError
from analyzer.perturbations import deltas
from analyzer.session import Backend
from analyzer.statistics import FLOOR_COPIES
from analyzer.study import LabelledImage, observe, open_model, rows
from analyzer.study.model import rows_of

GREY = 100.0
SHA = "ab" * 32
PIXELS = np.full((3, 8, 8), GREY, np.float32)


def protocol(**changed):
    return runs.protocol(**{"measures": ("isotropy", "lipschitz", "linearity"), "trials": 30, **changed})


def measured(made, pixels=PIXELS, *, label=0, reduced=False, **changed):
    """What a run stores of one image."""
    path, its_card = made
    asked = protocol(**changed)
    model = open_model(path, card=its_card, protocol=asked, backend=Backend("cpu", 1), batch_size=8)
    return observe(model.reduced(asked) if reduced else model, LabelledImage(pixels, SHA, label), asked)


def around_grey(folder, *nodes, constants=(), gain=1.0):
    """feature = what `nodes` make of z = gain W (x - grey), four numbers that are 0 at the grey image; logits of it."""
    weights = [
        tensor("grey", np.float32(GREY)),
        tensor("W", gain * np.random.default_rng(3).standard_normal((192, 4)) / 14),
        tensor("readout", np.random.default_rng(4).standard_normal((4, 2))),
    ]
    made = [node("Flatten", "x", "flat"), node("Sub", "flat grey", "centred"), node("MatMul", "centred W", "z"), *nodes]
    made.append(node("MatMul", "feature readout", "logits"))
    ends = [value("x", ["N", 3, 8, 8])], [value("logits", ["N", 2])]
    return graphs.save(folder, "around", made, *ends, [*weights, *constants], graphs.make_card(feature="feature"))


POWER = [node("Mul", "z z", "z2")]
FORMS = {
    "affine": ([node("Identity", "z", "feature")], 0.0),
    "quadratic": ([node("Mul", "z z", "feature")], 1.5),
    "cubic": ([*POWER, node("Mul", "z2 z", "feature")], 0.75),
    "absolute value": ([node("Abs", "z", "feature")], 2.0),
}


@pytest.mark.parametrize(("nodes", "expected"), FORMS.values(), ids=list(FORMS))
def test_homogeneous_maps_have_the_closed_form(tmp_path, nodes, expected):
    found = measured(around_grey(tmp_path, *nodes))
    np.testing.assert_allclose(found["linearity"], expected, atol=2e-3)
    assert found["linearity"].shape == found["linearity_floor"].shape == (2, 1)
    assert found["log_odds_linearity"].shape == (2,)


def test_the_log_odds_of_an_affine_network_of_two_classes_are_affine(tmp_path):
    """z1 - z2 is affine, and is the log-odds; a network of squares has 1.5 there too."""
    found = measured(around_grey(tmp_path / "a", *FORMS["affine"][0]))
    np.testing.assert_allclose(found["log_odds_linearity"], 0, atol=1e-3)
    found = measured(around_grey(tmp_path / "q", *FORMS["quadratic"][0]))
    np.testing.assert_allclose(found["log_odds_linearity"], 1.5, atol=2e-3)


def test_a_kink_beyond_the_radius_is_not_seen_and_one_within_is(tmp_path):
    """relu(z + t) - t is z as long as z > -t."""
    nodes = [node("Add", "z t", "moved"), node("Relu", "moved", "cut"), node("Sub", "cut t", "feature")]
    found = measured(around_grey(tmp_path, *nodes, constants=[tensor("t", np.float32(2.0))]), radii=(0.5, 40.0))
    assert found["linearity"][0, 0] < 1e-3 < 0.2 < found["linearity"][1, 0]


def test_a_saturating_layer_departs_as_its_own_numbers_say(tmp_path):
    """tanh of a large gain: N of plain numpy on the same perturbations."""
    found = measured(around_grey(tmp_path, node("Tanh", "z", "feature"), gain=0.3))
    weights = 0.3 * np.random.default_rng(3).standard_normal((192, 4)) / 14
    for k, radius in enumerate((0.5, 4.0)):
        a = deltas(seed=0, sha256=SHA, shape=(3, 8, 8), family="noise", radius=radius, trials=20).reshape(20, -1)
        whole, half = np.tanh(a @ weights), np.tanh(-a / 2 @ weights)
        expected = np.sqrt(((whole + 2 * half) ** 2).sum() / (whole**2).sum())
        assert found["linearity"][k, 0] == pytest.approx(expected, rel=2e-3)


def test_what_rounding_makes_is_below_its_floor(tmp_path):
    """An affine map: N is rounding, and the floor is of its size."""
    found = measured(around_grey(tmp_path, *FORMS["affine"][0]), radii=(0.01, 4.0))
    assert (found["linearity"] <= found["linearity_floor"]).all()
    assert (found["linearity"] >= found["linearity_floor"] / 100).all()
    assert found["linearity_floor"][0, 0] > 50 * found["linearity_floor"][1, 0]


def test_nothing_is_said_where_nothing_responds(tmp_path):
    nodes = [node("Mul", "z none", "feature")]
    found = measured(around_grey(tmp_path, *nodes, constants=[tensor("none", np.float32(0))]))
    assert np.isnan(found["linearity"]).all() and np.isnan(found["linearity_floor"]).all()
    assert np.isnan(found["log_odds_linearity"]).all()


def test_even_terms_have_up_to_as_many_as_there_are_trials(tmp_path):
    """A linear map has 1 on average; a map of squares, whose mean over the noise is not 0, has far more."""
    shares = {}
    for name in ("affine", "quadratic"):
        shares[name] = measured(around_grey(tmp_path / name, *FORMS[name][0]), trials=100)["even_share"]
        assert shares[name].shape == (2, 1)
    assert (shares["affine"] < 4).all() and (shares["quadratic"] > 20).all() and (shares["quadratic"] < 100).all()


def test_even_terms_are_undefined_where_clipping_shifts_the_noise(tmp_path):
    """Half of the pixels are black, half white: what is added has a mean of its own, which no even term has."""
    pixels = np.where(np.arange(192).reshape(3, 8, 8) % 2, 255, 0).astype(np.float32)
    made = around_grey(tmp_path, *FORMS["affine"][0])
    assert np.isnan(measured(made, pixels, trials=100, clip=True)["even_share"]).all()
    assert np.isfinite(measured(made, pixels, trials=100)["even_share"]).all()


@pytest.mark.parametrize("changed", [{}, {"clip": True, "round": True}, {"norm": "l2"}], ids=str)
@pytest.mark.parametrize("options", [{}, {"layout": "NHWC", "channels": "BGR"}], ids=str)
def test_an_independent_script_agrees(tmp_path, changed, options):
    """Plain onnxruntime on the same perturbations; a is what was really added, x - a/2 is left as it is."""
    path, its_card = graphs.convnet(tmp_path, **options)
    radii, trials = (2.0, 300.0), 12
    pixels = np.random.default_rng(1).integers(0, 256, its_card.pixel_shape).astype(np.float32)
    found = measured((path, its_card), pixels, radii=radii, trials=trials, linearity_trials=5, **changed)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def logits(images):
        values = (images - graphs.CONVNET_MEAN) / graphs.CONVNET_STD
        if options:
            values = values[:, ::-1].transpose(0, 2, 3, 1)
        return session.run(None, {"x": np.ascontiguousarray(values, np.float32)})[0].astype(np.float64)

    def log_odds(images):
        z = logits(images)
        return z[:, 0] - logsumexp(z[:, 1:], axis=1)

    norm = changed.get("norm", "linf")
    for k, radius in enumerate(radii):
        drawn = deltas(seed=0, sha256=SHA, shape=pixels.shape, family="noise", radius=radius, trials=trials, norm=norm)[
            :5
        ]
        moved = pixels + drawn
        if "clip" in changed:
            moved = np.rint(np.clip(moved, 0, 255))
        a = moved - pixels
        clean = log_odds(pixels[None])
        whole, half = log_odds(pixels + a) - clean, log_odds(pixels - a / 2) - clean
        expected = np.sqrt(((whole + 2 * half) ** 2).sum() / (whole**2).sum())
        assert found["log_odds_linearity"][k] == pytest.approx(expected, rel=5e-3, abs=5e-3)


def test_a_real_network_by_plain_numpy(tmp_path):
    """The bundled Aghdam network on one of its signs."""
    folder = bundled.folder()
    path = folder / "gtsrb_aghdam2015.onnx"
    its_card = card.read(card.beside(path))
    from PIL import Image

    rgb = Image.open(folder / "demo" / "14_stop.png").convert("RGB").resize(its_card.size[::-1])
    pixels = np.asarray(rgb, np.float32).transpose(2, 0, 1)
    found = measured((path, its_card), pixels, label=14, radii=(0.5, 20.0))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    mean, std = (np.array(v)[:, None, None] for v in (its_card.mean, its_card.std))

    def log_odds(images):
        values = (images[:, ::-1] - mean) / std  # the card's order is BGR
        z = session.run(None, {name: values.astype(np.float32)})[0].astype(np.float64)
        return z[:, 14] - logsumexp(np.delete(z, 14, axis=1), axis=1)

    assert its_card.channels == "BGR"
    for k, radius in enumerate((0.5, 20.0)):
        a = deltas(seed=0, sha256=SHA, shape=pixels.shape, family="noise", radius=radius, trials=20)
        clean = log_odds(pixels[None])
        whole, half = log_odds(pixels + a) - clean, log_odds(pixels - a / 2) - clean
        expected = np.sqrt(((whole + 2 * half) ** 2).sum() / (whole**2).sum())
        assert found["log_odds_linearity"][k] == pytest.approx(expected, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("trials", [3, 30])
def test_layers_that_are_reduced_in_the_graph_give_the_same(tmp_path, trials):
    made = graphs.convnet(tmp_path)
    pixels = np.random.default_rng(1).uniform(40, 215, made[1].pixel_shape).astype(np.float32)
    plain, reduced = (measured(made, pixels, trials=trials, layers=("all",), reduced=r) for r in (False, True))
    np.testing.assert_allclose(reduced["linearity"], plain["linearity"], rtol=1e-2, atol=4e-3)
    np.testing.assert_allclose(reduced["log_odds_linearity"], plain["log_odds_linearity"], rtol=1e-3, atol=1e-4)
    assert (reduced["linearity_floor"] >= 2e-3).all()


def test_whole_numbers_cannot_be_halved(tmp_path, images):
    """The measure is left out, with a warning and without a pass; alone it is refused."""
    path, _ = graphs.convnet(tmp_path, input_type="uint8")
    runs.write_images(images, 2)
    asked = {"clip": True, "round": True}
    seen = []
    found = runs.measure(path, images, tmp_path / "run", progress=seen.append, **asked)
    assert "linearity" not in found and "lipschitz" in found
    assert seen[-1].passes == seen[-1].expected
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert any(said.startswith("Linearity is left out") for said in summary["warnings"])
    with pytest.raises(InputError, match="half a perturbation is no whole number"):
        runs.measure(path, images, tmp_path / "alone", measures=("linearity",), **asked)


def test_halves_that_have_no_answer_take_nothing_else_away(tmp_path):
    """sqrt(300 - x) of a pixel near 255 plus a/2 may not exist, where x + a clipped to 255 does."""
    nodes = [node("Flatten", "x", "flat"), node("Sub", "limit flat", "room"), node("Sqrt", "room", "root")]
    nodes += [node("MatMul", "root w", "feature"), node("MatMul", "feature r", "logits")]
    weights = [tensor("limit", np.float32(255.5)), tensor("w", np.ones((192, 2)) / 192), tensor("r", np.eye(2))]
    ends = [value("x", ["N", 3, 8, 8])], [value("logits", ["N", 2])]
    made = graphs.save(tmp_path, "root", nodes, *ends, weights, graphs.make_card(feature="feature"))
    found = measured(made, np.full((3, 8, 8), 254.0, np.float32), clip=True, radii=(1.0, 20.0))
    assert found["image_status"] == 0 and np.isfinite(found["feature_distance"]).all()
    assert np.isfinite(found["linearity"][0]).all() and np.isnan(found["linearity"][1]).all()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_halves_are_the_same_however_batches_are_cut(tmp_path, batch_size):
    path, its_card = graphs.convnet(tmp_path)
    pixels = np.random.default_rng(1).uniform(40, 215, its_card.pixel_shape).astype(np.float32)
    asked = protocol()
    model = open_model(path, card=its_card, protocol=asked, backend=Backend("cpu", 1), batch_size=batch_size)
    found = observe(model, LabelledImage(pixels, SHA, 0), asked)
    expected = measured((path, its_card), pixels)
    for name in ("linearity", "log_odds_linearity"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3)


def test_more_halves_than_trials_are_all_trials():
    assert protocol(trials=6).identity()["linearity_trials"] == 6 == protocol(trials=6, linearity_trials=6).halved
    assert "linearity_trials" not in protocol(measures=("isotropy",)).identity()


def test_an_older_run_is_refused_by_its_measures_alone(tmp_path, images):
    path, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    older = ("isotropy", "symmetry", "topology", "lipschitz")
    runs.measure(path, images, tmp_path / "run", measures=older)
    with pytest.raises(UsageError) as refused:
        runs.measure(path, images, tmp_path / "run")
    assert "measures" in str(refused.value) and "linearity_trials" not in str(refused.value)
    runs.measure(path, images, tmp_path / "run", measures=older)


def test_one_pass_in_ten_more():
    """Twenty of a hundred trials of one of two families, at each of 21 radii."""
    whole = study.Protocol()
    without = study.Protocol(measures=tuple(m for m in whole.measures if m != "linearity"))
    assert rows_of(without, 1) == 1 + FLOOR_COPIES + 2 * 21 * 100
    assert rows_of(whole, 1) - rows_of(without, 1) == 21 * 20
    assert (rows_of(whole, 1) / rows_of(without, 1) - 1) < 0.1


def test_the_rows_are_keyed_and_exact(tmp_path):
    """x - a/2 is clean + words * (-scale / 2), to the bit half of what a moves, in any batch."""
    path, its_card = graphs.convnet(tmp_path)
    asked = protocol()
    model = open_model(path, card=its_card, protocol=asked, backend=Backend("cpu", 1), batch_size=8)
    pixels = np.random.default_rng(1).uniform(40, 215, its_card.pixel_shape).astype(np.float32)
    clean = model.preprocessing.apply(pixels).reshape(model.shape)
    sources = list(study.observing._sources(model, LabelledImage(pixels, SHA, 0), asked, clean))
    noise, half = next((a, b) for a, b in itertools.pairwise(sources) if isinstance(b, rows.Halved))
    assert (noise.family, half.family, half.count) == ("noise", "half", 20)
    words = [rows.Batch(30, clean, composed=True) for _ in range(2)]
    noise.write(range(20), words[0], 0)
    half.write(range(20), words[1], 0)
    np.testing.assert_array_equal(words[1].words[:20], words[0].words[:20])
    np.testing.assert_array_equal(words[1].scales[:20], -words[0].scales[:20] / 2)


def test_a_run_says_how_linear(tmp_path, images, capsys):
    made = graphs.convnet(tmp_path)
    runs.write_images(images, 12)
    out = tmp_path / "run"
    command = ["run", made[0], "--images", images, "--out", out, *runs.SMALL, "--layers", "relu1,fc2"]
    code, said, _ = runs.call(capsys, *command, "--linearity-trials", "3", "--tables")
    assert code in (None, 0)
    text = " ".join(said.split())
    assert "fc2: Linearity: the features depart from a linear response by " in text
    assert "Linearity: departure N from an affine response" in text
    code, _, refused = runs.call(capsys, *command, "--linearity-trials", "4")
    assert code == 2 and "linearity_trials 3 -> 4" in refused
    code, printed, _ = runs.call(capsys, "summary", out, "--json")
    assert '"log_odds_linearity_median@4"' in printed and '"log_odds_linearity_median@4/fc2"' not in printed
    assert '"linearity_median@4/relu1"' in printed
