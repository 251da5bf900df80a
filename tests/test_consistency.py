"""What the runtime says of a graph's outputs, batches and modes, against what the graph promises."""

import dataclasses

import graphs
import numpy as np
import pytest
import quantised
import runs
from graphs import node, tensor, value
from scipy.special import softmax

from analyzer import card as cards
from analyzer import graph, store
from analyzer.analyses import landscape
from analyzer.errors import InputError
from analyzer.session import Backend
from analyzer.study.consistency import disagreement, open_proved


@pytest.fixture
def images(tmp_path):
    runs.write_images(tmp_path / "images", 4, size=8)
    return tmp_path / "images"


def opened(made, **options):
    model, card = made
    return open_proved(model, card=card, backend=Backend("cpu", 1), **options)


# types and shapes ---------------------------------------------------------------------------------------------------


def behind_contrib(folder, nodes, constants=(), shape=None):
    """A head whose scores come out of com.microsoft operators, which shape inference does not know."""
    made = dict(constants)
    return quantised.head(folder, "hidden", nodes, made, 5, kind="logits", domains=("com.microsoft",), shape=shape)


@pytest.mark.parametrize(
    ("nodes", "constants", "says"),
    [
        (
            [quantised.microsoft("FusedConv", "x k", "y", activation="Relu")],
            {"k": quantised.weights(5, 3, 3, 3)},
            "a map, as of a segmentation",
        ),
        (
            [quantised.microsoft("FusedConv", "x k", "m"), node("Reshape", "m s", "y")],
            {"k": quantised.weights(5, 3, 1, 1), "s": np.array([0, 64, -1])},
            "a list, as of boxes",
        ),
        ([quantised.microsoft("MurmurHash3", "l", "hash"), node("Identity", "l", "y")], {}, "whole numbers"),
    ],
)
def test_what_only_the_runtime_knows_is_refused_by_its_name(tmp_path, images, nodes, constants, says):
    model, card = behind_contrib(tmp_path, nodes, constants)
    if nodes[0].output[0] == "hash":
        cards.write(dataclasses.replace(card, output_name="hash"), cards.beside(model))
    with pytest.raises(InputError, match=says):
        runs.measure(model, images, tmp_path / "run", layers=("f",))
    with pytest.raises(InputError, match=says):
        landscape.landscape(model, next(images.iterdir()), provider="cpu", size=3)


def test_scores_of_unknown_shape_that_are_scores_are_taken(tmp_path, images):
    model, card = behind_contrib(
        tmp_path,
        [quantised.microsoft("FusedGemm", "l V b", "y", activation="Relu")],
        {"V": np.eye(5, dtype="f4"), "b": np.ones(5, "f4")},
    )
    assert graph.prepare(model, card=card, layers=("f",)).unproved
    runs.measure(model, images, tmp_path / "run", layers=("f",))


def test_layers_of_codes_without_a_scale_are_refused(tmp_path, images):
    nodes = [quantised.microsoft("MurmurHash3", "f", "hash"), node("Identity", "l", "y")]
    model, _ = behind_contrib(tmp_path, nodes, shape=["N", 5])
    with pytest.raises(InputError, match=r"layer 'hash' holds .*int32, not floats"):
        runs.measure(model, images, tmp_path / "run", layers=("hash",))


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([node("TopK", "l k", "y best")], "TopK: the largest scores in falling order"),
        ([node("TopK", "l k", "best i"), node("Cast", "i", "y", to=1)], "TopK"),
        ([node("ArgMax", "l", "b", axis=1), node("Cast", "b", "y", to=1)], "ArgMax: the index of a class"),
        ([node("TopK", "l k", "best i"), node("Softmax", "best", "y", axis=1)], "TopK: the largest scores"),
        ([node("Softmax", "l", "p", axis=1), node("TopK", "p k", "best i"), node("Mul", "best one", "y")], "TopK"),
        ([node("ArgMax", "l", "b", axis=1), node("Cast", "b", "c", to=1), node("Mul", "c one", "y")], "ArgMax"),
    ],
)
def test_what_is_chosen_from_the_scores_is_refused(tmp_path, nodes, says):
    model, card = quantised.head(
        tmp_path, "chosen", nodes, {"k": np.array([5]), "one": np.float32(1)}, 5, kind="logits", shape=None
    )
    with pytest.raises(InputError, match=says):
        graph.prepare(model, card=card)


@pytest.mark.parametrize("target", [[0, 5, 1, 1], [0, 1, 5]])
def test_scores_with_axes_of_one_are_taken(tmp_path, target):
    made = quantised.head(
        tmp_path, "axes", [node("Reshape", "l s", "y")], {"s": np.array(target)}, 5, kind="logits", shape=None
    )
    assert opened(made)[1].classes == 5


