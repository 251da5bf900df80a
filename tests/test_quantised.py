"""Models whose scores and features the graph hides: quantised, multi-label, permuted; noise that does not arrive."""

import dataclasses
import json

import graphs
import numpy as np
import pytest
import quantised
import runs
import xarray as xr
from graphs import node
from PIL import Image
from scipy.special import logit

from analyzer import bundled, graph, store
from analyzer import card as cards
from analyzer.analyses import landscape
from analyzer.analyses.gradients import sensitivity as sensitivities
from analyzer.errors import InputError
from analyzer.graph import scores as finding
from analyzer.summary import reach
from analyzer.verdicts import compare as comparison

SMALL = {"radii": (0.2, 5.0), "trials": 8}


@pytest.fixture
def images(tmp_path, rng):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) // (1 + number)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def summary_of(out):
    return store.Run(out).read_summary()


def says_no_nan(document):
    for sentence in [*document["sentences"], *document["warnings"]]:
        words = sentence.lower().replace(",", " ").replace(".", " ").split()
        assert not {"nan", "inf", "-inf", "nan%", "inf%"} & set(words), sentence


# scores -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contrib", [False, True])
def test_logits_are_found_behind_quantisation(tmp_path, images, contrib):
    model, card = quantised.quantised_softmax(tmp_path, contrib=contrib)
    prepared = graph.prepare(model, card=card)
    assert prepared.kind == "logits" and prepared.step == pytest.approx(1 / 256)
    seen = runs.measure(model, images, tmp_path / "run", **SMALL)
    for name, own in quantised.own_output(model, card, images).items():
        one = seen.sel(image=name)
        assert one.clean_score == pytest.approx(own[int(one.label)], abs=0.01)
        assert own[int(one.clean_predicted)] == own.max()
    assert graph.draft_card(model)["output"]["kind"] == "probabilities"


def test_quantised_probabilities_are_taken_within_their_steps(tmp_path, images):
    model, card = quantised.quantised_softmax(tmp_path)
    # A Clip at the end hides the softmax, not the steps of what comes out of it.
    graphs.edit(model, lambda m: _behind_a_clip(m))
    assert graph.prepare(model, card=card).kind == "probabilities"
    with pytest.raises(InputError) as refused:
        runs.measure(model, images, tmp_path / "a", **SMALL)
    assert "sigmoid" in str(refused.value) and "logits" not in str(refused.value)
    # The pair at the very end is seen.
    model, card = quantised.head(
        tmp_path,
        "steps",
        [
            node("Softmax", "l", "p", axis=1),
            graphs.node("Clip", "p", "c"),
            graphs.node("QuantizeLinear", "c s z", "q"),
            graphs.node("DequantizeLinear", "q s z", "y"),
        ],
        {"s": np.float32(1 / 256), "z": np.uint8(0)},
        100,
        kind="probabilities",
        gain=1,
    )
    assert graph.prepare(model, card=card).kind == "probabilities"
    sums = [own.sum() for own in quantised.own_output(model, card, images).values()]
    assert max(abs(total - 1) for total in sums) > 1e-2
    runs.measure(model, images, tmp_path / "b", **SMALL)


@pytest.mark.parametrize("factor", [100.0, -1.0])
def test_probabilities_in_other_units_are_no_logits(tmp_path, images, factor):
    """As percentages: their softmax would be measured without a word."""
    nodes = [node("Softmax", "l", "p", axis=1), node("Mul", "p c", "y")]
    model, _ = quantised.head(tmp_path, "percent", nodes, {"c": np.float32(factor)}, 5, kind="logits")
    with pytest.raises(InputError, match=rf"the scores of every image add up to {factor:g} and have one sign"):
        runs.measure(model, images, tmp_path / "run", **SMALL)


def _behind_a_clip(model):
    model.graph.node[-1].output[0] = model.graph.node[-1].name = "before"
    model.graph.node.append(graphs.node("Clip", "before", "y"))


