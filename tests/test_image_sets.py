"""What lies in a folder of images and is not among them, as a run says it."""

import json
import re
import shutil

import graphs
import pytest
import runs

from analyzer import store
from analyzer.cli import main

SMALL = ["--radii", "4", "--trials", "3", "--min-confidence", "0", "--permutations", "0", "--provider", "cpu"]


@pytest.fixture
def model(tmp_path):
    path, _ = graphs.pixel_mean(tmp_path / "model", weights=(0.05, -0.05))
    return path


@pytest.fixture
def tree(tmp_path):
    """Six images in the class folders 0 and 1. The network says 0 of all of them."""
    for number, path in enumerate(runs.write_images(tmp_path / "all", 6, 8)):
        folder = tmp_path / "tree" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    return tmp_path / "tree"


def documents(model, images, out):
    runs.measure(model, images, out, radii=(4.0,), trials=3, permutations=0)
    calibration = json.loads((out / "calibration.json").read_text())
    del calibration["checksum"]
    return calibration, store.Run(out).read_summary()


def test_tree_with_stray(model, tree, tmp_path, capsys):
    """The labels stay; the stray picture is left out, counted and named, in calibration, summary and on the screen."""
    clean, clean_summary = documents(model, tree, tmp_path / "clean")
    assert clean_summary["run"]["images"]["wrong"] == 3 and "notes" not in clean
    runs.write_images(tmp_path / "cover", 1, 8, seed=5)[0].rename(tree / "cover.png")
    stray, summary = documents(model, tree, tmp_path / "stray")
    note = "1 image left out: beside the class folders (cover.png)."
    assert stray.pop("notes") == [note]
    assert stray == clean
    assert summary["run"]["images"] == clean_summary["run"]["images"]
    assert summary["run"]["images"]["unlabelled"] == 0
    assert note in summary["warnings"] and note not in clean_summary["warnings"]
    arguments = ["run", str(model), "--images", str(tree), "--out", str(tmp_path / "again"), *SMALL]
    with pytest.raises(SystemExit):
        main(arguments)
    out = capsys.readouterr().out
    assert "3 classified wrongly" in out and f"! {note}" in re.sub(r"\s+", " ", out)


def test_what_else_is_left_out_is_a_warning(model, tree, tmp_path):
    (tree / "0" / "x.heic").write_bytes(b"")
    (tree / "notes.txt").write_bytes(b"")
    shutil.copytree(tree / "0", tree / ".cache")
    _, summary = documents(model, tree, tmp_path / "run")
    assert {
        "2 files left out: not images by their suffix (1 .heic, 1 .txt).",
        "1 hidden folder left out: .cache.",
    } <= set(summary["warnings"])


def test_a_jfif_is_a_jpeg(model, tree, tmp_path):
    from PIL import Image

    for path in sorted(tree.glob("*/*.png")):
        Image.open(path).save(path.with_suffix(".jfif"), "JPEG")
        path.unlink()
    calibration, _ = documents(model, tree, tmp_path / "run")
    assert calibration["found"] == 6 and calibration["counts"]["bad"] == 0


def test_a_batch_that_becomes_smaller_in_the_selection(tmp_path, images, monkeypatch):
    """Images were shared out by the batch size that there was."""
    import graphs
    import runs

    from analyzer.session import core, feeding

    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 8)
    expected = runs.measure(model, images, tmp_path / "whole")
    real = core.call
    little = []

    def small(session, prepared, batch):
        if feeding.rows_of(batch) > 4 and little:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        return real(session, prepared, batch)

    monkeypatch.setattr(core, "call", small)
    from analyzer.study import looking

    first = looking.look
    monkeypatch.setattr(looking, "look", lambda *a: little.append(1) or first(*a))
    found = runs.measure(model, images, tmp_path / "run")
    assert list(found["image"].values) == list(expected["image"].values)
