"""What a session gives: results, batches of one shape, and what happens where memory runs out."""

import dataclasses

import graphs
import numpy as np
import onnx
import onnx.reference
import pytest
from graphs import edit, normalise, pixels
from onnx import TensorProto, helper
from sessions import open_session, random_rows

from analyzer import graph
from analyzer.errors import InputError, UsageError
from analyzer.session import Backend, Session, batching, core, providers

# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"layout": "NHWC"},
        {"layout": "NHWC", "channels": "BGR", "softmax": True, "fixed_batch": 1},
        {"input_type": "uint8", "channels": "BGR", "external_data": True},
        {"fixed_batch": 3, "external_data": True},
        {"opset": 22},
    ],
    ids=str,
)
def test_every_variant_gives_the_plain_networks_logits(tmp_path, variant):
    plain, plain_card = graphs.convnet(tmp_path, name="plain")
    reference = onnx.reference.ReferenceEvaluator(onnx.load(plain))
    # by hand, because the evaluator gives declared outputs only
    expected = reference.run(["logits"], {"x": normalise(pixels(5), plain_card)})[0]
    made = graphs.convnet(tmp_path, **variant)
    run = open_session(made, layers=["fc2", "relu2"], batch_size=4)
    scores, (fc2, relu2) = run.run(normalise(pixels(5), made[1]))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert (run.classes, run.feature_sizes) == (5, (12, 1024))
    assert fc2.shape == (5, 12) and relu2.shape == (5, 1024) and fc2.dtype == relu2.dtype == np.float32
    assert (run.provider, run.precision, run.notes) == ("CPUExecutionProvider", "float32", [])
    assert run.batch_size == 4


