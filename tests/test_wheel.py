"""The installed wheel, away from the checkout."""

import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from decimal import Decimal
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
    return {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "80"}, site


@pytest.fixture(scope="module")
def demo(installed, tmp_path_factory):
    """An empty folder in which `analyzer demo` has run, and what it printed."""
    environment, _ = installed
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "analyzer", "demo"]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return folder, done.stdout


def test_it_holds_the_two_networks_the_labelled_images_the_cards_and_nothing_else(wheel):
    """The folder of images is packed whole: an image, or anything else, that strayed into it is found here."""
    rows = list(csv.DictReader((ROOT / "models/demo/labels.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 43
    models = ["gtsrb_ciresan2012.onnx", "gtsrb_ciresan2012.json", "gtsrb_aghdam2015.onnx", "gtsrb_aghdam2015.json"]
    zoo = [f"zoo/{name}.json" for name in ("bvlcalexnet", "googlenet", "inception_v1", "resnet50", "vgg19")]
    found = ["open_nsfw.json", "text_direction.json", *zoo]  # cards of networks that are found elsewhere
    expected = [*models, *found, "demo/labels.csv", *(f"demo/{row['file']}" for row in rows)]
    with zipfile.ZipFile(wheel) as archive:
        packed = [name for name in archive.namelist() if name.startswith("analyzer/models/")]
    assert sorted(packed) == sorted(f"analyzer/models/{name}" for name in expected)


def test_it_is_imported_from_the_wheel(installed, tmp_path):
    environment, site = installed
    code = "import analyzer; print(analyzer.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()).is_relative_to(site)


def test_demo_works_from_an_empty_folder(demo):
    folder, printed = demo
    assert "Reduced protocol: radii 0.5, 1, 5, 10, 20" in printed
    for name in bundled.NETWORKS:
        assert name in printed
        summary = json.loads((folder / "demo-runs" / name / "summary.json").read_text())
        assert summary["run"]["images"]["measured"] == 12
        assert (
            summary["isotropy_log_odds_range_median@20"]["value"] > summary["isotropy_log_odds_range_median@1"]["value"]
        )


NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


def close(ours, theirs):
    """Whether two numbers as text differ by at most two in the last digit that the first one shows."""
    return abs(Decimal(ours) - Decimal(theirs)) <= Decimal((0, (2,), Decimal(ours).as_tuple().exponent))


def test_the_readme_shows_what_the_demo_prints(demo):
    """Word by word; numbers may differ in the last digit, since another processor rounds otherwise."""
    _, printed = demo
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (excerpt,) = re.findall(r"<!-- of analyzer demo -->\n```text\n(.*?)```", readme, flags=re.S)
    printed = " ".join(printed.split())
    for part in excerpt.split("\n...\n"):
        shown = " ".join(part.split())
        pattern = f"({NUMBER.pattern})".join(map(re.escape, NUMBER.split(shown)))
        ours = NUMBER.findall(shown)
        assert any(all(map(close, ours, found.groups())) for found in re.finditer(pattern, printed)), shown
