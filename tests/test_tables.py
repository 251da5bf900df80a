"""What the commands' tables have in common."""

import math

import pytest

from analyzer.cli import tables


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_says_so(value):
    assert tables.number(value, ".3g") == "undefined"
    assert tables.number(value, ".3g", absent="-") == "-"


def test_numbers_and_cells_are_shown_as_they_are():
    assert tables.number(-0.12345, "+.2g") == "-0.12"
    assert tables.cell("[bold]x\x1b[2J").plain == "[bold]x\N{REPLACEMENT CHARACTER}[2J"
