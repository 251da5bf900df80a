"""Many layers at once: their names, and features reduced inside the graph."""

import json

import graphs
import numpy as np
import pytest
import runs
from onnx import helper

from analyzer import graph, open_run, store, study
from analyzer.cli import main
from analyzer.errors import InputError
from analyzer.session import Backend, Session
from analyzer.statistics import FLOOR_COPIES
from analyzer.study import LabelledImage, Model, observe
from analyzer.study.model import reduced_batch

PIXELS = np.random.default_rng(3).uniform(0, 255, (3, 16, 16)).astype(np.float32)


def layers(folder, *asked, **options):
    model, card = graphs.convnet(folder, **options)
    return graph.prepare(model, card=card, layers=asked).layers


def test_all_are_the_activations_first_to_last(tmp_path):
    assert layers(tmp_path, "all") == ("relu1", "relu2", "fc2")


def test_patterns_keep_the_order_of_the_graph_and_each_name_once(tmp_path):
    assert layers(tmp_path, "relu*") == ("relu1", "relu2")
    assert layers(tmp_path, "fc2", "*2") == layers(tmp_path, "*2", "fc2") == ("conv2", "relu2", "pool2", "fc2")
    assert layers(tmp_path, "fc2", "relu1") == ("fc2", "relu1")  # without a pattern, as they were asked for


def with_commas(folder):
    """A network with a tensor "f,1" besides a tensor "f" and a node "a,b"."""
    nodes = [
        graphs.node("GlobalAveragePool", "x", "pooled"),
        graphs.node("Flatten", "pooled", "f"),
        helper.make_node("Relu", ["f"], ["f,1"], name="a,b"),
        helper.make_node("Gemm", ["f,1", "w"], ["logits"]),
    ]
    ends = [graphs.value("x", ["N", 3, 8, 8])], [graphs.value("logits", ["N", 2])]
    return graphs.save(folder, "commas", nodes, *ends, [graphs.tensor("w", np.ones((3, 2)))], graphs.make_card())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["f,1"], ("f,1",)),
        (["f,1", "f"], ("f,1", "f")),
        (["f, pooled"], ("f", "pooled")),
        (["pooled,f", "f,1"], ("pooled", "f", "f,1")),
        (["pooled", "f"], ("pooled", "f")),
        ([",pooled,,", ""], ("pooled",)),
        (["a,b"], ("a,b",)),
        (["p*,f"], ("pooled", "f")),
    ],
    ids=str,
)
def test_a_text_that_is_a_name_is_one_layer_and_any_other_a_list(tmp_path, asked, expected):
    model, card = with_commas(tmp_path)
    assert graph.prepare(model, card=card, layers=asked).layers == expected


