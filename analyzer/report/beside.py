"""What other commands say of the runs of a report: comparison, global bound, gradients around their images."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analyzer.analyses import bound
from analyzer.analyses.bound import sentences
from analyzer.analyses.gradients import sensitivity
from analyzer.errors import InputError, UsageError
from analyzer.report.load import Loaded
from analyzer.verdicts.compare import compare

Said = tuple[str, Sequence[str], Sequence[str]]
"""A run's name, sentences, warnings."""


class Beside(NamedTuple):
    """A section of the page; said: of the runs that have it, which may be none."""

    key: str
    title: str
    said: Sequence[Said]


def found(runs: Sequence[Loaded], *, drift: bool) -> list[Beside]:
    """The sections, in their order. A document that cannot be read is a warning of its run.

    drift: whether the runs are builds of one network, which are not compared as networks are.
    """
    return [
        Beside("comparison", "Comparison", [] if drift else _compared(runs)),
        Beside("bound", "Global bound", _said(runs, bound.FILE, _of_bound)),
        Beside("gradients", "Gradients", _said(runs, sensitivity.FILE, _of_gradients)),
    ]


def _compared(runs: Sequence[Loaded]) -> list[Said]:
    """Several runs of one protocol, property by property."""
    if len(runs) < 2:
        return []
    try:
        document = compare([run.run.path for run in runs], names=[run.label for run in runs])
    except (UsageError, InputError) as e:  # of other protocols, or other images
        return [("Not compared", [], [f"{' '.join(str(e).split())}."])]
    said = [of["sentence"] for of in document["properties"].values()]
    return [(f"On the {document['images']} images that all measured", said, document["notes"])]


def _said(
    runs: Sequence[Loaded], name: str, words: Callable[[Mapping[str, Any]], tuple[Sequence[str], Sequence[str]]]
) -> list[Said]:
    return [(run.label, *_words(run.run.path / name, words)) for run in runs if (run.run.path / name).is_file()]


def _words(
    path: Path, words: Callable[[Mapping[str, Any]], tuple[Sequence[str], Sequence[str]]]
) -> tuple[Sequence[str], Sequence[str]]:
    try:
        return words(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [], [f"{path.name} cannot be read: make it anew."]


def _of_bound(document: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[str]]:
    rows: Any = document
    said = [sentences.up_to(row) for row in rows["bounds"]]
    return [*said, sentences.units(rows), sentences.CAVEAT], list(sentences.without_rule(rows))


def _of_gradients(document: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[str]]:
    run = document["run"]
    about = f"At {run['images']} images, features of {run['layer']}, by `analyzer sensitivity`."
    return [about, *map(str, document["sentences"])], list(map(str, document["warnings"]))
