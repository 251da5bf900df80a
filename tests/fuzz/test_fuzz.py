"""A bounded number of strange inputs for each target; `campaign.py` has as many as there is time for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from targets import TARGETS, Target, finding

CAMPAIGN = Path(__file__).with_name("campaign.py")


def examples(target, count, folder):
    @settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(target.strategy())
    def holds(value):
        what = finding(target, value, folder)
        assert not what, what

    holds()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("card", 150),
        ("run", 60),
        ("table", 150),
        ("arguments", 60),
        ("network", 60),
        ("photograph", 100),
    ],
)
def test_a_few_strange_inputs(name, count, tmp_path):
    examples(TARGETS[name], count, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_strange_inputs(name, tmp_path):
    examples(TARGETS[name], 3000, tmp_path)


def wrong(error):
    def feed(*_):
        raise error

    return feed


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("x"), "ZeroDivisionError"),
        (type("Odd", (Exception,), {})("y"), "Odd"),
        (AssertionError(), "Assert"),
    ],
)
def test_what_counts_as_a_finding(error, said, tmp_path):
    assert finding(Target("wrong", lambda: None, wrong(error)), b"", tmp_path).startswith(said)


def test_a_campaign_prints_its_table_and_sees_a_crash(tmp_path):
    command = [sys.executable, str(CAMPAIGN), "--minutes", "0.03", "--targets", "card", "crash", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| target", "| card", "| crash"]
    assert int(rows[1][1].replace(",", "")) > 10
    assert rows[2][3] == "1 |"
    assert done.returncode == 1
    (found,) = json.loads((tmp_path / "findings.json").read_text())
    assert found["what"] == "crash: signal 6"
    assert found["input"]
