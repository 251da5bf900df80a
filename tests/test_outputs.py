"""What an output is taken for: one score of two classes, one of several outputs, a head that has no class scores."""

import dataclasses
import json

import graphs
import numpy as np
import onnx
import pytest
import quantised
import runs
from graphs import node, tensor, value
from scipy.special import expit, logit

from analyzer import card as cards
from analyzer import drafting, graph
from analyzer.errors import InputError
from analyzer.session import Backend
from analyzer.session.function import all_outputs

SMALL = {"radii": (1.0, 4.0), "trials": 5}


@pytest.fixture
def images(tmp_path):
    runs.write_images(tmp_path / "images", 4, size=8)
    return tmp_path / "images"


def one_score(folder, ending, *, kind, constants=()):
    """x -> its weighted sum "z" (N, 1) -> `ending`, "y"."""
    matrix = np.random.default_rng(4).standard_normal((192, 1)) / 8
    nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat M", "h"), node("Identity", "h", "z"), *ending]
    stored = [tensor("M", matrix), *constants]
    made = graphs.make_card(mean=128, std=64, kind=kind, feature="flat")
    outputs = [value("y", ["N", 1])]
    return graphs.save(folder, kind, nodes, [value("x", ["N", 3, 8, 8])], outputs, stored, made)


SPELT_OUT = [node("Neg", "z", "n"), node("Exp", "n", "e"), node("Add", "e o", "d"), node("Reciprocal", "d", "y")]


@pytest.mark.parametrize(
    ("kind", "ending", "measured"),
    [
        ("sigmoid", [node("Sigmoid", "z", "y")], "logits"),
        ("sigmoid", SPELT_OUT, "probabilities"),
        ("logits", [node("Identity", "z", "y")], "logits"),
    ],
)
def test_one_score_is_that_of_the_second_of_two_classes(tmp_path, images, kind, ending, measured):
    constants = [tensor("o", [1.0])] if ending is SPELT_OUT else []
    model, card = one_score(tmp_path, ending, kind=kind, constants=constants)
    prepared = graph.prepare(model, card=card)
    assert prepared.kind == measured and prepared.binary
    seen = runs.measure(model, images, tmp_path / "run", **SMALL)
    for name in seen.image.values:
        one = seen.sel(image=name)
        own = float(quantised.own_output(model, card, images)[name].ravel()[0])
        p = own if kind == "sigmoid" else float(expit(own))
        assert int(one.label) == int(p > 0.5)
        expected = p if p > 0.5 else 1 - p
        assert float(one.clean_score) == pytest.approx(expected, abs=1e-6)
        assert float(one.clean_log_odds) == pytest.approx(abs(logit(p)), rel=1e-3)
        assert float(one.clean_runner_up_log_odds) == pytest.approx(float(one.clean_log_odds), rel=1e-4)
    fidelity = json.loads((tmp_path / "run" / "manifest.json").read_text())["context"]["checks"]["fidelity"]
    assert not fidelity["differs"] and not fidelity["why_not"] and fidelity["images"] == 4


def test_one_score_takes_two_labels(tmp_path, images):
    model, card = one_score(tmp_path, [node("Sigmoid", "z", "y")], kind="sigmoid")
    cards.write(dataclasses.replace(card, labels=("yes",)), cards.beside(model))
    with pytest.raises(InputError, match="the card has 1 labels, the model 2 classes"):
        runs.measure(model, images, tmp_path / "run", **SMALL)
    cards.write(dataclasses.replace(card, labels=("no", "yes")), cards.beside(model))
    runs.measure(model, images, tmp_path / "run", **SMALL)


# several outputs ------------------------------------------------------------------------------------------------------


def with_outputs(folder, *more):
    """The small convnet with further outputs (name, shape) that are reshapes of its feature map."""
    path, _ = graphs.convnet(folder)
    proto = onnx.load(path)
    for name, shape in more:
        proto.graph.initializer.append(tensor(f"s_{name}", np.array([-1, *shape]), np.int64))
        proto.graph.node.append(node("Reshape", f"flat s_{name}", name))
        proto.graph.output.append(value(name, ["N", *shape]))
    onnx.save(proto, path)
    cards.beside(path).unlink()
    return path


def test_every_output_says_what_it_looks_like(tmp_path, capsys):
    path = with_outputs(tmp_path, ("boxes", (4, 4)), ("mask", (4, 2, 2)))
    shown = graph.describe(path)
    assert shown.output == "logits"
    assert shown.seems == (
        "scores of 5 classes, or an embedding",
        "a list, as of boxes or of sequences",
        "a map, as of a segmentation",
    )
    code, out, _ = runs.call(capsys, "inspect", path)
    assert code == 0 and "output boxes: float32 N x 4 x 4; a list, as of boxes" in out
    drafted = drafting.draft(path).document
    assert drafted["output"]["name"] == "logits" and drafted["output"]["kind"] == "logits"
    assert any("output.name is a guess" in item for item in drafted["source"]["fill_in"])


def test_of_two_that_may_be_scores_none_is_taken(tmp_path):
    path = with_outputs(tmp_path, ("other", (16,)))
    assert graph.describe(path).output is None
    drafted = drafting.draft(path).document
    assert "name" not in drafted["output"]
    assert any("add output.name, one of: logits, other" in item for item in drafted["source"]["fill_in"])