def test_layers_with_commas_from_the_command_line(tmp_path, capsys):
    model, _ = with_commas(tmp_path / "model")
    runs.write_images(tmp_path / "images", 3, 8)
    small = ["--radii", "4", "--trials", "3", "--min-confidence", "0", "--permutations", "0", "--provider", "cpu"]
    for number, asked in enumerate((["--layers", "f,1"], ["--layers", "f,1", "--layers", "pooled,f"])):
        out = tmp_path / str(number)
        with pytest.raises(SystemExit) as stopped:
            main(["run", str(model), "--images", str(tmp_path / "images"), "--out", str(out), *small, *asked])
        assert stopped.value.code == 0, capsys.readouterr().err
        assert store.Run(out).layers == (["f,1"], ["f,1", "pooled", "f"])[number]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["bound", str(model), "--layers", "f,1", "--layers", "f,pooled", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert [row["tensor"] for row in document["bounds"] if row["what"] == "layer"] == ["f,1", "f", "pooled"]


def test_a_pattern_that_matches_nothing_lists_tensors(tmp_path):
    with pytest.raises(InputError, match=r"`layers` 'block\*' matches no tensor before the scores; .* e\.g\. .*fc2"):
        layers(tmp_path, "block*")


def test_a_graph_without_activations_has_no_all(tmp_path):
    model, card = graphs.linear(tmp_path, np.eye(2, 192))
    with pytest.raises(InputError, match="`layers` 'all' finds no activation; name tensors or a pattern"):
        graph.prepare(model, card=card, layers=("all",))


def test_gates_count_as_the_product(tmp_path):
    nodes = [
        graphs.node("GlobalAveragePool", "x", "pooled"),
        graphs.node("Sigmoid", "pooled", "gate"),
        graphs.node("Mul", "x gate", "gated"),
        graphs.node("Flatten", "gated", "flat"),
        graphs.node("Gemm", "flat w", "logits"),
    ]
    ends = [graphs.value("x", ["N", 3, 8, 8])], [graphs.value("logits", ["N", 2])]
    weights = [graphs.tensor("w", np.ones((192, 2)))]
    model, card = graphs.save(tmp_path, "gate", nodes, *ends, weights, graphs.make_card())
    assert graph.prepare(model, card=card, layers=("all",)).layers == ("gated", "flat")


@pytest.mark.parametrize("options", [{}, {"opset": 9}, {"layout": "NHWC"}, {"input_type": "float16"}], ids=str)
@pytest.mark.parametrize("changed", [{}, {"trials": 20}, {"clip": True}], ids=str)
def test_reduced_features_give_what_features_give(tmp_path, options, changed):
    model, card = graphs.convnet(tmp_path, **options)
    prepared = graph.prepare(model, card=card, layers=("all",))
    protocol = runs.protocol(**changed)
    size = reduced_batch(protocol)
    assert size == 1 + max(protocol.trials + min(protocol.trials, 20), FLOOR_COPIES)
    plain = Model(prepared, Session(prepared, pixel_shape=PIXELS.shape, backend=Backend("cpu", 1), batch_size=8), card)
    image = LabelledImage(PIXELS, "ab" * 32, 0)
    found = {"plain": observe(plain, image, protocol)}
    found["reduced"] = observe(plain.reduced(protocol), image, protocol)
    assert found["reduced"].keys() == found["plain"].keys()
    loose = {"log_odds_noise_floor", "feature_noise_floor", "mantel_p", "linearity_floor", "log_odds_linearity_floor"}
    for name, values in found["plain"].items():
        if name in loose:
            continue
        least = 4e-3 if name == "linearity" else 1e-4  # what float32 products resolve of a sum
        np.testing.assert_allclose(found["reduced"][name], values, rtol=2e-3, atol=least, err_msg=name)
    assert found["reduced"]["feature_distance"].shape == (2, protocol.trials, 3)
    assert found["reduced"]["feature_sketch"].shape == (2, protocol.trials, 3, 31)


def test_a_run_reduces_when_the_features_would_take_too_much(tmp_path, monkeypatch):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(tmp_path / "images", 3)
    plain = runs.measure(model, tmp_path / "images", tmp_path / "plain", layers=("all",))
    monkeypatch.setattr(study.model, "_HELD_FEATURES", 0)
    monkeypatch.setattr(graph.prepare.__globals__["_row_bytes"], "__code__", (lambda *_: 0).__code__)
    seen = []
    reduced = runs.measure(model, tmp_path / "images", tmp_path / "reduced", layers=("all",), progress=seen.append)
    assert list(reduced.layer.values) == ["relu1", "relu2", "fc2"]
    assert (
        seen[-1].passes == seen[-1].expected == 3 * 5 * 13
    )  # 2 families x 2 radii and the floor, 1 + 6 + 6 halves each
    np.testing.assert_allclose(reduced.mantel_r, plain.mantel_r, atol=1e-3)
    np.testing.assert_allclose(reduced.lipschitz, plain.lipschitz, rtol=1e-3)
    np.testing.assert_allclose(reduced.participation_ratio, plain.participation_ratio, rtol=1e-3)
    with open_run(tmp_path / "reduced") as opened:
        assert opened.sizes["layer"] == 3
    assert "mantel_r_mean@0.5/relu1" in store.Run(tmp_path / "reduced").read_summary()