def test_a_sigmoid_is_asked_for_by_name(tmp_path, images):
    model, _ = quantised.multi_label(tmp_path)
    with pytest.raises(InputError, match=r'set output\.kind to "sigmoid"'):
        runs.measure(model, images, tmp_path / "a", **SMALL)
    assert graph.draft_card(model)["output"]["kind"] == "sigmoid"
    hidden, card = quantised.multi_label(tmp_path, spelt_out=True)
    with pytest.raises(InputError, match=r"add up to .*set output\.kind to \"sigmoid\"") as refused:
        runs.measure(hidden, images, tmp_path / "b", **SMALL)
    assert "logits" not in str(refused.value)
    hidden, _ = quantised.multi_label(tmp_path, spelt_out=True, kind="logits")
    runs.measure(hidden, images, tmp_path / "c", **SMALL)
    assert any('set output.kind to "sigmoid"' in w for w in summary_of(tmp_path / "c")["warnings"])
    softmax, _ = quantised.quantised_softmax(tmp_path)
    with pytest.raises(InputError, match=r'ends in a Softmax.*"probabilities"'):
        graph.prepare(softmax, card=dataclasses.replace(card, kind="sigmoid"))


@pytest.mark.parametrize("spelt_out", [False, True])
def test_a_sigmoids_own_logit_is_its_log_odds(tmp_path, images, spelt_out):
    model, card = quantised.multi_label(tmp_path, kind="sigmoid", spelt_out=spelt_out)
    assert graph.prepare(model, card=card).kind == ("sigmoid" if spelt_out else "sigmoid_logits")
    seen = runs.measure(model, images, tmp_path / "run", **SMALL)
    for name, own in quantised.own_output(model, card, images).items():
        one = seen.sel(image=name)
        label = int(one.label)
        assert label == own.argmax() and one.clean_predicted == label
        assert one.clean_score == pytest.approx(own[label], abs=1e-6)
        p = own[label].astype(np.float64)
        if p < 1 - 1e-4:
            assert one.clean_log_odds == pytest.approx(logit(p), rel=1e-2)
    says_no_nan(summary_of(tmp_path / "run"))


def test_sigmoid_networks_have_landscapes_and_gradients(tmp_path, images):
    pytest.importorskip("onnx_ad")
    model, _ = quantised.multi_label(tmp_path, kind="sigmoid")
    runs.measure(model, images, tmp_path / "run", **SMALL)
    plane = landscape.landscape(model, images / "1.png", provider="cpu", size=5)
    np.testing.assert_allclose(plane.score, 1 / (1 + np.exp(-plane.log_odds)), rtol=1e-6)
    document = sensitivities.sensitivity(tmp_path / "run", images_limit=2, provider="cpu", threads=1)
    assert document["method"]["gradients"]
    # The label's logit alone is the log-odds: 4 w averaged over the 64 pixels of each channel, per grey level.
    own = 4 * quantised.weights(3, 5, seed=3)[:, document["images"][0]["label"]]
    assert document["images"][0]["gradient_l2"] == pytest.approx(np.linalg.norm(own) / 8 / quantised.STD, rel=1e-3)
    says_no_nan(document)


def test_the_models_own_class_order_is_kept(tmp_path, images):
    model, card = quantised.permuted_classes(tmp_path)
    assert graph.prepare(model, card=card).outputs[0] == "y"
    seen = runs.measure(model, images, tmp_path / "run", **SMALL)
    for name, own in quantised.own_output(model, card, images).items():
        one = seen.sel(image=name)
        assert one.clean_predicted == own.argmax() and one.clean_score == pytest.approx(own.max(), abs=1e-6)


def test_a_transpose_that_moves_no_class_is_passed(tmp_path):
    nodes = [
        graphs.node("Unsqueeze", "l axes", "wide"),
        node("Softmax", "wide", "p", axis=1),
        graphs.node("Transpose", "p", "t", perm=[0, 2, 3, 1]),
        graphs.node("Flatten", "t", "y"),
    ]
    model, card = quantised.head(tmp_path, "moved", nodes, {"axes": np.array([2, 3])}, 5, kind="probabilities")
    assert graph.prepare(model, card=card).kind == "logits"


def test_logits_that_do_not_give_the_models_output_are_not_used(tmp_path, images, monkeypatch):
    model, card = quantised.permuted_classes(tmp_path)
    monkeypatch.setattr(finding, "_keeps_order", lambda index, node: True)  # a walk that goes too far
    assert graph.prepare(model, card=card).outputs[0] != "y"
    seen = runs.measure(model, images, tmp_path / "run", **SMALL)
    for name, own in quantised.own_output(model, card, images).items():
        assert seen.sel(image=name).clean_predicted == own.argmax()
    (said,) = (w for w in summary_of(tmp_path / "run")["warnings"] if "is not used" in w)
    assert "final Softmax" in said and "softmax differs from the model's own output" in said


