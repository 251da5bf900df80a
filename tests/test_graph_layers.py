"""Finding scores and layers in a graph."""

import dataclasses

import graphs
import numpy as np
import onnx
import onnx.reference
import pytest
from graphs import edit, evaluate, normalise, pixels
from onnx import TensorProto, helper

from analyzer import graph
from analyzer.errors import InputError

# --- scores -----------------------------------------------------------------------------------------------------------


def with_end(path, nodes, output, shape, weights=()):
    """Replace the output of a model by `output`, which `nodes` compute."""

    def change(model):
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(weights)
        del model.graph.output[:]
        model.graph.output.append(graphs.value(output, shape))

    return edit(path, change)


def probabilities(card):
    return dataclasses.replace(card, kind="probabilities")


def test_logits_are_found_behind_reshapes_and_casts(tmp_path):
    path, card = graphs.convnet(tmp_path)
    nodes = [
        graphs.node("Unsqueeze", "logits axes", "wide"),
        graphs.node("Softmax", "wide", "soft", axis=1),
        graphs.node("Cast", "soft", "double", to=TensorProto.DOUBLE),
        graphs.node("Flatten", "double", "flat_scores"),
        graphs.node("Identity", "flat_scores", "scores"),
    ]
    with_end(path, nodes, "scores", ["N", 5], [graphs.tensor("axes", [2, 3], np.int64)])
    prepared = graph.prepare(path, card=probabilities(card))
    assert prepared.kind == "logits" and any("before the final Softmax: wide" in n for n in prepared.notes)
    images = {"x": normalise(pixels(), card)}
    scores = evaluate(prepared.model, images)[0]
    assert scores.shape == (3, 5)
    np.testing.assert_array_equal(scores, onnx.reference.ReferenceEvaluator(onnx.load(path)).run(["logits"], images)[0])


def test_log_softmax_counts_as_probabilities_and_as_logits(tmp_path):
    path, card = graphs.convnet(tmp_path)
    with_end(path, [graphs.node("LogSoftmax", "logits", "log_scores")], "log_scores", ["N", 5])
    assert graph.prepare(path, card=probabilities(card)).outputs[0] == "logits"
    assert graph.prepare(path, card=card).outputs[0] == "log_scores"


def test_probabilities_without_a_softmax_stay_probabilities(tmp_path):
    path, card = graphs.convnet(tmp_path)
    with_end(path, [graphs.node("HardSigmoid", "logits", "scores")], "scores", ["N", 5])
    prepared = graph.prepare(path, card=probabilities(card))
    assert prepared.kind == "probabilities" and prepared.outputs[0] == "scores"


def test_a_card_that_calls_a_softmax_logits_is_refused(tmp_path):
    path, card = graphs.convnet(tmp_path, softmax=True)
    with pytest.raises(InputError, match=r"ends in a Softmax but the card says logits.*'logits'"):
        graph.prepare(path, card=dataclasses.replace(card, kind="logits"))
    inner = dataclasses.replace(card, kind="logits", output_name="logits")
    assert graph.prepare(path, card=inner).outputs[0] == "logits"


@pytest.mark.parametrize(("version", "axis", "right"), [(17, 0, False), (17, -1, True), (17, 1, True), (11, 0, False)])
def test_the_softmax_must_run_over_the_classes(tmp_path, version, axis, right):
    path, card = graphs.convnet(tmp_path, opset=version)
    with_end(path, [graphs.node("Softmax", "logits", "scores", axis=axis)], "scores", ["N", 5])
    if right:
        assert graph.prepare(path, card=probabilities(card)).kind == "logits"
    else:
        with pytest.raises(InputError, match="runs over axis 0"):
            graph.prepare(path, card=probabilities(card))


def test_outputs_that_are_no_class_scores_are_refused(tmp_path):
    path, card = graphs.convnet(tmp_path)
    with_end(path, [], "relu2", ["N", 16, 8, 8])
    with pytest.raises(InputError, match=r"\(N, classes\) is expected"):
        graph.prepare(path, card=card)
    with_end(path, [graphs.node("ArgMax", "logits", "best", axis=1, keepdims=0)], "best", ["N"])
    with pytest.raises(InputError, match=r"\(N, classes\) is expected"):
        graph.prepare(path, card=card)
    with_end(path, [graphs.node("Cast", "logits", "whole", to=TensorProto.INT64)], "whole", ["N", 5])
    edit(path, lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.INT64))
    with pytest.raises(InputError, match="holds int64, not floats"):
        graph.prepare(path, card=card)


def test_logits_that_only_follow_the_batch_are_no_error(tmp_path):
    path, card = graphs.convnet(tmp_path)
    nodes = [
        graphs.node("Shape", "fc2", "fc2_shape"),
        graphs.node("Gather", "fc2_shape first", "rows", axis=0),
        graphs.node("Concat", "rows classes", "wanted", axis=0),
        graphs.node("ConstantOfShape", "wanted", "scores"),
    ]
    constants = [graphs.tensor("first", [0], np.int64), graphs.tensor("classes", [5], np.int64)]
    with_end(path, nodes, "scores", ["N", 5], constants)
    prepared = graph.prepare(path, card=card, layers=["fc2"])
    scores, feature = evaluate(prepared.model, {"x": normalise(pixels(), card)})
    np.testing.assert_array_equal(scores, np.zeros((3, 5)))
    assert feature.shape == (3, 12) and prepared.unbounded == ("ConstantOfShape",)