@pytest.mark.parametrize("tap", ["conv1", "relu1", "pool1", "relu2", "flat", "fc2_pre", "fc2", "logits"])
def test_taps_match_onnx_own_evaluator(tmp_path, tap):
    path, card = graphs.convnet(tmp_path)
    images = normalise(pixels(2), card)
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(tap, TensorProto.FLOAT, None))
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": images})[0]
    _, (feature,) = open_session((path, card), layers=[tap]).run(images)
    np.testing.assert_allclose(feature, expected.reshape(2, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_any_number_of_rows_is_cut_and_padded(tmp_path, count):
    matrix = np.random.default_rng(0).standard_normal((7, 192))
    run = open_session(graphs.linear(tmp_path, matrix), batch_size=4)
    rows = random_rows(count)
    scores, (feature,) = run.run(rows)
    np.testing.assert_allclose(feature, rows.reshape(count, -1) @ matrix.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(scores, feature[:, :2])


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (3, 8, 8), (0, 3, 8, 8)])
def test_rows_of_another_shape_are_a_programming_error(tmp_path, shape):
    run = open_session(graphs.constant(tmp_path))
    with pytest.raises(ValueError, match="expected float32"):
        run.run(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="float64"):
        run.run(np.zeros((1, 3, 8, 8)))


def test_the_analytic_models_say_what_they_promise(tmp_path):
    rows = random_rows(4)
    scores, (feature,) = open_session(graphs.constant(tmp_path)).run(rows)
    np.testing.assert_array_equal(scores, [[5.0, 0.0]] * 4)
    np.testing.assert_array_equal(feature, np.ones((4, 4)))

    shuffled = np.random.default_rng(3).permuted(rows.reshape(4, -1), axis=1).reshape(rows.shape)
    run = open_session(graphs.pixel_mean(tmp_path))
    np.testing.assert_allclose(run.run(rows)[0], run.run(shuffled)[0], atol=1e-6)
    np.testing.assert_allclose(run.run(rows)[1][0][:, 0], rows.mean((1, 2, 3)), atol=1e-6)

    scores, (feature,) = open_session(graphs.distance(tmp_path, rows[0])).run(rows)
    distances = np.linalg.norm((rows - rows[0]).reshape(4, -1), axis=1)
    np.testing.assert_allclose(feature[:, 0], distances, rtol=1e-5)
    np.testing.assert_allclose(scores, np.stack([-distances, 0 * distances], 1), rtol=1e-5)


def test_nan_passes_through(tmp_path):
    run = open_session(graphs.nan(tmp_path, 0.5))
    rows = np.stack([np.full((3, 8, 8), v, np.float32) for v in (0.0, 1.0)])
    scores, (feature,) = run.run(rows)
    np.testing.assert_array_equal(np.isnan(scores), [[False, False], [True, True]])
    np.testing.assert_array_equal(feature[:, 0], [0.0, 1.0])
    assert run.batch_size > 1


def test_float16_models_give_scores_as_they_are_and_float32_features(tmp_path):
    plain = graphs.convnet(tmp_path)
    made = graphs.convnet(tmp_path, input_type="float16", name="half")
    run = open_session(made)
    scores, (feature,) = run.run(normalise(pixels(), made[1]))
    assert (run.precision, scores.dtype, feature.dtype) == ("float16", np.float16, np.float32)
    expected, _ = open_session(plain).run(normalise(pixels(), plain[1]))
    np.testing.assert_allclose(scores, expected, atol=0.05)


def test_links_of_a_model_cache_load(tmp_path):
    path, card = graphs.convnet(tmp_path / "made", external_data=True)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "r1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for blob, file in (("b0", path), ("b1", path.with_suffix(".data"))):
        file.rename(blobs / blob)
        (snapshot / file.name).symlink_to(blobs / blob)
    scores, _ = open_session((snapshot / path.name, card)).run(normalise(pixels(), card))
    expected, _ = open_session(graphs.convnet(tmp_path)).run(normalise(pixels(), card))
    np.testing.assert_array_equal(scores, expected)


def test_a_single_probability_of_a_softmax_is_refused(tmp_path):
    path, card = graphs.constant(tmp_path, logits=(1.0,))
    with pytest.raises(InputError, match="one score for an image"):
        open_session((path, dataclasses.replace(card, kind="probabilities")))


# --- the batch dimension ----------------------------------------------------------------------------------------------


def batch_dependent(folder, batch):
    """The pixel-mean net, minus the mean over the batch."""
    path, card = graphs.pixel_mean(folder)

    def change(model):
        model.graph.input[0].CopyFrom(graphs.value("x", [batch, 3, 8, 8]))
        model.graph.output[0].CopyFrom(graphs.value("centred", [batch, 2]))
        model.graph.node.append(graphs.node("ReduceMean", "logits", "over_batch", axes=[0], keepdims=1))
        model.graph.node.append(graphs.node("Sub", "logits over_batch", "centred"))

    edit(path, change)
    return path, card


@pytest.mark.parametrize(("batch", "used"), [("N", 1), (1, 1), (3, 3)])
def test_rows_that_depend_on_each_other_run_at_the_declared_size(tmp_path, batch, used):
    run = open_session(batch_dependent(tmp_path, batch), batch_size=8)
    assert run.batch_size == used
    assert any(f"running {used} at a time" in note for note in run.notes)
    assert any(f"Batch size 8 asked for; the model allows {used} only" in note for note in run.notes)
    assert run.choose_batch_size() == used
    assert run.run(random_rows(5))[0].shape == (5, 2)


def test_a_batch_size_baked_into_the_graph_is_kept(tmp_path):
    path, card = graphs.convnet(tmp_path, fixed_batch=2)

    def change(model):
        model.graph.initializer.append(graphs.tensor("ones", np.ones((2, 12))))
        model.graph.node.insert(9, graphs.node("Mul", "fc2 ones", "scaled"))
        model.graph.node[10].input[0] = "scaled"

    edit(path, change)
    run = open_session((path, card))
    assert run.batch_size == 2
    images = normalise(pixels(3), card)
    expected, _ = open_session(graphs.convnet(tmp_path, name="plain")).run(images)
    np.testing.assert_allclose(run.run(images)[0], expected, rtol=1e-5, atol=1e-5)


def test_rows_agree():
    rows = np.array([[1.0, np.nan, np.inf], [1e-9, 2.0, -3.0]])
    alone = [[row[None]] for row in rows]
    assert batching.rows_agree([rows], alone)
    assert batching.rows_agree([rows * (1 + 1e-4)], alone)
    assert not batching.rows_agree([rows * (1 + 1e-2)], alone)
    assert not batching.rows_agree([np.where(np.isnan(rows), 0.0, rows)], alone)
    assert not batching.rows_agree([-rows], alone)
    assert not batching.rows_agree([rows[:1]], alone)
    assert not batching.rows_agree([rows.reshape(2, 3, 1)], alone)
    assert batching.rows_agree([np.zeros((2, 0))], [[np.zeros((1, 0))]] * 2)


def test_the_largest_of_the_fastest_sizes_is_taken_and_padding_counts():
    assert batching.best_size({1: 50.0, 8: 96.0, 16: 100.0, 32: 99.0, 64: 90.0}) == 32
    assert batching.best_size({1: 50.0, 8: 98.0, 16: 100.0}, rows=24) == 8  # 16 would run 32 rows for 24
    assert batching.best_size({1: 50.0, 8: 98.0, 16: 100.0}, rows=4209) == 16
    assert batching.best_size({1: 3.0}) == 1


def test_measuring_stops_when_larger_brings_nothing_or_memory_ends():
    tried = []

    def seconds(size):
        tried.append(size)
        if size > most:
            raise MemoryError
        return 1e-4 * max(size, 4)  # 4 rows cost as much as one

    most = 1000
    assert set(batching.measure(seconds, 128)) == {8, 16, 32} and max(tried) == 32
    assert max(batching.measure(seconds, 2)) == 2
    assert max(batching.measure(seconds, 0)) == 1
    most = 2
    assert set(batching.measure(seconds, 128)) == {1, 2}
    most = 0
    assert batching.best_size(batching.measure(seconds, 128)) == 1


def test_measuring_a_slow_model_ends_early():
    rates = batching.measure(lambda size: 10.0 * size, 128)
    assert rates == {1: 0.1}


def test_the_chosen_batch_size_is_used_and_changes_no_result(tmp_path):
    made = graphs.convnet(tmp_path)
    run = open_session(made, batch_size=2)
    images = normalise(pixels(5), made[1])
    before, _ = run.run(images)
    assert run.choose_batch_size() == run.batch_size
    assert run.batch_size in batching.SIZES
    np.testing.assert_allclose(run.run(images)[0], before, rtol=1e-5, atol=1e-5)


def test_activations_cap_the_batch_size(tmp_path):
    path, card = graphs.convnet(tmp_path)
    prepared = dataclasses.replace(graph.prepare(path, card=card), row_bytes=2**28)
    assert Session(prepared, pixel_shape=card.pixel_shape, backend=Backend("cpu")).batch_size == 4


def test_a_batch_size_below_one_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="at least 1"):
        open_session(graphs.constant(tmp_path), batch_size=0)


