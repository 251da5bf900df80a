import dataclasses
import hashlib
import os
import pickle
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper

from analyzer import card as cards
from analyzer import graph
from analyzer.errors import InputError
from analyzer.graph import files, opset, safety
from analyzer.system import run_child

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def edit(path, change):
    """Apply `change(model)` to the model file in place."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def evaluate(content, feeds):
    return onnx.reference.ReferenceEvaluator(onnx.load_from_string(content)).run(None, feeds)


def pixels(count=3, size=16, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size)).astype(np.float32)


def normalise(images, card):
    return (images - np.float32(card.mean[0])) / np.float32(card.std[0])


# --- files that are no ONNX model -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + b"\0" * 100, "zip archive"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "HDF5"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 20, "TensorFlow Lite"),
        (b'\x10\0\0\0\0\0\0\0{"a":{"dtype":"F32"}}' + b" " * 40, "safetensors"),
        (b'{"not": "a model"}', "text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"just some words", "not an ONNX model"),
        (b"\x08\x0a", "no complete ONNX graph"),
        (bytes(range(7, 200)), "ONNX"),
    ],
)
def test_foreign_files_are_refused_by_what_they_are(tmp_path, content, says):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for use in (files.read, graph.sha256, graph.describe):
        with pytest.raises(InputError, match=says) as caught:
            use(path)
        assert str(path) in str(caught.value)


def test_text_that_is_no_utf8_is_refused_at_the_door(tmp_path):
    path, _ = graphs.convnet(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"node_pool1", b"node_poo\xe4\xff"))
    with pytest.raises(InputError, match="not an ONNX model"):
        files.read(path)


def test_random_damage_is_only_ever_an_input_error(tmp_path):
    path, card = graphs.convnet(tmp_path, softmax=True, layout="NHWC", fixed_batch=2)
    original = path.read_bytes()
    generator = np.random.default_rng(7)
    survived = 0
    for _ in range(150):
        damaged = bytearray(original)
        for place in generator.integers(0, 1500, 2):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        for use in (lambda: graph.describe(path), lambda: graph.prepare(path, card=card)):
            try:
                use()
                survived += 1
            except InputError as e:
                assert str(path) in str(e) and len(str(e)) < 600
    assert 0 < survived < 300


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_never_unpickled(tmp_path, protocol):
    path = tmp_path / "m.onnx"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol))
    with pytest.raises(InputError, match="pickle"):
        files.read(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_models_are_refused(tmp_path, share):
    path, _ = graphs.convnet(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="truncated"):
        files.read(path)


def test_missing_and_odd_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such model"):
        files.read(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="not a file"):
        files.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a file"):
        files.read(tmp_path / "pipe")


# --- the child process ------------------------------------------------------------------------------------------------


def test_check_accepts_good_models(tmp_path):
    graph.check(graphs.convnet(tmp_path, external_data=True, layout="NHWC", fixed_batch=2)[0])


def test_check_reports_what_the_child_found(tmp_path):
    path, _ = graphs.convnet(tmp_path)
    edit(path, lambda m: m.graph.node[0].attribute.append(helper.make_attribute("nonsense", 1)))
    with pytest.raises(InputError, match=r"not valid ONNX.*nonsense"):
        graph.check(path)


@pytest.mark.parametrize(
    ("code", "seconds", "says"),
    [
        ("import os; os.abort()", 60, "crashed .signal 6"),
        ("import time; time.sleep(30)", 0.5, r"more than 0\.5 s"),
        ("print('no json')", 60, "crashed"),
        (
            "from analyzer.system import limit_memory; limit_memory(2**30); b = bytearray(2**31)",
            60,
            "crashed .status 1",
        ),
    ],
)
def test_a_child_that_dies_is_an_input_error(tmp_path, monkeypatch, code, seconds, says):
    (tmp_path / "dying.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=says) as caught:
        run_child("dying", [], seconds=seconds, model="m.onnx", doing="checking")
    assert str(caught.value).startswith("m.onnx")


def test_the_child_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    path, _ = graphs.convnet(tmp_path)
    (tmp_path / "onnx.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    graph.check(path)


# --- external data ----------------------------------------------------------------------------------------------------


def point(path, **entries):
    """Point the first external tensor of a model elsewhere."""

    def change(model):
        first = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
        old = {e.key: e.value for e in first.external_data}
        graphs.refer(first, **{**old, **entries})

    return edit(path, change)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "../secret"}, "plain path"),
        ({"location": "a/../../secret"}, "plain path"),
        ({"location": "..\\secret"}, "plain path"),
        ({"location": "/etc/passwd"}, "plain path"),
        ({"location": "C:\\secret"}, "plain path"),
        ({"location": "a\0b"}, "plain path"),
        ({"location": ""}, "names no file"),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, "address in memory"),
        ({"location": "absent.data"}, "missing"),
        ({"location": "."}, "not a plain file"),
        ({"location": "pipe"}, "not a plain file"),
        ({"location": "leak"}, "leads out"),
        ({"location": "through/inside.data"}, "leads out"),
        ({"offset": 10**9}, "ends at byte"),
        ({"offset": -4}, "no whole number"),
        ({"offset": "1_0"}, "no whole number"),
        ({"length": 10}, "needs 864"),
        ({"length": 10**12}, "needs 864"),
    ],
)
def test_external_data_must_stay_in_the_folder_and_fit(tmp_path, entries, says):
    home = tmp_path / "home"
    path, card = graphs.convnet(home, external_data=True)
    (tmp_path / "secret").write_bytes(b"\0" * 5000)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "inside.data").write_bytes(b"\0" * 5000)
    (home / "leak").symlink_to(tmp_path / "secret")
    (home / "through").symlink_to(tmp_path / "away")
    os.mkfifo(home / "pipe")
    point(path, **entries)
    for use in (lambda: graph.prepare(path, card=card), lambda: graph.sha256(path)):
        with pytest.raises(InputError, match=says) as caught:
            use()
        assert str(path) in str(caught.value)


def test_a_location_hidden_in_an_attribute_or_a_subgraph_is_found(tmp_path):
    def hidden(name):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
        graphs.refer(tensor, location="../secret")
        return tensor

    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=hidden("c"))], "b", [], [graphs.value("out", [2])]
    )
    for extra in (
        helper.make_node("Constant", [], ["c"], value=hidden("c")),
        helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch),
    ):
        path, card = graphs.convnet(tmp_path)
        edit(path, lambda m, extra=extra: m.graph.node.append(extra))
        with pytest.raises(InputError, match="plain path"):
            graph.prepare(path, card=card)


def test_a_truncated_external_file_is_refused(tmp_path):
    path, card = graphs.convnet(tmp_path, external_data=True)
    data = path.with_suffix(".data")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match="ends at byte"):
        graph.prepare(path, card=card)


def test_a_key_named_twice_is_refused(tmp_path):
    path, card = graphs.convnet(tmp_path, external_data=True)
    edit(path, lambda m: m.graph.initializer[0].external_data.add(key="location", value="../secret"))
    with pytest.raises(InputError, match="twice"):
        graph.prepare(path, card=card)


def test_hard_links_are_noted(tmp_path):
    path, card = graphs.convnet(tmp_path, external_data=True)
    os.link(path.with_suffix(".data"), tmp_path / "other")
    assert any("convnet.data is a hard link" in note for note in graph.prepare(path, card=card).notes)
    assert any("hard link" in note for note in graph.describe(path).notes)


def model_cache(tmp_path):
    """A model with external data as a hub's cache keeps it: snapshots of links into blobs."""
    path, card = graphs.convnet(tmp_path / "made", external_data=True)
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "r1" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for blob, file in (("b0", path), ("b1", path.with_suffix(".data"))):
        (blobs / blob).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../../blobs/{blob}")
    return snapshot / path.name, card


