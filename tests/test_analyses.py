"""The examples in the docstrings of what a user imports run, and give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["bound", "frequency", "landscape"])
def test_examples_run(name):
    failed, attempted = doctest.testmod(importlib.import_module(f"analyzer.analyses.{name}"))
    assert failed == 0 and attempted > 0