@pytest.mark.parametrize(
    ("nodes", "constants", "says"),
    [
        (
            [quantised.microsoft("FusedConv", "x k", "y", activation="Relu")],
            {"k": quantised.weights(5, 3, 3, 3)},
            "a map, as of a segmentation",
        ),
        (
            [quantised.microsoft("FusedConv", "x k", "m"), node("Reshape", "m s", "y")],
            {"k": quantised.weights(5, 3, 1, 1), "s": np.array([0, 64, -1])},
            "a list, as of boxes",
        ),
    ],
)
def test_a_shape_that_the_file_declares_wrongly_is_seen_in_a_run(tmp_path, images, nodes, constants, says):
    """Declared (N, 5), behind operators whose shapes only the runtime knows."""
    model, _ = behind_contrib(tmp_path, nodes, constants, shape="declared")
    with pytest.raises(InputError, match=says):
        runs.measure(model, images, tmp_path / "run")


def test_scores_that_a_file_declares_flat_and_are_not_are_taken(tmp_path, images):
    nodes = [quantised.microsoft("Gelu", "l", "g"), node("Reshape", "g s", "y")]
    model, _ = behind_contrib(tmp_path, nodes, {"s": np.array([0, 1, 1, 5])}, shape="declared")
    assert runs.measure(model, images, tmp_path / "run").sizes["image"] == 4


# the model's own output ---------------------------------------------------------------------------------------------


def test_found_logits_must_give_the_output_within_its_precision(rng):
    logits = rng.standard_normal((4, 6)).astype(np.float32)
    own = softmax(logits, axis=1)
    assert disagreement(own, logits, final="Softmax", step=0.0) == ""
    assert disagreement(np.log(own), logits, final="LogSoftmax", step=0.0) == ""
    assert disagreement(1 / (1 + np.exp(-logits)), logits, final="Sigmoid", step=0.0) == ""
    assert disagreement(own.astype(np.float16), logits, final="Softmax", step=0.0) == ""
    steps = np.rint(own * 256) / 256
    assert disagreement(steps, logits, final="Softmax", step=1 / 256) == ""
    assert "differs" in disagreement(steps, logits, final="Softmax", step=0.0)
    assert "differs" in disagreement(own[:, ::-1], logits, final="Softmax", step=0.0)
    assert "values for an image" in disagreement(own[:, :3], logits, final="Softmax", step=0.0)
    almost, other = np.log([[0.2495, 0.2495, 0.2515, 0.2495]]), np.array([[0.25, 0.25, 0.241, 0.259]])
    assert "another class" in disagreement(other, almost, final="Softmax", step=0.0106)


# training mode and batches ------------------------------------------------------------------------------------------


def normalising(folder, *, opset, training):
    """The head with a BatchNormalization of its logits, in training mode or not."""
    outputs = "y" if not training else "y m v" if opset >= 14 else "y m v sm sv"
    attributes = {"training_mode": 1} if training and opset >= 14 else {}
    constants = {
        "scale": np.array([1.0, 2, 3, 4, 5], np.float32),
        "bias": np.arange(5, dtype=np.float32),
        "mean": np.array([0.5, 0, 1, 0, -1], np.float32),
        "variance": np.array([1.0, 4, 1, 9, 1], np.float32),
    }
    nodes = [node("BatchNormalization", "l scale bias mean variance", outputs, **attributes)]
    return quantised.head(folder, f"bn{opset}{training}", nodes, constants, 5, kind="logits", opset=opset)


@pytest.mark.parametrize("opset", [9, 17])
def test_normalisation_in_training_mode_runs_in_inference_form(tmp_path, images, opset):
    results = []
    for training in (False, True):
        model, _ = normalising(tmp_path, opset=opset, training=training)
        out = tmp_path / f"run{training}"
        results.append(runs.measure(model, images, out, layers=("f",)).clean_log_odds.values)
        said = [w for w in store.Run(out).read_summary()["warnings"] if "training mode" in w]
        assert len(said) == training
    np.testing.assert_array_equal(*results)
    shown = graph.describe(model)
    assert any("training mode" in note for note in shown.notes)


def dropping(folder, mode, *, mask=""):
    """The head with a Dropout of its logits; mode: the third input, "" where there is none."""
    constants = {"ratio": np.float32(0.5), "yes": np.bool_(True), "no": np.bool_(False)}
    nodes = [node("Dropout", f"l ratio {mode}".strip(), f"dropped {mask}".strip()), node("Identity", "dropped", "y")]
    return quantised.head(folder, f"drop_{mode}", nodes, constants, 5, kind="logits")