def test_links_within_a_model_cache_are_followed(tmp_path):
    path, card = model_cache(tmp_path)
    prepared = graph.prepare(path, card=card)
    assert prepared.folder == tmp_path / "cache" / "blobs"
    locations = {
        entry.value
        for tensor in onnx.load_from_string(prepared.model).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert locations == {"b1"}
    (tmp_path / "cache" / "snapshots" / "r1" / "onnx" / "convnet.data").unlink()
    (tmp_path / "cache" / "snapshots" / "r1" / "onnx" / "convnet.data").symlink_to("../../../../made/convnet.data")
    with pytest.raises(InputError, match="leads out"):
        graph.prepare(path, card=card)


# --- operators and sizes ----------------------------------------------------------------------------------------------


def test_custom_operators_are_named_and_refused(tmp_path):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        model.graph.node[1].op_type, model.graph.node[1].domain = "Evil", "my.domain"
        model.opset_import.append(helper.make_opsetid("my.domain", 1))

    edit(path, change)
    with pytest.raises(InputError, match=r"my\.domain:Evil"):
        graph.prepare(path, card=card)


def test_local_functions_are_expanded(tmp_path):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        body = [helper.make_node("Relu", ["a"], ["b"])]
        opsets = [helper.make_opsetid("", graphs.OPSET)]
        model.functions.append(helper.make_function("my.domain", "Twice", ["a"], ["b"], body, opsets))
        model.graph.node[1].op_type, model.graph.node[1].domain = "Twice", "my.domain"
        model.opset_import.append(helper.make_opsetid("my.domain", 1))

    expected = graph.prepare(path, card=card)
    prepared = graph.prepare(edit(path, change), card=card)
    images = normalise(pixels(), card)
    for a, b in zip(evaluate(prepared.model, {"x": images}), evaluate(expected.model, {"x": images}), strict=True):
        np.testing.assert_array_equal(a, b)


def test_compiled_contexts_are_refused(tmp_path):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        model.graph.node[1].op_type, model.graph.node[1].domain = "EPContext", "com.microsoft"

    edit(path, change)
    with pytest.raises(InputError, match="EPContext"):
        graph.prepare(path, card=card)


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ([2**20, 2**20], "more than this machine"),
        ([-1, 5], "negative"),
        ([7, 5], "holds 240 bytes"),
        ([7, 5], "holds 60 values"),
    ],
)
def test_tensors_that_lie_about_their_size_are_refused(tmp_path, dims, says):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        weight = next(t for t in model.graph.initializer if t.name == "w4")
        weight.dims[:] = dims
        if says.startswith("more"):  # stored elsewhere, so that only the declared size counts
            graphs.refer(weight, location=path.name)
            weight.ClearField("raw_data")
        elif says.endswith("values"):
            weight.ClearField("raw_data")
            weight.float_data.extend([0.0] * 60)

    edit(path, change)
    with pytest.raises(InputError, match=says):
        graph.prepare(path, card=card)


