"""What became of an image, and why a value of it is there or not.

Integers are stored, and described in the results by the names in lower case; texts stand in calibration.json.
"""

from enum import IntEnum, StrEnum


class Outcome(StrEnum):
    """What the selection pass made of an image."""

    GOOD = "good"
    """Classified correctly with enough confidence: it counts."""
    WRONG = "wrong"
    BELOW_CONFIDENCE = "below_confidence"
    BAD = "bad"
    """It cannot be read."""
    NON_FINITE = "non_finite"
    DUPLICATE = "duplicate"
    """The same file as another one."""


class ImageStatus(IntEnum):
    """Whether an image was measured."""

    MEASURED = 0
    NON_FINITE_MODEL_OUTPUT = 1
    UNREADABLE_OR_CHANGED_SINCE_SELECTION = 2
    FAILED_ON_WORKERS = 3
    """Every worker of a cluster that measured it failed, or died."""
