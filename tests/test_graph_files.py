"""Model files as untrusted input: what is refused, and how external data is found."""

import os
import pickle
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx.reference
import pytest
from graphs import edit, evaluate, normalise, pixels
from onnx import TensorProto, helper

from analyzer import graph
from analyzer.errors import InputError
from analyzer.graph import files, safety
from analyzer.system import run_child

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
