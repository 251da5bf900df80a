"""Whether what is measured is what is deployed: the file by itself, taps, batches."""

import dataclasses
import json

import graphs
import numpy as np
import onnx
import pytest
import runs
from graphs import edit, node, tensor, value
from onnx import TensorProto

from analyzer import graph, study
from analyzer.errors import InputError, UsageError
from analyzer.session import Backend, Split, batching, providers
from analyzer.study import Protocol, deployed
from analyzer.study.model import open_model
from analyzer.summary import checks

ISOTROPY = Protocol(measures=("isotropy",), min_confidence=0.0)


def rows_of(card, count=4, seed=3):
    """Smooth grey levels, (count, C, H, W)."""
    return list(np.random.default_rng(seed).uniform(40, 215, (count, *card.pixel_shape)))


def proved(made, *, protocol=None, layers=()):
    """The model as it is measured, and its checks."""
    path, card = made
    protocol = dataclasses.replace(protocol or Protocol(min_confidence=0.0), layers=tuple(layers))
    backend = Backend("cpu", 1)
    model = open_model(path, card=card, protocol=protocol, backend=backend, batch_size=8, examples=rows_of(card))
    return deployed.proved(model, path, protocol)


# --- the file by itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"layout": "NHWC", "channels": "BGR"},
        {"softmax": True},
        {"input_type": "float16"},
        {"input_type": "uint8"},
        {"fixed_batch": 3},
        {"external_data": True},
        {"channels": "L"},
        {"opset": 9},
    ],
    ids=str,
)
def test_the_file_by_itself_gives_what_is_measured(tmp_path, how):
    protocol = Protocol(clip=True, round=True, min_confidence=0.0)  # which a uint8 input needs
    model, found = proved(graphs.convnet(tmp_path, **how), protocol=protocol)
    fidelity = found["fidelity"]
    assert fidelity["images"] == 4 and fidelity["why_not"] == "" and fidelity["other_class"] == 0
    assert not fidelity["differs"] and not fidelity["separate"]
    assert fidelity["largest"] == pytest.approx(0.0, abs=2e-4)
    assert model.layers == ("fc2",)


def test_a_file_that_is_not_what_is_measured_is_said(tmp_path):
    """Stand-in for a rebuilt graph that is another function: the file changes once the graph has been read."""
    made = graphs.convnet(tmp_path)
    path, card = made
    protocol = Protocol(min_confidence=0.0)
    model = open_model(path, card=card, protocol=protocol, backend=Backend("cpu", 1), examples=rows_of(card))
    edit(path, lambda m: m.graph.initializer.append(tensor("shift", [0.5, 0.4, 0.3, 0.2, 0.1])))

    def shift(model):
        model.graph.node[-1].name = model.graph.node[-1].output[0] = "unshifted"
        model.graph.node.append(node("Add", "unshifted shift", "logits"))

    edit(path, shift)
    _, found = deployed.proved(model, path, protocol)
    fidelity = found["fidelity"]
    assert fidelity["differs"] and 0.01 < fidelity["largest"] <= 0.5 + 1e-5
    assert not fidelity["separate"]  # the taps have nothing to do with it
    (said,) = checks.faults(found, 8)
    assert said.startswith("The file by itself differs from what is measured by 0.") and "noise floors" in said
    assert list(checks.checked(found)) == []


def test_an_inner_tensor_cannot_be_had_from_the_file_by_itself(tmp_path):
    path, card = graphs.convnet(tmp_path, softmax=True)
    card = dataclasses.replace(card, output_name="logits", kind="logits")
    _, found = proved((path, card))
    assert found["fidelity"]["why_not"] and found["fidelity"]["largest"] is None
    assert [
        s for s in checks.faults(found, 8) if s.startswith("Not compared with the file by itself: the file by itself")
    ]


def test_a_file_that_cannot_be_opened_by_itself_says_why(tmp_path, monkeypatch):
    def fails(*given):
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : no room for a second copy")

    monkeypatch.setattr(providers, "open_file", fails)
    _, found = proved(graphs.convnet(tmp_path))
    assert found["fidelity"]["why_not"] == "the file by itself does not run: no room for a second copy"


