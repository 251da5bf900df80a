"""Fixtures of all tests."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    """A generator with a fixed seed: tests that sample are deterministic."""
    return np.random.default_rng(20170226)


@pytest.fixture
def images(tmp_path):
    """The folder in which a test of a whole run has its images."""
    return tmp_path / "images"
