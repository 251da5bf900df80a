"""Rows computed in the graph from integer words: the same bits as rows made on the host, on any provider."""

import dataclasses

import graphs
import numpy as np
import pytest
import runs

from analyzer import graph
from analyzer.session import Backend, Session, Words
from analyzer.study import LabelledImage, Model, observe

SHAPE = (3, 8, 8)
PIXELS = np.random.default_rng(3).uniform(0, 255, SHAPE).astype(np.float32)


def opened(model, card, *, composes, batch_size=7):
    prepared = graph.prepare(model, card=card)
    return Session(prepared, pixel_shape=SHAPE, backend=Backend("cpu", 1), batch_size=batch_size, composes=composes)


class Recorded:
    """A session that keeps what the graph computed of its input, and of which kind each feed was."""

    def __init__(self, session):
        self.session, self.seen, self.kinds = session, [], []
        self.batch_size, self.composes = session.batch_size, session.composes
        self.feature_sizes, self.reduces = session.feature_sizes, session.reduces

    def run(self, feed):
        scores, features = self.session.run(feed)
        self.kinds.append((type(feed), len(feed.base) if isinstance(feed, Words) else None))
        self.seen.append(features[0].copy())
        return scores, features


def observed(model, card, **options):
    protocol = options.pop("protocol", runs.protocol())
    session = Recorded(opened(model, card, **options))
    ready = Model(graph.prepare(model, card=card), session, card)
    return session, observe(ready, LabelledImage(PIXELS, "ab" * 32, 0), protocol)


def identity_graph(folder, **card):
    """Feature = the network's own input, flattened: what the graph has made of a row can be read bit by bit."""
    model, made = graphs.linear(folder, np.eye(np.prod(SHAPE), dtype=np.float32), size=SHAPE[1:])
    return model, dataclasses.replace(made, **card)


@pytest.mark.parametrize("changed", [{}, {"clip": True, "round": True}, {"norm": "l2"}], ids=["plain", "8 bit", "l2"])
def test_rows_and_results_have_the_same_bits(tmp_path, changed):
    model, card = identity_graph(tmp_path, mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0))
    on_host, expected = observed(model, card, composes=False, protocol=runs.protocol(**changed))
    on_device, composed = observed(model, card, composes=True, protocol=runs.protocol(**changed))
    np.testing.assert_array_equal(np.concatenate(on_device.seen), np.concatenate(on_host.seen))
    assert composed.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(composed[name], values, err_msg=name)


def test_only_batches_with_finished_rows_carry_a_base_of_their_own(tmp_path):
    model, card = identity_graph(tmp_path)
    session, _ = observed(model, card, composes=True)
    # 1 clean row, 2 radii x (2 families x 6 trials + 6 halves), 8 rows of the noise floor: 45 in batches of 7, padded.
    assert session.kinds == [*[(Words, 1)] * 5, (Words, 7), (Words, 7)]


def test_a_convnet_gives_the_same_either_way(tmp_path):
    model, card = graphs.convnet(tmp_path, size=8)
    _, expected = observed(model, card, composes=False)
    _, composed = observed(model, card, composes=True)
    for name, values in expected.items():
        np.testing.assert_allclose(composed[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_finished_rows_and_words_can_be_given_in_any_number(tmp_path):
    model, card = identity_graph(tmp_path)
    session = opened(model, card, composes=True, batch_size=4)
    rng = np.random.default_rng(0)
    base = rng.standard_normal((1, *SHAPE), dtype=np.float32)
    words = rng.integers(-32767, 32768, (10, *SHAPE)).astype(np.int16)
    scales = rng.uniform(0, 1e-3, (10, 3, 1, 1)).astype(np.float32)
    expected = words * scales + base
    for feed in (Words(words, scales, base), Words(words, scales, np.repeat(base, 10, axis=0)), expected):
        np.testing.assert_array_equal(session.run(feed)[1][0], expected.reshape(10, -1))


def test_a_model_of_whole_numbers_is_never_composed(tmp_path):
    model, card = graphs.convnet(tmp_path, size=8, input_type="uint8")
    session = opened(model, card, composes=True)
    assert not session.composes


def test_the_cpu_makes_rows_on_the_host(tmp_path):
    model, card = identity_graph(tmp_path)
    assert not opened(model, card, composes=None).composes