def two_logits(folder, scale, *, final="", bias=(0.0, 0.0), extra=()):
    """z = scale * (mean input, - mean input) + bias of two classes, behind the operator `final`."""
    out = "z" if not final else "p"
    nodes = [node("Flatten", "x", "flat"), node("ReduceMean", "flat", "f", axes=[1], keepdims=1)]
    nodes += [node("Gemm", "f w b", "z"), *([node(final, "z", "p")] if final else []), *extra]
    weights = [tensor("w", [[scale, -scale]]), tensor("b", bias)]
    kind = {"": "logits", "Softmax": "probabilities", "Sigmoid": "sigmoid"}[final]
    card = graphs.make_card((8, 8), kind=kind, feature="f")
    return graphs.save(folder, "two", nodes, [value("x", ["N", 3, 8, 8])], [value(out, ["N", 2])], weights, card)


@pytest.mark.parametrize("final", ["", "Softmax", "Sigmoid"])
@pytest.mark.parametrize("scale", [0.001, 0.03, 0.06, 0.1, 0.3])
def test_the_same_function_is_no_false_alarm_however_sure_it_is(tmp_path, final, scale):
    _, found = proved(two_logits(tmp_path, scale, final=final))
    assert not found["fidelity"]["differs"] and found["fidelity"]["other_class"] == 0
    rounds_to_one = final == "Sigmoid" and scale == 0.3
    assert (found["fidelity"]["largest"] is None) == rounds_to_one


@pytest.mark.parametrize("scale", [0.001, 0.03, 0.08])
def test_another_function_is_found_however_sure_the_softmax_is(tmp_path, scale):
    """The file's logits move apart by 6 nat; at the largest scale p of the first class is 1 in float32 both times."""
    made = two_logits(tmp_path, scale, final="Softmax")
    path, card = made
    protocol = Protocol(min_confidence=0.0)
    model = open_model(path, card=card, protocol=protocol, backend=Backend("cpu", 1), examples=rows_of(card))
    two_logits(tmp_path, scale, final="Softmax", bias=(3.0, -3.0))
    _, found = deployed.proved(model, path, protocol)
    assert found["fidelity"]["differs"] and found["fidelity"]["largest"] == pytest.approx(6.0, abs=4)


def test_a_class_that_is_not_finite_in_both_is_no_difference(tmp_path):
    _, found = proved(two_logits(tmp_path, 0.03, bias=(0.0, np.nan)))
    assert not found["fidelity"]["differs"] and found["fidelity"]["other_class"] == 0


def test_what_the_scores_do_not_need_is_not_run_where_its_size_is_computed(tmp_path):
    path, card = two_logits(tmp_path, 0.03)

    def add(model):
        model.graph.initializer.extend([tensor("zero", np.float32(0)), tensor("one", np.float32(1))])
        model.graph.node.append(node("ReduceMax", "x", "size", keepdims=0))
        model.graph.node.append(node("Range", "zero size one", "many"))
        model.graph.output.append(value("many", None))

    edit(path, add)
    card = dataclasses.replace(card, output_name="z")
    assert graph.prepare(path, card=card).own == ""
    _, found = proved((path, card))
    assert "may not end" in found["fidelity"]["why_not"]


def test_a_second_input_is_said_in_words(tmp_path):
    path, card = two_logits(tmp_path, 0.03)

    def add(model):
        model.graph.input.append(value("other", [1]))
        model.graph.node.append(node("Abs", "other", "unused"))
        model.graph.output.append(value("unused", [1]))

    edit(path, add)
    _, found = proved((path, dataclasses.replace(card, input_name="x", output_name="z")))
    assert "further inputs (x, other)" in found["fidelity"]["why_not"]


# --- taps -------------------------------------------------------------------------------------------------------------


class Disturbed:
    """The largest score grows by `shift` where a tensor of `where` is an output: a tap that breaks a fusion."""

    def __init__(self, real, where, shift):
        self.real, self.shift = real, shift
        self.hit = any(output.name in where for output in real.get_outputs())

    def __getattr__(self, name):
        return getattr(self.real, name)

    def run(self, names, feed):
        scores, *layers = self.real.run(names, feed)
        if self.hit:
            scores = scores.copy()
            scores[np.arange(len(scores)), scores.argmax(axis=1)] += self.shift
        return [scores, *layers]