# features -----------------------------------------------------------------------------------------------------------


def test_every_form_of_int8_has_the_features_of_the_float_network(tmp_path, images):
    rms, scores, layers = {}, {}, {}
    for form in ("float", "qdq", "qoperator", "dynamic"):
        model, card = quantised.network(tmp_path, form)
        layers[form] = graph.prepare(model, card=card).layers
        seen = runs.measure(model, images, tmp_path / f"run_{form}", **{**SMALL, "trials": 30})
        rms[form] = float(seen.jacobian_rms.isel(radius=1).median())
        scores[form] = seen.clean_score.values
    assert layers["float"] == layers["dynamic"] == ("f",)
    named = runs.measure(
        quantised.network(tmp_path, "qoperator")[0], images, tmp_path / "named", **SMALL, layers=("r_q",)
    )
    plain = runs.measure(quantised.network(tmp_path, "float")[0], images, tmp_path / "plain", **SMALL, layers=("r",))
    assert float(named.jacobian_rms[:, 1].median()) == pytest.approx(float(plain.jacobian_rms[:, 1].median()), rel=0.1)
    for form in ("qdq", "qoperator", "dynamic"):
        assert rms[form] == pytest.approx(rms["float"], rel=0.1), form
        np.testing.assert_allclose(scores[form], scores["float"], atol=0.03)


# noise that does not arrive -----------------------------------------------------------------------------------------


def test_radii_that_do_not_reach_a_quantised_input_are_named(tmp_path, images):
    for model, step, near in (
        (quantised.coarse_input(tmp_path)[0], "32 grey levels", "0.3"),
        (quantised.network(tmp_path, "qdq")[0], "1 grey level", "0.5"),
    ):
        out = tmp_path / f"run_{model.stem}"
        runs.measure(model, images, out, **SMALL)
        document = summary_of(out)
        says_no_nan(document)
        (said,) = (w for w in document["warnings"] if "does not reach" in w)
        assert f"Noise of radius 0.2 does not reach the network: its input is quantised in steps of {step}," in said
        assert said.endswith(f"is {near}.")
        (lipschitz,) = (s for s in document["sentences"] if s.startswith("Lipschitz"))
        assert "factor" not in lipschitz and "0 at radius 0.2, where the layer does not move" in lipschitz
        assert document["lipschitz_median@0.2"]["value"] == 0


def test_no_ratio_of_ratios_below_the_steps_of_the_input(tmp_path, images):
    model, _ = quantised.coarse_input(tmp_path)
    runs.measure(model, images, tmp_path / "run", radii=(2.0, 20.0), trials=8)
    document = summary_of(tmp_path / "run")
    assert not any("changes by a factor" in sentence for sentence in document["sentences"])
    assert any("Radius 2, 20: smaller than the steps of 32 grey levels" in w for w in document["warnings"])
    sensitivity = sensitivities.sensitivity(tmp_path / "run", images_limit=2, provider="cpu", threads=1)
    says_no_nan(sensitivity)
    assert any("no ratio is given" in sentence for sentence in sensitivity["sentences"])
    assert any("32 grey levels" in warning for warning in sensitivity["warnings"])


def test_the_growth_of_the_ratio_is_undefined_where_it_begins_within_a_step(tmp_path, images):
    """Of an input in steps; of features in steps; as of no other number, also in the gate and the claims."""
    model, _ = quantised.coarse_input(tmp_path)
    runs.measure(model, images, tmp_path / "input", radii=(2.0, 20.0), trials=8)
    nodes = [node("QuantizeLinear", "f s z", "q"), node("DequantizeLinear", "q s z", "d"), node("Gemm", "d W2", "y")]
    constants = {"s": np.float32(0.05), "z": np.uint8(128), "W2": quantised.weights(3, 5)}
    inner, _ = quantised.head(tmp_path, "inner", nodes, constants, 5, kind="logits")
    runs.measure(inner, images, tmp_path / "inside", radii=(0.1, 20.0), trials=8, layers=("d",))
    for name in ("input", "inside"):
        document = summary_of(tmp_path / name)
        assert document["lipschitz_growth_median"] == {"value": None, "low": None, "high": None, "n": 0}, name
        assert not any("changes by a factor" in sentence for sentence in document["sentences"])