# heads without class scores -------------------------------------------------------------------------------------------


def detector(folder):
    path = with_outputs(folder, ("boxes", (4, 4)))
    graphs.edit(path, lambda m: m.graph.output.pop(0))
    return path


def test_a_head_without_class_scores_is_drafted_as_an_embedding(tmp_path):
    path = detector(tmp_path)
    drafted = drafting.draft(path).document
    assert drafted["output"] == {"name": "pooled", "kind": "embedding"} or drafted["output"]["kind"] == "embedding"
    assert "feature" not in drafted
    (said,) = (item for item in drafted["source"]["fill_in"] if "is measured as an embedding" in item)
    assert "boxes: a list, as of boxes" in said
    card = cards.parse({**drafted, "input": {**drafted["input"], "mean": [128] * 3, "std": [64] * 3}})
    cards.write(card, cards.beside(path))
    runs.write_images(tmp_path / "images", 4, size=16)
    seen = runs.measure(path, tmp_path / "images", tmp_path / "run", **SMALL)
    assert seen.layer.values.tolist() == [drafted["output"]["name"]] and np.isfinite(seen.isotropy_score).all()


def test_a_head_without_class_scores_says_what_can_be_done(tmp_path):
    path = detector(tmp_path)
    runs.write_images(tmp_path / "images", 4, size=16)
    cards.write(graphs.make_card((16, 16), mean=128, std=64), cards.beside(path))
    with pytest.raises(InputError, match=r"a list, as of boxes.*or an inner layer, with output\.kind embedding"):
        runs.measure(path, tmp_path / "images", tmp_path / "run", **SMALL)


# quantised layers -----------------------------------------------------------------------------------------------------


def test_a_layer_is_what_its_readers_read(tmp_path, images):
    """Quantising tools leave a Relu out where the range of the codes begins at 0, and keep its name."""
    matrix = np.random.default_rng(5).standard_normal((192, 6)) / 10
    head = np.random.default_rng(6).standard_normal((6, 3))

    def made(name, nodes, constants=()):
        nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat M", "g" if name == "plain" else "r"), *nodes]
        stored = [tensor("M", matrix), tensor("W", head), *constants]
        card = graphs.make_card(mean=128, std=64, feature="r")
        return graphs.save(tmp_path, name, nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 3])], stored, card)

    plain, _ = made("plain", [node("Relu", "g", "r"), node("MatMul", "r W", "y")])
    constants = [tensor("s", 0.02, np.float32), tensor("z", 0, np.uint8)]
    pair = [node("QuantizeLinear", "r s z", "q"), node("DequantizeLinear", "q s z", "d"), node("MatMul", "d W", "y")]
    coded, card = made("coded", pair, constants)
    assert "Layer r is taken as its quantisation leaves it." in graph.prepare(coded, card=card).notes
    a, b = (runs.measure(path, images, tmp_path / path.stem, radii=(8.0, 32.0), trials=12) for path in (plain, coded))
    assert a.layer.values.tolist() == b.layer.values.tolist() == ["r"]
    np.testing.assert_allclose(b.clean_feature_norm, a.clean_feature_norm, atol=0.03)
    np.testing.assert_allclose(b.feature_distance, a.feature_distance, rtol=0.1, atol=0.05)


def test_a_layer_that_is_an_output_too_is_what_the_world_reads(tmp_path):
    made = [node("Flatten", "x", "flat"), node("MatMul", "flat M", "r")]
    pair = [node("QuantizeLinear", "r s z", "q"), node("DequantizeLinear", "q s z", "d"), node("MatMul", "d W", "y")]
    stored = [tensor("M", np.eye(192, 6)), tensor("W", np.eye(6, 3)), tensor("s", 0.02), tensor("z", 0, np.uint8)]
    inputs = [value("x", ["N", 3, 8, 8])]
    for outputs, codes in ((["y"], True), (["y", "r"], False)):
        card = graphs.make_card(feature="r", output_name="y")
        shapes = [value(name, ["N", 3 if name == "y" else 6]) for name in outputs]
        model, _ = graphs.save(tmp_path, "net", made + pair, inputs, shapes, stored, card)
        assert bool(graph.prepare(model, card=card).quantised) == codes
        inner = dataclasses.replace(card, kind="embedding", output_name="r", feature_name=None)
        prepared = graph.prepare(model, card=inner)
        assert prepared.layers == ("r",) and bool(prepared.quantised) == codes
        rows = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
        scores, layer = all_outputs(prepared, Backend("CPUExecutionProvider"))(rows)  # one tensor under both names
        np.testing.assert_array_equal(scores, layer)
        assert (scores.min() >= 0) == codes


def test_a_softmax_over_one_score_is_refused(tmp_path):
    model, card = one_score(tmp_path, [node("Softmax", "z", "y", axis=1)], kind="probabilities")
    with pytest.raises(InputError, match=r"a Softmax over one score.*name 'z' in output\.name"):
        graph.prepare(model, card=card)


def test_one_probability_is_no_logit(tmp_path, images):
    model, _ = one_score(tmp_path, SPELT_OUT, kind="logits", constants=[tensor("o", [1.0])])
    with pytest.raises(InputError, match=r"the one score of every image lies in 0\.\.1.*sigmoid"):
        runs.measure(model, images, tmp_path / "run", **SMALL)