@pytest.fixture
def disturbed(monkeypatch):
    def install(*where, shift=0.3):
        real = providers.open_session
        monkeypatch.setattr(
            providers, "open_session", lambda *given, **how: Disturbed(real(*given, **how), where, shift)
        )

    return install


def test_a_tap_that_changes_the_scores_is_taken_alone_or_left_out(tmp_path, disturbed):
    made = graphs.convnet(tmp_path)
    rows = np.stack(rows_of(made[1])).astype(np.float32)
    plain, _ = proved(made, layers=("relu1", "relu2"))
    expected = plain.session.run(rows)
    disturbed("relu1")
    model, found = proved(made, layers=("relu1", "relu2"))
    assert isinstance(model.session, Split) and model.layers == ("relu2",)
    fidelity = found["fidelity"]
    assert fidelity["separate"] and fidelity["dropped"] == ["relu1"] and not fidelity["differs"]
    assert fidelity["largest"] < 1e-4
    scores, features = model.session.run(rows)
    np.testing.assert_allclose(scores, expected[0], rtol=1e-5, atol=1e-5)
    assert len(features) == 1 and model.session.feature_sizes == (features[0].shape[1],)
    np.testing.assert_allclose(features[0], expected[1][1], rtol=1e-5, atol=1e-5)
    said = " ".join(model.prepared.notes)
    assert "changes the scores by up to 0.3 nat" in said and "even alone: relu1" in said


def test_taps_that_change_the_scores_only_together_are_all_kept(tmp_path, monkeypatch):
    made = graphs.convnet(tmp_path)
    real = providers.open_session

    def opened(*given, **how):
        session = real(*given, **how)
        both = len(session.get_outputs()) == 3
        return Disturbed(session, [session.get_outputs()[0].name] if both else (), 0.3)

    monkeypatch.setattr(providers, "open_session", opened)
    model, found = proved(made, layers=("relu1", "relu2"))
    assert model.layers == ("relu1", "relu2") and found["fidelity"]["separate"]
    assert found["fidelity"]["dropped"] == [] and not found["fidelity"]["differs"]


def test_without_any_layer_left_the_message_says_what_to_do(tmp_path, disturbed):
    made = graphs.convnet(tmp_path)
    disturbed("fc2")
    with pytest.raises(InputError, match=r"marking 'fc2' as an output changes the scores by 0\.3 nat.*`layers`"):
        proved(made)
    model, found = proved(made, protocol=ISOTROPY)
    assert model.layers == ("fc2",) and found["fidelity"]["separate"] and not found["fidelity"]["differs"]


def test_a_run_without_features_takes_the_scores_of_a_graph_without_taps(tmp_path, images, disturbed):
    made = graphs.convnet(tmp_path)
    runs.write_images(images, 3)
    options = {"measures": ("isotropy",)}
    plain = runs.measure(made[0], images, tmp_path / "plain", **options)
    disturbed("fc2")
    split = runs.measure(made[0], images, tmp_path / "split", **options)
    np.testing.assert_allclose(split["isotropy_log_odds"].values, plain["isotropy_log_odds"].values, rtol=1e-5)


def test_a_run_of_a_network_that_taps_change_has_the_scores_of_the_file(tmp_path, images, disturbed):
    made = graphs.convnet(tmp_path)
    runs.write_images(images, 3)
    plain = runs.measure(made[0], images, tmp_path / "plain", layers=("relu2",))
    disturbed("relu1")
    both = runs.measure(made[0], images, tmp_path / "split", layers=("relu1", "relu2"))
    for name in ("clean_log_odds", "isotropy_log_odds", "feature_distance"):
        np.testing.assert_allclose(both[name].values, plain[name].values, rtol=1e-3, atol=1e-4)
    assert list(both["layer"].values) == ["relu2"]
    summary = json.loads((tmp_path / "split" / "summary.json").read_text())
    assert any("Left out, since they change the scores even alone: relu1" in note for note in summary["warnings"])


# --- batches ----------------------------------------------------------------------------------------------------------