def test_steps_are_held_against_what_moves_a_pixel_in_either_norm(tmp_path, images):
    """An L2 radius of 200 over 192 values moves a pixel by about 25 grey levels at most: less than a step of 32."""
    model, _ = quantised.coarse_input(tmp_path)
    runs.measure(model, images, tmp_path / "run", radii=(5.0, 200.0, 2000.0), norm="l2", trials=8)
    (said,) = (w for w in summary_of(tmp_path / "run")["warnings"] if "smaller than the steps" in w)
    assert said.startswith(("Radius 200:", "Radius 5, 200:"))


def test_a_network_that_never_moves_is_said_to(tmp_path, images):
    pytest.importorskip("onnx_ad")
    model, _ = graphs.constant(tmp_path)
    runs.measure(model, images, tmp_path / "run", **SMALL)
    document = summary_of(tmp_path / "run")
    says_no_nan(document)
    assert any("moves no score and no feature: the network works in larger steps" in w for w in document["warnings"])
    sensitivity = sensitivities.sensitivity(tmp_path / "run", images_limit=2, provider="cpu", threads=1)
    says_no_nan(sensitivity)
    assert any("the gradient is 0" in warning for warning in sensitivity["warnings"])


def test_only_quantised_networks_have_an_input_grid(tmp_path, images):
    model, card = quantised.network(tmp_path, "float")
    assert graph.prepare(model, card=card).input_grid is None
    named = bundled.folder() / "gtsrb_ciresan2012.onnx"
    assert graph.prepare(named, card=cards.read(cards.beside(named))).input_grid is None
    runs.measure(model, images, tmp_path / "run", **SMALL)
    assert "input_grid" not in json.loads((tmp_path / "run" / "calibration.json").read_text())


def test_a_network_in_steps_says_so_by_itself(tmp_path):
    """Pixels that lie nearly between two steps of 4 grey levels are thrown over the border by any noise."""
    coarse, _ = quantised.coarse_input(tmp_path, mean=128.02, scale=1 / 16)
    fine, _ = quantised.head(tmp_path, "fine", [node("Identity", "l", "y")], {}, 4, kind="logits")
    (tmp_path / "images").mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).choice([82, 114, 146, 178], (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    for name, model in (("fine", fine), ("coarse", coarse)):
        runs.measure(model, tmp_path / "images", tmp_path / name, radii=(0.5, 1.0, 2.0, 250.0), trials=20)
    said = {name: summary_of(tmp_path / name)["warnings"] for name in ("fine", "coarse")}
    assert not any("rounding steps" in warning for warning in said["fine"])
    (warning,) = (w for w in said["coarse"] if "the rounding steps of the network" in w)
    # The mean of 64 pixels: half of them move by 4 to one side, or all by r / sqrt(3) to both: equal at r = 28.
    assert 14 < float(warning.removeprefix("Below about radius ").partition(" ")[0]) < 56
    notes = comparison.compare([tmp_path / "fine", tmp_path / "coarse"])["notes"]
    assert any("coarse answers with its rounding steps" in note for note in notes)
    assert not any("fine answers with its rounding steps" in note for note in notes)


@pytest.mark.parametrize(
    ("response", "radius"),
    [
        ([1, 1, 1, 1.3, 5.1], 40 / np.sqrt(5.1**2 - 1)),  # steps, then a slope
        ([1, 2, 4, 8, 20], 0.0),  # a slope
        ([1, 2, 3.5, 4, 4.1], 0.0),  # a slope that saturates
        ([1, 1.1, 1.15, 1.17, 1.18], 0.0),  # saturated from the start: steps, or not, cannot be told
    ],
)
@pytest.mark.parametrize("trials", [30, 6])
def test_steps_slopes_and_saturation(response, radius, trials):
    radii, rng = np.array([1.0, 2.0, 4.0, 8.0, 40.0]), np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (6, 5, trials))
    signs[..., 0], signs[..., 1] = 1, -1
    measured = xr.Dataset(
        {
            "isotropy_log_odds": (("image", "radius", "trial"), np.array(response)[:, None] * signs),
            "clean_log_odds": ("image", np.zeros(6)),
            "log_odds_noise_floor": ("image", np.full(6, 1e-4)),
        },
        coords={"radius": radii},
    )
    assert reach.steps(measured) == pytest.approx(radius if trials >= 10 else 0.0)
