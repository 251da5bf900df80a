"""Whole runs: stopping and going on."""

import json
import signal
import subprocess
import sys
import time

import graphs
import numpy as np
import pytest
import runs

from analyzer import open_run, study
from analyzer.errors import UsageError
from analyzer.store import schema


def same(a, b):
    for name in a.variables:
        if a[name].dtype.kind == "f":
            assert np.allclose(a[name], b[name], rtol=1e-6, atol=1e-9, equal_nan=True), name
        else:
            assert (a[name].values == b[name].values).all(), name


def test_sigkill_in_mid_run_then_the_same_command(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 12)
    options = ["--trials", "30", "--radii", "1,4", "--min-confidence", "0", "--permutations", "19"]
    options += ["--batch-size", "8", "--provider", "cpu"]

    def command(out):
        return [sys.executable, "-m", "analyzer", "run", str(model), "--images", str(images), "--out", out, *options]

    killed = tmp_path / "killed"
    with subprocess.Popen(command(str(killed)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while len(list(killed.glob("units/*.npz"))) < 3:
            assert process.poll() is None, "finished before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert 3 <= len(list(killed.glob("units/*.npz"))) < 12
    with open_run(killed) as partial:
        assert 3 <= partial.sizes["image"] < 12
    undisturbed = tmp_path / "undisturbed"
    for out in (killed, undisturbed):
        subprocess.run(command(str(out)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open_run(killed) as a, open_run(undisturbed) as b:
        same(a, b)
    one, two = (json.loads((d / "summary.json").read_text()) for d in (killed, undisturbed))
    assert {k: v for k, v in one.items() if "@" in k} == {k: v for k, v in two.items() if "@" in k}


def test_sigint_stops_cleanly_and_says_how_to_go_on(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 30)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "analyzer", "run", str(model), "--images", str(images), "--out", str(out)]
    command += ["--min-confidence", "0", "--batch-size", "8", "--provider", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(out.glob("units/*.npz")):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("stopped; to continue: analyzer run ")
    assert "Traceback" not in said


def test_a_complete_run_is_left_alone_and_a_larger_limit_continues_it(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 5)
    out = tmp_path / "run"
    three = runs.measure(model, images, out, limit=3)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in out.rglob("*.*") if p.name != ".lock"}
    runs.measure(model, images, out, limit=3)
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in out.rglob("*.*") if p.name != ".lock"}
    five = runs.measure(model, images, out, limit=5)
    assert list(five.image.values[:3]) == list(three.image.values)
    same(five.isel(image=slice(3)), three)
    with pytest.raises(UsageError, match="limit"):
        runs.measure(model, images, out, limit=2)


def test_other_settings_on_resume_are_refused_by_name(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 2)
    out = tmp_path / "run"
    runs.measure(model, images, out)
    with pytest.raises(UsageError, match="seed 0 -> 1"):
        runs.measure(model, images, out, seed=1)
    with pytest.raises(UsageError, match="trials"):
        runs.measure(model, images, out, trials=7)
    graphs.convnet(tmp_path, seed=9)
    with pytest.raises(UsageError, match="model"):
        runs.measure(model, images, out)


def test_another_batch_size_on_resume_gives_the_same_results(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 4)
    reference = runs.measure(model, images, tmp_path / "a")
    runs.measure(model, images, tmp_path / "b", limit=2)
    resumed = runs.measure(model, images, tmp_path / "b", limit=100, batch_size=3)
    for name in ("isotropy_log_odds", "feature_distance"):
        assert np.allclose(resumed[name], reference[name], rtol=1e-4, atol=1e-6)


def test_another_folder_on_resume_is_refused(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 3)
    runs.measure(model, images, tmp_path / "run")
    other = tmp_path / "other"
    for k, path in enumerate(runs.write_images(other, 3, seed=1)):
        path.rename(other / f"different_{k}.png")
    with pytest.raises(UsageError, match="3 of the 3 images"):
        runs.measure(model, other, tmp_path / "run")


def test_an_image_that_comes_back_is_measured_after_all(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    paths = {p.name: p.read_bytes() for p in runs.write_images(images, 3)}
    gone = []

    def remove(progress):
        if progress.stage == "measuring" and not gone:
            gone.append(json.loads((tmp_path / "run" / "calibration.json").read_text())["selected"][-1]["id"])
            (images / gone[0]).unlink()

    runs.measure(model, images, tmp_path / "run", progress=remove)
    (images / gone[0]).write_bytes(paths[gone[0]])
    assert (runs.measure(model, images, tmp_path / "run").image_status == 0).all()


def test_a_run_of_a_version_without_sketches_goes_on_without_them(tmp_path, monkeypatch):
    """And its numbers are those of a run with sketches."""
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(tmp_path / "images", 4)
    known = study.provenance.variable_names

    with monkeypatch.context() as earlier:
        earlier.setattr(
            study.provenance, "variable_names", lambda protocol: [n for n in known(protocol) if n not in schema.LATER]
        )
        runs.measure(model, tmp_path / "images", tmp_path / "run", limit=2)
    runs.measure(model, tmp_path / "images", tmp_path / "new", limit=4)
    whole = runs.measure(model, tmp_path / "images", tmp_path / "run", limit=4)
    assert whole.sizes["image"] == 4 and not set(schema.LATER) & set(whole)
    with open_run(tmp_path / "new") as new:
        assert set(new) - set(whole) == set(schema.LATER)
        same(whole, new)
