"""A measure is one file and one registry line: a copy of the package gets both, and everything shows the new one."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import analyzer
from analyzer import bundled

ROOT = Path(__file__).resolve().parent.parent
TOY = '''
"""Toy: standard deviation of the true-class log-odds under fresh noise."""

import numpy as np

from analyzer.measures.base import Measure, Observation
from analyzer.measures.quantities import LOWER, Number, Quantity
from analyzer.measures.variables import Variable

_WOBBLE = Quantity(
    "wobble", ("wobble_std",), np.asarray, "nat", LOWER, title="Wobble: standard deviation of the log-odds"
)


def observe(around: Observation):
    return {"wobble_std": around.scores["noise"].log_odds.std(axis=-1)}


MEASURE = Measure(
    title="Wobble: how the log-odds scatter",
    family="noise",
    variables=(Variable("wobble_std", ("image", "radius"), "nat", "standard deviation of the log-odds"),),
    observe=observe,
    numbers=(Number("wobble_median", _WOBBLE, "median", "median wobble", overall=True, glance="wobble"),),
    compared=(_WOBBLE,),
)
'''


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The environment of a package that has the toy measure, and a folder with two runs that took it."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(Path(analyzer.__file__).parent, folder / "analyzer")
    (folder / "analyzer" / "measures" / "wobble.py").write_text(TOY)
    registry = folder / "analyzer" / "measures" / "__init__.py"
    text = registry.read_text()
    line = '    "lipschitz",\n'
    assert text.count(line) == 1
    registry.write_text(text.replace(line, line + '    "wobble",\n'))
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "80"}
    models = bundled.folder()
    for network in bundled.NETWORKS:
        options = ["--radii", "1,5", "--trials", "5", "--limit", "11", "--permutations", "0", "--provider", "cpu"]
        images = ["--images", models / "demo", "--labels", models / "demo" / "labels.csv", "--out", folder / network]
        call(environment, "run", models / f"{network}.onnx", *images, *options)
    return environment, folder


def call(environment, *arguments, code=0):
    command = [sys.executable, "-m", "analyzer", *map(str, arguments)]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=environment["PYTHONPATH"],
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_run_takes_it_by_default_and_the_summary_has_its_numbers(extended):
    environment, folder = extended
    document = json.loads(call(environment, "summary", folder / bundled.NETWORKS[0], "--json"))
    assert "wobble" in document["run"]["protocol"]["measures"]
    assert document["wobble_median@5"]["value"] > document["wobble_median@1"]["value"] > 0
    assert document["wobble_median"]["n"] == 11
    assert any("wobble" in sentence.lower() for sentence in document["sentences"])
    schema = json.loads((ROOT / "docs" / "summary.schema.json").read_text())
    jsonschema.validate(document, schema)


def test_the_terminal_shows_its_table(extended):
    environment, folder = extended
    assert re.search(r"^median wobble +0\.\d", call(environment, "summary", folder / bundled.NETWORKS[0]), flags=re.M)
    shown = call(environment, "summary", folder / bundled.NETWORKS[0], "--tables")
    assert "Wobble: how" in shown
    table = shown[shown.index("median wobble") :]  # as a heading, before any sentence
    assert re.search(r"^ +5 +0\.\d", table, flags=re.M)


def test_compare_pairs_it(extended):
    environment, folder = extended
    document = json.loads(call(environment, "compare", *(folder / name for name in bundled.NETWORKS), "--json"))
    assert document["properties"]["wobble"]["more_robust"] == "lower"
    assert document["properties"]["wobble"]["overall"]["n"] == 11


def test_the_gate_knows_its_name_and_which_way_is_worse(extended):
    environment, folder = extended
    one, other = (folder / name for name in bundled.NETWORKS)
    regression = ["--baseline", other, "--max-regression", "wobble_median@5=1000%", "--max", "wobble_median@1=9"]
    document = json.loads(call(environment, "gate", one, *regression, "--json"))
    texts = {verdict["name"]: verdict for verdict in document["verdicts"]}
    assert "rises by at most" in texts["wobble_median@5"]["condition"]
    assert texts["wobble_median@1"]["status"] == "passes"
    assert texts["wobble_median@5"]["low"] is not None


def test_export_writes_it(extended):
    environment, folder = extended
    call(environment, "export", folder / bundled.NETWORKS[0], "--to", "csv", "--out", folder / "tables")
    assert "wobble_std" in (folder / "tables" / "image_radius.csv").read_text().splitlines()[0]
    assert "wobble_median@5" in (folder / "tables" / "summary.csv").read_text()
    assert "wobble_std" in (folder / "tables" / "variables.csv").read_text()


def test_the_report_has_it_at_a_glance_and_in_its_tables(extended):
    pytest.importorskip("matplotlib")
    environment, folder = extended
    call(environment, "report", folder / bundled.NETWORKS[0], "--out", folder / "report")
    page = (folder / "report" / "report.html").read_text()
    assert "<caption>Wobble: how the log-odds scatter</caption>" in page
    assert '<th scope="row">wobble</th>' in page
