"""Why a value of an image is there or not. Stored as numbers, described in the results by the names in lower case."""

from enum import IntEnum


class ImageStatus(IntEnum):
    """Whether an image was measured."""

    MEASURED = 0
    NON_FINITE_MODEL_OUTPUT = 1
    UNREADABLE_OR_CHANGED_SINCE_SELECTION = 2


class LogOddsStatus(IntEnum):
    """Whether the log-odds of an image are defined for every row."""

    DEFINED = 0
    PROBABILITY_ROUNDED_TO_ZERO_OR_ONE = 1
    NON_FINITE_MODEL_OUTPUT = 2
