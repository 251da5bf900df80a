"""Builds of a network: what each form is made of, that its card holds, and what drift says of it."""

import graphs
import numpy as np
import onnx
import pytest
import runs
from exporting import command, loaded

from analyzer import card as cards
from analyzer import drift, graph


@pytest.fixture(scope="module")
def exporter():
    yield from loaded("variants", "sympy", "onnxconverter_common")


@pytest.fixture(scope="module")
def made(exporter, tmp_path_factory):
    """A small network, its images, and every build of it."""
    folder = tmp_path_factory.mktemp("variants")
    model, _ = graphs.convnet(folder)
    runs.write_images(folder / "images", 12)
    options = ["--images", folder / "images", "--out", folder / "out", "--fp16", "--calibration-images", 8]
    forms = [word for form in exporter.FORMS for word in ("--int8", form)]
    assert exporter.main([str(a) for a in (model, *options, *forms, "--per-channel")]) == 0
    return folder


def build(made, form):
    return made / "out" / f"convnet_{'fp16' if form == 'fp16' else f'int8_{form}_per_channel'}.onnx"


@pytest.mark.parametrize(
    ("form", "operators"),
    [
        ("fp16", {"Cast", "Conv"}),
        ("qdq", {"QuantizeLinear", "DequantizeLinear", "Conv"}),
        ("qoperator", {"QLinearConv"}),
        ("dynamic", {"DynamicQuantizeLinear", "ConvInteger"}),
    ],
)
def test_each_form_is_what_it_is_called(made, form, operators):
    model = build(made, form)
    assert operators <= {node.op_type for node in onnx.load(model).graph.node}
    card, original = cards.read(cards.beside(model)), cards.read(cards.beside(made / "convnet.onnx"))
    assert cards.digest(card) != cards.digest(original)  # its source is its own
    assert (card.mean, card.std, card.kind, card.layout) == (
        original.mean,
        original.std,
        original.kind,
        original.layout,
    )
    source = card.source
    assert source["build_of"] == {"file": "convnet.onnx", "sha256": graph.sha256(made / "convnet.onnx")}
    assert source["made"]["form"] == form and source["sha256"] == graph.sha256(model)
    assert source["verification"]["same_class"].endswith("of 8 images")
    assert 0 < source["verification"]["largest_relative_difference"] < 0.1


def test_drift_tells_the_builds_apart(made, tmp_path):
    """Half precision is nearer than INT8, which does not answer small noise as the original does."""
    models = {"fp32": made / "convnet.onnx", **{form: build(made, form) for form in ("fp16", "qdq", "qoperator")}}
    for name, model in models.items():
        runs.measure(model, made / "images", tmp_path / name, radii=(0.25, 1.0, 8.0), trials=20, permutations=0)
    document = drift(tmp_path / "fp32", [tmp_path / name for name in ("fp16", "qdq", "qoperator")])
    size = {c["name"]: c["drift_clean_log_odds_median"]["value"] for c in document["candidates"]}
    assert 0 < 5 * size["fp16"] < size["qdq"]
    assert size["qdq"] == pytest.approx(size["qoperator"], rel=0.5)
    for candidate in document["candidates"]:
        assert candidate["layers"], candidate["name"]
        assert np.isfinite(candidate["drift_clean_feature_relative_median"]["value"])
        coarse = any(text in candidate["verdict"] for text in ("rounding steps", "answer noise"))
        assert coarse == (candidate["name"] != "fp16"), candidate["verdict"]


def test_an_existing_build_is_not_replaced_and_nothing_to_make_is_said(exporter, made, capsys):
    options = [made / "convnet.onnx", "--images", made / "images", "--out", made / "out"]
    code, _, err = command(exporter, capsys, *options, "--fp16")
    assert code == 2 and "exists already" in err
    code, _, err = command(exporter, capsys, *options)
    assert code == 2 and "nothing to make" in err
    code, out, _ = command(exporter, capsys, *options, "--fp16", "--force")
    assert code == 0 and "same class on 12 of 12 images" in out


def test_what_the_tools_cannot_make_is_one_line(exporter, tmp_path, capsys, monkeypatch):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(tmp_path / "images", 2)

    def fail(*_, **__):
        raise RuntimeError("the tool\nfailed")

    monkeypatch.setattr(exporter.quantization, "quantize_static", fail)
    options = ["--images", tmp_path / "images", "--out", tmp_path / "out", "--int8", "qdq"]
    code, _, err = command(exporter, capsys, model, *options)
    assert code == 4 and err.strip() == f"error: {model}: qdq cannot be made of it: the tool failed"
    assert not list((tmp_path / "out").iterdir())
