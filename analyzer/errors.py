"""Everything the analyzer raises on purpose, each with the exit code the command line gives it.

AnalyzerError            1
├── UsageError           2   an argument, a provider that cannot be had, a refused resume, an unwritable output
├── GateError            3   a gate that did not pass
├── InputError           4   a model, card, layer, label or image set that cannot be used
└── IncompleteError      5   a run that stopped, is incomplete or damaged, and can be resumed

A message is one or two lines: what was given, what was expected, how to mend it. It names parameters as Python does, in
backticks; the command line writes them as its flags. A UsageError is a ValueError too.
"""


class AnalyzerError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class UsageError(AnalyzerError, ValueError):
    """The request itself cannot be carried out."""

    exit_code = 2


class GateError(AnalyzerError):
    """A gate did not pass."""

    exit_code = 3


class InputError(AnalyzerError):
    """A model, card, layer, label or image set cannot be used."""

    exit_code = 4


class IncompleteError(AnalyzerError):
    """A run is incomplete or damaged; the same command continues it."""

    exit_code = 5