@pytest.mark.parametrize("mode", ["yes", "no", ""])
def test_dropout_in_training_mode_runs_in_inference_form(tmp_path, images, mode):
    plain = quantised.head(tmp_path / "plain", "plain", [node("Identity", "l", "y")], {}, 5, kind="logits")[0]
    model, card = dropping(tmp_path, mode)
    found = [runs.measure(m, images, tmp_path / name, layers=("f",)) for m, name in ((plain, "a"), (model, "b"))]
    np.testing.assert_array_equal(*(each.isotropy_log_odds.values for each in found))
    notes = graph.prepare(model, card=card).notes
    assert any("1 Dropout (dropped) in training mode" in note for note in notes) == (mode == "yes")


def test_a_dropout_whose_mask_is_read_is_refused(tmp_path):
    model, card = dropping(tmp_path, "yes", mask="mask")

    def change(proto):
        del proto.graph.node[-1]
        proto.graph.node.append(node("Where", "mask dropped dropped", "y"))

    graphs.edit(model, change)
    with pytest.raises(InputError, match=r"Dropout 'dropped' is in training mode and its mask 'mask' is read"):
        graph.prepare(model, card=card)


def test_a_class_that_is_ruled_out_by_minus_infinity(tmp_path, images):
    """Its probability is 0, and the others are what they are without it."""
    never = np.array([0, 0, -np.inf, 0, 0], np.float32)
    nodes = [node("Add", "l never", "m"), node("Softmax", "m", "y", axis=1)]
    model, _ = quantised.head(tmp_path, "masked", nodes, {"never": never}, 5, kind="probabilities")
    keep = np.array([0, 1, 3, 4])
    rest, _ = quantised.head(
        tmp_path, "rest", [node("Gather", "l keep", "y", axis=1)], {"keep": keep}, 4, kind="logits"
    )
    # The matrix has a column a class: that of the masked class is taken out of `rest`.
    graphs.edit(rest, lambda proto: _five_columns(proto, model))
    masked = runs.measure(model, images, tmp_path / "a", layers=("f",))
    without = runs.measure(rest, images, tmp_path / "b", layers=("f",))
    np.testing.assert_allclose(masked.isotropy_log_odds, without.isotropy_log_odds, atol=1e-5)
    np.testing.assert_array_equal(masked.clean_predicted, keep[without.clean_predicted])


def _five_columns(proto, model):
    """Give `proto` the matrix of another head."""
    import onnx

    (matrix,) = (t for t in onnx.load(model).graph.initializer if t.name == "W")
    next(t for t in proto.graph.initializer if t.name == "W").CopyFrom(matrix)


def test_batch_statistics_that_are_read_are_refused(tmp_path):
    model, card = normalising(tmp_path, opset=17, training=True)

    def change(proto):
        proto.graph.node[-1].output[0] = "normal"
        proto.graph.node.append(node("Add", "normal m", "y"))

    graphs.edit(model, change)
    with pytest.raises(InputError, match=r"BatchNormalization 'normal' is in training mode.*evaluation mode"):
        graph.prepare(model, card=card)


def test_rows_that_only_real_pixels_couple_are_found(tmp_path, images):
    """logits + (the batch's largest pixel above 100): random rows of unit size never get there."""
    nodes = [
        node("Flatten", "x", "flat"),
        node("ReduceMean", "flat", "feature", axes=[1], keepdims=1),
        node("ReduceMax", "x", "top", keepdims=0),
        node("Sub", "top hundred", "over"),
        node("Relu", "over", "excess"),
        node("Mul", "feature excess", "coupled"),
        node("Add", "feature coupled", "sum"),
        node("Gemm", "sum weights", "logits"),
    ]
    constants = [tensor("hundred", 100.0), tensor("weights", [[0.05, -0.05]])]
    inputs, outputs = [value("x", ["N", 3, 8, 8])], [value("logits", ["N", 2])]
    card = graphs.make_card((8, 8), feature="feature")
    made = graphs.save(tmp_path, "coupled", nodes, inputs, outputs, constants, card)
    assert opened(made)[1].independent
    rows = [graphs.pixels(2, size=8, seed=seed)[0] for seed in (1, 2)]
    rows[1] /= 2
    _, session = opened(made, examples=rows)
    assert not session.independent and any("Rows of a batch" in note for note in session.notes)
    runs.measure(made[0], images, tmp_path / "run", batch_size=None)
    assert any("Rows of a batch" in w for w in store.Run(tmp_path / "run").read_summary()["warnings"])