def mixing(folder, *, above, fixed_batch=None):
    """`convnet`, whose logits get the batch's mean of the logits added where the batch has more than `above` rows."""
    path, card = graphs.convnet(folder, fixed_batch=fixed_batch)

    def change(model):
        model.graph.node[-1].name = model.graph.node[-1].output[0] = "own"
        model.graph.initializer.append(tensor("above", [above], np.int64))
        model.graph.initializer.append(tensor("first", [0], np.int64))
        model.graph.node.extend(
            [
                node("Shape", "own", "shape"),
                node("Gather", "shape first", "rows", axis=0),
                node("Greater", "rows above", "many"),
                node("Cast", "many", "one_or_none", to=TensorProto.FLOAT),
                node("ReduceMean", "own", "mean", axes=[0], keepdims=1),
                node("Mul", "mean one_or_none", "added"),
                node("Add", "own added", "logits"),
            ]
        )

    edit(path, change)
    return path, card


@pytest.mark.parametrize(("above", "wrong"), [(1, {2, 16}), (2, {8}), (100, set())])
def test_a_graph_that_mixes_rows_is_found_with_its_sizes(tmp_path, above, wrong):
    model, found = proved(mixing(tmp_path, above=above))
    batches = found["batches"]
    assert batches["images"] == 4
    if not wrong:
        assert batches == {
            "images": 4,
            "sizes": [1, 2, 8],
            "places": 2 * 4 * (1 + 2 + 8),
            "faults": 0,
            "largest": None,
            "first": None,
        }
        assert model.session.batch_size == 8 and list(checks.faults(found, 8)) == []
        (said,) = checks.checked(found)
        assert "every place of batches of 1, 2, 8 gives what the image alone gives" in said
        return
    assert batches["faults"] == 2 * 4 * sum(wrong) and batches["first"]["size"] == min(wrong)
    assert batches["largest"] > 1e-3 and model.session.batch_size == 1
    (said,) = checks.faults(found, 1)
    assert f"Batches: at {batches['faults']} of {batches['places']} places" in said
    assert f"of {min(wrong)}." in said and "one at a time" in said
    assert any("running 1 at a time" in note for note in model.session.notes)


def test_a_batch_that_a_file_fixes_is_tried_as_it_is(tmp_path):
    """Rows mix in the batch of 3 that the file declares; images are measured three at a time."""
    path, card = mixing(tmp_path, above=1, fixed_batch=3)
    model, found = proved((path, card))
    assert not model.session.independent and model.session.batch_size == 3
    assert found["batches"]["sizes"] == [3] and found["batches"]["faults"] > 0
    (said,) = checks.faults(found, model.session.batch_size)
    assert "Images were measured 3 at a time" in said


def test_a_graph_for_one_image_only_is_measured_one_by_one(tmp_path):
    """Two images give (1, 10) where one gives (1, 5)."""
    path, card = graphs.convnet(tmp_path, fixed_batch=1)

    def change(model):
        model.graph.node[-1].name = model.graph.node[-1].output[0] = "own"
        model.graph.initializer.extend([tensor("flat5", [-1], np.int64), tensor("zeroth", [0], np.int64)])
        model.graph.node.append(node("Reshape", "own flat5", "five"))
        model.graph.node.append(node("Unsqueeze", "five zeroth", "logits"))

    edit(path, change)
    model, found = proved((path, card))
    assert model.session.batch_size == 1 and found["batches"]["sizes"] == [1, 2, 16]
    assert found["batches"]["faults"] == 2 * 4 * (2 + 16)


def test_too_little_memory_for_a_second_session_ends_the_check_not_the_run(tmp_path, monkeypatch):
    made = graphs.convnet(tmp_path)

    def full(*given, **how):
        raise UsageError("too little memory")

    monkeypatch.setattr(deployed, "_opened", full)
    _, found = proved(made)
    assert found["batches"]["stopped"] == "too little memory" and found["batches"]["faults"] == 0
    assert [said for said in checks.faults(found, 8) if "not checked to the end: too little memory" in said]


def test_the_faults_are_the_rows_and_places_that_are_wrong():
    def forward(rows):
        out = rows.copy()
        if len(rows) == 3:
            out[1] += 1.0  # place 1 of a batch of 3 is wrong, whatever stands there
        return [out]

    rows = np.arange(1.0, 5.0, dtype=np.float32).reshape(4, 1)
    alone = [forward(row[None]) for row in rows]
    found = list(batching.faults(forward, rows, [1, 2, 3], alone))
    assert [(f.size, f.position, f.row) for f in found] == [(3, 1, row) for row in (1, 2, 3, 0)]
    assert [f.difference for f in found] == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1.0], rel=1e-5)


