"""What a user imports says what it takes and gives, and the examples in its docstring run."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import analyzer
from analyzer import sequential, statistics
from analyzer.measures import certified, flips, geometry, isotropy, lipschitz, scores, symmetry, topology

ROOT = Path(analyzer.__file__).parent
MODULES = [
    "analyses.bound",
    "analyses.frequency",
    "analyses.landscape",
    "card",
    "document",
    "estimate",
    "images.folder",
    "images.pixels",
    "measures.certified",
    "measures.flips",
    "measures.geometry",
    "measures.linearity",
    "measures.lipschitz",
    "measures.quantities",
    "measures.ranges",
    "measures.reference",
    "measures.scores",
    "measures.symmetry",
    "measures.topology",
    "perturbations",
    "sequential",
    "statistics",
    "store.results",
    "study",
    "study.cluster.connection",
    "study.shards",
    "summary",
    "summary.names",
    "summary.target",
    "verdicts.check_card",
    "verdicts.check_card.variants",
    "verdicts.claims",
    "verdicts.compare",
    "verdicts.compare.paired",
    "verdicts.gate",
    "verdicts.plan",
    "sketch",
    "verdicts.drift",
    "verdicts.drift.responses",
]
ON_ARRAYS = [
    certified.certify,
    certified.lower_bound,
    flips.flip_radius,
    flips.margin_noise_units,
    geometry.centred_gram,
    geometry.distances,
    geometry.jacobian_rms,
    geometry.participation_ratio,
    isotropy.misclassified,
    isotropy.score_range,
    lipschitz.fit,
    lipschitz.ratio,
    scores.true_class,
    sequential.mean_share,
    sequential.quantile,
    statistics.mean_over_images,
    statistics.pooled_quantiles,
    statistics.quantile_over_images,
    statistics.share,
    symmetry.excess,
    topology.alpha_departure,
    topology.mantel,
    topology.mantel_linear,
]
"""Functions whose answer is the same on every machine, so that their examples are never skipped."""
EXPORTED = [value for name in analyzer.__all__ if inspect.isfunction(value := getattr(analyzer, name))]


def named(function):
    return f"{function.__module__}.{function.__name__}"


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failed, _ = doctest.testmod(importlib.import_module(f"analyzer.{name}"))
    assert failed == 0


def test_every_module_with_an_example_is_run():
    having = [path.relative_to(ROOT) for path in ROOT.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in having}
    assert names == set(MODULES)


@pytest.mark.parametrize("function", [*EXPORTED, *ON_ARRAYS], ids=named)
def test_what_a_user_calls_describes_each_argument_and_has_an_example(function):
    _, _, described = inspect.getdoc(function).partition("\nArgs:\n")
    entries = re.findall(r"^    (\w+(?:, \w+)*): ", described, re.MULTILINE)
    assert inspect.signature(function).parameters.keys() <= set(", ".join(entries).split(", "))
    assert doctest.DocTestParser().get_examples(described)


@pytest.mark.parametrize("function", ON_ARRAYS, ids=named)
def test_examples_on_arrays_are_not_skipped(function):
    examples = doctest.DocTestParser().get_examples(function.__doc__)
    assert not any(example.options.get(doctest.SKIP) for example in examples)
    assert "Returns:" in function.__doc__
