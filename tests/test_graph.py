"""Prepared graphs: their input, batch and opset; descriptions and drafted cards."""

import dataclasses
import hashlib
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx.reference
import pytest
from graphs import edit, evaluate, normalise, pixels
from onnx import TensorProto, helper

from analyzer import card as cards
from analyzer import graph
from analyzer.errors import InputError
from analyzer.graph import opset

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


# --- the canonical input ----------------------------------------------------------------------------------------------

VARIANTS = [
    {},
    {"layout": "NHWC"},
    {"channels": "BGR"},
    {"layout": "NHWC", "channels": "BGR"},
    {"input_type": "uint8"},
    {"input_type": "uint8", "layout": "NHWC", "channels": "BGR", "softmax": True},
    {"softmax": True},
    {"fixed_batch": 2},
    {"fixed_batch": 1, "layout": "NHWC"},
    {"opset": 11, "softmax": True},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_gives_the_plain_networks_logits_and_feature(tmp_path, variant):
    plain, plain_card = graphs.convnet(tmp_path, name="plain")
    expected = onnx.reference.ReferenceEvaluator(onnx.load(plain)).run(
        ["logits"], {"x": normalise(pixels(), plain_card)}
    )[0]
    path, card = graphs.convnet(tmp_path, **variant)
    prepared = graph.prepare(path, card=card)
    scores, feature = evaluate(prepared.model, {prepared.input: normalise(pixels(), card)})
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert prepared.kind == "logits" and prepared.layers == ("fc2",)
    assert feature.shape == (3, 12) and feature.dtype == np.float32 and (feature >= 0).all()
    assert prepared.input_type == variant.get("input_type", "float32")


def test_float16_models_give_scores_as_they_leave_the_file_and_float32_features(tmp_path):
    path, card = graphs.convnet(tmp_path, input_type="float16", layout="NHWC")
    prepared = graph.prepare(path, card=card)
    assert prepared.input_type == "float16" and prepared.precision == "float16"
    scores, feature = evaluate(prepared.model, {prepared.input: normalise(pixels(), card)})
    assert scores.dtype == np.float16 and feature.dtype == np.float32


def test_grey_images(tmp_path):
    path, card = graphs.convnet(tmp_path, channels="L")
    prepared = graph.prepare(path, card=card)
    entry = onnx.load_from_string(prepared.model).graph.input[0]
    assert [d.dim_value for d in entry.type.tensor_type.shape.dim][1:] == [1, 16, 16]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": (8, 8)}, r"shape \['free', 3, 16, 16\]"),
        ({"layout": "NHWC"}, "NHWC RGB"),
        ({"channels": "L", "mean": (0.0,), "std": (1.0,)}, "NCHW L"),
        ({"input_name": "y"}, "no input 'y'.*'x'"),
        ({"output_name": "y"}, "no output 'y'.*'logits'"),
    ],
)
def test_a_card_that_contradicts_the_graph_is_refused(tmp_path, change, says):
    path, card = graphs.convnet(tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        graph.prepare(path, card=dataclasses.replace(card, **change))
    assert str(path) in str(caught.value)


def test_an_input_of_integers_is_refused(tmp_path):
    path, card = graphs.convnet(tmp_path)
    edit(path, lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64))
    with pytest.raises(InputError, match="takes int64; one of float32"):
        graph.prepare(path, card=card)


def test_a_free_image_size_takes_the_cards(tmp_path):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            dim.dim_param = "side"

    prepared = graph.prepare(edit(path, change), card=card)
    entry = onnx.load_from_string(prepared.model).graph.input[0]
    assert [d.dim_value for d in entry.type.tensor_type.shape.dim][2:] == [16, 16]