@pytest.mark.parametrize(
    ("row", "single", "off"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1e-7], [0.0], 0.0),
        ([1.0], [0.0], np.inf),
        ([2.2, 1.0], [2.0, 1.0], 0.1),
    ],
)
def test_how_far_a_row_is_off(row, single, off):
    assert batching._off(np.array(row), np.array(single)) == pytest.approx(off, rel=1e-5)


# --- stored and shown -------------------------------------------------------------------------------------------------


def test_checks_are_stored_shown_and_no_reason_for_history(tmp_path, images, capsys):
    made = graphs.convnet(tmp_path)
    runs.write_images(images, 3)
    out = tmp_path / "run"
    runs.measure(made[0], images, out, limit=2)
    manifest = json.loads((out / "manifest.json").read_text())
    found = manifest["context"]["checks"]
    assert found["fidelity"]["images"] == 3 and found["batches"]["sizes"] == [1, 2, 8]
    _, said, _ = runs.call(capsys, "summary", out)
    assert "Checked on 3 images: the file by itself" in " ".join(said.split())
    runs.measure(made[0], images, out, limit=3)
    history = json.loads((out / "manifest.json").read_text())["history"]
    assert [list(entry["changes"]) for entry in history] == [["limit"]]


def test_other_settings_of_the_backend_are_refused_on_resume(tmp_path, images, capsys):
    made = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    out = tmp_path / "run"
    command = ["run", made[0], "--images", images, "--out", out, *runs.SMALL]
    assert runs.call(capsys, *command, "--optimizations", "off")[0] in (None, 0)
    code, _, said = runs.call(capsys, *command)
    assert code == 2 and 'backend.optimizations "off" -> "all"' in said
    assert runs.call(capsys, *command, "--optimizations", "off")[0] in (None, 0)


def test_a_run_of_a_version_without_settings_goes_on(tmp_path, images, monkeypatch):
    made = graphs.convnet(tmp_path)
    runs.write_images(images, 3)
    real = study.provenance.identity

    def without(*given):
        document = real(*given)
        del document["backend"]
        return document

    monkeypatch.setattr(study.provenance, "identity", without)
    runs.measure(made[0], images, tmp_path / "run", limit=2)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="backend"):
        study.run(made[0], images, tmp_path / "run", protocol=runs.protocol(limit=3), optimizations="off")
    dataset = runs.measure(made[0], images, tmp_path / "run", limit=3)
    assert dataset.sizes["image"] == 3


def test_what_a_check_finds_on_resume_is_kept(tmp_path, images, monkeypatch):
    """The file is another function the second time: the history and the warning say so."""
    made = graphs.convnet(tmp_path)
    runs.write_images(images, 3)
    out = tmp_path / "run"
    runs.measure(made[0], images, out, limit=2)
    real = deployed._Answers.fidelity
    monkeypatch.setattr(deployed._Answers, "fidelity", lambda *given: {**real(*given), "differs": True, "largest": 3.0})
    runs.measure(made[0], images, out, limit=3)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["history"][-1]["changes"]["context.checks.differs"] == [False, True]
    warned = json.loads((out / "summary.json").read_text())["warnings"]
    assert any(said.startswith("The file by itself differs from what is measured by 3 nat") for said in warned)


def test_a_graph_is_cut_to_what_its_outputs_need(tmp_path):
    path, card = graphs.convnet(tmp_path)
    whole = graph.prepare(path, card=card, layers=("relu1", "fc2"))
    one = graph.tapped(whole, (1,))
    assert one.layers == ("fc2",) and one.outputs == (whole.outputs[0], whole.outputs[2])
    assert len(one.model) <= len(whole.model)
    bare = onnx.load_from_string(graph.tapped(graph.prepare(path, card=card, layers=("relu1",)), ()).model)
    kinds = [[node.op_type for node in model.graph.node] for model in (bare, onnx.load(path))]
    assert kinds[0] == kinds[1]  # no tap, and nothing of one