def test_declared_weights_beyond_memory_are_refused(tmp_path, monkeypatch):
    path, card = graphs.convnet(tmp_path)
    monkeypatch.setattr(safety, "physical_memory", lambda: 1000)
    with pytest.raises(InputError, match="of memory"):
        graph.prepare(path, card=card)


@pytest.mark.parametrize("via", ["initializer", "node"])
def test_a_constant_of_64_gib_is_refused_before_running(tmp_path, via):
    path, card = graphs.convnet(tmp_path)

    def change(model):
        shape = graphs.tensor("big_shape", [2**34], np.int64)
        if via == "initializer":
            model.graph.initializer.append(shape)
        else:
            model.graph.node.append(helper.make_node("Constant", [], ["big_shape"], value=shape))
        model.graph.node.append(helper.make_node("ConstantOfShape", ["big_shape"], ["big"]))

    edit(path, change)
    with pytest.raises(InputError, match="64 GiB"):
        graph.prepare(path, card=card)
    with pytest.raises(InputError, match="64 GiB"):
        graph.check(path)


def test_damaged_graphs_are_refused(tmp_path):
    path, card = graphs.convnet(tmp_path)
    content = path.read_bytes()
    edit(path, lambda m: m.graph.node[2].input.__setitem__(0, "nowhere"))
    with pytest.raises(InputError, match="nothing computes tensor 'nowhere'"):
        graph.prepare(path, card=card)
    path.write_bytes(content)
    edit(path, lambda m: m.graph.node[2].output.__setitem__(0, "conv1"))
    with pytest.raises(InputError, match=r"twice|nothing computes"):
        graph.prepare(path, card=card)


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


def test_float16_models_take_and_give_float32(tmp_path):
    path, card = graphs.convnet(tmp_path, input_type="float16", layout="NHWC")
    prepared = graph.prepare(path, card=card)
    assert prepared.input_type == "float16" and prepared.precision == "float16"
    scores, feature = evaluate(prepared.model, {prepared.input: normalise(pixels(), card)})
    assert scores.dtype == feature.dtype == np.float32


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
    with_end(path, [graphs.node("Sigmoid", "logits", "scores")], "scores", ["N", 5])
    prepared = graph.prepare(path, card=probabilities(card))
    assert prepared.kind == "probabilities" and prepared.outputs[0] == "scores"
    assert any("Sigmoid" in note for note in prepared.notes)


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