# --- layers -----------------------------------------------------------------------------------------------------------


def test_the_feature_is_looked_for_where_the_card_names_none(tmp_path):
    path, card = graphs.convnet(tmp_path)
    assert graph.prepare(path, card=card).layers == ("fc2",)
    assert graph.prepare(path, card=dataclasses.replace(card, feature_name="relu2")).layers == ("relu2",)
    both = graph.prepare(path, card=dataclasses.replace(card, feature_name="relu2"), layers=["pool1", "fc2"])
    assert both.layers == ("pool1", "fc2") and len(both.outputs) == 3


def test_the_feature_is_found_past_dropout_and_quantisation(tmp_path):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        end = model.graph.node.pop()
        model.graph.node.extend(
            [
                helper.make_node("Dropout", ["fc2"], ["dropped"]),
                helper.make_node("QuantizeLinear", ["dropped", "scale"], ["small"]),
                helper.make_node("DequantizeLinear", ["small", "scale"], ["again"]),
            ]
        )
        end.input[0] = "again"
        model.graph.node.append(end)
        model.graph.initializer.append(graphs.tensor("scale", 0.1))

    assert graph.prepare(edit(path, change), card=card).layers == ("fc2",)


def test_a_network_without_weight_layers_needs_a_named_feature(tmp_path):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        del model.graph.node[:]
        model.graph.node.append(helper.make_node("GlobalAveragePool", ["x"], ["pooled"]))
        model.graph.node.append(helper.make_node("Flatten", ["pooled"], ["logits"]))

    edit(path, change)
    with pytest.raises(InputError, match=r"no feature layer.*pooled"):
        graph.prepare(path, card=card)
    assert graph.prepare(path, card=card, layers=["pooled"]).layers == ("pooled",)


def test_unknown_layers_list_near_names(tmp_path):
    path, card = graphs.convnet(tmp_path)
    with pytest.raises(InputError, match=r"no layer 'fc_2'; near it: .*fc2"):
        graph.prepare(path, card=card, layers=["fc_2"])
    with pytest.raises(InputError, match=r"no layer 'zzzzzzzz'; near it: .*logits"):
        graph.prepare(path, card=card, layers=["zzzzzzzz"])


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (["w4"], "is a constant"),
        (["shape"], "is a constant or a shape"),
        (["best"], "int64"),
        (["fc2", "fc2"], "twice"),
    ],
)
def test_layers_that_cannot_be_measured_are_refused(tmp_path, layers, says):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        model.graph.node.append(helper.make_node("Shape", ["conv1"], ["shape"]))
        model.graph.node.append(helper.make_node("ArgMax", ["fc2"], ["best"]))

    edit(path, change)
    with pytest.raises(InputError, match=says):
        graph.prepare(path, card=card, layers=layers)


def test_taps_before_the_activation_are_noted_and_kept(tmp_path):
    path, card = graphs.convnet(tmp_path)
    prepared = graph.prepare(path, card=card, layers=["fc2_pre"])
    assert any("fc2_pre is taken before its Relu" in note and "fc2 comes after" in note for note in prepared.notes)
    assert evaluate(prepared.model, {"x": normalise(pixels(), card)})[1].min() < 0


def test_a_nodes_own_name_stands_for_its_output(tmp_path):
    path, card = graphs.convnet(tmp_path)
    prepared = graph.prepare(path, card=card, layers=["node_fc2"])
    assert prepared.layers == ("node_fc2",) and prepared.outputs[1] == "fc2"


def test_scores_and_the_input_itself_can_be_layers(tmp_path):
    path, card = graphs.convnet(tmp_path, layout="NHWC")
    prepared = graph.prepare(path, card=card, layers=["logits", "x", "fc2"])
    assert len(set(prepared.outputs)) == 4
    images = normalise(pixels(), card)
    scores, logits, entered, _ = evaluate(prepared.model, {prepared.input: images})
    np.testing.assert_array_equal(scores, logits)
    np.testing.assert_array_equal(entered, images.transpose(0, 2, 3, 1))


def test_names_of_a_prepared_graph_do_not_clash_when_prepared_again(tmp_path):
    path, card = graphs.convnet(tmp_path, channels="BGR", fixed_batch=1)
    once = graph.prepare(path, card=card)
    path.write_bytes(once.model)
    plain = dataclasses.replace(card, channels="BGR", output_name="logits")
    again = graph.prepare(path, card=plain)
    assert not again.input.startswith(once.input + "_") and again.input != once.input
    images = normalise(pixels(), card)
    np.testing.assert_array_equal(
        evaluate(again.model, {again.input: images[:, ::-1].copy()})[0], evaluate(once.model, {once.input: images})[0]
    )
