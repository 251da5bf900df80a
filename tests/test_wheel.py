"""The installed wheel, away from the checkout."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from analyzer import bundled

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment in which `analyzer` comes from the wheel, in an empty folder."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "100"}, site


def test_it_holds_the_listed_models_and_nothing_else_from_there(wheel):
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("analyzer/models/")}
    assert held == set(listed["force-include"].values())
    assert len([name for name in held if name.endswith(".png")]) == 43


def test_demo_works_from_an_empty_folder(installed, tmp_path):
    environment, site = installed
    code = "import analyzer, sys; print(analyzer.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert Path(where.strip()).is_relative_to(site)
    done = subprocess.run(
        [sys.executable, "-m", "analyzer", "demo"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Reduced protocol: radii 0.5, 1, 5, 10, 20" in done.stdout
    for name in bundled.NETWORKS:
        assert name in done.stdout
        summary = json.loads((tmp_path / "demo-runs" / name / "summary.json").read_text())
        assert summary["run"]["images"]["measured"] == 12
        assert (
            summary["isotropy_log_odds_range_median@20"]["value"] > summary["isotropy_log_odds_range_median@1"]["value"]
        )


def test_the_readme_names_real_commands_and_options():
    """Every `analyzer ...` line of the README parses: a renamed flag would be found here."""
    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"--[a-z][a-z-]+", " ".join(re.findall(r"analyzer (?:run|demo|inspect)[^\n`]*", text))))
    known = set()
    for command in ("run", "demo", "inspect"):
        shown = subprocess.run(
            [sys.executable, "-m", "analyzer", command, "--help"],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        ).stdout
        known |= set(re.findall(r"--[a-z][a-z-]+", shown))
    assert used <= known, used - known