def test_several_inputs_and_outputs_are_listed(tmp_path):
    path, card = graphs.convnet(tmp_path)
    edit(path, lambda m: m.graph.output.append(graphs.value("fc2", ["N", 12])))
    with pytest.raises(InputError, match="outputs: 'logits', 'fc2'"):
        graph.prepare(path, card=card)
    named = dataclasses.replace(card, output_name="logits")
    assert graph.prepare(path, card=named).outputs == ("logits", "fc2")

    edit(path, lambda m: m.graph.input.append(graphs.value("mask", ["N", 3, 16, 16])))
    with pytest.raises(InputError, match="inputs: 'x', 'mask'"):
        graph.prepare(path, card=named)
    with_input = dataclasses.replace(named, input_name="x")
    assert graph.prepare(path, card=with_input).input == "x"  # nothing needs the mask

    def use_mask(model):
        node = model.graph.node[0]
        model.graph.node.insert(0, helper.make_node("Mul", ["x", "mask"], ["masked"]))
        model.graph.node[1].input[0] = "masked"
        assert node.op_type == "Conv"

    edit(path, use_mask)
    with pytest.raises(InputError, match="needs the inputs 'mask'"):
        graph.prepare(path, card=with_input)


# --- batch and opset --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["initializer", "value", "value_ints"])
@pytest.mark.parametrize(
    ("target", "allowzero"),
    [([2, 16], 0), ([2, -1], 0), ([2, 16, 1, 1], 0), ([2, 16], 1), ([2, -1], 1), ([0, -1], 0), ([-1, 16], 0)],
)
def test_a_fixed_batch_is_made_free(tmp_path, target, allowzero, stored):
    path, card = graphs.convnet(tmp_path, fixed_batch=2)

    def change(model):
        node = next(n for n in model.graph.node if n.op_type == "Reshape")
        node.attribute.append(helper.make_attribute("allowzero", allowzero))
        constant = next(t for t in model.graph.initializer if t.name == "flat_shape")
        constant.CopyFrom(graphs.tensor("flat_shape", target, np.int64))
        if stored != "initializer":
            content = {"value": constant} if stored == "value" else {"value_ints": target}
            model.graph.node.insert(0, helper.make_node("Constant", [], ["flat_shape"], **content))
            model.graph.initializer.remove(constant)
        if len(target) == 4:
            last = helper.make_node("Flatten", ["wide"], ["flat"])
            node.output[0] = "wide"
            model.graph.node.insert(list(model.graph.node).index(node) + 1, last)

    prepared = graph.prepare(edit(path, change), card=card)
    assert prepared.declared_batch == 2
    assert any("Batch dimension 2 made free" in note for note in prepared.notes)
    plain, _ = graphs.convnet(tmp_path, name="plain")
    images = normalise(pixels(count=5), card)
    expected = onnx.reference.ReferenceEvaluator(onnx.load(plain)).run(None, {"x": images})[0]
    np.testing.assert_allclose(evaluate(prepared.model, {"x": images})[0], expected, rtol=1e-5, atol=1e-5)


def test_a_newer_opset_is_lowered_for_cuda_only(tmp_path):
    path, card = graphs.convnet(tmp_path, opset=22, external_data=True)
    cpu = onnx.load_from_string(graph.prepare(path, card=card).model)
    prepared = graph.prepare(path, card=card, device="cuda")
    cuda = onnx.load_from_string(prepared.model)
    assert (cpu.opset_import[0].version, cuda.opset_import[0].version) == (22, 21)
    assert [n.op_type for n in cpu.graph.node] == [n.op_type for n in cuda.graph.node]
    assert {t.name for t in cpu.graph.initializer} == {t.name for t in cuda.graph.initializer}
    assert "Opset 22 lowered to 21 for CUDA." in prepared.notes


def test_an_operator_that_cannot_be_lowered_keeps_the_graph(tmp_path):
    path, _ = graphs.convnet(tmp_path, opset=24)
    model = onnx.load(path)
    model.graph.node[1].op_type = "Swish"
    before = model.SerializeToString(deterministic=True)
    (note,) = opset.lower_for_cuda(model)
    assert "No Previous Version of Swish" in note and "on the CPU: MaxPool" in note
    assert model.SerializeToString(deterministic=True) == before


