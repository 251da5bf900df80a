"""The protocol of a run: its defaults, and what it refuses."""

import pytest

from analyzer import study
from analyzer.errors import UsageError


def test_default_protocol_is_the_papers():
    assert study.Protocol().radii == study.parse_radii("0.5,1:20")
    assert len(study.Protocol().radii) == 21
    assert study.Protocol().families == ("noise", "permutation")


@pytest.mark.parametrize(
    "wrong",
    [
        {"radii": ()},
        {"radii": (1.0, 0.5)},
        {"radii": (0.0,)},
        {"radii": (float("nan"),)},
        {"trials": 2},
        {"limit": 0},
        {"min_confidence": 1.5},
        {"norm": "l1"},
        {"permutations": -1},
        {"permutations": 18},
        {"radii": (1e-5,)},
        {"radii": (1.0, 1e7)},
        {"seed": -1},
        {"measures": ("isotropi",)},
        {"measures": ()},
    ],
)
def test_protocols_that_make_no_sense_are_usage_errors(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).split("_")[0]):
        study.Protocol(**wrong)


@pytest.mark.parametrize("text", ["", "a", "1:", "1:b", "0.5,,1"])
def test_radii_that_are_none(text):
    with pytest.raises(UsageError, match="radii"):
        study.parse_radii(text)
