"""Helpers that open sessions on small models."""

import numpy as np

from analyzer import graph
from analyzer.session import Backend, Session


def open_session(made, *, layers=(), provider="cpu", **options):
    path, card = made
    prepared = graph.prepare(path, card=card, layers=layers)
    return Session(prepared, pixel_shape=card.pixel_shape, backend=Backend(provider, 1), **options)


def random_rows(count, size=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, size, size), dtype=np.float32)
