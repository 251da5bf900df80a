"""Without Dask: nothing loads it, the help names its extra, and so does a run that needs it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import graphs
import pytest
import runs

from analyzer.errors import UsageError
from analyzer.study.cluster.connection import library

ROOT = Path(__file__).parents[1]


def test_only_its_extra_brings_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanting = [name for name, needs in project["optional-dependencies"].items() if "distributed" in " ".join(needs)]
    assert wanting == ["cluster"]
    assert not any(need.startswith(("dask", "distributed")) for need in project["dependencies"])


def test_the_help_names_the_extra(capsys):
    _, out, _ = runs.call(capsys, "run", "--help")
    assert "extra [cluster]" in " ".join(out.split())


def test_a_run_here_loads_none_of_it():
    code = "import sys, analyzer.study, analyzer.cli.commands as c; print({'dask', 'distributed'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_a_run_that_needs_it_names_the_extra(tmp_path, images, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"extra \[cluster\]"):
        library()
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    asked = ["run", model, "--images", images, "--out", tmp_path / "run", *runs.SMALL, "--cluster", "local:2"]
    code, _, err = runs.call(capsys, *asked)
    assert code == 2
    assert "--cluster: Dask is not installed" in err
    assert "[cluster]" in err