# --- describe, draft_card, sha256 -------------------------------------------------------------------------------------


def test_describe(tmp_path):
    path, _ = graphs.convnet(tmp_path, softmax=True, external_data=True)
    shown = graph.describe(path)
    assert shown.inputs == (("x", "float32", ("N", 3, 16, 16)),)
    assert shown.outputs == (("scores", "float32", ("N", 5)),)
    assert shown.opset == 17 and shown.producer == "analyzer tests" and shown.softmax
    assert shown.parameters == 8 * 27 + 8 + 16 * 72 + 16 + 16 * 12 + 12 + 12 * 5 + 5
    assert shown.logits == "logits" and shown.external_files == ("convnet.data",)
    assert shown.features[:2] == (("fc2", (None, 12), "Relu"), ("flat", (None, 16), "Flatten"))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("softmax", [False, True])
def test_a_drafted_card_fits_its_model(tmp_path, layout, softmax):
    path, card = graphs.convnet(tmp_path, layout=layout, softmax=softmax)
    drafted = cards.parse(graph.draft_card(path))
    assert (drafted.layout, drafted.size, drafted.channels, drafted.kind) == (layout, (16, 16), "RGB", card.kind)
    assert drafted.feature_name == "fc2" and set(drafted.mean) == {0.0} and set(drafted.std) == {1.0}
    assert any("mean and std" in line for line in drafted.source["fill_in"])
    assert graph.draft_card(path)["input"]["resize"]["interpolation"] == drafted.resize.interpolation == "bilinear"
    assert graph.prepare(path, card=drafted).layers == ("fc2",)


def test_no_card_is_drafted_for_several_inputs_or_no_image(tmp_path):
    path, _ = graphs.convnet(tmp_path)
    content = path.read_bytes()
    edit(path, lambda m: m.graph.input.append(graphs.value("mask", ["N", 3])))
    with pytest.raises(InputError, match="x, mask"):
        graph.draft_card(path)
    path.write_bytes(content)
    edit(path, lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 7))
    with pytest.raises(InputError, match="1 or 3 channels"):
        graph.draft_card(path)


def test_sha256_covers_external_data_and_not_the_name(tmp_path):
    path, _ = graphs.convnet(tmp_path / "a")
    assert graph.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    path, _ = graphs.convnet(tmp_path / "b", external_data=True)
    first = graph.sha256(path)
    assert graph.sha256(path.rename(path.with_name("renamed.onnx"))) == first
    data = path.with_suffix(".data")
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(content)
    assert graph.sha256(path.with_name("renamed.onnx")) != first


# --- graphs of well-known networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "feature", "logits", "width"),
    [
        ("bvlc_alexnet", "r21", "r24", 4096),
        ("inception_v1", "r141", "r143", 1024),
        ("resnet50", "r173", "r174", 2048),
        ("vgg19", "r43", "r46", 4096),
        ("squeezenet", "r60", "r65", 512),
        ("densenet121", "r908", "fc6_1", 1024),
    ],
)
def test_ends_of_well_known_networks(name, feature, logits, width):
    path = LIGHT / f"light_{name}.onnx"
    shown = graph.describe(path)
    assert shown.logits == logits
    assert shown.features[0][0] == feature and shown.features[0][1][1] == width
    prepared = graph.prepare(path, card=cards.parse(graph.draft_card(path)))
    assert prepared.kind == "logits" and prepared.layers == (feature,) and prepared.declared_batch == 1


def test_prepared_graphs_are_the_same_every_time(tmp_path):
    path, card = graphs.convnet(tmp_path, layout="NHWC", channels="BGR", fixed_batch=2)
    assert graph.prepare(path, card=card) == graph.prepare(path, card=card)