# --- out of memory ----------------------------------------------------------------------------------------------------


class Memory:
    """Lets `core.call` fail like a full GPU above `room` rows, and where `sticky`, stay so until reopened."""

    def __init__(self, monkeypatch, room):
        self.room, self.sizes, self.opened, self.stuck = room, [], 0, False
        self.sticky = False
        real_call, real_open = core.call, providers.open_session

        def call(handle, prepared, batch):
            self.sizes.append(len(batch))
            if len(batch) > self.room or self.stuck:
                self.stuck = self.sticky
                raise RuntimeError(
                    "[ONNXRuntimeError] : 1 : FAIL : bfc_arena.cc: Failed to allocate memory for 9 bytes"
                )
            return real_call(handle, prepared, batch)

        def open_again(*args, **options):
            self.opened, self.stuck = self.opened + 1, False
            return real_open(*args, **options)

        monkeypatch.setattr(core, "call", call)
        monkeypatch.setattr(providers, "open_session", open_again)


def test_running_out_of_memory_halves_the_batch(tmp_path, monkeypatch):
    made = graphs.convnet(tmp_path)
    images = normalise(pixels(16), made[1])
    expected, (expected_feature,) = open_session(made).run(images)
    memory = Memory(monkeypatch, room=8)
    run = open_session(made, batch_size=16)
    memory.sizes.clear()
    scores, (feature,) = run.run(images)
    assert run.batch_size == 8 and memory.sizes == [16, 8, 8] and memory.opened == 1
    assert run.notes == ["Out of memory: batch size halved to 8."]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(feature, expected_feature, rtol=1e-5, atol=1e-5)


def test_a_broken_allocator_is_replaced(tmp_path, monkeypatch):
    made = graphs.convnet(tmp_path)
    memory = Memory(monkeypatch, room=8)
    run = open_session(made, batch_size=16)
    memory.sticky = True
    memory.sizes.clear()
    images = normalise(pixels(16), made[1])
    scores, _ = run.run(images)
    assert memory.opened == 2 and memory.sizes == [16, 8, 4, 4, 4, 4] and run.batch_size == 4
    np.testing.assert_allclose(scores, open_session(made).run(images)[0], rtol=1e-5, atol=1e-5)


def test_one_image_too_many_is_a_usage_error(tmp_path, monkeypatch):
    made = graphs.convnet(tmp_path)
    memory = Memory(monkeypatch, room=8)
    run = open_session(made, batch_size=4)
    memory.room = 0
    with pytest.raises(UsageError, match="too little memory"):
        run.run(normalise(pixels(4), made[1]))
    assert len(memory.sizes) < 20
    with pytest.raises(UsageError, match="too little memory"):
        open_session(made)


def test_choosing_a_batch_size_survives_a_full_device(tmp_path, monkeypatch):
    memory = Memory(monkeypatch, room=2)
    run = open_session(graphs.convnet(tmp_path))
    assert run.choose_batch_size() <= 2
    assert memory.opened == 1 + (max(memory.sizes) > 2)


def test_other_failures_are_input_errors(tmp_path, monkeypatch):
    run = open_session(graphs.constant(tmp_path))

    def call(*_):
        raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : /src/core/x.cc:12 void f() broken\nkernel")

    monkeypatch.setattr(core, "call", call)
    with pytest.raises(InputError, match=r"constant\.onnx: onnxruntime failed on .*: void f\(\) broken kernel$"):
        run.run(random_rows(1))
